"""Step 5 of 5, complete: writes outcomes in batches, each in a transaction of its own.

It calls `settled` with the attempts of each batch that it has written.
"""

import math
from collections.abc import Callable, Sequence

import attrs
from psycopg.errors import ConnectionTimeout
from sqlalchemy import Engine

from riverrun.clock import Clock
from riverrun.db.refusals import Fault, NoAnswer, UpdateIgnored, fault_of
from riverrun.db.statement_timeout import limit_of
from riverrun.db.transactions import joined
from riverrun.execution.result import AttemptResult
from riverrun.jobs.states import JobState
from riverrun.outcome import Outcome
from riverrun.verbs.record import BATCH_BYTES, Batch, Recorded, batches, record_free, takes_writes

Settled = Callable[[Sequence[AttemptResult], dict[int, JobState]], object]
"""Called with the attempts that were written, and with the states that their jobs have since."""


class TooLarge(Exception):
    """An outcome takes long to write because of its size."""


@attrs.frozen(kw_only=True)
class Written:
    """What was written, and what was not.

    Attributes:
        count: How many attempts were written.
        locked: The attempts whose rows are locked.
        refused: Batches that were refused, and why.
    """

    count: int
    locked: Sequence[AttemptResult]
    refused: Sequence[tuple[Sequence[AttemptResult], Exception]]


class Writer:
    """Writes finished attempts. The caller keeps those that are locked or were refused.

    Args:
        engine: The engine to write on. Each transaction is given up after the engine's time limit.
        schema: The schema of River's tables.
        settled: Called with the attempts that were written.
        clock: Measures how long an answer took.
        largest: Bytes of JSON beyond which an outcome is not written, but refused as `TooLarge`.
        deletes: Whether completed jobs are deleted at once.
        owner: The id of the client that has claimed the jobs. Default: None, any client.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        schema: str | None,
        settled: Settled,
        clock: Clock,
        largest: int | None = None,
        deletes: bool = False,
        owner: str | None = None,
    ) -> None:
        self._engine = engine
        self._schema = schema
        self._settled = settled
        self._clock = clock
        self._largest = largest
        self._deletes = deletes
        self._owner = owner

    def write(self, members: Sequence[AttemptResult]) -> Written:
        """Write `members`, all with an outcome, each batch in a transaction of its own."""
        outcomes = [outcome for result in members if (outcome := result.outcome)]
        by_id = {outcome.job_id: result for outcome, result in zip(outcomes, members, strict=True)}
        count = 0
        locked: list[AttemptResult] = []
        refused: list[tuple[Sequence[AttemptResult], Exception]] = []

        def unfit(outcome: Outcome, error: Exception) -> None:
            refused.append(([by_id[outcome.job_id]], error))

        now = self._clock.monotonic()

        def age_us(outcome: Outcome) -> int:
            return int((now - by_id[outcome.job_id].ended_monotonic) * 1e6)

        broken: Exception | None = None
        most = self._largest or BATCH_BYTES
        for batch in batches(
            outcomes,
            merge_anyway=True,
            age_us=age_us,
            most_bytes=most,
            deletes=self._deletes,
            unfit=unfit,
        ):
            part = [by_id[outcome.job_id] for outcome in batch.outcomes]
            if broken is not None or batch.size > (self._largest or math.inf):
                refused.append((part, broken or TooLarge()))
                continue
            began = self._clock.monotonic()
            try:
                recorded = self._record(batch)
            except Exception as error:
                late = self._clock.monotonic() - began >= limit_of(self._engine)
                # Where no connection could be made, no batch is at fault.
                late = late and not isinstance(getattr(error, "orig", None), ConnectionTimeout)
                lost = fault_of(error) is Fault.connection
                # A connection that was given up because of one batch need not fail the others.
                refused.append((part, NoAnswer() if lost and late else error))
                broken = error if lost and not late else None
                continue
            done = part
            if held := recorded.locked | recorded.ignored:
                done = [result for result in part if job_id(result) not in held]
                locked += [by_id[held_id] for held_id in sorted(recorded.locked)]
                refused += [
                    ([by_id[held_id]], UpdateIgnored()) for held_id in sorted(recorded.ignored)
                ]
            count += len(done)
            self._settled(done, recorded.states)
            now = self._clock.monotonic()  # for the ages of the next batch
        return Written(count=count, locked=locked, refused=refused)

    def takes_writes(self) -> bool:
        """Return whether the database accepts a statement like those that write outcomes."""
        try:
            with joined(self._engine, self._schema) as transaction:
                takes_writes(transaction)
        except Exception:
            return False
        return True

    def _record(self, batch: Batch) -> Recorded:
        with joined(self._engine, self._schema) as transaction:
            return record_free(transaction, batch, owner=self._owner)


def job_id(result: AttemptResult) -> int:
    """Return the job's id of a finished attempt that has an outcome."""
    assert result.outcome is not None  # noqa: S101  others are never held
    return result.outcome.job_id
