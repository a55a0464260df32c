"""Which parameters of workers take a session, and what register() refuses."""

from collections.abc import Callable
from typing import Annotated, Any

import attrs
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from riverrun import JobArgs, JobContext, Workers
from riverrun.errors import InvalidWorker


@attrs.frozen
class Write(JobArgs, kind="write"):
    """Args of the worker that the test declares."""


class Tagged(Session):
    """A Session class of the application."""


class TaggedAsync(AsyncSession):
    """An AsyncSession class of the application."""


NAMES: dict[str, Any] = {
    each.__name__: each
    for each in (
        *(AsyncSession, JobContext, Session, Tagged, TaggedAsync, Write),
        *(async_sessionmaker, scoped_session, sessionmaker),
    )
} | {"Annotated": Annotated}


def worker(text_: str) -> Callable[..., object]:
    """Return the worker that the source `text_` declares."""
    names = dict(NAMES)
    exec(text_, names)
    made: Callable[..., object] = names["work"]
    return made


@pytest.mark.parametrize(
    ("declared", "how"),
    [
        ("def work(args: Write, session: Session): pass", ("session", Session)),
        ("def work(args: Write, *, db: Tagged): pass", ("db", Tagged)),
        ("def work(args: Write, ctx, session: Session): pass", ("session", Session)),
        ("def work(args: Write, session: Session, ctx): pass", ("session", Session)),
        ("def work(args: Write, session: 'Session', ctx: JobContext): pass", ("session", Session)),
        ("def work(args: Write, session: Annotated[Session, 1]): pass", ("session", Session)),
        ("def work(args: Write, db: Session = None): pass", ("db", Session)),
        ("async def work(args: Write, db: AsyncSession): pass", ("db", AsyncSession)),
        ("async def work(args: Write, *, s: TaggedAsync): pass", ("s", TaggedAsync)),
        ("def work(args: Write, session: Session = Session()): pass", None),
        ("def work(args: Write): pass", None),
    ],
)
def test_declarations(declared: str, how: tuple[str, type] | None) -> None:
    """A session parameter is recognised by its annotation, at any position and with any name."""
    workers = Workers()
    workers.register(worker(declared))
    found = workers.get("write").session
    assert (found and (found.name, found.wanted)) == how


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ("def work(args: Write, session: Session | None = None): pass", "Session, or AsyncSession"),
        ("def work(args: Write, session: Annotated[Session | None, 1]): pass", "one class"),
        ("def work(args: Write, session: scoped_session): pass", "annotate it with Session"),
        ("def work(args: Write, session: scoped_session[Session]): pass", "annotate it with"),
        ("def work(args: Write, make: sessionmaker[Session]): pass", "annotate it with Session"),
        ("def work(args: Write, session): pass", "no annotation"),
        ("def work(args: Write, a: Session, b: Session): pass", "'a' and 'b'"),
        ("def work(session: Session, args: Write): pass", "its args come first"),
        ("def work(args: Write, session: Session, /): pass", "remove the /"),
        ("def work(args: Write, session: AsyncSession): pass", "only an async def"),
        ("async def work(args: Write, session: Session): pass", "annotate it with AsyncSession"),
        ("async def work(args: Write, s: async_sessionmaker[AsyncSession]): pass", "annotate it"),
    ],
)
def test_misuse_is_refused(declared: str, problem: str) -> None:
    """A session that cannot be provided is refused by register(), and the error says why."""
    with pytest.raises(InvalidWorker, match=problem.replace("|", r"\|")):
        Workers().register(worker(declared))


def test_not_in_processes() -> None:
    """A worker in another process cannot have a session of the client's."""
    with pytest.raises(InvalidWorker, match="another process"):
        Workers().register(executor="process")(worker("def work(args: Write, s: Session): pass"))
