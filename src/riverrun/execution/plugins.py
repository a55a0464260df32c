"""Plugins: what an application adds around inserts and attempts."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from riverrun.errors import InvalidOption
from riverrun.execution.context import JobContext
from riverrun.verbs.draft import JobDraft

R = TypeVar("R")


InProcess: TypeAlias = Callable[[Callable[[], object]], object]


class Plugin:
    """Takes part in inserts and attempts; override what you need.

    A client's plugins are outermost, the first before the others; then come those of the args'
    class (its attribute `job_plugins`), then a worker's own. First every `work` wraps what follows;
    within them each `work_begin` is called, the worker, and each `work_end`.

    A plugin is called from many threads at once.

    Source of the order: River 0.51, internal/jobexecutor.
    """

    def insert_many(self, drafts: Sequence[JobDraft], call_next: Callable[[], R]) -> R:
        """Wrap an insert in the caller's transaction: every `insert_begin`, and the statement.

        Args:
            drafts: What is inserted, before `insert_begin` has changed it.
            call_next: Inserts it; returns what the insert returns.
        """
        del drafts
        return call_next()

    def insert_begin(self, draft: JobDraft) -> JobDraft:
        """Return what to insert in place of `draft`; what is raised refuses the whole batch."""
        return draft

    def insert_from(self, draft: JobDraft) -> JobDraft:
        """Return what the jobs of an `insert_from` have in common in place of `draft`.

        Its rows never come to Python, so that `insert_many` and `insert_begin` cannot be called for
        them. A plugin that overrides one of these and not this refuses `insert_from`.

        Args:
            draft: What all jobs have in common; its args are empty, and stay so.

        Raises:
            InvalidOption: By default, if the plugin takes part in inserts otherwise.
        """
        own = type(self)
        for name in ("insert_many", "insert_begin"):
            if getattr(own, name) is not getattr(Plugin, name):
                expected = f"insert_from() beside {name}(), which cannot see the rows of a select"
                raise InvalidOption("plugins", own.__name__, expected)
        return draft

    def periodic_jobs_start(self) -> None:
        """Be told that this client leads now, and begins to insert its periodic jobs."""

    def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
        """Wrap an attempt; what is raised is how it ended.

        Args:
            ctx: The attempt.
            call_next: Goes on; raises what the worker raises.
        """
        del ctx
        call_next()

    async def work_async(self, ctx: JobContext, call_next: Callable[[], Awaitable[object]]) -> None:
        """Wrap an attempt of an `async def` worker, in place of `work`.

        Args:
            ctx: The attempt.
            call_next: Goes on, awaited; raises what the worker raises.
        """
        del ctx
        await call_next()

    def in_process(self) -> InProcess | None:
        """Return what wraps a worker in its process, beside what `work` wraps in the client's.

        It is asked for when a client starts that has workers with `executor="process"`, and at each
        of their attempts; it is pickled. In the process it is called with a function that goes on.
        Default: None, nothing.

        Raises:
            ClientNotReady: If the worker could not run there; the client does not start then.
        """
        return None

    def work_begin(self, ctx: JobContext) -> None:
        """Be told that `ctx`'s worker is about to begin; what this raises ends the attempt."""

    def work_end(self, ctx: JobContext, error: BaseException | None) -> BaseException | None:
        """Return how the attempt `ctx` ended: `error`, another one, or None for success."""
        del ctx
        return error


def check_plugins(plugins: object) -> tuple[Plugin, ...]:
    """Return `plugins` if each is one.

    Raises:
        InvalidOption: If one is not.
    """
    if not isinstance(plugins, Sequence) or not all(isinstance(p, Plugin) for p in plugins):
        raise InvalidOption("plugins", plugins, "a sequence of objects of Plugin's subclasses")
    return tuple(plugins)


def of_kind(args_type: type) -> tuple[Plugin, ...]:
    """Return the plugins of a class of args."""
    own: tuple[Plugin, ...] = getattr(args_type, "job_plugins", ())
    return own


def in_processes(plugins: Sequence[Plugin]) -> list[InProcess]:
    """Return what the plugins wrap a worker with in its process, the outermost first."""
    return [around for plugin in plugins if (around := plugin.in_process()) is not None]


def begin_inserts(plugins: Sequence[Plugin], drafts: Sequence[JobDraft]) -> list[JobDraft]:
    """Return `drafts` as the plugins would have them."""
    begun = []
    for draft in drafts:
        changed = draft
        for plugin in (*plugins, *of_kind(type(draft.args))):
            changed = plugin.insert_begin(changed)
        begun.append(changed)
    return begun


def around_insert(
    plugins: Sequence[Plugin], drafts: Sequence[JobDraft], insert: Callable[[], R]
) -> R:
    """Call `insert` within the plugins."""
    if not plugins:
        return insert()
    first, rest = plugins[0], plugins[1:]
    return first.insert_many(drafts, lambda: around_insert(rest, drafts, insert))


def around_work(plugins: Sequence[Plugin], ctx: JobContext, work: Callable[[], object]) -> None:
    """Call `work` within the plugins, between their beginnings and their ends."""

    def inner() -> None:
        error: BaseException | None = None
        try:
            for plugin in plugins:
                plugin.work_begin(ctx)
            work()
        except BaseException as raised:
            error = raised
        _end(plugins, ctx, error)

    _nested(plugins, ctx, inner)


async def around_work_async(
    plugins: Sequence[Plugin], ctx: JobContext, work: Callable[[], Awaitable[object]]
) -> None:
    """As `around_work`, for a worker that is awaited."""

    async def inner() -> None:
        error: BaseException | None = None
        try:
            for plugin in plugins:
                plugin.work_begin(ctx)
            await work()
        except BaseException as raised:
            error = raised
        _end(plugins, ctx, error)

    async def nested(left: Sequence[Plugin]) -> None:
        if left:
            await left[0].work_async(ctx, lambda: nested(left[1:]))
        else:
            await inner()

    await nested(plugins)


def _end(plugins: Sequence[Plugin], ctx: JobContext, error: BaseException | None) -> None:
    for plugin in plugins:
        try:
            error = plugin.work_end(ctx, error)
        except BaseException as raised:
            error = raised
    if error is not None:
        raise error


def _nested(plugins: Sequence[Plugin], ctx: JobContext, inner: Callable[[], Any]) -> None:
    if not plugins:
        inner()
        return
    first, rest = plugins[0], plugins[1:]
    first.work(ctx, lambda: _nested(rest, ctx, inner))
