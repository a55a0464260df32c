"""Workers: what can be registered, and what is refused."""

from typing import Any

import attrs
import pytest
from sqlalchemy import create_engine

from riverrun import Client, JobArgs, JobContext, RawArgs, Workers
from riverrun.errors import DuplicateKind, InvalidArgs, InvalidOption, InvalidWorker, UnknownKind


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
    assert [workers.get(kind).timeout_s for kind in ("ship", "other")] == [None, 3.0]
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
        (ship, {"executor": ["process"]}, InvalidOption),
        (ship, {"kind": ["ship"]}, InvalidWorker),
    ],
)
def test_refuses(function: Any, options: Any, error: type[Exception]) -> None:
    """What cannot be a worker is refused when it is registered."""
    workers = Workers()
    with pytest.raises(error):
        workers.register(**options)(function)
    assert not workers.kinds


def test_works_aliases() -> None:
    """A worker works the kinds that its args had before, none of which another worker may have."""

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


def ship_class(**body: Any) -> Any:
    """Return another class of the kind that `ship` works."""
    body = {"__annotations__": {"order": int}, "__module__": __name__, **body}
    return attrs.frozen(type(body.pop("name", "Ship"), (JobArgs,), body, kind="ship"))


def test_a_kind_is_one_class() -> None:
    """A client whose worker takes one class refuses another class of its kind, also in a batch."""
    workers = Workers()
    workers.register(ship)
    client = Client(create_engine("postgresql+psycopg:///nowhere"), workers=workers)
    other = ship_class(name="Shipment")(order=1)
    for insert in (
        lambda: client.insert(client.engine, other),
        lambda: client.insert_many(client.engine, [Ship(1), other]),
        lambda: client.insert_many_fast(client.engine, [(other, None)]),
    ):
        with pytest.raises(InvalidArgs, match=r"Shipment, and its worker takes a .*Ship; use one"):
            insert()


def test_a_class_made_anew_is_the_same() -> None:
    """After a reload of its module a class of args is taken for the one before; JSON is free."""
    workers = Workers()
    workers.register(ship)
    worker = workers.get("ship")
    worker.check_args(ship_class()(order=1))
    worker.check_args(Ship(1))
    worker.check_args(RawArgs(kind="ship", encoded={"order": "x"}))


def test_a_class_of_an_old_kind_must_fit() -> None:
    """The class that a kind had before it was renamed is taken if it fits the new one."""

    @attrs.frozen
    class New(JobArgs, kind="new_name", kind_aliases=["old_name"]):
        order: int

    def work(args: New) -> None:
        """Work."""

    def old(annotation: Any, value: Any) -> Any:
        body = {"__annotations__": {"order": annotation}, "__module__": __name__}
        return attrs.frozen(type("Old", (JobArgs,), body, kind="old_name"))(value)

    workers = Workers()
    workers.register(work)
    worker = workers.get("old_name")
    worker.check_args(old(int, 1))
    with pytest.raises(InvalidArgs, match="do not fit New"):
        worker.check_args(old(str, "x"))
