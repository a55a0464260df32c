"""Step 5 of 5, complete: outcomes of all sorts, in batches."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import attrs

from riverrun.db.transactions import Transaction
from riverrun.jobs.json_values import json_size, json_text
from riverrun.jobs.states import JobState, state_of
from riverrun.outcome import Outcome, error_json
from riverrun.queries import record as queries
from riverrun.queries.complete import complete_jobs, delete_completed
from riverrun.wire.characters import storable

BATCH_MAX = 1_000
"""Maximum number of outcomes in one statement. More would make it slower and save nothing."""

BATCH_BYTES = 16 * 1024 * 1024
"""Maximum number of bytes in one statement, unless it has only one outcome."""


@attrs.frozen(kw_only=True)
class Recorded:
    """The result of a batch.

    Attributes:
        states: The new state of each job, by id, without jobs that were not changed.
        locked: Ids of jobs whose rows another transaction had locked, and which were not written.
        ignored: Ids of jobs whose rows were free but did not change, such as because of a trigger.
    """

    states: dict[int, JobState]
    locked: frozenset[int] = frozenset()
    ignored: frozenset[int] = frozenset()


def record(
    transaction: Transaction,
    outcomes: Sequence[Outcome],
    *,
    merge_anyway: bool,
    owner: str | None = None,
    now: datetime | None = None,
) -> dict[int, JobState]:
    """Write outcomes in as few statements as possible. Waits for locked rows.

    Args:
        transaction: The transaction.
        outcomes: The outcomes, at most one of each job.
        merge_anyway: Whether to merge metadata even if a job no longer runs at the attempt.
        owner: The id of the client that claimed the jobs. Default: None, any client.
        now: For tests: used as the database's time, aware.

    Returns:
        The new state of each job, by id, without jobs that were not changed.
    """
    states: dict[int, JobState] = {}
    for batch in batches(outcomes, merge_anyway=merge_anyway):
        states.update(_write(transaction, batch, owner, now, skip_locked=False))
    return states


def record_free(
    transaction: Transaction,
    batch: "Batch",
    *,
    owner: str | None = None,
    now: datetime | None = None,
) -> Recorded:
    """Write one batch as `record` does, but skip locked rows."""
    states = _write(transaction, batch, owner, now, skip_locked=True)
    locked, free = _unwritten(transaction, batch, states, owner)
    if free:
        # They may have been locked until now: another client's claim, begun before this client's,
        # locks for a moment the rows that it finds to be claimed already.
        part = _part(batch, free)
        states |= _write(transaction, part, owner, now, skip_locked=True)
        locked_now, free = _unwritten(transaction, part, states, owner)
        locked |= locked_now
    return Recorded(states=states, locked=locked, ignored=free)


def _unwritten(
    transaction: Transaction, batch: "Batch", states: Mapping[int, JobState], owner: str | None
) -> tuple[frozenset[int], frozenset[int]]:
    """Return the ids of jobs still to be written: those whose rows are locked, and the others."""
    missing = [outcome for outcome in batch.outcomes if outcome.job_id not in states]
    if not missing:
        return frozenset(), frozenset()
    found = {
        job_id: (runs, free)
        for job_id, runs, free in transaction.rows(
            queries.unwritten_jobs(), {**_pairs(missing), "owner": owner}
        )
    }
    # With `merges` metadata is merged into any row; all else only if the attempt still runs.
    kept = {
        outcome.job_id: found[outcome.job_id][1]
        for outcome in missing
        if outcome.job_id in found
        and (found[outcome.job_id][0] or (batch.merges and outcome.metadata is not None))
    }
    return (
        frozenset(job_id for job_id, free in kept.items() if not free),
        frozenset(job_id for job_id, free in kept.items() if free),
    )


def _part(batch: "Batch", ids: Container[int]) -> "Batch":
    places = [n for n, outcome in enumerate(batch.outcomes) if outcome.job_id in ids]
    return attrs.evolve(
        batch,
        outcomes=[batch.outcomes[n] for n in places],
        ages_us=[batch.ages_us[n] for n in places] if batch.ages_us else (),
        texts=None if batch.texts is None else [batch.texts[n] for n in places],
    )


@attrs.frozen(kw_only=True)
class Batch:
    """Outcomes that one statement writes.

    Attributes:
        outcomes: The outcomes, in the order of their jobs' ids.
        ages_us: Microseconds since each worker returned; empty if `texts` contains them.
        texts: The JSON text of each outcome; None for completions that write nothing else.
        merges: Whether to merge metadata even if a job no longer runs at the attempt.
        deletes: Whether completed jobs are deleted at once.
        size: The size of the texts in bytes.
    """

    outcomes: Sequence[Outcome]
    ages_us: Sequence[int] = ()
    texts: Sequence[str] | None
    merges: bool
    deletes: bool = False
    size: int = 0


def batches(
    outcomes: Iterable[Outcome],
    *,
    merge_anyway: bool,
    age_us: Callable[[Outcome], int] = lambda _: 0,
    most_bytes: int = BATCH_BYTES,
    deletes: bool = False,
    unfit: Callable[[Outcome, Exception], object] | None = None,
) -> Iterator[Batch]:
    """Yield `outcomes` in batches, those completions first that write nothing else.

    Args:
        outcomes: The outcomes, at most one of each job.
        merge_anyway: Whether to merge metadata even if a job no longer runs at the attempt.
        age_us: Returns how many microseconds ago an outcome's worker returned. A final job is
            finalized at that time. Default: the time of the statement.
        most_bytes: Maximum number of bytes in a batch of more than one outcome.
        deletes: Whether completed jobs are deleted at once, with whatever they recorded.
        unfit: Called with each outcome that JSON cannot hold, and the error. Default: None, the
            error is raised.
    """
    plain: list[Outcome] = []
    others: list[Outcome] = []
    # Sorted, so that concurrent writers lock the rows in the same order.
    for outcome in sorted(outcomes, key=attrgetter("job_id")):
        bare = outcome.metadata is None or deletes
        bare = bare and outcome.state is JobState.completed
        (plain if bare else others).append(outcome)
    for start in range(0, len(plain), BATCH_MAX):
        part = plain[start : start + BATCH_MAX]
        if deletes:
            yield Batch(outcomes=part, texts=None, merges=False, deletes=True)
            continue
        ages_us = [age_us(outcome) for outcome in part]
        yield Batch(outcomes=part, ages_us=ages_us, texts=None, merges=merge_anyway)
    taken: list[Outcome] = []
    texts: list[str] = []
    size = 0
    for outcome in others:
        try:
            record = _record(outcome, age_us=age_us(outcome), merge_anyway=merge_anyway)
            text = json_text(record)
        except Exception as error:
            if unfit is None:
                raise
            unfit(outcome, error)
            continue
        length = json_size(text)
        if taken and (size + length > most_bytes or len(taken) == BATCH_MAX):
            yield Batch(outcomes=taken, texts=texts, merges=merge_anyway, size=size)
            taken, texts, size = [], [], 0
        taken.append(outcome)
        texts.append(text)
        size += length
    if taken:
        yield Batch(outcomes=taken, texts=texts, merges=merge_anyway, size=size)


def takes_writes(transaction: Transaction) -> None:
    """Execute a completion of no job. If the database refuses that, it refuses every outcome."""
    params = {**_pairs([]), "ages_us": "{}", "owner": None, "now": None}
    transaction.rows(complete_jobs(skip_locked=True), params)


def _write(
    transaction: Transaction,
    batch: Batch,
    owner: str | None,
    now: datetime | None,
    *,
    skip_locked: bool,
) -> dict[int, JobState]:
    if batch.deletes:
        gone = transaction.rows(delete_completed(), {**_pairs(batch.outcomes), "owner": owner})
        return {job_id: JobState.completed for (job_id,) in gone}
    if batch.texts is None:
        params = {**_pairs(batch.outcomes), "ages_us": array_text(batch.ages_us)}
        params |= {"owner": owner, "now": now}
        done = transaction.rows(complete_jobs(skip_locked=skip_locked), params)
        return {job_id: JobState.completed for (job_id,) in done}
    text = "[" + ",".join(batch.texts) + "]"
    if not text.isascii() or "\\u0000" in text:
        text = storable(text, transaction.encodings)
    params = {"outcomes": text, "owner": owner, "now": now}
    rows = transaction.rows(queries.record_outcomes(skip_locked=skip_locked), params)
    return {job_id: state_of(state) for job_id, state in rows}


def _pairs(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "ids": array_text(outcome.job_id for outcome in outcomes),
        "attempts": array_text(outcome.attempt for outcome in outcomes),
    }


def array_text(numbers: Iterable[int]) -> str:
    """Return `numbers` as the text of a PostgreSQL array."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _record(outcome: Outcome, *, age_us: int, merge_anyway: bool) -> dict[str, Any]:
    return {
        "id": outcome.job_id,
        "attempt": outcome.attempt,
        "state": outcome.state.value,
        "scheduled_at": outcome.scheduled_at and outcome.scheduled_at.isoformat(),
        "error": outcome.error and error_json(outcome.error),
        "metadata": outcome.metadata,
        "give_back": int(outcome.give_back),
        "age_us": age_us,
        "merge_anyway": int(merge_anyway),
    }
