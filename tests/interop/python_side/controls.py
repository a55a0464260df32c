"""The handshake, and methods that compute results without a database."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
from cattrs.gen import make_dict_structure_fn, override

import riverrun
from riverrun import Cron, JobRow, JobState, RawArgs, RiverBackoff, UniqueOpts
from riverrun.jobs.states import mask_of
from riverrun.migrations import LATEST, Line

from .protocol import METHODS, REJECTED, Empty, Failure, converter, method
from .state import State

MAX_NS = 2**63 - 1


@attrs.frozen(kw_only=True)
class ClockSet:
    now: datetime


@attrs.frozen(kw_only=True)
class RngSeed:
    seed: int


@attrs.frozen(kw_only=True)
class RetryDelay:
    error_count: int
    job_id: int


@attrs.frozen(kw_only=True)
class CronNext:
    count: int
    expression: str
    from_: datetime


renamed = make_dict_structure_fn(
    CronNext, converter, from_=override(rename="from"), _cattrs_forbid_extra_keys=True
)
converter.register_structure_hook(CronNext, renamed)


@attrs.frozen(kw_only=True)
class UniqueOptions:
    by_args: bool
    by_period_nanos: int
    by_queue: bool
    exclude_kind: bool
    by_state: list[JobState] | None = None


@attrs.frozen(kw_only=True)
class UniqueKey:
    args: Any
    kind: str
    now: datetime
    options: UniqueOptions
    queue: str
    scheduled_at: datetime | None = None
    selected_unique_components: list[list[str]] | None = None
    # For the harness that reads the fixtures; an adapter ignores it.
    expected_error: Any = None
    expected_sha256: Any = None
    expected_state_mask: Any = None
    name: Any = None
    selected_unique_paths: Any = None


@attrs.frozen
class Draft:
    """A job to insert, as a uniqueness policy sees it."""

    kind: str
    args: object
    encoded: Mapping[str, Any]
    queue: str
    scheduled_at: datetime | None


@method
def handshake(state: State, params: Empty) -> Any:
    return {
        "adapter_version": 18,
        "application_name": state.application,
        "backend": "postgres",
        "capabilities": sorted(
            {
                "barriers",
                "cancel",
                "custom_schema",
                "deterministic_controls",
                "extensions",
                "fault_injection",
                "get",
                "insert",
                "job_crud",
                "leadership",
                "lifecycle",
                "maintenance",
                "migrate",
                "notifications",
                "periodic_jobs",
                "poll_only",
                "queues",
                "reset",
                "resumable_jobs",
                "retry",
                "scheduler",
                "subscriptions",
                "transactions",
                "unique_jobs",
                "work",
            }
        ),
        "implementation": "riverrun",
        "implementation_version": riverrun.__version__,
        "methods": sorted(METHODS),
        "migration_lines": {"main": LATEST[Line.main]},
        "profile": "postgres-full-v1",
        "protocol_revision": 1,
    }


@method
def clock_set(state: State, params: ClockSet) -> Any:
    state.now = params.now


@method
def rng_seed(state: State, params: RngSeed) -> Any:
    state.seed = params.seed


@method
def retry_delay(state: State, params: RetryDelay) -> Any:
    now = state.now or datetime.now(UTC)
    job = JobRow(
        id=params.job_id,
        kind="conformance_echo",
        args={},
        state=JobState.running,
        queue="default",
        attempt=params.error_count,
        max_attempts=32_767,
        priority=1,
        created_at=now,
        scheduled_at=now,
        errors=({},) * (params.error_count - 1),
    )
    delay = RiverBackoff(rng=random.Random(state.seed).random)(job, now) - now
    # A datetime has microseconds, so the longest delay would be some nanoseconds too long.
    return {"delay_ns": min(delay // timedelta(microseconds=1) * 1000, MAX_NS)}


@method
def cron_next(state: State, params: CronNext) -> Any:
    at, times = params.from_, []
    zone = timezone(at.utcoffset() or timedelta(0))
    schedule = Cron(params.expression, tz=zone)
    for _ in range(params.count):
        at = schedule(at).astimezone(zone)
        times.append(at)
    return {"next": [time.isoformat().replace("+00:00", "Z") for time in times]}


@method
def unique_key(state: State, params: UniqueKey) -> Any:
    if not isinstance(params.args, Mapping):
        raise Failure(REJECTED, f"args are {params.args!r}; expected an object")
    options = params.options
    unique = UniqueOpts(
        by_args=options.by_args and (params.selected_unique_components or True),
        by_period=timedelta(microseconds=options.by_period_nanos // 1000) or None,
        by_queue=options.by_queue,
        by_state=options.by_state,
        exclude_kind=options.exclude_kind,
    )
    args = RawArgs(kind=params.kind, encoded=params.args)
    draft = Draft(params.kind, args, params.args, params.queue, params.scheduled_at)
    mark = unique(draft, params.now)
    return {"sha256": mark.key.hex(), "state_mask": mask_of(mark.states)}
