"""Workers that really run: what is called how, and what is found not to have run."""

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, Generic, Optional, Protocol, TypeVar

import attrs
import pytest

from riverrun import JobArgs, JobContext, Workers
from riverrun.errors import InvalidWorker, WorkerDidNotRun
from riverrun.execution.signature import call, call_async
from riverrun.execution.workers import Executor, Worker

T = TypeVar("T")
CTX: Any = object()
ran: list[object] = []


@attrs.frozen
class Send(JobArgs, kind="send"):
    to: str = "alice"


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    """Forget what ran."""
    ran.clear()


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as most decorators do: with a plain function around it."""

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


async def send_async(args: Send) -> None:
    """Be a coroutine function."""
    await asyncio.sleep(0)
    ran.append(args)


async def send_async_with(args: Send, ctx: JobContext) -> None:
    """Be a coroutine function that takes a context."""
    ran.append((args, ctx))


class Callable_:  # noqa: N801
    """An object whose call is a coroutine's."""

    async def __call__(self, args: Send) -> None:
        ran.append(args)


class Methods:
    """An object with workers for methods."""

    async def send(self, args: Send) -> None:
        ran.append(args)

    @plain
    async def decorated(self, args: Send) -> None:
        ran.append(args)


def with_mailer(mailer: str, args: Send, ctx: JobContext) -> None:
    """Take something that a partial gives."""
    ran.append((mailer, args, ctx))


def registered(function: Callable[..., Any], **options: Any) -> Worker:
    """Return the worker that `function` is registered as."""
    workers = Workers()
    workers.register(**options)(function)
    return workers.get("send")


def run(worker: Worker) -> None:
    """Call the worker as its executor does."""
    if worker.executor is Executor.coroutine:
        asyncio.run(call_async(worker.function, Send(), CTX, worker.context))
    else:
        call(worker.function, Send(), CTX, worker.context)


@pytest.mark.parametrize(
    "function",
    [
        plain(send_async),
        plain(plain(send_async)),
        functools.partial(send_async),
        functools.partial(plain(send_async)),
        plain(functools.partial(plain(send_async))),
        Callable_(),
        plain(Callable_()),
        functools.partial(Callable_()),
        Methods().send,
        Methods().decorated,
        plain(Methods().send),
    ],
)
def test_runs_async_functions_within_anything(function: Callable[..., Any]) -> None:
    """An async function is awaited whatever plain decorators, partials and objects it is in."""
    worker = registered(function)
    assert worker.executor is Executor.coroutine
    run(worker)
    assert ran == [Send()]


def test_runs_a_partial_with_a_context() -> None:
    """A partial's own arguments count as given; args and context follow."""
    run(registered(functools.partial(with_mailer, "smtp")))
    assert ran == [("smtp", Send(), CTX)]


def generator(args: Send) -> Iterator[None]:
    """Yield."""
    yield


async def async_generator(args: Send) -> AsyncIterator[None]:
    """Yield."""
    yield


@functools.lru_cache
def cached(args: Send) -> None:
    """Run once for equal args."""


class Yields:
    """An object whose call is a generator's."""

    def __call__(self, args: Send) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        plain(generator),
        plain(async_generator),
        functools.partial(generator),
        contextlib.contextmanager(generator),
        contextlib.asynccontextmanager(async_generator),
        Yields(),
        cached,
        plain(cached),
        functools.lru_cache(send_async),
    ],
)
def test_refuses_what_a_call_would_not_run(function: Callable[..., Any]) -> None:
    """A generator, and a cache, would complete jobs without running them: they are refused."""
    with pytest.raises(InvalidWorker, match="run"):
        registered(function)


def returns_coroutine(args: Send) -> Awaitable[None]:
    """Forget to await."""
    return send_async(args)


def returns_generator(args: Send) -> object:
    """Return a generator."""
    return (ran.append(args) for _ in range(1))


def returns_async_generator(args: Send) -> object:
    """Return an async generator."""
    return async_generator(args)


def returns_map(args: Send) -> object:
    """Return an iterator that is never consumed."""
    return map(ran.append, [args])


class Later:
    """Something to await."""

    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("function", "options"),
    [
        (returns_coroutine, {}),
        (returns_generator, {}),
        (returns_async_generator, {}),
        (returns_map, {}),
        (plain(send_async), {"executor": "thread"}),
        (plain(generator), {"executor": "thread"}),
    ],
)
def test_what_it_returns_shows_that_it_did_not_run(
    function: Callable[..., Any], options: dict[str, Any]
) -> None:
    """Where only the result shows that nothing ran, the attempt has failed, without a warning."""
    worker = registered(function, **options)
    with pytest.raises(WorkerDidNotRun, match="its work was not done"):
        run(worker)
    assert not ran


def test_what_a_coroutine_returns_is_looked_at_too() -> None:
    """An async def that returns a coroutine has not run it, and a plain result is no coroutine."""

    async def twice(args: Send) -> object:
        return send_async(args)

    def sometimes(args: Send) -> object:
        return None

    with pytest.raises(WorkerDidNotRun, match="coroutine"):
        run(registered(twice))
    sometimes.__wrapped__ = send_async  # type: ignore[attr-defined]
    with pytest.raises(WorkerDidNotRun, match="NoneType"):
        run(registered(sometimes))
    with pytest.raises(WorkerDidNotRun, match="Later"):
        run(registered(_annotated(lambda args: Later())))


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    function.__annotations__["args"] = Send
    return function


def test_a_decorator_that_runs_it_says_so() -> None:
    """With executor="thread" a decorator that itself runs an async function is called plainly."""

    def to_sync(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any) -> Any:
            return asyncio.run(function(*args))

        return inner

    worker = registered(to_sync(send_async), executor="thread")
    assert worker.executor is Executor.thread
    run(worker)
    assert ran == [Send()]


class Like(Protocol):
    """What a worker needs of its context."""

    def wait(self, timeout: float) -> bool:
        """Wait."""


class Own(JobContext):
    """A context of one's own."""


def keyword(args: Send, *, ctx: JobContext) -> None:
    """Take it by keyword."""
    ran.append(ctx)


def defaulted(args: Send, ctx: JobContext | None = None) -> None:
    """Take it if there is one."""
    ran.append(ctx)


def optional(args: Send, ctx: Optional["JobContext"] = None) -> None:
    """Take it if there is one."""
    ran.append(ctx)


def keyword_defaulted(args: Send, *, job: JobContext | None = None) -> None:
    """Take it by any name."""
    ran.append(job)


def behind(args: Send, retries: int = 3, ctx: JobContext | None = None) -> None:
    """Take it behind something else."""
    ran.append(ctx)


def unannotated(args: Send, ctx) -> None:  # type: ignore[no-untyped-def]
    """Take it by its place."""
    ran.append(ctx)


def unannotated_default(args: Send, ctx=None) -> None:  # type: ignore[no-untyped-def]
    """Take it by its name."""
    ran.append(ctx)


def protocol(args: Send, ctx: Like) -> None:
    """Take what is like it."""
    ran.append(ctx)


def own(args: Send, ctx: Own) -> None:
    """Take a subclass."""
    ran.append(ctx)


def annotated(args: Annotated[Send, "x"], ctx: Annotated[JobContext, "x"]) -> None:
    """Say more in annotations."""
    ran.append(ctx)


def positional(args: Send, ctx: JobContext, /) -> None:
    """Take both by place only."""
    ran.append(ctx)


async def async_keyword(args: Send, *, ctx: JobContext) -> None:
    """Take it by keyword, awaited."""
    ran.append(ctx)


@pytest.mark.parametrize(
    "function",
    [
        keyword,
        defaulted,
        optional,
        keyword_defaulted,
        behind,
        unannotated,
        unannotated_default,
        protocol,
        own,
        annotated,
        positional,
        async_keyword,
        plain(keyword),
        plain(async_keyword),
    ],
)
def test_gives_the_context_wherever_it_is_taken(function: Callable[..., Any]) -> None:
    """A context is found by its annotation, by keyword or with a default as well."""
    worker = registered(function)
    assert worker.takes_context
    run(worker)
    assert ran == [CTX]


def exchanged(ctx: JobContext, args: Send) -> None:
    """Take them the wrong way round."""


def number(args: Send, retries: int) -> None:
    """Want a number."""


def two(args: Send, ctx: JobContext, more: JobContext) -> None:
    """Want two."""


def by_keyword(*, args: Send) -> None:
    """Take args by keyword."""


def nothing() -> None:
    """Take nothing."""


def union(args: Send | None) -> None:
    """Take nothing that has a kind."""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (exchanged, "its args come first, then its context"),
        (number, "no value to pass for 'retries': int"),
        (two, "'ctx' and 'more'"),
        (by_keyword, "its args first"),
        (nothing, "its args first"),
        (union, "kind"),
    ],
)
def test_refuses_signatures_by_name(function: Callable[..., Any], problem: str) -> None:
    """What nothing can be given for is named when the worker is registered."""
    with pytest.raises(InvalidWorker, match=problem):
        registered(function)


def test_takes_generic_args() -> None:
    """A generic class of args with its parameters is an annotation as good as a class."""

    @attrs.frozen
    class Box(JobArgs, Generic[T], kind="send"):
        item: T

    def unpack(args: Box[int]) -> None:
        """Work."""

    assert inspect.get_annotations(unpack)["args"] == registered(unpack).args_type
