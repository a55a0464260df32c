"""List the jobs that were rescued because their client was gone."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from riverrun.db.conflicts import tried_again
from riverrun.db.transactions import Tx, joined
from riverrun.jobs.checks import check_int
from riverrun.jobs.states import JobState, state_of
from riverrun.queries import rescues as queries

_ID_MAX = 2**63 - 1


@attrs.frozen(kw_only=True)
class RescuedJob:
    """A job that was rescued at least once.

    Attributes:
        id: The job's id.
        kind: Its kind.
        queue: Its queue.
        state: Its state now.
        count: How often it was rescued; None if the row has no such number.
        rescued_at: When it was rescued last; None if the row has no such time.
        client_ids: The ids of the clients that claimed it, the last one last.
    """

    id: int
    kind: str
    queue: str
    state: JobState
    count: int | None
    rescued_at: datetime | None
    client_ids: Sequence[str]


@tried_again
def list_rescued(
    tx: Tx, *, limit: int = 100, after: int | None = None, schema: str | None = None
) -> list[RescuedJob]:
    """Return jobs that were rescued, those with the highest ids first.

    Args:
        tx: The transaction, as for `insert`.
        limit: Maximum number of jobs, 1 to 10,000. Default: 100.
        after: The id of the last job of the page before this one. Default: None for the first page.
        schema: The schema of River's tables. Default: the search path's.
    """
    check_int("limit", limit, 1, 10_000)
    before = _ID_MAX if after is None else check_int("after", after, 0, _ID_MAX)
    with joined(tx, schema) as transaction:
        rows = transaction.execute(queries.list_rescued(), {"limit": limit, "before": before})
        return [
            RescuedJob(
                id=row.id,
                kind=row.kind,
                queue=row.queue,
                state=state_of(row.state),
                count=_number(row.rescues),
                rescued_at=time_of_error(row.rescued_at),
                client_ids=tuple(name for name in row.attempted_by or () if isinstance(name, str)),
            )
            for row in rows
        ]


def time_of_error(text: str | None) -> datetime | None:
    """Return the time in an entry of a job's errors; None if it is no time."""
    try:
        time = datetime.fromisoformat(text or "")
        return None if time.utcoffset() is None else time
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None
