"""The temporary PostgreSQL: it works, changes nothing else, and leaves nothing behind."""

import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from riverrun import embedded
from riverrun.embedded import Cluster, PostgresNotFound, PostgresNotStarted
from waiting import DEADLINE_S

OWNER = """
import sys
from riverrun.embedded import Cluster

cluster = Cluster()
cluster.start()
print(cluster.pid, cluster.directory, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A running cluster, or a skip (a failure in CI) where there is no PostgreSQL."""
    _need_postgres()
    with Cluster() as cluster:
        yield cluster


def test_url_connects(cluster: Cluster) -> None:
    """SQLAlchemy connects with the URL, as the superuser of a UTF-8 server."""
    assert _scalar(cluster.url(), "SELECT current_user || ' ' || current_database()") == (
        "postgres postgres"
    )
    assert _scalar(cluster.url(), "SHOW server_encoding") == "UTF8"


def test_url_ignores_the_environment(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment variables for another server do not affect the URL."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    monkeypatch.setenv("PGDATABASE", "nothing")
    assert _scalar(cluster.url(), "SELECT 1") == 1


def test_start_twice_is_one_server(cluster: Cluster) -> None:
    """A second start changes nothing."""
    before = cluster.pid
    cluster.start()
    assert cluster.pid == before


def test_create_database_copies_its_template(cluster: Cluster) -> None:
    """A database is created as a copy of another; its URL works with any SQLAlchemy."""
    template = cluster.create_database("Template-1")
    with psycopg.connect(_libpq(template), autocommit=True) as connection:
        connection.execute("CREATE TABLE boats AS SELECT 7 AS number")
    copy = cluster.create_database("select", template="Template-1")
    assert _scalar(copy, "SELECT number FROM boats") == 7
    assert _scalar(copy, "SELECT current_database()") == "select"


def test_names_that_urls_cannot_hold_are_refused(cluster: Cluster) -> None:
    """A database is not created if its name would not work in URLs of every SQLAlchemy."""
    with pytest.raises(ValueError, match="expected ASCII letters"):
        cluster.create_database("a/copy?")


def test_forgets_unless_durable(cluster: Cluster) -> None:
    """Commits do not wait for the disk by default."""
    assert _scalar(cluster.url(), "SHOW fsync") == "off"
    assert _scalar(cluster.url(), "SHOW synchronous_commit") == "off"


def test_never_root_and_private(cluster: Cluster) -> None:
    """The server runs as an ordinary user, who alone can enter its directory."""
    directory = cluster.directory.stat()
    assert directory.st_uid != 0
    assert stat.S_IMODE(directory.st_mode) == 0o700
    if sys.platform == "linux":
        assert Path(f"/proc/{cluster.pid}").stat().st_uid == directory.st_uid
        status = Path(f"/proc/{cluster.pid}/status").read_text()
        uids, gids, groups = (
            set(_line(status, name).split()) for name in ("Uid:", "Gid:", "Groups:")
        )
        assert "0" not in uids | gids
        if os.geteuid() == 0:
            assert groups <= gids, "root's supplementary groups went along"


def test_durable_settings_and_port() -> None:
    """Settings reach the server, and TCP connections need the password."""
    _need_postgres()
    port = _free_port()
    with Cluster(durable=True, port=port, settings={"work_mem": "12MB"}) as cluster:
        assert _scalar(cluster.url(), "SHOW fsync") == "on"
        assert _scalar(cluster.url(), "SHOW work_mem") == "12MB"
        with psycopg.connect(cluster.tcp_url()) as connection:
            assert connection.execute("SHOW port").fetchone() == (str(port),)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=port, user="postgres", password="wrong")


def test_tcp_url_needs_a_port() -> None:
    """The error for a TCP URL without a port says what to do."""
    with pytest.raises(ValueError, match="pass port= to Cluster"):
        Cluster().tcp_url()


def test_stop_leaves_nothing() -> None:
    """After stop there is neither server nor directory; stopping again, or before, is fine."""
    _need_postgres()
    cluster = Cluster()
    cluster.stop()
    cluster.start()
    pid, directory = cluster.pid, cluster.directory
    with psycopg.connect(_libpq(cluster.url())):  # An open connection does not delay the stop.
        cluster.stop()
    cluster.stop()
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="not started"):
        cluster.url()


def test_starts_again_after_stop() -> None:
    """A cluster may be used again, and is empty then."""
    _need_postgres()
    cluster = Cluster()
    with cluster:
        cluster.create_database("boats")
    with cluster:
        assert _scalar(cluster.url(), "SELECT count(*) FROM pg_database") == 3


def test_changes_no_directory_of_others(cluster: Cluster) -> None:
    """The modes and owners of directories above the programs and the data do not change."""
    programs = embedded.find_programs()
    watched = {*programs.parents, *cluster.directory.parents, programs}
    before = {path: _mode_and_owner(path) for path in watched}
    with Cluster():
        during = {path: _mode_and_owner(path) for path in watched}
    after = {path: _mode_and_owner(path) for path in watched}
    assert before == during == after


def test_programs_out_of_reach_are_copied(tmp_path: Path) -> None:
    """Programs in root's closed environment are copied for the server, and stay closed."""
    if os.geteuid() != 0:
        pytest.skip("only root has another user run the server")
    wheel = embedded.find_in_wheel()
    if wheel is None:
        pytest.skip("the wheel is not installed; its programs are what can be copied")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = closed / embedded.WHEEL
    package.mkdir()
    # Link to the same inodes: a second copy would prove no more and take longer.
    for source in (wheel.parent, wheel.parents[1].with_name(f"{embedded.WHEEL}.libs")):
        target = closed / source.relative_to(wheel.parents[2])
        subprocess.run(["cp", "-rl", str(source), str(target)], check=True)
    before = {path: _mode_and_owner(path) for path in [closed, *closed.rglob("*")]}
    with Cluster(programs=package / wheel.parent.name / "bin") as cluster:
        assert _scalar(cluster.url(), "SELECT 1") == 1
        assert (cluster.directory / "programs" / embedded.WHEEL).is_dir()
    assert {path: _mode_and_owner(path) for path in before} == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals an orphan")
def test_dies_with_its_parent() -> None:
    """If the process that started it is killed with SIGKILL, the server ends too."""
    _need_postgres()
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        server = os.pidfd_open(int(pid))
        try:
            owner.send_signal(signal.SIGKILL)
            owner.wait(DEADLINE_S)
            _await_end(server, "the server, after its parent was killed")
        finally:
            os.close(server)
            subprocess.run(["rm", "-rf", directory], check=True)


def test_leaves_nothing_when_its_process_ends() -> None:
    """When a process ends without stopping its cluster, server and directory are removed."""
    _need_postgres()
    done = subprocess.run(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    _, directory = done.stdout.split()
    assert not Path(directory).exists()


def test_a_forked_child_stops_nothing() -> None:
    """A forked child that exits does not stop the cluster of its parent."""
    _need_postgres()
    stopped_in_child = """
import os
from riverrun.embedded import Cluster

with Cluster() as cluster:
    child = os.fork()
    if child == 0:
        cluster.stop()
        os._exit(0)
    os.waitpid(child, 0)
    os.kill(cluster.pid, 0)
    assert cluster.directory.exists()
"""
    subprocess.run([sys.executable, "-c", stopped_in_child], timeout=DEADLINE_S, check=True)


def test_failed_start_shows_the_log_and_cleans_up() -> None:
    """The error has the end of the server's log; its directory is removed."""
    _need_postgres()
    cluster = Cluster(settings={"shared_buffers": "plenty"})
    with pytest.raises(PostgresNotStarted, match='invalid value for parameter "shared_buffers"'):
        cluster.start()
    with pytest.raises(RuntimeError, match="not started"):
        _ = cluster.directory


def test_not_found_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any PostgreSQL, the error names the ways to get one."""
    monkeypatch.setattr(embedded, "find_on_system", lambda: None)
    monkeypatch.setattr(embedded, "find_in_wheel", lambda: None)
    with pytest.raises(PostgresNotFound) as caught:
        Cluster().start()
    for way in ("postgresql package", "riverrun[embedded]", "TEST_DATABASE_URL"):
        assert way in str(caught.value)


def test_initdb_alone_is_not_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An initdb on PATH without a postgres beside it is ignored."""
    initdb = tmp_path / "initdb"
    initdb.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.find_on_system() != tmp_path
    (tmp_path / "postgres").touch(mode=0o755)
    assert embedded.find_on_system() == tmp_path


def test_looking_for_the_wheel_does_not_import_it() -> None:
    """Finding the programs does not import the wheel, which would have side effects."""
    code = (
        "import sys; from riverrun import embedded; embedded.find_in_wheel(); "
        "sys.exit(embedded.WHEEL in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=DEADLINE_S, check=True)


def test_newest_comes_first() -> None:
    """Versions are compared as numbers."""
    folders = [Path(f"/usr/lib/postgresql/{version}/bin") for version in ("9.6", "15", "18", "14")]
    newest, *_, oldest = embedded._newest_first(folders)
    assert (newest.parent.name, oldest.parent.name) == ("18", "9.6")


def _need_postgres() -> None:
    try:
        embedded.find_programs()
    except PostgresNotFound as problem:
        if os.environ.get("CI"):
            pytest.fail(str(problem))
        pytest.skip(str(problem))


def _scalar(url: str, statement: str) -> object:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.scalar(text(statement))
    finally:
        engine.dispose()


def _libpq(url: str) -> str:
    return url.replace("+psycopg", "", 1)


def _mode_and_owner(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_mode, status.st_uid, status.st_gid


def _line(status: str, name: str) -> str:
    (line,) = (line for line in status.splitlines() if line.startswith(name))
    return line.removeprefix(name)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _await_end(process: int, what: str) -> None:
    # A process's descriptor becomes readable when the process ends; it is not our child.
    exited, _, _ = select.select([process], [], [], DEADLINE_S)
    assert exited, f"{what}: did not end within {DEADLINE_S:g} s"
