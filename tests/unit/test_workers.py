"""Workers: what can be registered, and what is refused."""

from typing import Any

import attrs
import pytest

from riverrun import JobArgs, JobContext, RawArgs, Workers
from riverrun.errors import DuplicateKind, InvalidOption, InvalidWorker, UnknownKind


@attrs.frozen
class Ship(JobArgs, kind="ship"):
    order: int = 0


def ship(args: Ship) -> None:
    """Work without a context."""


def ship_with(args: Ship, ctx: JobContext) -> None:
    """Work with a context."""


def raw(args: RawArgs) -> None:
    """Work what another language inserts."""


async def later(args: Ship) -> None:
    """Be a coroutine function."""


def unsaid(args) -> None:  # type: ignore[no-untyped-def]
    """Tell no kind."""


def three(args: Ship, ctx: JobContext, more: int) -> None:
    """Take too much."""


def test_registers_by_annotation() -> None:
    """The annotation of its args says which kind a function works, and how it is called."""
    workers = Workers()
    assert workers.register(ship) is ship
    workers.register(kind="other", timeout=3)(raw)
    assert workers.kinds == {"ship", "other"}
    assert not workers.get("ship").takes_context
    assert (workers.timeout_s("ship"), workers.timeout_s("other")) == (None, 3.0)
    with_context = Workers()
    with_context.register(ship_with)
    assert with_context.get("ship").takes_context


@pytest.mark.parametrize(
    ("function", "options", "error"),
    [
        (unsaid, {}, InvalidWorker),
        (three, {}, InvalidWorker),
        (raw, {}, InvalidWorker),
        (7, {}, InvalidWorker),
        (ship, {"kind": "other"}, InvalidWorker),
        (ship, {"timeout": -1}, InvalidOption),
        (ship, {"backoff": 5}, InvalidOption),
    ],
)
def test_refuses(function: Any, options: Any, error: type[Exception]) -> None:
    """What cannot be a worker is refused when it is registered."""
    workers = Workers()
    with pytest.raises(error):
        workers.register(**options)(function)
    assert not workers.kinds


def test_works_aliases() -> None:
    """A worker works the kinds that its args had before, one of which nobody else may have."""

    @attrs.frozen
    class Sent(JobArgs, kind="sent", kind_aliases=["mail", "post"]):
        to: str

    class Narrower(Sent, kind="narrower"):
        pass

    def sent(args: Sent) -> None:
        """Work."""

    workers = Workers()
    workers.register(sent)
    assert workers.kinds == {"sent", "mail", "post"}
    assert workers.get("post").args_type is Sent
    assert Narrower.kind_aliases == ()
    with pytest.raises(DuplicateKind, match="post"):
        workers.register(kind="post")(raw)
    other = Workers()
    other.register(kind="post")(raw)
    with pytest.raises(DuplicateKind, match="post"):
        other.register(sent)
    assert other.kinds == {"post"}


@pytest.mark.parametrize(
    "options", [{"kind_aliases": ["old"]}, {"kind": "new", "kind_aliases": "old"}]
)
def test_refuses_aliases(options: Any) -> None:
    """Aliases are kinds, of a class that has one."""
    with pytest.raises(InvalidOption, match="kind_aliases"):
        type("Args", (JobArgs,), {}, **options)


def test_refuses_two_for_one_kind() -> None:
    """A kind has one worker, and one that has none is named with those that have."""
    workers = Workers()
    workers.register(ship)
    with pytest.raises(DuplicateKind, match="ship_with"):
        workers.register(ship_with)
    with pytest.raises(UnknownKind, match="known: 'ship'"):
        workers.get("shop")
