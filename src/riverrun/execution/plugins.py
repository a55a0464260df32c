"""Plugins: what an application adds around inserts and attempts."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from riverrun.errors import InvalidOption
from riverrun.execution.context import JobContext
from riverrun.verbs.draft import JobDraft

R = TypeVar("R")


InProcess: TypeAlias = Callable[[Callable[[], object]], object]


class Plugin:
    """Takes part in inserts and attempts. Override the methods that you need.

    A client's plugins are outermost, in their order. Within them are those of the args' class (its
    attribute `job_plugins`), and then a worker's own. Each `work` wraps all that follows. Within
    all of them, each `work_begin` is called, then the worker, and then each `work_end`.

    A plugin is called from many threads at once.

    Source of the order: River 0.51, internal/jobexecutor.
    """

    def insert_many(self, drafts: Sequence[JobDraft], call_next: Callable[[], R]) -> R:
        """Wrap an insert in the caller's transaction: every `insert_begin`, and the statement.

        Args:
            drafts: The jobs to insert, before `insert_begin` has changed them.
            call_next: Inserts them. Return its result.
        """
        del drafts
        return call_next()

    def insert_begin(self, draft: JobDraft) -> JobDraft:
        """Return what to insert in place of `draft`. An error refuses the whole batch."""
        return draft

    def insert_from(self, draft: JobDraft) -> JobDraft:
        """Return a replacement for `draft`, which all jobs of an `insert_from` have in common.

        The rows of an `insert_from` never reach Python, so `insert_many` and `insert_begin` cannot
        be called for them. A plugin that overrides one of those, and not this method, refuses
        `insert_from`.

        Args:
            draft: The options that all jobs have in common. Its args are empty, and stay so.

        Raises:
            InvalidOption: By default, if the plugin overrides `insert_many` or `insert_begin`.
        """
        own = type(self)
        for name in ("insert_many", "insert_begin"):
            if getattr(own, name) is not getattr(Plugin, name):
                expected = (
                    f"a plugin with insert_from(), as {name}() cannot see the rows of a select"
                )
                raise InvalidOption("plugins", own.__name__, expected)
        return draft

    def periodic_jobs_start(self) -> None:
        """React to this client's becoming the leader, before it inserts its periodic jobs."""

    def work(self, ctx: JobContext, call_next: Callable[[], object]) -> None:
        """Wrap an attempt. An error that this raises becomes the attempt's.

        Args:
            ctx: The attempt's context.
            call_next: Calls the rest of the attempt; raises what the worker raises.
        """
        del ctx
        call_next()

    async def work_async(self, ctx: JobContext, call_next: Callable[[], Awaitable[object]]) -> None:
        """Wrap an attempt of an `async def` worker, in place of `work`.

        Args:
            ctx: The attempt's context.
            call_next: Calls the rest of the attempt. Await it; it raises what the worker raises.
        """
        del ctx
        await call_next()

    def in_process(self) -> InProcess | None:
        """Return a wrapper for workers in their process; `work` wraps only in the client's process.

        The method is called when a client with `executor="process"` workers starts, and for each of
        their attempts. The wrapper is pickled. In the process it is called with a function that
        calls the rest of the attempt. Default: None, for no wrapper.

        Raises:
            ClientNotReady: If workers cannot run there. The client does not start then.
        """
        return None

    def live_logs(self) -> Mapping[int, tuple[int, str]]:
        """Return what the attempts that run now have logged, for the client's heartbeat.

        Called every 5 s on the client's plugins alone.

        Returns:
            By job id, the number of the attempt and its last lines. Default: nothing.
        """
        return {}

    def work_begin(self, ctx: JobContext) -> None:
        """Prepare an attempt, before `ctx`'s worker begins. An error ends the attempt."""

    def work_end(self, ctx: JobContext, error: BaseException | None) -> BaseException | None:
        """Return the final error of `ctx`: `error`, another one, or None for success."""
        del ctx
        return error


def check_plugins(plugins: object) -> tuple[Plugin, ...]:
    """Return `plugins` as a tuple, if each is a Plugin.

    Raises:
        InvalidOption: If one is not a Plugin.
    """
    if not isinstance(plugins, Sequence) or not all(isinstance(p, Plugin) for p in plugins):
        raise InvalidOption("plugins", plugins, "a sequence of objects of Plugin's subclasses")
    return tuple(plugins)


def of_kind(args_type: type) -> tuple[Plugin, ...]:
    """Return the plugins of a class of args."""
    own: tuple[Plugin, ...] = getattr(args_type, "job_plugins", ())
    return own


def in_processes(plugins: Sequence[Plugin]) -> list[InProcess]:
    """Return the plugins' wrappers for a worker in its process, the outermost first."""
    return [around for plugin in plugins if (around := plugin.in_process()) is not None]


def begin_inserts(plugins: Sequence[Plugin], drafts: Sequence[JobDraft]) -> list[JobDraft]:
    """Return `drafts` as the plugins' `insert_begin` changes them."""
    changed_drafts = []
    for draft in drafts:
        changed = draft
        for plugin in (*plugins, *of_kind(type(draft.args))):
            changed = plugin.insert_begin(changed)
        changed_drafts.append(changed)
    return changed_drafts


def around_insert(
    plugins: Sequence[Plugin], drafts: Sequence[JobDraft], insert: Callable[[], R]
) -> R:
    """Call `insert` within the plugins."""
    if not plugins:
        return insert()
    first, rest = plugins[0], plugins[1:]
    return first.insert_many(drafts, lambda: around_insert(rest, drafts, insert))


def around_work(plugins: Sequence[Plugin], ctx: JobContext, work: Callable[[], object]) -> None:
    """Call `work` within the plugins, between each `work_begin` and each `work_end`."""

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
    """As `around_work`, for an `async def` worker."""

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
