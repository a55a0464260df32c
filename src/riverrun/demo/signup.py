"""The host application: a Flask service that signs users up, and answers before the jobs run.

The user and the four jobs are added to one session, so neither exists without the other.
"""

from flask import Flask, Response, jsonify, request
from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from werkzeug.serving import WSGIRequestHandler, make_server

from riverrun import Client
from riverrun.demo.business import insert_further_jobs
from riverrun.demo.jobs import JOBS
from riverrun.demo.processes import report_ready, serve
from riverrun.demo.settings import settings_from_environment
from riverrun.demo.tables import User

RESERVED_TEAM = "admin"


class TeamTaken(Exception):
    """The team's name is taken. This is checked last, so everything before is rolled back."""


def create_app(engine: Engine, client: Client, *, further_jobs: bool = False) -> Flask:
    """Return the service.

    Args:
        engine: The engine of the users' database.
        client: The client that inserts their jobs; it needs no workers.
        further_jobs: Whether to insert the jobs of `business`, too.
    """
    app = Flask(__name__)

    @app.post("/signup")
    def signup() -> tuple[Response, int]:
        form = request.get_json()
        with Session(engine) as session, session.begin():
            user = add_user(session, form["email"], form["name"])
            added = [client.add(session, args(user=user)) for args in JOBS]
            session.flush()  # so that a refusal rolls back jobs that are inserted
            if further_jobs:
                insert_further_jobs(client, session, user.id)
            if form["team"] == RESERVED_TEAM:
                raise TeamTaken(form["team"])
        skipped = sum(job.result is not None and job.result.skipped_as_duplicate for job in added)
        return jsonify(inserted=len(added) - skipped, skipped=skipped), 201

    @app.errorhandler(TeamTaken)
    def refuse(error: TeamTaken) -> tuple[Response, int]:
        return jsonify(error=f"the team {error} is taken"), 409

    return app


def add_user(session: Session, email: str, name: str) -> User:
    """Return the user of `email`; add the user if there is none."""
    # The two requests of a double click may overlap: the second waits here until the first commits.
    session.execute(insert(User).values(email=email, name=name).on_conflict_do_nothing())
    return session.scalars(select(User).where(User.email == email)).one()


class Quiet(WSGIRequestHandler):
    """A request handler that does not write a line for each request."""

    def log_request(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Serve until SIGTERM."""
    settings = settings_from_environment()
    engine = settings.engine()
    client = Client(engine, schema=settings.schema, id=settings.name)
    app = create_app(engine, client, further_jobs=settings.dashboard)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    serve(server, lambda: report_ready(settings, server.server_port))
    client.flush_announcements()
    engine.dispose()


if __name__ == "__main__":
    main()
