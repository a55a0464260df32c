"""Workers: the registry of which function works which kind of job, and how."""

import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import attrs

from riverrun.clock import Duration
from riverrun.errors import (
    DuplicateKind,
    InvalidArgs,
    InvalidOption,
    InvalidWorker,
    UndecodableArgs,
    UnknownKind,
)
from riverrun.execution.plugins import Plugin, check_plugins
from riverrun.execution.session_parameter import SessionParameter
from riverrun.execution.signature import By, Signature, name_of, read_signature
from riverrun.jobs.args import AnyArgs, RawArgs, decode, encode, kind_of
from riverrun.jobs.checks import check_callable, check_duration, check_flag, check_kind
from riverrun.jobs.json_types import is_struct
from riverrun.jobs.references import reference_fields
from riverrun.outcome import IfGone
from riverrun.policies.backoff import Backoff

A = TypeVar("A", bound=AnyArgs)


P = ParamSpec("P")


R = TypeVar("R")


class Registered(Protocol):
    """The decorator that `register` with options returns, as type checkers see it."""

    def __call__(
        self, function: Callable[Concatenate[A, P], R], /
    ) -> Callable[Concatenate[A, P], R]:
        """Register a function."""


class Executor(StrEnum):
    """Where a worker is called.

    `thread` is the default. `coroutine` is for `async def` workers, which share one event loop in a
    client. `process` is for work that keeps the processor busy: its function, args and errors are
    pickled, and its context cannot insert or commit.
    """

    thread = "thread"
    coroutine = "coroutine"
    process = "process"


@attrs.frozen(kw_only=True)
class Worker:
    """A function and the options that it was registered with.

    Attributes:
        kind: The kind of job that it works.
        args_type: The class of the args that it takes.
        function: Called with the args, and with the context if it takes one.
        context: How it takes the context: by position, by this name, or not at all.
        session: Its parameter that takes a session whose commit completes the job, if it has one.
        timeout_s: Seconds that an attempt may take; None for the client's, 0 for no limit.
        backoff: When a failed job may be claimed again; None for the client's.
        plugins: The worker's own plugins, which are innermost.
        executor: Where it is called.
        interrupt: Whether an Interruption is thrown into its thread when it is cancelled.
        if_gone: What becomes of a job for which it raises ObjectGone.
        serialize_by: The field of the args whose object only one attempt works on at a time.
    """

    kind: str
    args_type: type[Any]
    function: Callable[..., object]
    context: By | str = By.nothing
    session: SessionParameter | None = None
    timeout_s: float | None = None
    backoff: Backoff | None = None
    plugins: tuple[Plugin, ...] = ()
    executor: Executor = Executor.thread
    interrupt: bool = False
    if_gone: IfGone = IfGone.cancel
    serialize_by: str | None = None

    @property
    def takes_context(self) -> bool:
        """Whether the function takes the context."""
        return self.context is not By.nothing

    def check_args(self, args: object) -> None:
        """Refuse args for this worker that are of another class than it takes.

        A class that was made again, such as by a reload of its module, counts as the same.

        Raises:
            InvalidArgs: If they are of another class.
        """
        if isinstance(args, type):
            return  # a class instead of an instance; `encode` refuses it by name
        own, taken = type(args), typing.get_origin(self.args_type) or self.args_type
        kind = kind_of(args)
        if RawArgs in (own, taken) or own is taken or _name(own) == _name(taken):
            return
        if _without_parameters(own) is _without_parameters(taken):
            return
        if kind != self.kind:  # an alias: the kind's class may be the one before a rename
            try:
                decode(kind, encode(args), self.args_type)
            except UndecodableArgs as error:
                raise InvalidArgs(kind, str(error)) from None
            return
        problem = f"they are a {_name(own)}, and its worker takes a {_name(taken)}"
        raise InvalidArgs(kind, f"{problem}; use one class for each kind")


class Workers:
    """A registry of workers, which the application makes and passes to a Client."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Worker] = {}
        self._generic_types: dict[str, Any] = {}

    # The function takes an args class first, by its annotation, and then any other parameters.
    @overload
    def register(
        self, function: Callable[Concatenate[A, P], R], /
    ) -> Callable[Concatenate[A, P], R]: ...

    @overload
    def register(
        self,
        function: None = None,
        /,
        *,
        kind: str | None = None,
        timeout: Duration | None = None,
        backoff: Backoff | None = None,
        plugins: Sequence[Plugin] = (),
        executor: Executor | str | None = None,
        interrupt: bool = False,
        if_gone: IfGone | str = IfGone.cancel,
        serialize_by: str | None = None,
    ) -> "Registered": ...

    def register(
        self,
        function: Callable[..., object] | None = None,
        /,
        *,
        kind: str | None = None,
        timeout: Duration | None = None,
        backoff: Backoff | None = None,
        plugins: Sequence[Plugin] = (),
        executor: Executor | str | None = None,
        interrupt: bool = False,
        if_gone: IfGone | str = IfGone.cancel,
        serialize_by: str | None = None,
    ) -> Any:
        """Register a function as a worker. It is a decorator, with or without options.

        The function takes its args first; their annotation decides which kind it works. It may take
        a context, in a parameter annotated `JobContext` at any place, or as its second parameter. A
        parameter annotated `Session`, or `AsyncSession` in an `async def`, gets a session whose
        commit also completes the job. The session is committed when the worker returns and rolled
        back when it raises.

        Args:
            function: The worker.
            kind: The kind, for a function that takes `RawArgs`. Default: that of its args' class.
            timeout: Seconds or a timedelta that an attempt may take; 0 for no limit. Default: the
                client's `job_timeout`.
            backoff: When a failed job may be claimed again. Default: the client's.
            plugins: Plugins that wrap this worker, within the client's plugins. Default: none.
            executor: Where it is called. Default: the event loop for an `async def`, even if a
                plain decorator wraps it; else a thread. A decorator that itself runs an `async def`
                or a generator to its end needs `executor="thread"`.
            interrupt: Whether an exception that is no `Exception` is thrown into the worker's
                thread, between two steps of its Python code, if the attempt is cancelled and the
                worker has not stopped by itself. Default: False.
            if_gone: What becomes of a job whose worker raises ObjectGone, as `ref.get_one(session)`
                does for a deleted object: an IfGone or its name. Default: cancel.
            serialize_by: A field of the args that is a Ref. Its object is locked FOR NO KEY UPDATE
                in the worker's session before the worker is called. If another transaction has
                locked it, the job comes back soon and the attempt does not count. So jobs of one
                object are worked one at a time. If the object is gone, `if_gone` decides, and
                the worker is not called. Default: None, jobs are worked side by side.

        Raises:
            DuplicateKind: If the kind, or an alias of it, has a worker already.
            InvalidWorker: If no kind follows from the function's signature, or if a call would run
                none of its code, as with a generator.
        """
        timeout_s = None if timeout is None else check_duration("timeout", timeout, 0.0)
        if backoff is not None:
            check_callable("backoff", backoff, "a policy such as Exponential(base=2)")

        check_flag("interrupt", interrupt)
        own_plugins = check_plugins(plugins)
        policy = _if_gone(if_gone)

        def add(given: Callable[..., object]) -> Callable[..., object]:
            name = name_of(given)
            if not callable(given):
                raise InvalidWorker(name, "it is not callable")
            runs_it = executor is not None and executor != Executor.coroutine
            signature = read_signature(given, assume_plain=runs_it)
            worker = Worker(
                kind=_kind(name, signature.args_type, kind),
                args_type=signature.args_type,
                function=given,
                context=signature.context,
                session=signature.session,
                timeout_s=timeout_s,
                backoff=backoff,
                plugins=own_plugins,
                executor=_executor(name, signature, executor),
                interrupt=interrupt,
                if_gone=policy,
                serialize_by=_serialize_by(name, signature, serialize_by),
            )
            kinds = (worker.kind, *getattr(worker.args_type, "kind_aliases", ()))
            for taken in kinds:
                if known := self._by_kind.get(taken):
                    raise DuplicateKind(taken, name_of(known.function), name)
            self._by_kind.update(dict.fromkeys(kinds, worker))
            if typing.get_origin(worker.args_type) is not None:
                self._generic_types[worker.kind] = worker.args_type
            return given

        return add if function is None else add(function)

    def get(self, kind: str) -> Worker:
        """Return the worker of `kind`.

        Raises:
            UnknownKind: If there is none.
        """
        try:
            return self._by_kind[kind]
        except KeyError:
            raise UnknownKind(kind, self._by_kind) from None

    def find(self, kind: str) -> Worker | None:
        """Return the worker of `kind`; None if there is none."""
        return self._by_kind.get(kind)

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over the workers. A worker of several kinds appears several times."""
        return iter(list(self._by_kind.values()))

    @property
    def generic_types(self) -> Mapping[str, Any]:
        """The args types of workers that take a generic class with its parameters, by kind."""
        return self._generic_types

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that have a worker."""
        return frozenset(self._by_kind)


def _without_parameters(cls: type) -> object:
    return getattr(cls, "__pydantic_generic_metadata__", {}).get("origin") or cls


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _executor(name: str, signature: Signature, chosen: Executor | str | None) -> Executor:
    try:
        executor = None if chosen is None else Executor(chosen)
    except (ValueError, TypeError):  # a TypeError if it cannot be hashed
        raise InvalidOption("executor", chosen, f"one of {', '.join(Executor)}") from None
    if signature.is_async:
        if executor not in {None, Executor.coroutine}:
            problem = f"executor={executor.value!r} cannot call an async def"
            raise InvalidWorker(name, f"{problem}; leave executor out, or pass 'coroutine'")
        return Executor.coroutine
    if executor is Executor.coroutine:
        raise InvalidWorker(name, "executor='coroutine' needs an async def")
    if executor is Executor.process and signature.session is not None:
        problem = (
            f"{signature.session.name!r} takes a session of the client's, which another process "
            "cannot have; remove executor='process', or open a session of its own in the worker"
        )
        raise InvalidWorker(name, problem)
    if executor is Executor.process and not signature.has_name:
        problem = "another process imports it by its name: define it at the top of a module"
        raise InvalidWorker(name, problem)
    return executor or Executor.thread


def _serialize_by(name: str, signature: Signature, field: str | None) -> str | None:
    if field is None:
        return None
    if signature.session is None:
        problem = "serialize_by holds a lock in the worker's own transaction; add a parameter"
        raise InvalidWorker(name, f"{problem} annotated with Session, or AsyncSession")
    fields = [] if signature.args_type is RawArgs else reference_fields(signature.args_type)
    if field not in fields:
        listed = ", ".join(map(repr, fields)) or "none"
        problem = f"serialize_by={field!r} is not a field of its args that is a Ref"
        raise InvalidWorker(name, f"{problem}; those are: {listed}")
    return field


def _if_gone(chosen: IfGone | str) -> IfGone:
    try:
        return IfGone(chosen)
    except ValueError:
        raise InvalidOption("if_gone", chosen, f"one of {', '.join(IfGone)}") from None


def _kind(name: str, args_type: type[Any], kind: str | None) -> str:
    if args_type is RawArgs:
        if kind is None:
            raise InvalidWorker(name, "it takes RawArgs, so pass kind= to register")
        return check_kind(kind)
    try:
        own = kind_of(args_type)
    except InvalidOption as error:
        raise InvalidWorker(name, str(error)) from error
    if not is_struct(typing.get_origin(args_type) or args_type):
        problem = (
            f"its args class {args_type.__name__} must be made with @attrs.frozen or @dataclass"
        )
        raise InvalidWorker(name, f"{problem}, or be a pydantic model")
    if kind is not None and kind != own:
        raise InvalidWorker(name, f"kind={kind!r} is not the kind of its args, {own!r}")
    return own
