"""Assertions about inserted jobs, by class of args, args, kind, or any attribute."""

from collections.abc import Mapping, Sequence

import attrs
from sqlalchemy.orm import Session, scoped_session

from riverrun.db.transactions import Tx
from riverrun.errors import InvalidOption
from riverrun.jobs.args import encode, kind_of
from riverrun.jobs.listing import JobListParams
from riverrun.jobs.row import JobRow
from riverrun.verbs.read import list_jobs

_MOST = 10_000


def require_inserted(
    tx: Tx, expected: object, *, schema: str | None = None, **conditions: object
) -> JobRow:
    """Return the one job that matches; fail if there is none, or more than one.

    Args:
        tx: The test's Session or Connection; an Engine sees what was committed.
        expected: A class of args, for any job of its kind; args, which must be equal; or the name
            of a kind.
        schema: The schema of River's tables. Default: the search path's.
        **conditions: Values that attributes of the JobRow must have, such as `queue="mail"`.
            `metadata` and `args` need only contain the given items.

    Raises:
        AssertionError: If not exactly one job matches; it lists the jobs of the kind.
    """
    found, others = _search(tx, expected, conditions, schema)
    if len(found) != 1:
        raise AssertionError(_problem("exactly one", len(found), expected, conditions, others))
    return found[0]


def require_many_inserted(
    tx: Tx, expected: Sequence[object], *, schema: str | None = None
) -> list[JobRow]:
    """Return all jobs of the kinds in `expected`; fail if they are not these, in this order.

    Args:
        tx: The test's Session or Connection.
        expected: Classes of args, args, or names of kinds, in the order of the inserts.
        schema: The schema of River's tables. Default: the search path's.

    Raises:
        AssertionError: If other jobs were inserted, or in another order; it lists them.
    """
    kinds = sorted({_kind(item) for item in expected})
    jobs = _jobs(tx, JobListParams(kinds=kinds, limit=_MOST), schema)
    same = len(jobs) == len(expected) and all(
        _fits(job, item, {}) for job, item in zip(jobs, expected, strict=True)
    )
    if not same:
        wanted = "\n".join(f"  {_named(item)}" for item in expected)
        raise AssertionError(f"expected these jobs:\n{wanted}\nbut there are:\n{_listed(jobs)}")
    return jobs


def require_not_inserted(
    tx: Tx, expected: object, *, schema: str | None = None, **conditions: object
) -> None:
    """Fail if any job matches.

    Args:
        tx: The test's Session or Connection; an Engine sees what was committed.
        expected: As for `require_inserted`.
        schema: The schema of River's tables. Default: the search path's.
        **conditions: As for `require_inserted`.

    Raises:
        AssertionError: If a job matches; it lists all that do.
    """
    found, _ = _search(tx, expected, conditions, schema)
    if found:
        raise AssertionError(_problem("no", len(found), expected, conditions, found))


def _search(
    tx: Tx, expected: object, conditions: Mapping[str, object], schema: str | None
) -> tuple[list[JobRow], list[JobRow]]:
    """Return the jobs that match, and all jobs of the kind."""
    known = {field.name for field in attrs.fields(JobRow)}
    if unknown := sorted(set(conditions) - known):
        raise InvalidOption("condition", unknown[0], f"an attribute of a JobRow: {sorted(known)}")
    jobs = _jobs(tx, JobListParams(kinds=[_kind(expected)], limit=_MOST), schema)
    return [job for job in jobs if _fits(job, expected, conditions)], jobs


def _jobs(tx: Tx, params: JobListParams, schema: str | None) -> list[JobRow]:
    if isinstance(tx, scoped_session):
        tx = tx()
    if isinstance(tx, Session):
        tx.flush()
    return list(list_jobs(tx, params, schema=schema).jobs)


def _kind(expected: object) -> str:
    return expected if isinstance(expected, str) else kind_of(expected)


def _fits(job: JobRow, expected: object, conditions: Mapping[str, object]) -> bool:
    if job.kind != _kind(expected):
        return False
    if not isinstance(expected, str | type) and job.args != dict(encode(expected)):
        return False
    return all(_is(getattr(job, name), value) for name, value in conditions.items())


def _is(found: object, wanted: object) -> bool:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return all(key in found and found[key] == value for key, value in wanted.items())
    if isinstance(found, tuple) and isinstance(wanted, list | tuple):
        return found == tuple(wanted)
    return found == wanted


def _named(expected: object) -> str:
    if isinstance(expected, str | type):
        return f"{_kind(expected)!r}"
    return f"{_kind(expected)!r} with args {dict(encode(expected))}"


def _problem(
    wanted: str,
    found: int,
    expected: object,
    conditions: Mapping[str, object],
    jobs: Sequence[JobRow],
) -> str:
    which = "".join(f", {name}={value!r}" for name, value in conditions.items())
    listed = f"; of the kind there are:\n{_listed(jobs)}" if jobs else "; there is none of the kind"
    return f"expected {wanted} job {_named(expected)}{which}; found {found}{listed}"


def _listed(jobs: Sequence[JobRow]) -> str:
    lines = [
        f"  job {job.id} {job.kind!r} {job.state} in {job.queue!r}, args {job.args},"
        f" priority {job.priority}, attempt {job.attempt} of {job.max_attempts},"
        f" scheduled_at {job.scheduled_at.isoformat()}, tags {list(job.tags)}"
        for job in jobs[:20]
    ]
    if len(jobs) > 20:
        lines.append(f"  and {len(jobs) - 20} more")
    return "\n".join(lines) or "  none"
