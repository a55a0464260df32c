"""The primary server is lost, and its standby takes its place."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, NullPool, create_engine, make_url
from sqlalchemy.orm import Session

from factories import insert_job
from faults.conftest import planted
from faults.proxy import Proxy
from faults.server import Server, Standby
from faults.test_server import DONE, lasting
from riverrun.cli.health import health
from riverrun.migrations import LATEST, Line, migrate
from riverrun.verbs import ProblemKind, overview, schema_health
from riverrun.verbs.beat import beat
from riverrun.verbs.elect import elect
from riverrun.verbs.status import get_leader, list_clients, unworked_queues

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
AT_STANDBY = "during recovery"  # as of a heartbeat, which a client writes also where it has no job


@attrs.frozen
class Pair:
    """Two servers, at most one of which is the primary."""

    primary: Server
    standby: Standby

    @property
    def url(self) -> str:
        """A URL with both servers that finds the primary, as docs/deployment.md describes."""
        form = re.search(r"`(\S+target_session_attrs=\S+)`", PAGE.read_text())
        assert form is not None
        url = make_url(self.primary.tcp_url())
        url = form[1].replace("user:secret@/shop", f"{url.username}:{url.password}@/{url.database}")
        url = url.replace("db1:5432", f"127.0.0.1:{self.primary.port}")
        return url.replace("db2:5432", f"127.0.0.1:{self.standby.port}")

    def engine(self) -> Engine:
        """Return an engine on the primary that keeps no connections."""
        return create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary, and a standby for which it waits at each commit."""
    with Server() as primary, Standby(primary) as standby:
        yield Pair(primary, standby)


@pytest.fixture
def moved(pair: Pair) -> Iterator[Proxy]:
    """An address of the primary that can be moved to the other server."""
    proxy = Proxy(pair.primary.socket_path)
    yield proxy
    proxy.close()


@pytest.mark.timeout(240)
def test_a_failover_loses_nothing(pair: Pair, moved: Proxy) -> None:
    """When a standby takes the place of its primary, workers recover without intervention.

    That holds for workers whose URL lists all hosts, and for workers whose address already leads to
    the standby before it is promoted.
    """
    with planted(pair.engine(), pair.url) as plant:
        plant.worker("ada")
        plant.worker("bob", url=moved.url)
        with plant.load() as ids:
            pair.primary.shut_down()
            moved.lead_to(pair.standby.socket_path)
            plant.wait(lambda: pair.standby.has_said(AT_STANDBY), "bob tries at the standby", 30)
            lasting()
            pair.standby.run("SELECT pg_promote()")
            before = plant.one(DONE)
            plant.wait(lambda: plant.one(DONE) > before + 50, "work goes on", 60)
        plant.wait_until_done(120)
        plant.audit(ids, faults=1)
        plant.prove_alive()


@pytest.mark.timeout(240)
def test_an_address_that_led_to_a_standby(pair: Pair, moved: Proxy) -> None:
    """Workers whose address led to a standby for a while keep none of its connections."""
    with planted(pair.engine(), moved.url) as plant:
        plant.worker("ada")
        with plant.load() as ids:
            moved.lead_to(pair.standby.socket_path)
            moved.cut()
            plant.wait(lambda: pair.standby.has_said(AT_STANDBY), "ada tries at the standby", 30)
            lasting()
            moved.lead_to(pair.primary.socket_path)
            before = plant.one(DONE)
            plant.wait(lambda: plant.one(DONE) > before + 50, "work goes on", 60)
        plant.wait_until_done(120)
        plant.audit(ids, faults=1)
        plant.prove_alive()


@pytest.mark.timeout(120)
def test_a_standby_is_asked_how_things_stand(pair: Pair) -> None:
    """Reads work on a hot standby, too. Only the leader is unknown there."""
    pair.primary.run("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
    pair.primary.run("SELECT pg_reload_conf()")
    primary, standby = pair.primary.engine(), create_engine(pair.standby.url())
    for line in (Line.main, Line.riverrun):
        migrate(primary, line=line)
    insert_job(primary, None, queue="mail")
    assert elect(primary, "ada", ttl_s=3600)

    def asked() -> dict[str, Any]:
        answer = CliRunner().invoke(health, ["--json", "--database-url", pair.standby.url()])
        assert answer.exit_code == 1, answer.output
        found: dict[str, Any] = json.loads(answer.output)
        return found

    [problem] = asked()["problems"]
    assert "'mail' are due" in problem
    assert (asked()["leader"], asked()["hot_standby"]) == (None, True)
    beat(primary, "ada", hostname="host", pid=1, queues=["mail"])
    pair.primary.run(
        "UPDATE river_job SET state = 'running', attempt = 1, attempted_by = '{gopher}'"
    )
    with Session(standby) as session:
        assert [each.id for each in list_clients(session)] == ["ada"]
        assert unworked_queues(session, dead_s=20) == []
        assert get_leader(session) is None
        found = overview(session, dead_s=20)
        assert ProblemKind.no_leader not in {each.kind for each in found}
        assert [each.applied for each in schema_health(session).lines] == list(LATEST.values())
    url = make_url(pair.standby.url()).set(drivername="postgresql+psycopg2")
    with create_engine(url, poolclass=NullPool).connect() as host:
        assert get_leader(host) is None
    pair.standby.run("SELECT pg_promote()")
    standby.dispose()
    assert elect(standby, "bob", ttl_s=3600)
    assert get_leader(standby) == "bob"
    standby.dispose()
