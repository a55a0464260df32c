"""Step 1 of 5, insert: a client's checks and plugins around an insert, and its announcement.

The Inserter checks that the client's workers know the kind and that the transaction is on the
client's database. It calls the plugins around the insert, and passes the queues to the announcer.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakSet

from sqlalchemy import Pool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from riverrun.client.launcher import Launcher
from riverrun.config import ClientConfig, Notify
from riverrun.db.conflicts import again
from riverrun.db.engines import address, identity
from riverrun.db.statement_timeout import SINGLE
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import InvalidArgs, UnknownKind, WrongDatabase
from riverrun.execution.plugins import around_insert, begin_inserts, of_kind
from riverrun.jobs.args import RawArgs, kind_of
from riverrun.jobs.json_types import shown_type
from riverrun.jobs.options import InsertOpts
from riverrun.jobs.references import Postponed, Postponing, postponing
from riverrun.jobs.round_trip import exactness
from riverrun.jobs.states import JobState
from riverrun.orm.added import AddedJob, add_to
from riverrun.orm.marks import Schemas
from riverrun.orm.owners import Owners
from riverrun.runtime.announcer import Announcer
from riverrun.verbs.draft import JobDraft, draft, drafts, jobs_of
from riverrun.verbs.insert import InsertResult, insert_drafts
from riverrun.verbs.insert_fast import copy_drafts
from riverrun.verbs.insert_from import common_draft, insert_rows_from
from riverrun.verbs.notify import notify_inserted
from riverrun.verbs.owned import cancel_owned

R = TypeVar("R")

MANY = 100
"""Jobs of one insert beyond which it takes longer than a notification after it."""

_NO_TYPES: Mapping[str, Any] = {}


_NONE: frozenset[str] = frozenset()


class Inserter:
    """Inserts a client's jobs, and passes their queues to the announcer.

    Args:
        config: The client's options.
        launcher: The client's launcher; its producers look for committed jobs at once.
        own_queues: The queues that the client is to work. Their names need no warning.

    Attributes:
        plugins: The plugins that take part in every insert.
    """

    def __init__(
        self, config: ClientConfig, *, launcher: Launcher, own_queues: Container[str]
    ) -> None:
        self._engine = config.engine
        # A transaction of one statement needs no BEGIN and no COMMIT around it.
        self._autocommit = config.engine.execution_options(**{SINGLE: True})
        options = config.engine.get_execution_options()
        self._schemas: Schemas = options.get("schema_translate_map") or {}
        self._schema = config.schema
        self._workers = config.workers
        self.plugins = config.plugins
        self._max_attempts = config.max_attempts
        self._notify = config.notify
        self._skip_unknown_job_check = config.skip_unknown_job_check
        self._clock = config.clock
        self._identity = ("", "")  # of the client's database, once asked for
        self._same_database: WeakSet[Pool] = WeakSet()  # the pools of engines that lead there, too
        self._owners = Owners(self, schema=self._schema, schemas=self._schemas)
        self._announcer = Announcer(
            self._autocommit,
            schema=self._schema,
            on_committed=launcher.wake,
            own_queues=own_queues,
            clock=self._clock,
        )

    def insert(self, tx: Tx, args: object, opts: InsertOpts | None) -> InsertResult:
        """Insert one job; see `Client.insert`."""
        self._check_kinds([args])
        return self._insert(tx, [self._draft(args, opts)])[0]

    def add(self, session: Session, args: object, opts: InsertOpts | None) -> AddedJob:
        """Add a job to a session, whose next flush inserts it; see `Client.add`."""
        self._check_kinds((args,))
        job = AddedJob(self, args, opts, self._draft_now(session, args, opts))
        add_to(session, job)
        return job

    def _draft_now(
        self, session: Session, args: object, opts: InsertOpts | None
    ) -> JobDraft | None:
        """Check what can be checked before the flush; return None if the flush is to draft it."""
        waiting = Postponing(session.hash_key)
        token = postponing.set(waiting)
        try:
            # Most args are valid by their types. Those are drafted only once, by the flush.
            if not isinstance(args, RawArgs) and (opts is None or isinstance(opts, InsertOpts)):
                if opts is not None and opts.unless_changed is not None:
                    return None  # The object's version may differ by the time of the flush.
                types = self._types
                args_type: Any = (types and types.get(kind_of(args))) or type(args)
                exact = _exactness(args_type)
                if exact is not None and exact(args):
                    return None
            return self._draft(args, opts)
        except (Postponed, InvalidArgs):
            if waiting.waits:
                return None
            raise
        finally:
            postponing.reset(token)

    def drafts_of(self, jobs: Sequence[AddedJob]) -> Sequence[JobDraft]:
        """Return the drafts of added jobs, whose objects have their keys now."""
        current = [job.draft if job.draft is not None and job.is_current else None for job in jobs]
        items = [
            (job.args, job.opts) for job, known in zip(jobs, current, strict=True) if known is None
        ]
        remaining = iter(self._drafts_of(items) if items else ())
        return [next(remaining) if known is None else known for known in current]

    def insert_drafted(self, session: Session, drafts: Sequence[JobDraft]) -> list[InsertResult]:
        """Insert added jobs, and return a result for each."""
        return self._insert(session, drafts)

    def cancel_owned(self, session: Session, marks: Sequence[str]) -> bool:
        """Cancel the waiting jobs of deleted owners, if the session is on the client's database.

        Only engines that the client has, or has inserted through, are taken to lead there: on
        another search path the statement would fail, and with it the host's flush.
        """
        with joined(session, self._schema) as transaction:
            engine = transaction.engine
        own = engine.pool is self._engine.pool or engine.url == self._engine.url
        if not own and engine.pool not in self._same_database:
            return False
        now = self._clock.database_now()
        cancel_owned(session, marks, schema=self._schema, now=now)
        return True

    def insert_many(self, tx: Tx, jobs: Iterable[object]) -> list[InsertResult]:
        """Insert jobs, all or none; see `Client.insert_many`."""
        return self._insert(tx, self._drafts(jobs))

    def insert_many_fast(self, tx: Tx, jobs: Iterable[object]) -> int:
        """Insert jobs by COPY; see `Client.insert_many_fast`."""
        drafted = self._drafts(jobs)
        self._watch_owners(drafted)

        def copy_all() -> int:
            with joined(tx, self._schema) as transaction:
                self._check_database(transaction)
                now = self._clock.database_now()
                inserted, count = self._within(
                    drafted,
                    lambda jobs: copy_drafts(transaction, jobs, schema=self._schema, now=now),
                )
                self._announce(transaction, _queues_of(inserted))
            return count

        return again(tx, copy_all)

    def insert_from(self, tx: Tx, source: object, args_type: Any, opts: InsertOpts | None) -> int:
        """Insert a job for each row of a select; see `Client.insert_from`."""
        now = self._clock.database_now()
        common = common_draft(
            args_type, opts, max_attempts=self._max_attempts, now=now, schemas=self._schemas
        )
        self._check_type(common.kind, args_type)
        self._watch_owners([common])
        for plugin in (*self.plugins, *of_kind(args_type)):
            common = plugin.insert_from(common)

        def insert_all() -> int:
            with joined(tx) as transaction:
                self._check_database(transaction)
                count = insert_rows_from(
                    transaction, source, args_type, common, opts, schema=self._schema, now=now
                )
                if count and common.state is JobState.available:
                    self._announce(transaction, {common.queue})
            return count

        return again(tx, insert_all)

    def announce(self, tx: Tx, names: set[str]) -> None:
        """Announce the jobs that `tx`'s transaction has made available, once it has committed."""
        with joined(tx, self._schema) as transaction:
            self._announce(transaction, names)

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all commits are announced; return whether they are."""
        return self._announcer.flush(timeout)

    def stop(self, timeout: float) -> bool:
        """Announce all commits and stop the announcer's thread; return whether it has stopped.

        Args:
            timeout: Seconds to wait at most.
        """
        return self._announcer.stop(timeout)

    def _insert(self, tx: Tx, drafted: Sequence[JobDraft]) -> list[InsertResult]:
        now = self._clock.database_now()
        self._watch_owners(drafted)

        def insert_all() -> list[InsertResult]:
            with joined(tx, self._schema) as transaction:
                self._check_database(transaction)
                notified = _NONE

                def insert(jobs: Sequence[JobDraft]) -> list[InsertResult]:
                    nonlocal notified
                    notified = self._notified_by_insert(transaction, jobs)
                    return insert_drafts(
                        transaction, jobs, schema=self._schema, now=now, notify=sorted(notified)
                    )

                inserted, results = self._within(drafted, insert)
                if notified and all(result.skipped_as_duplicate for result in results):
                    notified = _NONE
                self._announce(transaction, _queues_with_work(inserted, results), notified)
            return results

        return again(tx, insert_all)

    def _watch_owners(self, drafts: Sequence[JobDraft]) -> None:
        for job in drafts:
            if job.owner is not None:
                self._owners.watch(job.owner)

    def _draft(self, args: object, opts: InsertOpts | None) -> JobDraft:
        return draft(
            args,
            opts,
            max_attempts=self._max_attempts,
            now=self._clock.database_now(),
            types=self._types,
            schemas=self._schemas,
        )

    @property
    def _types(self) -> Mapping[str, Any]:
        """The args types of workers that take a generic class, by kind."""
        return self._workers.generic_types if self._workers else _NO_TYPES

    def _drafts(self, jobs: Iterable[object]) -> Sequence[JobDraft]:
        items = jobs_of(jobs)
        self._check_kinds(item[0] if isinstance(item, tuple) and item else item for item in items)
        return self._drafts_of(items)

    def _drafts_of(self, items: Sequence[Any]) -> list[JobDraft]:
        return drafts(
            items,
            max_attempts=self._max_attempts,
            now=self._clock.database_now(),
            types=self._types,
            schemas=self._schemas,
        )

    def _within(
        self, drafted: Sequence[JobDraft], insert: Callable[[Sequence[JobDraft]], R]
    ) -> tuple[Sequence[JobDraft], R]:
        """Insert within the plugins; return the drafts as inserted, and `insert`'s result."""
        inserted, plugins = drafted, self.plugins
        if not plugins and not any(map(of_kind, {type(job.args) for job in drafted})):
            return drafted, insert(drafted)

        def insert_all() -> R:
            # Not returned: plugins receive what `insert` returns.
            nonlocal inserted
            inserted = begin_inserts(plugins, drafted)
            return insert(inserted)

        result = around_insert(plugins, drafted, insert_all)
        return inserted, result

    def _check_kinds(self, args: Iterable[object]) -> None:
        workers = self._workers
        if workers is None or not workers.kinds:
            return
        for obj in args:
            kind = kind_of(obj)
            worker = workers.find(kind)
            if worker is not None:
                if worker.args_type is not type(obj):
                    worker.check_args(obj)
            elif not self._skip_unknown_job_check:
                raise UnknownKind(kind, workers.kinds)

    def _check_type(self, kind: str, args_type: type) -> None:
        workers = self._workers
        if workers is None or not workers.kinds:
            return
        worker = workers.find(kind)
        if worker is None:
            if not self._skip_unknown_job_check:
                raise UnknownKind(kind, workers.kinds)
        elif worker.args_type is not args_type and worker.args_type is not RawArgs:
            given, taken = shown_type(args_type), shown_type(worker.args_type)
            raise InvalidArgs(kind, f"they are {given}, and its worker takes {taken}")

    def _check_database(self, transaction: Transaction) -> None:
        """Refuse a transaction on another database than the client's.

        URLs do not show it: a creator, a listener or a service name may lead anywhere, and two
        addresses may lead to one database, such as through a pooler. So both servers are asked for
        their identity, once per engine.
        """
        engine = transaction.engine
        if engine.pool is self._engine.pool or engine.pool in self._same_database:
            return
        if engine.dialect.name != "postgresql":
            raise WrongDatabase(address(engine), address(self._engine))
        given = identity(transaction.connection)
        if given != self._identity:
            # It is not known yet, or the server may have been restarted since.
            try:
                with self._autocommit.connect() as connection:
                    self._identity = identity(connection)
            except (DBAPIError, PoolTimeout):
                if address(engine) != address(self._engine):
                    raise
                return  # The host's insert must not fail because of a pool that it does not use.
        if given != self._identity:
            there, here = address(engine, given[0]), address(self._engine, self._identity[0])
            raise WrongDatabase(f"{there} of another server" if there == here else there, here)
        self._same_database.add(engine.pool)

    def _notified_by_insert(
        self, transaction: Transaction, jobs: Sequence[JobDraft]
    ) -> frozenset[str]:
        """Return the queues whose clients the INSERT of `jobs` is to notify."""
        if self._notify is not Notify.adaptive or len(jobs) > MANY:
            return _NONE
        announcer = self._announcer
        names = frozenset(filter(announcer.leaves_to_insert, _queues_of(jobs)))
        if not names or transaction.in_two_phases:
            return _NONE
        return frozenset(
            name
            for name in names
            # One notification of a queue is enough for a transaction.
            if not transaction.is_pending(announcer.notified, name)
            and not transaction.is_pending(announcer.committed, name)
        )

    def _announce(
        self, transaction: Transaction, names: set[str], notified: frozenset[str] = _NONE
    ) -> None:
        """Notify the clients that work the queues `names`, except where the INSERT has `notified`.

        The producers of this process are woken in any case, once the transaction has committed.
        """
        if not names:
            return
        if self._notify is Notify.in_transaction:
            notify_inserted(transaction.connection, sorted(names), schema=self._schema)
        elif self._notify is not Notify.off:
            announcer = self._announcer
            for name in names:
                if name in notified:
                    transaction.after_commit(announcer.notified, name)
                else:
                    transaction.after_commit(announcer.committed, name, unless=announcer.notified)


@lru_cache(maxsize=1024)
def _exactness(args_type: Any) -> Callable[[Any], bool] | None:
    """Do what `exactness` does, and raise InvalidOption if the class has no kind."""
    kind_of(args_type)
    return exactness(args_type)


def _queues_with_work(drafted: Sequence[JobDraft], results: Sequence[InsertResult]) -> set[str]:
    names = set()
    for job, result in zip(drafted, results, strict=True):
        if not result.skipped_as_duplicate and job.state is JobState.available:
            names.add(job.queue)
        elif result.changed and result.job.state is JobState.available:
            names.add(result.job.queue)
    return names


def _queues_of(drafted: Sequence[JobDraft]) -> set[str]:
    return {job.queue for job in drafted if job.state is JobState.available}
