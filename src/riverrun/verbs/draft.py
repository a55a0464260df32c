"""Step 1 of 5, insert: jobs that are checked, and have a value for each option."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import attrs
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Mapper, Session, scoped_session

from riverrun.clock import Duration, seconds
from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.jobs.args import encode_of_kind, encode_text, kind_of
from riverrun.jobs.json_types import is_struct
from riverrun.jobs.json_values import json_problem, metadata_text
from riverrun.jobs.options import (
    MAX_ATTEMPTS_DEFAULT,
    PRIORITY_DEFAULT,
    QUEUE_DEFAULT,
    InsertOpts,
    UniqueMark,
    Uniqueness,
    check_insert_opts,
)
from riverrun.jobs.references import referred
from riverrun.jobs.states import JobState
from riverrun.orm.marks import NO_SCHEMAS, Schemas
from riverrun.verbs.owned import OWNER_KEY, owner_of
from riverrun.verbs.referred import check_schema
from riverrun.verbs.unless_changed import UNCHANGED_KEY, version_of

_NO_OPTIONS = InsertOpts()


_NO_TYPES: Mapping[str, Any] = {}


@attrs.frozen(kw_only=True, slots=False)  # Without slots a frozen object is made faster.
class JobDraft:
    """A job that is ready to be inserted. It is checked, and all options have values.

    Attributes:
        kind: The name by which its worker is found.
        args: The args, as passed to the insert.
        encoded: The args, as the JSON object to store.
        args_text: The same as JSON text.
        queue: The name of its queue.
        priority: 1 (first) to 4.
        max_attempts: Attempts before the job is discarded.
        scheduled_at: When the job is due, aware; None for at once.
        tags: The tags to store.
        metadata_text: The metadata as JSON text; `with_metadata` merges into it.
        state: `available`, `scheduled` or `pending`.
        mark: The unique key and its states; None if the job need not be unique.
        refers_to: The mapped objects in its args, and its owner, that are stored as references.
        owner: The mapper of its owner; None if it has no owner.
    """

    kind: str
    args: object
    encoded: Any
    args_text: str
    queue: str
    priority: int
    max_attempts: int
    scheduled_at: datetime | None
    tags: tuple[str, ...]
    metadata_text: str
    state: JobState
    mark: UniqueMark | None = None
    refers_to: tuple[object, ...] = ()
    owner: Mapper[Any] | None = None

    def with_metadata(self, metadata: Mapping[str, Any]) -> "JobDraft":
        """Return this job with `metadata` merged into its own.

        Raises:
            InvalidOption: If JSON cannot hold the metadata, or it is larger than 32 MiB.
        """
        metadata_text(metadata)
        merged = {**json.loads(self.metadata_text), **metadata}
        return attrs.evolve(self, metadata_text=metadata_text(merged))

    def with_args(self, encoded: Mapping[str, Any]) -> "JobDraft":
        """Return this job with the JSON args `encoded` and the same unique key.

        Raises:
            InvalidArgs: If JSON cannot hold the args, or they are too large.
        """
        if problem := json_problem(encoded):
            raise InvalidArgs(self.kind, problem)
        return attrs.evolve(self, encoded=encoded, args_text=encode_text(self.kind, encoded))


def draft(
    args: object,
    opts: InsertOpts | None = None,
    *,
    max_attempts: int = MAX_ATTEMPTS_DEFAULT,
    now: datetime | None = None,
    types: Mapping[str, Any] = _NO_TYPES,
    schemas: Schemas = NO_SCHEMAS,
) -> JobDraft:
    """Return the draft of a job, checked. Nothing is inserted.

    Args:
        args: An object of a class with a kind.
        opts: The options of this insert.
        max_attempts: The value for a job whose options do not set it.
        now: The process's time, aware, for periods of uniqueness.
        types: By kind, the type that its worker takes, if that is not just the class of the args:
            a generic class with its parameters.
        schemas: The `schema_translate_map` of the engine on which workers find mapped objects.
    """
    own = _own(args)
    decided = _PLAIN if opts is None and own is None else _decide(opts, own, now, schemas)
    with _Collected() as objects:
        return _draft(args, decided, max_attempts, now, types, objects)


class _Collected:
    """A block whose list gets the objects that are stored as references meanwhile."""

    def __enter__(self) -> list[object]:
        objects: list[object] = []
        self._token = referred.set(objects)
        return objects

    def __exit__(self, *_: object) -> None:
        referred.reset(self._token)


@attrs.frozen
class _Decided:
    """The values of a job's fields that depend only on its options."""

    max_attempts: int | None
    unique: Uniqueness | None
    rest: dict[str, Any]


def _own(args: object) -> InsertOpts | None:
    return getattr(args, "insert_opts", None)


def _decide(
    opts: InsertOpts | None,
    own: InsertOpts | None,
    now: datetime | None,
    schemas: Schemas = NO_SCHEMAS,
) -> _Decided:
    if opts is not None and not isinstance(opts, InsertOpts):
        raise InvalidOption("opts", opts, "an InsertOpts")
    given = opts or _NO_OPTIONS
    if own is not None:
        given = given.over(check_insert_opts(own))
    scheduled_at = given.scheduled_at
    if given.delay:
        scheduled_at = _later(given.delay, now or datetime.now(UTC))
    if given.pending:
        state = JobState.pending
    else:
        state = JobState.available if scheduled_at is None else JobState.scheduled
    metadata = given.metadata
    needs = []
    if given.unless_changed is not None:
        needs.append(version_of(given.unless_changed))
        check_schema("unless_changed", given.unless_changed, schemas)
    owner = None
    if given.owner is not None:
        owner, mark, need = owner_of(given.owner, schemas)
        metadata = {**(metadata or {}), OWNER_KEY: mark}
        needs.append(need)
    if needs:
        metadata = {**(metadata or {}), UNCHANGED_KEY: needs[0] if len(needs) == 1 else needs}
    return _Decided(
        given.max_attempts,
        given.unique,
        {
            "queue": given.queue or QUEUE_DEFAULT,
            "priority": given.priority or PRIORITY_DEFAULT,
            "scheduled_at": scheduled_at,
            "tags": tuple(given.tags or ()),
            "metadata_text": metadata_text(metadata) if metadata else "{}",
            "state": state,
            "owner": owner,
        },
    )


_PLAIN = _decide(None, None, None)


def _later(delay: Duration, now: datetime) -> datetime:
    try:
        return now + timedelta(seconds=seconds(delay))
    except OverflowError:
        raise InvalidOption("delay", delay, "one that ends before the year 10000") from None


def _draft(
    args: object,
    decided: _Decided,
    max_attempts: int,
    now: datetime | None,
    types: Mapping[str, Any],
    objects: list[object],
) -> JobDraft:
    kind = kind_of(args)
    encoded, text = encode_of_kind(kind, args, types.get(kind))
    refers_to: tuple[object, ...] = ()
    if objects:
        refers_to = tuple(objects)
        objects.clear()
    job = JobDraft(
        kind=kind,
        args=args,
        encoded=encoded,
        args_text=encode_text(kind, encoded, text),
        max_attempts=decided.max_attempts or max_attempts,
        refers_to=refers_to,
        **decided.rest,
    )
    if decided.unique is None:
        return job
    mark = cast("object", decided.unique(job, now or datetime.now(UTC)))
    if mark is not None and not isinstance(mark, UniqueMark):
        raise InvalidOption("unique", mark, "a policy that returns a UniqueMark, or None")
    return attrs.evolve(job, mark=mark)


def jobs_of(jobs: object) -> list[Any]:
    """Return the jobs of a batch as a list.

    Raises:
        InvalidOption: If `jobs` is not an iterable of args, or of pairs of args and InsertOpts.
    """
    expected = "a list of args, or of pairs of args and InsertOpts"
    if isinstance(jobs, Session | scoped_session | Connection | Engine):
        raise InvalidOption("jobs", jobs, f"{expected}, after the transaction")
    if is_struct(type(jobs)) or isinstance(jobs, str | Mapping) or not isinstance(jobs, Iterable):
        raise InvalidOption("jobs", jobs, expected)
    return list(jobs)


def drafts(
    jobs: Iterable[object],
    *,
    max_attempts: int = MAX_ATTEMPTS_DEFAULT,
    now: datetime | None = None,
    types: Mapping[str, Any] = _NO_TYPES,
    schemas: Schemas = NO_SCHEMAS,
) -> list[JobDraft]:
    """Return the drafts of `jobs`: args, or pairs of args and InsertOpts.

    Raises:
        InvalidArgs, InvalidOption: If a job is refused, with its index in a note; or if there is no
            job.
    """
    result = []
    # Most jobs of a batch share one options object, so its result is cached by id(). The object is
    # stored with it, so that the id cannot be reused.
    known: dict[tuple[int, int], tuple[object, _Decided]] = {}
    with _Collected() as objects:
        for index, item in enumerate(jobs_of(jobs)):
            args, opts = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
            own = _own(args)
            try:
                decided = _PLAIN
                if opts is not None or own is not None:
                    ids = id(opts), id(own)
                    if ids not in known:
                        known[ids] = (opts, own), _decide(opts, own, now, schemas)
                    decided = known[ids][1]
                result.append(_draft(args, decided, max_attempts, now, types, objects))
            except (InvalidArgs, InvalidOption) as error:
                error.add_note(f"job {index} of the batch; none was inserted")
                raise
    if not result:
        raise InvalidOption("jobs", [], "at least one job")
    return result
