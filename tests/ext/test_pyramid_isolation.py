"""Pyramid: in a test, writes of views and workers join the test's transaction, and are undone."""

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import transaction
import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.threadlocal import get_current_request
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session, sessionmaker

from ext.apps.pyramid_shop import Base, User
from riverrun import JobArgs, JobContext, Workers, verbs
from riverrun.errors import ClientNotReady
from riverrun.ext.pyramid import client_of, rolled_back
from riverrun.testing import drain, require_inserted, work_one
from riverrun.testing import rolled_back as engine_rolled_back

HOWS = ("return", "tm", "savepoint", "doom", "raise", "request")
GREETED = {"return", "savepoint", "tm", "request"}


@attrs.frozen
class Greet(JobArgs, kind="greet"):
    user_id: int
    how: str = "return"


workers = Workers()


@workers.register
def greet(args: Greet, ctx: JobContext) -> None:
    """Work as in the guide: within a request, committed when this returns."""
    request = get_current_request()
    user = request.dbsession.get_one(User, args.user_id)
    user.greeted_by = 1
    match args.how:
        case "tm":
            request.tm.commit()
            request.tm.begin()
        case "savepoint":
            inner = request.tm.savepoint()
            user.name = "in the savepoint"
            request.dbsession.flush()
            inner.rollback()
        case "doom":
            request.tm.doom()
        case "raise":
            request.dbsession.flush()
            raise OSError("the bank said no")
        case "request":
            request.insert_job(Greet(args.user_id))


def signup(request: Any) -> dict[str, int]:
    """Sign a user up."""
    user = User(name=request.params["name"])
    request.dbsession.add(user)
    request.dbsession.flush()
    request.insert_job(Greet(user.id))
    if user.name == "fail":
        raise ValueError("after the insert")
    return {"id": user.id}


@attrs.define
class Shop:
    """An application, and what another connection sees of its database."""

    app: Any
    engine: Engine

    def post(self, name: str) -> Any:
        """Sign a user up over WSGI."""
        return Request.blank("/signup", POST={"name": name}).get_response(self.app).json

    def counts(self) -> tuple[list[int | None], list[tuple[str, int]]]:
        """Return who greeted each user, and each job's state and attempt."""
        jobs = [(str(job.state), job.attempt) for job in verbs.list_jobs(self.engine).jobs]
        with self.engine.connect() as connection:
            return list(connection.scalars(select(User.greeted_by))), jobs


def with_tm(request: Any) -> Session:
    """The session of a request, as the guide and the cookiecutter make it."""
    session = request.registry["factory"](info={"request": request})
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


@pytest.fixture(params=["explicit", "thread", "elsewhere"])
def shop(request: pytest.FixtureRequest, schema_engine: Engine, schema_url: str) -> Iterator[Shop]:
    """A shop with an explicit manager, with pyramid_tm's default, or without a session factory."""
    Base.metadata.create_all(schema_engine)
    settings = {"riverrun.database_url": schema_url}
    if request.param != "thread":
        settings["tm.manager_hook"] = "pyramid_tm.explicit_manager"
    engine = create_engine(schema_url)
    with Configurator(settings=settings) as config:
        config.include("pyramid_tm")
        config.include("riverrun.ext.pyramid")
        config.set_riverrun_workers(workers)
        factory = config.registry["factory"] = sessionmaker(engine)
        if request.param != "elsewhere":
            config.registry["dbsession_factory"] = factory
        config.add_request_method(with_tm, "dbsession", reify=True)
        config.add_route("signup", "/signup")
        config.add_view(signup, route_name="signup", renderer="json")
    shop = Shop(config.make_wsgi_app(), schema_engine)
    yield shop
    client_of(shop.app.registry).engine.dispose()
    engine.dispose()


def check(shop: Shop, session: Session, how: str) -> None:
    """Work a job for an uncommitted user, and check its effects."""
    user = User(name="Ada")
    session.add(user)
    session.flush()
    user_id, args = user.id, Greet(user.id, how)
    worked = work_one(session, client_of(shop.app.registry), args, reraise=False)
    if how == "doom":
        assert isinstance(worked.error, transaction.interfaces.DoomedTransaction)
    else:
        assert isinstance(worked.error, OSError | None), how
    assert worked.state == ("available" if how in {"doom", "raise"} else "completed"), how
    user = session.get_one(User, user_id)
    assert (user.greeted_by, user.name) == (1 if how in GREETED else None, "Ada"), how
    assert require_inserted(session, args).attempt == 1
    assert shop.counts() == ([], []), f"committed: {how}"


def test_a_worker_is_in_the_applications_test(shop: Shop) -> None:
    """With the fixture, a worker sees the test's rows in its own session, and commits nothing."""
    if "dbsession_factory" not in shop.app.registry:
        with pytest.raises(ClientNotReady, match="dbsession_factory"), rolled_back(shop.app):
            pass
        return
    for how in HOWS:
        with rolled_back(shop.app) as session:
            check(shop, session, how)
    with rolled_back(shop.app.registry) as session:
        assert shop.post("Ada")["id"]
        with pytest.raises(ValueError, match="after the insert"):
            shop.post("fail")
        worked = drain(session, client_of(shop.app.registry))
        assert [each.state for each in worked] == ["completed"]
        assert session.scalars(select(User.greeted_by)).all() == [1]
        assert shop.counts() == ([], [])
    assert shop.counts() == ([], [])
    assert shop.post("Bob")
    assert shop.counts() == ([None], [("available", 0)])
    with rolled_back(shop.app) as session:  # a job of another application
        assert drain(session, client_of(shop.app.registry)) == []
    assert shop.counts() == ([None], [("available", 0)])


def test_a_worker_is_in_the_transaction_of_any_session(shop: Shop) -> None:
    """With a session that the test made itself, a worker also commits nothing."""
    engine = client_of(shop.app.registry).engine
    for how in HOWS:
        with engine_rolled_back(engine) as session:
            check(shop, session, how)
        with Session(engine) as session:  # never committed
            check(shop, session, how)
        # As in the cookiecutter's tests: the test's session is in a doomed transaction.
        for manager in (transaction.TransactionManager(explicit=True), transaction.manager):
            manager.begin()
            manager.doom()
            session = shop.app.registry["factory"]()
            zope.sqlalchemy.register(session, transaction_manager=manager)
            check(shop, session, how)
            assert manager.isDoomed(), "the test's transaction was ended"
            manager.abort()
    assert shop.counts() == ([], [])


def test_the_transaction_of_the_thread_outlives_the_worker(shop: Shop) -> None:
    """Working jobs of an Engine does not end an open transaction of the thread's manager."""
    client = client_of(shop.app.registry)
    transaction.begin()
    session = shop.app.registry["factory"]()
    zope.sqlalchemy.register(session)
    session.add(User(name="Ada"))
    session.flush()
    client.insert(client.engine, Greet(0))
    assert [each.state for each in drain(client.engine, client, reraise=False)] == ["available"]
    assert session.scalars(select(User.name)).all() == ["Ada"]
    transaction.abort()
    assert shop.counts() == ([], [("available", 1)])
