"""Whether each job ran once, none was lost and none ran that never was: judged by what is left."""

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
"""An effect: the kind of its job, and the user it is for (the e-mail, or `#` and the id)."""


@attrs.frozen(kw_only=True)
class Verdict:
    """What the demo came to. Jobs are counted, but for `requests`.

    Attributes:
        requests: Clicks that were answered.
        request_p50_ms: Half of the answers took no longer, in milliseconds.
        request_p99_ms: All but one in a hundred took no longer, in milliseconds.
        inserted: Rows of jobs in the database.
        rolled_back: Jobs whose insert the service undid.
        completed: Jobs that ended well.
        retried: Attempts that failed and were followed by another.
        duplicates_skipped: Inserts of jobs that were there already.
        lost: Jobs of users who are in the database that had no effect or were not completed.
        ran_after_rollback: Effects, and jobs, for users who are not in the database.
        worked_twice: Jobs that had their effect more often than they may: once, and once more for
            each rescue unless they use `ctx.transaction()`.
        rescued: Jobs taken back from the worker that was killed.
        rescue_p50_s: Half of them were at work again within so many seconds of the kill.
        seconds: How long everything took.
        complaints: What was lost, ran or was worked twice, in words.
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
    """Return what the evidence says.

    Args:
        evidence: What was left when nothing ran any more.
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
    # One for each time. A request that the CRM refused had no effect, so a retry is no second one.
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
    # The line in the log is not the file.
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
    # Who was told "created" and is not in the database has lost everything.
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
        # A request that was refused, and a file without a line in the log, ran as well.
        *((SyncCrm.kind, email) for email, _ in evidence.crm),
        *((RenderInvoice.kind, emails.get(n, f"#{n}")) for n in evidence.invoices),
        *((job.kind, emails.get(job.user_id, f"#{job.user_id}")) for job in evidence.jobs),
    }


def _emails(evidence: Evidence) -> dict[int, str]:
    return {user_id: email for email, user_id in evidence.users.items()}
