"""What type checkers must refuse: each line that says so, and no other."""

import attrs
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from riverrun import Client, JobArgs, JobContext, Workers
from riverrun.verbs import insert


@attrs.frozen
class Send(JobArgs, kind="send"):
    to: str


@attrs.frozen
class Misspelt(JobArgs, kindd="send"):  # refused
    to: str


workers = Workers()
workers.register(7)  # refused


@workers.register  # refused
def number(args: int) -> None:
    """Work no kind."""


@workers.register(timeout=3)  # refused
def mapping(args: dict[str, str], ctx: JobContext) -> None:
    """Work no kind."""


@workers.register  # refused
def nothing() -> None:
    """Take no args."""


engine = create_engine("postgresql+psycopg:///app")
client = Client(engine, workers=[mapping])  # refused
numbered = Client(engine, queues={"default": "10"})  # refused

with Session(engine) as session:
    client.insert(session, "send")  # refused
    client.insert(session, {"to": "alice"})  # refused
    client.insert(Send("a"), session)  # refused
    client.insert(session, Send("a"), queu="mail")  # refused
    client.insert(session, Send("a"), priority="high")  # refused
    client.insert(session, Send("a"), {"queue": "mail"})  # refused
    insert(session, "send")  # refused
    client.insert(session, Send("a"), delay="soon")  # refused
