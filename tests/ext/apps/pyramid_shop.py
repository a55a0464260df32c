"""A small shop in Pyramid, as its cookiecutter would have it: pyramid_tm, zope.sqlalchemy."""

import os
import threading

import attrs
import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.threadlocal import get_current_request
from pyramid_retry import RetryableException
from sqlalchemy import engine_from_config, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from riverrun import JobArgs, JobContext, Workers

workers = Workers()
tries = threading.local()


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "shop_user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    greeted_by: Mapped[int | None]


@attrs.frozen
class Greet(JobArgs, kind="greet"):
    name: str


@workers.register
def greet(args: Greet, ctx: JobContext) -> None:
    session = get_current_request().dbsession
    user = session.execute(select(User).where(User.name == args.name)).scalar_one_or_none()
    if user is None:
        user = User(name=args.name)
        session.add(user)
    user.greeted_by = os.getpid()
    if args.name == "twice" and ctx.job.attempt == 1:
        user.name = "never committed"
        session.flush()
        raise OSError("once more")


@attrs.frozen
class Audit(JobArgs, kind="audit"):
    name: str
    how: str = "return"


@workers.register(executor="process")
def audit(args: Audit) -> None:
    session = get_current_request().dbsession
    session.add(User(name=args.name, greeted_by=os.getpid()))
    session.flush()
    if args.how == "raise":
        raise ValueError("after the flush")


class Refused(Exception):
    pass


def signup(request):
    """Insert a job and nothing else, as no ORM object would tell that there is work to commit."""
    name, how = request.params["name"], request.params.get("how")
    job = request.insert_job(Greet(name)).job
    if how == "abort":
        request.tm.abort()
        request.tm.begin()
    if how == "doom":
        request.tm.doom()
    if how == "view":
        raise Refused
    if how == "savepoint":
        inner = request.tm.savepoint()
        request.insert_job(Greet(f"{name} in the savepoint"))
        inner.rollback()
    if how == "raise":
        raise ValueError("after the insert")
    if how == "retry" and getattr(tries, "name", None) != name:
        tries.name = name
        raise RetryableException
    return {"job_id": job.id}


def refused(request):
    """An exception view: its answer is not a failure, but what the view did is aborted."""
    request.response.status = 422
    return {}


def many(request):
    names = request.params.getall("name")
    if request.params.get("how") == "copy":
        request.riverrun.insert_many_fast(request.dbsession, [Greet(name) for name in names])
        return {}
    results = request.insert_jobs([Greet(name) for name in names])
    return {"job_ids": [result.job.id for result in results]}


def operate(request):
    """Change a job and nothing else."""
    verb = getattr(request.riverrun, request.matchdict["verb"])
    return {"state": verb(request.dbsession, int(request.params["id"])).state}


def users(request):
    return [list(row) for row in request.dbsession.execute(select(User.name, User.greeted_by))]


def get_session(request):
    session = request.registry["dbsession_factory"]()
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


def jobs(config):
    """A part of the application that includes what it needs, as parts do."""
    config.include("riverrun.ext.pyramid")


def filtered(app, global_config):
    """A filter of a pipeline, which hides the application."""

    def filtering(environ, start_response):
        return app(environ, start_response)

    return filtering


def main(global_config, **settings):
    settings["sqlalchemy.url"] = os.environ["DATABASE_URL"]
    settings["tm.manager_hook"] = "pyramid_tm.explicit_manager"
    settings["retry.attempts"] = 3
    with Configurator(settings=settings) as config:
        config.include("pyramid_retry")
        config.include("pyramid_tm")
        config.include("riverrun.ext.pyramid")
        config.include(jobs, route_prefix="jobs")
        config.set_riverrun_workers("pyramid_shop.workers")
        engine = engine_from_config(settings, "sqlalchemy.")
        config.registry["dbsession_factory"] = sessionmaker(bind=engine)
        config.add_request_method(get_session, "dbsession", reify=True)
        for view in (signup, many, users):
            config.add_route(view.__name__, f"/{view.__name__}")
            config.add_view(view, route_name=view.__name__, renderer="json")
        config.add_exception_view(refused, context=Refused, renderer="json")
        config.add_route("operate", "/operate/{verb}")
        config.add_view(operate, route_name="operate", renderer="json")
    return config.make_wsgi_app()
