"""The host: a Flask service that signs users up, with a table of its own and no time to lose.

One transaction has the user and the four jobs, so there is never the one without the others.
"""

from flask import Flask, Response, jsonify, request
from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from werkzeug.serving import WSGIRequestHandler, make_server

from riverrun import Client
from riverrun.demo.jobs import CreditAccount, RenderInvoice, SendWelcome, SyncCrm
from riverrun.demo.processes import say_ready, serve
from riverrun.demo.settings import told

RESERVED_TEAM = "admin"


class Base(DeclarativeBase):
    """The host's own tables; riverrun's are none of them."""


class User(Base):
    """Somebody who signed up."""

    __tablename__ = "demo_user"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


class Credit(Base):
    """Money in a user's account. Nothing but its worker keeps a second row out."""

    __tablename__ = "demo_credit"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    cents: Mapped[int]


class TeamTaken(Exception):
    """The team's name cannot be had. It is found out last, so everything has to be undone."""


def create_app(engine: Engine, client: Client) -> Flask:
    """Return the service.

    Args:
        engine: Where users are kept.
        client: What inserts their jobs; it needs no workers.
    """
    app = Flask(__name__)

    @app.post("/signup")
    def signup() -> tuple[Response, int]:
        form = request.get_json()
        with Session(engine) as session, session.begin():
            user = add_user(session, form["email"], form["name"])
            results = [
                client.insert(
                    session, SendWelcome(user_id=user.id, email=user.email, name=user.name)
                ),
                client.insert(
                    session, RenderInvoice(user_id=user.id, email=user.email, name=user.name)
                ),
                client.insert(session, SyncCrm(user_id=user.id, email=user.email)),
                client.insert(session, CreditAccount(user_id=user.id, email=user.email)),
            ]
            if form["team"] == RESERVED_TEAM:
                raise TeamTaken(form["team"])
        skipped = sum(result.skipped_as_duplicate for result in results)
        return jsonify(inserted=len(results) - skipped, skipped=skipped), 201

    @app.errorhandler(TeamTaken)
    def refuse(error: TeamTaken) -> tuple[Response, int]:
        return jsonify(error=f"the team {error} is taken"), 409

    return app


def add_user(session: Session, email: str, name: str) -> User:
    """Return the user of `email`, added unless there already."""
    # A double click may come twice at once: the second waits here for the first to commit.
    session.execute(insert(User).values(email=email, name=name).on_conflict_do_nothing())
    return session.scalars(select(User).where(User.email == email)).one()


class Quiet(WSGIRequestHandler):
    """A request handler that does not write a line for each request."""

    def log_request(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until told to end."""
    settings = told()
    engine = settings.engine()
    client = Client(engine, schema=settings.schema, id=settings.name)
    app = create_app(engine, client)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    serve(server, lambda: say_ready(settings, server.server_port))
    client.flush_announcements()
    engine.dispose()


if __name__ == "__main__":
    main()
