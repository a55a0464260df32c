"""Checks, by the traces that they left, that all jobs ran once, and no job of a rollback ran."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from riverrun import JobState
from riverrun.demo.evidence import Evidence
from riverrun.demo.jobs import KINDS, CreditAccount, RenderInvoice, SendWelcome, SyncCrm

JOBS_PER_CLICK = len(KINDS)
CREATED, CONFLICT = 201, 409

Wanted = tuple[str, str]
"""An effect: the kind of the job, and its user (the e-mail address, or `#` and the id)."""


@attrs.frozen(kw_only=True)
class Verdict:
    """The result of the demo. All figures but `requests` count jobs.

    Attributes:
        requests: Requests that were answered.
        request_p50_ms: The median latency of a request, in milliseconds.
        request_p99_ms: The 99th percentile of the latency, in milliseconds.
        inserted: Jobs in the database.
        rolled_back: Jobs whose insert the service rolled back.
        completed: Completed jobs.
        retried: Failed attempts that were followed by another.
        duplicates_skipped: Inserts that were skipped because the job existed already.
        lost: Jobs, of users in the database, that had no effect or were not completed.
        ran_after_rollback: Effects and jobs for users who are not in the database.
        worked_twice: Jobs that had their effect too often. An effect may happen once, and once more
            per rescue unless it is in the database, where the worker's session writes it.
        rescued: Jobs rescued from the killed worker.
        rescue_p50_s: The median time from the kill until a rescued job was claimed again, in
            seconds.
        seconds: How long everything took, in seconds.
        complaints: One line per job that was lost, ran after a rollback, or was worked twice.
    """

    requests: int
    request_p50_ms: float
    request_p99_ms: float
    inserted: int
    rolled_back: int
    completed: int
    retried: int
    duplicates_skipped: int
    lost: int
    ran_after_rollback: int
    worked_twice: int
    rescued: int
    rescue_p50_s: float
    seconds: float
    complaints: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether riverrun kept its promises."""
        return not (self.lost or self.ran_after_rollback or self.worked_twice)

    def figures(self) -> dict[str, int | float]:
        """Return the figures by name."""
        return attrs.asdict(self, filter=attrs.filters.exclude("complaints"))


def audit(evidence: Evidence, *, seconds: float) -> Verdict:
    """Judge the evidence.

    Args:
        evidence: The traces, gathered when nothing runs any more.
        seconds: How long everything took.
    """
    effects = Counter(_effects(evidence))
    wanted = {(kind, email) for email in evidence.users for kind in KINDS}
    lost = _lost(evidence, effects, wanted)
    ran = sorted(_ran(evidence) - wanted)
    rescues = _rescues(evidence)
    twice = sorted(
        effect
        for effect, times in effects.items()
        if times > 1 + (rescues[effect] if effect[0] != CreditAccount.kind else 0)
        and effect in wanted
    )
    back = [
        (job.attempted_at - evidence.killed_at).total_seconds()
        for job in evidence.jobs
        if job.rescues and job.attempted_at is not None and evidence.killed_at is not None
    ]
    good_clicks = sum(answer.status == CREATED for answer in evidence.answers)
    latencies = [answer.ms for answer in evidence.answers]
    return Verdict(
        requests=len(evidence.answers),
        request_p50_ms=percentile(latencies, 50),
        request_p99_ms=percentile(latencies, 99),
        inserted=len(evidence.jobs),
        rolled_back=JOBS_PER_CLICK * sum(answer.status == CONFLICT for answer in evidence.answers),
        completed=sum(job.state is JobState.completed for job in evidence.jobs),
        retried=sum(max(0, job.attempt - 1) for job in evidence.jobs),
        duplicates_skipped=max(0, JOBS_PER_CLICK * good_clicks - len(evidence.jobs)),
        lost=len(lost),
        ran_after_rollback=len(ran),
        worked_twice=len(twice),
        rescued=sum(job.rescues > 0 for job in evidence.jobs),
        rescue_p50_s=percentile(back, 50),
        seconds=round(seconds, 1),
        complaints=(
            *(f"lost: {kind} for {user}" for kind, user in lost),
            *(f"ran after rollback: {kind} for {user}" for kind, user in ran),
            *(f"worked {effects[e]} times: {e[0]} for {e[1]}" for e in twice),
        ),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of `values` do not exceed; 0 if there are none."""
    if not values:
        return 0.0
    return round(sorted(values)[math.ceil(len(values) * percent / 100) - 1], 1)


def _effects(evidence: Evidence) -> Iterable[Wanted]:
    # Yield one per time it happened. A request that the CRM refused had no effect.
    emails = _emails(evidence)
    yield from ((SendWelcome.kind, to) for to in evidence.mails)
    yield from ((RenderInvoice.kind, emails.get(n, f"#{n}")) for n in evidence.renderings)
    yield from ((SyncCrm.kind, email) for email, status in evidence.crm if status == CREATED)
    yield from ((CreditAccount.kind, emails.get(n, f"#{n}")) for n in evidence.credits)


def _rescues(evidence: Evidence) -> Counter[Wanted]:
    emails = _emails(evidence)
    rescues: Counter[Wanted] = Counter()
    for job in evidence.jobs:
        rescues[job.kind, emails.get(job.user_id, f"#{job.user_id}")] += job.rescues
    return rescues


def _lost(evidence: Evidence, effects: Counter[Wanted], wanted: set[Wanted]) -> list[Wanted]:
    emails = _emails(evidence)
    lost = {effect for effect in wanted if not effects[effect]}
    # The log of renderings is not enough: the file itself must be there.
    lost |= {
        (RenderInvoice.kind, email)
        for email, user_id in evidence.users.items()
        if evidence.invoices.get(user_id) != email
    }
    completed = {
        (job.kind, emails.get(job.user_id, f"#{job.user_id}"))
        for job in evidence.jobs
        if job.state is JobState.completed
    }
    lost |= wanted - completed
    # A user who got the answer "created" but is not in the database has lost all jobs.
    lost |= {
        (kind, answer.email)
        for answer in evidence.answers
        if answer.status == CREATED and answer.email not in evidence.users
        for kind in KINDS
    }
    return sorted(lost)


def _ran(evidence: Evidence) -> set[Wanted]:
    emails = _emails(evidence)
    return {
        *_effects(evidence),
        # A refused request, and a file without a line in the log, show that a job ran too.
        *((SyncCrm.kind, email) for email, _ in evidence.crm),
        *((RenderInvoice.kind, emails.get(n, f"#{n}")) for n in evidence.invoices),
        *((job.kind, emails.get(job.user_id, f"#{job.user_id}")) for job in evidence.jobs),
    }


def _emails(evidence: Evidence) -> dict[int, str]:
    return {user_id: email for email, user_id in evidence.users.items()}
