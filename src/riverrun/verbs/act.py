"""Act on jobs for a user, such as through a dashboard, and record each action."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import attrs
from sqlalchemy import BigInteger, Engine, Text, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError, IntegrityError

from riverrun.db.conflicts import again, tried_again
from riverrun.db.refusals import Fault, fault_of, sqlstate
from riverrun.db.transactions import Transaction, Tx, joined
from riverrun.errors import InvalidOption
from riverrun.events import UserActed
from riverrun.jobs.checks import check_int
from riverrun.jobs.listing import JobListParams, check_params
from riverrun.jobs.states import JobState
from riverrun.models import Job
from riverrun.queries import act as queries
from riverrun.queries import cancel as cancel_queries
from riverrun.queries import delete as delete_queries
from riverrun.queries import retry as retry_queries
from riverrun.queries.chosen import chosen
from riverrun.verbs.actions import ID_MAX, OnDone, check_user, record_done
from riverrun.verbs.cancel import cancel_where
from riverrun.verbs.chosen import TRIES
from riverrun.verbs.delete import delete_where
from riverrun.verbs.halves import FRUITLESS, log_refused
from riverrun.verbs.notify import notify_in
from riverrun.verbs.retry import retry_chosen
from riverrun.wire.topics import Topic, insert_payload

R = TypeVar("R")

BATCH = 1_000
"""Maximum number of jobs that one action changes."""

REMAINING_MAX = 10_000
"""The number at which the count of remaining jobs stops, because counting more would take long."""

_UNIQUE_VIOLATION = "23505"

_BY_VALUE = {"ids", "kinds", "queues", "states", "priorities", "tags_all", "tags_any"}
_BY_TIME = {"since", "until"}
_UNRECORDED = {"args", "metadata"}
_ORDER = {"order_by", "descending", "limit", "after"}


class JobAction(StrEnum):
    """What can be done to jobs."""

    retry = "retry"
    cancel = "cancel"
    delete = "delete"


@attrs.frozen(kw_only=True)
class Acted:
    """The result of an action on jobs.

    Attributes:
        count: How many jobs were changed; with `dry_run`, how many this action would try to change.
        job_ids: Which.
        refused: The jobs that the database refused to change, such as a deletion of one that
            another table refers to. Only on an Engine; the transaction of a Session or Connection
            fails.
        remaining: How many jobs after these the filters select, at most 10,000.
        cursor: Pass this as `after` to continue with those; None if there are none.
        recorded: Whether the action was recorded. Without version 3 of riverrun's line it is not.
    """

    count: int
    job_ids: Sequence[int]
    refused: Sequence[int] = ()
    remaining: int = 0
    cursor: int | None = None
    recorded: bool = False


def act_on(
    tx: Tx,
    action: JobAction | str,
    job_ids: Iterable[int],
    *,
    user: str,
    schema: str | None = None,
    now: datetime | None = None,
    on_done: OnDone | None = None,
) -> Acted:
    """Retry, cancel or delete jobs for a user, and record it, in one transaction.

    Jobs that the action does not apply to are left as they are: a running job is not retried or
    deleted, a final one is not cancelled, and a job whose unique key another job holds is not
    retried.

    Args:
        tx: The transaction, as for `insert`.
        action: A JobAction or its name.
        job_ids: The jobs, at most 1,000.
        user: The user's name, at most 200 characters.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
        on_done: Called with a UserActed once the transaction has committed.

    Raises:
        InvalidOption: If a value is out of range.
    """
    which = _action(action)
    user = check_user(user)
    ids = sorted({check_int("job_ids", job_id, 0, ID_MAX) for job_id in job_ids})
    if len(ids) > BATCH:
        raise InvalidOption("job_ids", len(ids), f"at most {BATCH:,} jobs; act in batches")

    def act(part: Sequence[int]) -> tuple[list[int], bool]:
        return _acted(tx, which, part, {}, user, schema, now, on_done)

    done = _in_parts(tx, ids, act)
    return Acted(
        count=len(done.changed), job_ids=done.changed, refused=done.refused, recorded=done.recorded
    )


def act_on_listed(
    tx: Tx,
    action: JobAction | str,
    params: JobListParams,
    *,
    newest_id: int,
    user: str,
    after: int | None = None,
    limit: int = BATCH,
    dry_run: bool = False,
    schema: str | None = None,
    now: datetime | None = None,
    on_done: OnDone | None = None,
) -> Acted:
    """Retry, cancel or delete a batch of the jobs that filters select, and record it.

    Call it again with the result's `cursor` as `after`, until that is None. Each job is tried once.

    Args:
        tx: The transaction, as for `insert`.
        action: A JobAction or its name.
        params: The filters, at least one, and none that a list searches within a window (`client`,
            `text`). Its order, limit and cursor are ignored.
        newest_id: The highest id that the user has seen, as from `newest_job_id`. Newer jobs are
            not changed.
        user: The user's name, at most 200 characters.
        after: The `cursor` of the last batch. Default: None, for the first batch.
        limit: Maximum number of jobs of this batch, 1 to 1,000.
        dry_run: Whether only to count, and to record nothing. Default: False.
        schema: The schema of River's tables. Default: the search path's.
        now: For tests: used as the database's time, aware.
        on_done: Called with a UserActed once the transaction has committed.

    Raises:
        InvalidOption: If there is no filter, or a value is out of range.
    """
    which = _action(action)
    user = check_user(user)
    check_int("limit", limit, 1, BATCH)
    check_int("newest_id", newest_id, 0, ID_MAX)
    after_id = -1 if after is None else check_int("after", after, 0, ID_MAX)
    chosen_by = {**_filter(params), "newest_id": newest_id}
    legal = _LEGAL[which](Job)
    reach: dict[str, Any] = {"newest_id": newest_id, "now": now}

    def act(part: Sequence[int]) -> tuple[list[int], bool]:
        return _acted(tx, which, part, chosen_by, user, schema, now, on_done)

    binds = {**reach, "after_id": after_id, "limit": limit}
    ids = again(tx, lambda: _scalars(tx, schema, queries.page(params, legal), binds))
    done = _Parts(changed=ids) if dry_run else _in_parts(tx, ids, act)
    remaining = 0
    if len(ids) == limit:
        rest = {**reach, "after_id": ids[-1], "limit": REMAINING_MAX}
        [remaining] = again(tx, lambda: _scalars(tx, schema, queries.count(params, legal), rest))
    return Acted(
        count=len(done.changed),
        job_ids=done.changed,
        refused=done.refused,
        remaining=remaining,
        cursor=ids[-1] if remaining else None,
        recorded=done.recorded,
    )


@tried_again
def newest_job_id(tx: Tx, *, schema: str | None = None) -> int:
    """Return the highest id of a job, 0 if there is none, as the `newest_id` of `act_on_listed`.

    Args:
        tx: The transaction, as for `insert`.
        schema: The schema of River's tables. Default: the search path's.
    """
    with joined(tx, schema) as transaction:
        return transaction.execute(queries.newest_id(), {}).scalar_one() or 0


_LEGAL: dict[JobAction, Callable[[Any], Any]] = {
    JobAction.retry: retry_queries.not_due,
    JobAction.cancel: cancel_queries.not_final,
    JobAction.delete: delete_queries.not_running,
}


def _change(
    tx: Tx,
    transaction: Transaction,
    action: JobAction,
    ids: Sequence[int],
    schema: str | None,
    now: datetime | None,
) -> list[int]:
    """Change those of `ids` that can be changed, and return them."""
    if not ids:
        return []
    job = Job.in_schema(schema)
    # Lock the jobs first, so that the record holds exactly those that are changed.
    unique = action is JobAction.retry
    among = chosen(job, [_in(job, ids)], _LEGAL[action](job), schema=schema, unique=unique)
    found = among.locked(by_ids=False, key_share=action is not JobAction.delete)
    locked = sorted(transaction.execute(select(found.c.id), {"now": now}).scalars())
    if not locked:
        return []
    joins, these = same(tx, transaction), _in(job, locked)
    match action:
        case JobAction.retry:
            done = retry_chosen(joins, [these], dry_run=False, schema=schema, now=now)
            if done.count < len(locked):
                # A unique key was taken between the statements.
                available = select(job.id).where(these, job.state == JobState.available)
                locked = sorted(transaction.execute(available, {}).scalars())
            payloads = [insert_payload(name) for name in sorted(done.queues)]
            notify_in(transaction, Topic.insert, payloads, schema=schema)
        case JobAction.cancel:
            cancel_where(joins, these, schema=schema, now=now)
        case JobAction.delete:
            delete_where(joins, these, schema=schema)
    return locked


@attrs.define
class _Parts:
    """What was done in all parts of a batch."""

    changed: list[int] = attrs.field(factory=list)
    refused: list[int] = attrs.field(factory=list)
    recorded: bool = False


def _in_parts(
    tx: Tx, ids: Sequence[int], act: Callable[[Sequence[int]], tuple[list[int], bool]]
) -> _Parts:
    """Call `act` with `ids`; on an Engine, again with the halves of what the database refuses.

    So a job that another table refers to does not keep the others from being deleted. The
    transaction of a Session or Connection would not survive a refusal.
    """
    done = _Parts()
    parts = [ids] if ids else []
    why: list[tuple[int, Exception]] = []
    while parts:
        part = parts.pop()
        try:
            changed, done.recorded = _settled(tx, lambda part=part: act(part))  # type: ignore[misc]
        except DBAPIError as error:
            fruitless = len(why) >= FRUITLESS and not done.changed
            if not isinstance(tx, Engine) or fault_of(error) is not Fault.row or fruitless:
                raise
            if len(part) == 1:
                why.append((part[0], error))
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
        else:
            done.changed += changed
    done.refused = [job_id for job_id, _ in why]
    log_refused("jobs not changed", why)
    return done


def _acted(
    tx: Tx,
    action: JobAction,
    ids: Sequence[int],
    chosen_by: Mapping[str, Any],
    user: str,
    schema: str | None,
    now: datetime | None,
    on_done: OnDone | None,
) -> tuple[list[int], bool]:
    """Change `ids` and record it in one transaction; return what was changed, and if recorded."""
    with joined(tx, schema) as transaction:
        changed = _change(tx, transaction, action, ids, schema, now)
        done = UserActed(user=user, action=action.value, count=len(changed), job_ids=tuple(changed))
        return changed, record_done(transaction, done, chosen_by, schema, on_done)


def _scalars(tx: Tx, schema: str | None, statement: Any, params: Mapping[str, Any]) -> list[int]:
    with joined(tx, schema) as transaction:
        return list(transaction.execute(statement, params).scalars())


def _settled(tx: Tx, work: Callable[[], R]) -> R:
    """Return the result of `work`; on an Engine, try it again if a unique key was just taken."""
    for _ in range(TRIES - 1 if isinstance(tx, Engine) else 0):
        try:
            return again(tx, work)
        except IntegrityError as error:
            # The next try sees which job has the key.
            if sqlstate(error) != _UNIQUE_VIOLATION:
                raise
    return again(tx, work)


def _in(job: Any, ids: Sequence[int]) -> Any:
    # Bound as text, so that the driver need not adapt each item.
    text = literal(f"{{{','.join(map(str, ids))}}}", Text)
    return job.id == func.any(cast(text, ARRAY(BigInteger)))


def same(tx: Tx, transaction: Transaction) -> Tx:
    """Return what another verb takes to act in `transaction`, which is that of `tx`."""
    return transaction.connection if isinstance(tx, Engine) else tx


def _action(action: object) -> JobAction:
    try:
        return JobAction(action)  # type: ignore[arg-type]
    except (ValueError, TypeError):  # a TypeError if it cannot be hashed
        raise InvalidOption("action", action, f"one of {', '.join(JobAction)}") from None


def _filter(params: JobListParams) -> dict[str, Any]:
    """Return the filters as JSON values. Filters that may hold a job's data keep only their names.

    Raises:
        InvalidOption: If there is no filter, or one that `criteria` does not know. Without that
            one, more jobs would be changed than the user saw.
    """
    filters = check_params(params).filters
    given = {
        field.name: value
        for field in attrs.fields(JobListParams)
        if field.name not in _ORDER and (value := getattr(params, field.name)) is not None
    }
    if unknown := given.keys() - _BY_VALUE - _BY_TIME - _UNRECORDED:
        name = min(unknown)
        raise InvalidOption(name, given[name], "none here: act on the ids of the listed jobs")
    if not filters:
        raise InvalidOption("params", params, "at least one filter")
    return {name: _recorded(name, value) for name, value in given.items()}


def _recorded(name: str, value: Any) -> Any:
    if name in _UNRECORDED:
        return None
    return value.isoformat() if name in _BY_TIME else list(value)
