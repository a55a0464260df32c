"""All exceptions of riverrun, with the three that a worker raises to decide what happens next.

One module, although long, so that a reader finds every exception and its text in one place.
"""

import shlex
from collections.abc import Iterable, Sequence

from riverrun.clock import Duration, seconds


class RiverrunError(Exception):
    """The base class of all of riverrun's exceptions."""


class InvalidOption(RiverrunError, ValueError):
    """An option has a value that River's tables or clients would not accept."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(name, value, expected)

    def __str__(self) -> str:
        name, value, expected = self.args
        return f"{name} is {_shown(value)}; expected {expected}"


class InvalidArgs(RiverrunError, ValueError):
    """A job's args cannot be stored as a JSON object."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(kind, problem)

    def __str__(self) -> str:
        kind, problem = self.args
        return f"args of kind {kind!r} cannot be stored: {problem}"


class UndecodableArgs(RiverrunError, ValueError):
    """A stored job's args do not fit the type that its worker takes.

    Args:
        kind: The job's kind.
        type_name: The name of the type.
        problem: What does not fit, and where.
        fields: The names of the type's fields that do not fit, as far as they are known. They may
            be logged, while `problem` may hold values.
    """

    def __init__(
        self, kind: str, type_name: str, problem: str, fields: tuple[str, ...] = ()
    ) -> None:
        super().__init__(kind, type_name, problem, fields)

    @property
    def log_place(self) -> str:
        """Where the error is, for the log."""
        names = ", ".join(map(repr, self.args[3]))
        return names and f"field{'s' if len(self.args[3]) > 1 else ''} {names}"

    def __str__(self) -> str:
        kind, type_name, problem, _ = self.args
        return f"args of kind {kind!r} do not fit {type_name}: {problem}"


class InvalidRef(RiverrunError, ValueError):
    """Args cannot hold a reference to a mapped object. The text says why."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)


class RuleBypassed(RiverrunError, UserWarning):
    """A bulk statement changes objects that a rule is about, and no flush sees it.

    It is a warning, once for each rule, or an error if the rule is strict.

    Args:
        rule: The rule.
        on: What the statement does: insert, update or delete.
    """

    def __init__(self, rule: str, on: str) -> None:
        super().__init__(rule, on)

    def __str__(self) -> str:
        rule, on = self.args
        return (
            f"a bulk {on} bypasses {rule}: no job is made of the rows that it changes. Change the "
            "objects instead, or insert the jobs with the statement"
        )


class OwnerBypassed(RiverrunError, UserWarning):
    """A bulk statement deletes objects that may own jobs, and no flush sees it.

    It is a warning, once for each class.

    Args:
        class_name: The name of the objects' class.
    """

    def __init__(self, class_name: str) -> None:
        super().__init__(class_name)

    def __str__(self) -> str:
        return (
            f"a bulk delete bypasses InsertOpts(owner=...) of class {self.args[0]}: the waiting "
            "jobs of the deleted objects are cancelled only when they are claimed. Delete the "
            "objects by session.delete(), or cancel the jobs by client.cancel_where()"
        )


class _ObjectError(RiverrunError):
    """An error about the object of a reference: the name of its class, and its key as JSON."""

    text = ""

    def __init__(self, class_name: str, key: object) -> None:
        super().__init__(class_name, key)

    def __str__(self) -> str:
        return self.text.format(*self.args)


class ObjectGone(_ObjectError, LookupError):
    """The object of a reference is no longer in the database.

    If a worker raises this, the job is cancelled, unless `register(if_gone=...)` sets another
    outcome.

    Args:
        class_name: The name of the object's class.
        key: The object's primary key, as JSON.
    """

    text = "there is no {} with the primary key {!r} any more"


class ObjectBusy(RiverrunError, RuntimeError):
    """Another job or transaction has locked the object on which a worker works alone.

    The worker was not called and the attempt is not counted; the job is tried again soon.

    Args:
        class_name: The name of the object's class.
        mark: The mark of the object in the metadata of the jobs that wait for it.
        waiting: How many jobs wait for it; of very many, only some are counted.
    """

    def __init__(self, class_name: str, mark: str, waiting: int = 0) -> None:
        super().__init__(class_name, mark)
        self.waiting = waiting

    def __str__(self) -> str:
        return f"the {self.args[0]} {self.args[1]} is locked by another transaction"


class ObjectLocked(_ObjectError, RuntimeError):
    """Another transaction has locked the object of a reference.

    Args:
        class_name: The name of the object's class.
        key: The object's primary key, as JSON.
    """

    text = "the {} with the primary key {!r} is locked by another transaction"


class UnknownKind(RiverrunError, LookupError):
    """No worker is registered for a kind."""

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        super().__init__(kind, tuple(sorted(known)))

    def __str__(self) -> str:
        kind, known = self.args
        listed = ", ".join(map(repr, known)) or "none"
        return f"no worker for kind {kind!r}; known: {listed}. Register it with @workers.register"


class DuplicateKind(RiverrunError, ValueError):
    """Two workers were registered for one kind."""

    def __init__(self, kind: str, first: str, second: str) -> None:
        super().__init__(kind, first, second)

    def __str__(self) -> str:
        kind, first, second = self.args
        return f"kind {kind!r} is worked by {first} already; {second} needs a kind of its own"


class InvalidWorker(RiverrunError, TypeError):
    """A function cannot be registered as a worker."""

    def __init__(self, worker: str, problem: str) -> None:
        super().__init__(worker, problem)

    def __str__(self) -> str:
        worker, problem = self.args
        return f"{worker} cannot be a worker: {problem}"


class WorkerDidNotRun(RiverrunError, TypeError):
    """A worker returned a coroutine or a generator, so its code has not run."""

    def __init__(self, worker: str, returned: str) -> None:
        super().__init__(worker, returned)

    def __str__(self) -> str:
        worker, returned = self.args
        return (
            f"{worker} returned a {returned}, so its work was not done; a worker returns when its "
            "work is done, or is an async def"
        )


class NotATransaction(RiverrunError, TypeError):
    """The first argument is not a Session, a Connection or an Engine."""

    def __init__(
        self,
        given: str,
        advice: str,
        expected: str = "a Session, scoped_session, Connection or Engine",
    ) -> None:
        super().__init__(given, advice, expected)

    def __str__(self) -> str:
        given, advice, expected = self.args
        return f"expected {expected} first, got {given}. {advice}"


class TransactionClosed(RiverrunError, RuntimeError):
    """The Session or Connection that was passed is closed."""

    def __init__(self, given: str) -> None:
        super().__init__(given)

    def __str__(self) -> str:
        return f"the {self.args[0]} is closed; pass one that is open"


class WrongDatabase(RiverrunError, ValueError):
    """A transaction is on a different database from the client's."""

    def __init__(self, given: str, expected: str) -> None:
        super().__init__(given, expected)

    def __str__(self) -> str:
        given, expected = self.args
        return (
            f"the transaction is on {given}, but the client works {expected}; its workers would "
            "never see the job. Pass a session of the client's database, or use a client for this "
            "one"
        )


class InsertIgnored(RiverrunError, RuntimeError):
    """The database has not inserted every job of an insert, and has raised no error."""

    def __init__(self, given: int, inserted: int) -> None:
        super().__init__(given, inserted)

    def __str__(self) -> str:
        given, inserted = self.args
        return (
            f"the database has inserted {inserted} of {given} {'job' if given == 1 else 'jobs'}, "
            "without an error: a trigger or a rule of river_job ignores the others, or a listener "
            "of the engine has read the result. Roll the transaction back"
        )


class UnsupportedDatabase(RiverrunError, NotImplementedError):
    """The database or its driver is not one that riverrun can work with."""

    def __init__(self, given: str, expected: str) -> None:
        super().__init__(given, expected)

    def __str__(self) -> str:
        given, expected = self.args
        return f"cannot work with {given}; expected {expected}"


class SchemaMissing(RiverrunError, LookupError):
    """A table of River or of riverrun does not exist."""

    def __init__(self, missing: str, database: str, schema: str | None = None) -> None:
        super().__init__(missing, database, schema)

    def __str__(self) -> str:
        missing, database, schema = self.args
        if schema is not None:
            return (
                f"{missing} in database {database!r}. Run `riverrun migrate up --schema "
                f"{shlex.quote(schema)}`, or migrate with Alembic; if the tables are in another "
                "schema, pass that one as schema="
            )
        return (
            f"{missing} in database {database!r}. Run `riverrun migrate up`, or migrate with "
            "Alembic; if the tables are in a schema of their own, pass schema= to the Client"
        )


class JobNotFound(RiverrunError, LookupError):
    """No job has the requested id."""

    def __init__(self, job_id: int) -> None:
        super().__init__(job_id)

    def __str__(self) -> str:
        return f"no job has the id {self.args[0]}; it may have been deleted or cleaned"


class JobNotWaiting(RiverrunError, RuntimeError):
    """A job cannot be claimed by its id, because it is not waiting or is locked."""

    def __init__(self, job_id: int, state: str) -> None:
        super().__init__(job_id, state)

    def __str__(self) -> str:
        job_id, state = self.args
        if state in {"available", "pending", "retryable", "scheduled"}:
            return f"job {job_id} is {state}, and another transaction locks it; end that one first"
        return f"job {job_id} is {state}; only a waiting job can be claimed"


class InvalidStep(RiverrunError, ValueError):
    """A resumable step cannot be run in the way that its worker requested."""

    def __init__(self, name: object, problem: str) -> None:
        super().__init__(name, problem)

    def __str__(self) -> str:
        name, problem = self.args
        return problem if name is None else f"resumable step {name!r}: {problem}"


class QueueNotFound(RiverrunError, LookupError):
    """No queue has the requested name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)

    def __str__(self) -> str:
        return (
            f"no queue is named {self.args[0]!r}; a queue is known once a client works it,"
            " and forgotten when no client has worked it for a day"
        )


class PeriodicJobNotFound(RiverrunError, LookupError):
    """No periodic job has the requested id."""

    def __init__(self, periodic_id: str) -> None:
        super().__init__(periodic_id)

    def __str__(self) -> str:
        return (
            f"no periodic job has the id {self.args[0]!r}; one with an id is known once a leader"
            " has planned its first run"
        )


class UniqueKeyTaken(RiverrunError, RuntimeError):
    """A final job cannot be made available again: another job holds its unique key now."""

    def __init__(self, job_id: int) -> None:
        super().__init__(job_id)

    def __str__(self) -> str:
        return (
            f"job {self.args[0]} cannot run again while another job has its unique key; wait for"
            " that one to end, or delete it, and roll this transaction back"
        )


class JobRunning(RiverrunError, RuntimeError):
    """A job cannot be deleted while it runs."""

    def __init__(self, job_id: int) -> None:
        super().__init__(job_id)

    def __str__(self) -> str:
        return (
            f"job {self.args[0]} is running, so cannot be deleted; cancel it and wait for its end"
        )


class AttemptLost(RiverrunError, RuntimeError):
    """An attempt's outcome cannot be written: the job is no longer running at that attempt.

    The job was completed already, rescued and claimed again, or deleted. Roll back the transaction
    in which this is raised, or its effects may happen twice.
    """

    def __init__(self, job_id: int, attempt: int) -> None:
        super().__init__(job_id, attempt)

    def __str__(self) -> str:
        job_id, attempt = self.args
        return f"job {job_id} is no longer running at attempt {attempt}; roll this transaction back"


class ClientNotReady(RiverrunError, RuntimeError):
    """The client's state or settings do not allow the call."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)


class StartTimeout(RiverrunError, TimeoutError):
    """A client could not start, because the database did not answer in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)

    def __str__(self) -> str:
        return (
            f"the client could not start: the database did not answer within {self.args[0]:g} s. "
            "A lock on one of River's tables, such as that of a migration, may be the cause; try "
            "again once it is released"
        )


class StopTimeout(RiverrunError, TimeoutError):
    """Jobs were still running when the client stopped waiting for them."""

    def __init__(self, running: Sequence[tuple[int, str]]) -> None:
        super().__init__(tuple(running))

    def __str__(self) -> str:
        jobs = ", ".join(f"{job_id} ({kind})" for job_id, kind in self.args[0])
        return (
            f"still running after the stop: {jobs}. Their workers ignore ctx.cancelled; "
            "once this process is gone the jobs are rescued"
        )


class AttemptInterrupted(RiverrunError):
    """This attempt must end now. `ctx.raise_if_cancelled()` raises one of the subclasses."""


class JobCancelledRemotely(AttemptInterrupted):
    """The job was cancelled while it was running."""

    def __str__(self) -> str:
        return "job cancelled remotely"


class JobTimedOut(AttemptInterrupted, TimeoutError):
    """The attempt has reached its timeout."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)

    def __str__(self) -> str:
        return f"job timed out after {self.args[0]:g} s"


class ClientStopping(AttemptInterrupted):
    """The client is stopping, and its soft-stop timeout has passed."""

    def __str__(self) -> str:
        return "the client is stopping"


class ClientGivenUp(ClientStopping):
    """The client's heartbeat failed for too long; other clients may have rescued its jobs."""

    def __str__(self) -> str:
        return "the client could not reach the database in time, and its jobs may be rescued"


class EventLoopLost(AttemptInterrupted):
    """The event loop of the attempt cannot continue, and another one has replaced it."""

    def __str__(self) -> str:
        return "the event loop of this attempt was lost"


class NoConnection(RiverrunError, TimeoutError):
    """`ctx.transaction()` got no connection to the database before the attempt's timeout.

    The attempt is not counted, and the job is tried again soon.
    """

    def __init__(self, waited_s: float, problem: str) -> None:
        super().__init__(waited_s, problem)

    def __str__(self) -> str:
        waited_s, problem = self.args
        return f"no connection for ctx.transaction() in {waited_s:.1f} s: {problem}"


class WorkerProcessDied(RiverrunError, RuntimeError):
    """The process that ran a worker died before the worker finished."""

    def __init__(self, exitcode: int | None) -> None:
        super().__init__(exitcode)

    def __str__(self) -> str:
        code = self.args[0]
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"exited {code}"
        return f"the worker's process {how}; the job is tried again, as after any error"


class WorkerFailed(RiverrunError, RuntimeError):
    """A worker in another process raised an error that cannot be pickled; this holds its text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)


class JobRescued(RiverrunError):
    """The error recorded with a job whose client, the last in `attempted_by`, was gone."""

    def __str__(self) -> str:
        return "Stuck job rescued by JobRescuer"


class JobError(RiverrunError):
    """Raise in a worker to fail this attempt in an expected way; the job is tried again.

    Unlike other exceptions it is recorded as its text alone, without its type or a traceback, as
    River records an error.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


class JobCancel(RiverrunError):
    """Raise in a worker to cancel its job: it never runs again, whatever attempts are left.

    Args:
        reason: A text that is recorded with the job.
        commit: Whether to commit, together with this outcome, what the worker wrote in its session
            parameter or in the open `ctx.transaction()`. Default: False; it is rolled back.
    """

    def __init__(self, reason: str = "", *, commit: bool = False) -> None:
        super().__init__(reason)
        self.commit = commit

    def __str__(self) -> str:
        # River's text, so that one search finds the jobs of both (River 0.51, rivertype).
        return f"JobCancelError: {self.args[0]}"


class JobSuperseded(JobCancel):
    """The job's owner is gone, or its `unless_changed` object has changed: it is cancelled."""


class JobSnooze(RiverrunError):
    """Raise in a worker to run its job again after `delay`; this attempt is not counted.

    Args:
        delay: Seconds or a timedelta, not negative.
        commit: The same as for JobCancel.
    """

    def __init__(self, delay: Duration, *, commit: bool = False) -> None:
        given: object = delay
        try:
            valid = not isinstance(given, str) and seconds(delay) >= 0  # False for NaN, too
        except (TypeError, ValueError, OverflowError):
            valid = False
        if not valid:
            raise InvalidOption("delay", delay, "seconds or a timedelta, 0 or more")
        super().__init__(delay)
        self.commit = commit

    @property
    def delay_s(self) -> float:
        """The delay in seconds."""
        return seconds(self.args[0])

    def __str__(self) -> str:
        return f"snooze for {self.delay_s:g} s"


def _shown(value: object, limit: int = 120) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} that nests too deeply to be shown"
    except Exception:  # of the application's __repr__, or an int of thousands of digits
        text = f"a value of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
