"""Added jobs: jobs that a session's flush inserts, with the objects that they refer to.

Until its flush, an added job is kept by an object in the session, an `AddedJobs`, which is mapped
to no table. So the unit of work treats it as any new object: it is flushed with the others, is gone
with a rollback, even of a savepoint, and stays when a savepoint is released. Once the objects of a
flush have their keys, the jobs are inserted in the same transaction, all at once.
"""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, Protocol, cast
from weakref import WeakSet

from sqlalchemy import Integer, MetaData, event, inspect, literal, select
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import InstanceState, Session, registry, scoped_session

from riverrun.db.commit_hooks import after_commit
from riverrun.db.transactions import bind_arguments, session_or_connection, without_engine
from riverrun.errors import NotATransaction
from riverrun.jobs.options import InsertOpts
from riverrun.jobs.row import JobRow
from riverrun.orm.object_keys import identity_of, state_of
from riverrun.verbs.draft import JobDraft
from riverrun.verbs.insert import InsertResult

_PENDING = "_riverrun_pending"
"""The attribute of a session with the AddedJobs that its next flush will include."""

_FLUSHED = "_riverrun_flushed"
"""The attribute of a session with the AddedJobs of the flush under way, as keys in order."""

_INSERTED = "_riverrun_inserted"
"""The attribute of a session with the AddedJobs whose jobs its transaction has inserted."""

_COALESCED = "_riverrun_coalesced"
"""The attribute of a session with the jobs of its transaction that equal ones coalesce with."""

_numbers = count(1)


class Writer(Protocol):
    """Inserts added jobs: a client's inserter."""

    def drafts_of(self, jobs: "Sequence[AddedJob]") -> Sequence[JobDraft]:
        """Return the drafts of jobs whose objects have their keys."""

    def insert_drafted(self, session: Session, drafts: Sequence[JobDraft]) -> list[InsertResult]:
        """Insert jobs, and return a result for each."""


class AddedJobs:
    """Jobs that `client.add` has added, as an object in a session's `new`, mapped to no table.

    Attributes:
        id: Identifies it in the session.
        jobs: The jobs.
        committed: Whether the jobs are committed, as far as is known.
    """

    __tablename__ = "riverrun_added"  # for code that reads this attribute of every new object

    # session.merge() makes a copy without calling `__init__`. It has no jobs: they are the
    # original's.
    jobs: "list[AddedJob]" = cast("list[AddedJob]", ())
    committed = False

    def __init__(self) -> None:
        self.id = next(_numbers)
        self.jobs = []

    @property
    def is_there(self) -> bool:
        """Whether the jobs are inserted. A rollback removes the key, as of any object."""
        return self.committed or _state(self).persistent

    def commit(self) -> None:
        """Record that the jobs are committed."""
        self.committed = True

    def __repr__(self) -> str:
        return f"<riverrun's AddedJobs: {', '.join(map(repr, self.jobs))}>"


_nothing: Any = select(literal(1, Integer).label("id")).subquery(AddedJobs.__tablename__)
# For an application's get_bind() and listeners that read these of the table of every object.
_nothing.fullname, _nothing.info, _nothing.metadata = AddedJobs.__tablename__, {}, MetaData()
registry().map_imperatively(AddedJobs, _nothing, primary_key=[_nothing.c.id])
_MAPPER: Any = inspect(AddedJobs)


class AddedJob:
    """A job that the next flush of its session inserts.

    Attributes:
        args: The job's args.
        opts: How the job will be inserted.
    """

    __slots__ = ("_keys", "_marker", "_result", "_writer", "args", "draft", "opts")

    def __init__(
        self,
        writer: Writer,
        args: object,
        opts: InsertOpts | None,
        draft: JobDraft | None,
    ) -> None:
        self.args = args
        self.opts = opts
        self.draft = draft
        self._keys = () if draft is None else _keys(draft.refers_to)
        self._writer = writer
        self._marker: AddedJobs | None = None
        self._result: InsertResult | None = None

    @property
    def result(self) -> InsertResult | None:
        """The result of the insert; None before the flush, and after a rollback."""
        marker = self._marker
        return self._result if marker is not None and marker.is_there else None

    @property
    def job(self) -> JobRow | None:
        """The job as inserted; None before the flush, and after a rollback."""
        result = self.result
        return None if result is None else result.job

    @property
    def is_current(self) -> bool:
        """Whether `draft` is still valid: its objects have the same keys."""
        draft = self.draft
        return draft is not None and (not self._keys or self._keys == _keys(draft.refers_to))

    def __repr__(self) -> str:
        job = self.job
        return f"<AddedJob {self.args!r}, {'not inserted' if job is None else f'job {job.id}'}>"


def _keys(objects: Iterable[object]) -> tuple[Any, ...]:
    return tuple(identity_of(_state(obj)) for obj in objects)


def _state(obj: object) -> InstanceState[Any]:
    return cast("InstanceState[Any]", state_of(obj))


def session_of(given: object) -> Session:
    """Return the Session of `given`, which may be a registry of sessions or an AsyncSession.

    Raises:
        NotATransaction: If it is none of these.
        TransactionClosed: If the session is closed for good.
    """
    if type(given) is Session:
        return cast("Session", session_or_connection(given))
    if hasattr(given, "run_sync") or hasattr(given, "registry"):
        if not isinstance(given, scoped_session) and hasattr(given, "registry"):
            given = cast("Any", given)()  # an async_scoped_session
        given = getattr(given, "sync_session", given)
    session = session_or_connection(given)
    if isinstance(session, Session):
        return session
    advice = "A Connection flushes nothing: client.insert(connection, args)"
    raise NotATransaction(type(session).__name__, advice, "a Session, scoped_session or their like")


def add_to(session: Session, job: AddedJob) -> None:
    """Add a job that the next flush of `session` inserts.

    Raises:
        sqlalchemy.exc.InvalidRequestError: If the session has no autobegin and was not begun.
    """
    job._marker = marker = expect_flush(session)
    marker.jobs.append(job)


def expect_flush(session: Session) -> AddedJobs:
    """Return the AddedJobs of the next flush of `session`. Their presence makes it flush."""
    marker: AddedJobs | None = session.__dict__.get(_PENDING)
    if marker is None or not _is_pending(marker, session):
        marker = AddedJobs()
        _bind(session, marker)
        # Without SQLAlchemy's warning of an add within a mapper's event, which `_include` is for.
        Session.add(session, marker, _warn=False)
        session.__dict__[_PENDING] = marker
        if session._flushing:
            session.__dict__.setdefault(_FLUSHED, {})[marker] = None
    return marker


def _is_pending(marker: AddedJobs, session: Session) -> bool:
    state = cast("Any", marker)._sa_instance_state
    return bool(state.key is None and state.session_id == session.hash_key)


def _bind(session: Session, marker: AddedJobs) -> None:
    """Bind AddedJobs to the database of the jobs, so that `session` begins nothing elsewhere."""
    arguments = bind_arguments(session)
    if isinstance(session, ShardedSession):
        _state(marker).identity_token = arguments["shard_id"]
        return
    try:
        bind = session.get_bind(**arguments)
    except UnboundExecutionError as error:
        raise without_engine(session) from error
    try:
        if session.get_bind(mapper=_MAPPER) is bind:
            return
    except UnboundExecutionError:
        pass
    session.bind_mapper(AddedJobs, bind)


@event.listens_for(AddedJobs, "before_insert")
def _identify(_mapper: object, _connection: object, marker: AddedJobs) -> None:
    """Give a copy that session.merge() has made an id of its own."""
    if not marker.jobs:
        marker.id = next(_numbers)


@event.listens_for(AddedJobs, "after_insert")
def _collect(_mapper: object, _connection: object, marker: AddedJobs) -> None:
    """Record that a flush includes `marker`. Jobs added from now on are for the next flush."""
    attributes = cast("Session", _state(marker).session).__dict__
    attributes.pop(_PENDING, None)
    attributes.setdefault(_FLUSHED, {})[marker] = None


# On the class, not on an instance: jobs added within a host's listener must not be missed. For
# sessions without added jobs, the cost is a look at one attribute for each flush.
@event.listens_for(Session, "after_flush_postexec", insert=True)
def _insert(session: Session, _context: object) -> None:
    """Insert the jobs of a flush: its objects have their keys now."""
    markers = session.__dict__.pop(_FLUSHED, None)
    if not markers or not any(marker.jobs for marker in markers):
        return
    by_writer: dict[Writer, list[AddedJob]] = {}
    for marker in markers:
        if _is_pending(marker, session):
            _include(session, marker)
        # Some may be left from a flush that failed; those are no longer in the session.
        if _state(marker).persistent:
            for job in marker.jobs:
                by_writer.setdefault(job._writer, []).append(job)
    for writer, jobs in by_writer.items():
        _insert_jobs(session, writer, jobs)
    # Both hooks are needed. The session's commit misses objects that were expunged from it before;
    # the connection's misses the commit of a transaction around the session's own.
    session.__dict__.setdefault(_INSERTED, WeakSet()).update(markers)
    connection = session.connection(bind_arguments=bind_arguments(session))
    for marker in markers:
        after_commit(connection, AddedJobs.commit, marker)


def _include(session: Session, marker: AddedJobs) -> None:
    """Include AddedJobs that were added within the flush, such as by a mapper's event.

    Otherwise they are for the next flush, which is within a savepoint if this flush is its begin's.
    The savepoint's rollback would take the jobs back, and not the objects that they are about. With
    anything else left to flush they do wait, because they may refer to it.
    """
    if len(session.new) == 1 and not session.dirty and not session.deleted:
        session.__dict__.pop(_PENDING, None)
        session._register_persistent({_state(marker)})


@event.listens_for(Session, "after_commit")
def _commit(session: Session) -> None:
    if _INSERTED in session.__dict__ and session.get_nested_transaction() is None:
        for marker in session.__dict__.pop(_INSERTED):
            if _state(marker).persistent:
                marker.commit()
                # It has no row that a refresh of each object of the session would find.
                if marker in session:
                    session.expunge(marker)


def _insert_jobs(session: Session, writer: Writer, jobs: list[AddedJob]) -> None:
    drafts = writer.drafts_of(jobs)
    if not any(map(_coalesces, jobs)):
        results = writer.insert_drafted(session, drafts)
        for job, result in zip(jobs, results, strict=True):
            job._result = result
            job.draft = None  # it may hold references to the objects
        return
    known = _Coalesced.of(session)
    firsts = [
        known.first_of(job, (writer, draft.kind, draft.args_text, draft.metadata_text))
        if _coalesces(job)
        else job
        for job, draft in zip(jobs, drafts, strict=True)
    ]
    new = [n for n, (job, first) in enumerate(zip(jobs, firsts, strict=True)) if job is first]
    if new:
        results = writer.insert_drafted(session, [drafts[n] for n in new])
        for n, result in zip(new, results, strict=True):
            jobs[n]._result = result
    for job, first in zip(jobs, firsts, strict=True):
        job._result = first._result
        job.draft = None  # it may hold references to the objects


def _coalesces(job: AddedJob) -> bool:
    for opts in (job.opts, getattr(job.args, "insert_opts", None)):
        if opts is not None and opts.coalesce is not None:
            return bool(opts.coalesce)
    return False


class _Coalesced:
    """The jobs of one transaction that later ones with equal args and options coalesce with."""

    def __init__(self, transaction: object) -> None:
        self._transaction = transaction
        self._jobs: dict[tuple[object, ...], list[AddedJob]] = {}

    @classmethod
    def of(cls, session: Session) -> "_Coalesced":
        """Return the jobs of the transaction that `session` is in."""
        transaction = session.get_transaction()
        found: _Coalesced | None = session.__dict__.get(_COALESCED)
        if found is None or found._transaction is not transaction:
            found = session.__dict__[_COALESCED] = cls(transaction)
        return found

    def first_of(self, job: AddedJob, key: tuple[object, ...]) -> AddedJob:
        """Return the job of this transaction that equals `job`; if there is none, `job` itself.

        Args:
            job: A job about to be inserted.
            key: Identifies the job's kind, args and metadata, which name the objects of its
                options.
        """
        alike = self._jobs.setdefault(key, [])
        # Jobs that were rolled back to a savepoint do not exist any more.
        alike[:] = [other for other in alike if cast("AddedJobs", other._marker).is_there]
        for other in alike:
            if other.opts == job.opts:
                return other
        alike.append(job)
        return job
