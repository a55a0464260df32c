"""A small shop in Flask: it signs users up, and its jobs greet them.

Driven by the environment: DATABASE_URL; SHOP_VARIANT, "sqlalchemy" (Flask-SQLAlchemy), "lite" or
"plain" (a scoped_session of its own); SHOP_EARLY, to insert a job before any fork.
"""

import os

import attrs
from flask import Flask, current_app, jsonify, request
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

from riverrun import JobArgs, JobContext, Workers
from riverrun.ext.flask import Riverrun

workers = Workers()


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "shop_user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    greeted_by: Mapped[int | None]


@attrs.frozen
class Greet(JobArgs, kind="greet"):
    user_id: int


@attrs.frozen
class Start(JobArgs, kind="start"):
    pass


@attrs.frozen
class Audit(JobArgs, kind="audit"):
    user_id: int


@workers.register(executor="process")
def audit(args: Audit) -> None:
    session = current_app.config["SESSION"]()
    session.get_one(User, args.user_id).greeted_by = os.getpid()
    session.commit()


@workers.register
def start(args: Start) -> None:
    pass


@workers.register
def greet(args: Greet, ctx: JobContext) -> None:
    session = current_app.config["SESSION"]()
    user = session.get(User, args.user_id)
    assert user is not None
    assert user.greeted_by is None or ctx.job.attempt > 1
    user.greeted_by = os.getpid()
    session.commit()
    if user.name == "twice" and ctx.job.attempt == 1:
        user.name = "never committed"
        session.flush()
        raise OSError("once more")


def create_app(variant: str | None = None) -> Flask:
    variant = variant or os.environ.get("SHOP_VARIANT", "sqlalchemy")
    url = os.environ["DATABASE_URL"]
    app = Flask(__name__)
    app.config["RIVERRUN_QUEUES"] = "default:5"
    jobs = Riverrun(workers=workers)
    if variant == "sqlalchemy":
        from flask_sqlalchemy import SQLAlchemy

        app.config["SQLALCHEMY_DATABASE_URI"] = url
        db = SQLAlchemy(model_class=Base)
        jobs.init_app(app)  # before the extension that has the engine, as an app may
        db.init_app(app)
        app.config["SESSION"] = lambda: db.session
    elif variant == "lite":
        from flask_sqlalchemy_lite import SQLAlchemy as Lite

        app.config["SQLALCHEMY_ENGINES"] = {"default": url}
        lite = Lite()
        lite.init_app(app)
        jobs.init_app(app)
        app.config["SESSION"] = lambda: lite.session
    else:
        engine = create_engine(url)
        own = scoped_session(sessionmaker(engine))
        app.teardown_appcontext(lambda _: own.remove())
        jobs = Riverrun(app, workers=workers, session=lambda: own, engine=engine)
        app.config["SESSION"] = lambda: own
    session = app.config["SESSION"]

    @app.post("/signup")
    def signup():
        user = User(name=request.form["name"])
        session().add(user)
        session().flush()
        result = jobs.insert(Greet(user.id))
        if request.form.get("fail"):
            raise ValueError("after the insert")
        session().commit()
        return jsonify(user_id=user.id, job_id=result.job.id, pid=os.getpid())

    @app.post("/many")
    def many():
        results = jobs.insert_many([Start(), Start()])
        session().commit()
        return jsonify(job_ids=[result.job.id for result in results])

    @app.get("/users")
    def users():
        rows = session().execute(select(User.name, User.greeted_by))
        return jsonify([list(row) for row in rows])

    if os.environ.get("SHOP_EARLY"):
        with app.app_context():
            jobs.insert(Start())
            session().commit()
            session().execute(select(User.id)).all()
    return app
