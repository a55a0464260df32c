"""Plain functions, a verb each, that work on any Session or Connection and need no client."""

from riverrun.verbs.act import (
    Acted,
    JobAction,
    act_on,
    act_on_listed,
    newest_job_id,
)
from riverrun.verbs.act_switch import act_on_periodic, act_on_queue
from riverrun.verbs.actions import ActionRow, list_actions, record_action
from riverrun.verbs.cancel import cancel, cancel_where
from riverrun.verbs.claim import claim
from riverrun.verbs.complete import complete, discard, fail, snooze
from riverrun.verbs.delete import delete, delete_many, delete_where
from riverrun.verbs.failures import (
    FailedJobs,
    FailureGroup,
    FailureList,
    list_failed,
    list_failures,
)
from riverrun.verbs.health import (
    IndexHealth,
    LineVersion,
    OpenTransaction,
    SchemaHealth,
    TableHealth,
    schema_health,
)
from riverrun.verbs.insert import InsertResult, insert, insert_many
from riverrun.verbs.insert_fast import insert_many_fast
from riverrun.verbs.insert_from import insert_from
from riverrun.verbs.kinds import KindStats, kind_stats, list_kinds
from riverrun.verbs.live_log import LiveLog, get_live_log
from riverrun.verbs.overview import Problem, ProblemKind, overview
from riverrun.verbs.periodic import (
    PeriodicRow,
    list_periodic,
    pause_periodic,
    resume_periodic,
    run_periodic_now,
)
from riverrun.verbs.queues import (
    QueueRow,
    get_queue,
    list_queues,
    pause_queue,
    resume_queue,
    update_queue,
)
from riverrun.verbs.read import get, key_holder, list_jobs
from riverrun.verbs.reschedule import reschedule_where
from riverrun.verbs.rescues import RescuedJob, list_rescued
from riverrun.verbs.retry import retry, retry_where
from riverrun.verbs.samples import (
    SampleKey,
    SamplePoint,
    Samples,
    SampleSeries,
    SampleSpan,
    list_samples,
)
from riverrun.verbs.status import (
    ClientRow,
    FinishedCount,
    JobCount,
    RunningOn,
    count_jobs,
    finished_by_time,
    get_leader,
    list_clients,
    running_on,
)
from riverrun.verbs.update import update
from riverrun.verbs.waiting import Place, WaitingCount, count_waiting, place_in_line

__all__ = [
    "Acted",
    "ActionRow",
    "ClientRow",
    "FailedJobs",
    "FailureGroup",
    "FailureList",
    "FinishedCount",
    "IndexHealth",
    "InsertResult",
    "JobAction",
    "JobCount",
    "KindStats",
    "LineVersion",
    "LiveLog",
    "OpenTransaction",
    "PeriodicRow",
    "Place",
    "Problem",
    "ProblemKind",
    "QueueRow",
    "RescuedJob",
    "RunningOn",
    "SampleKey",
    "SamplePoint",
    "SampleSeries",
    "SampleSpan",
    "Samples",
    "SchemaHealth",
    "TableHealth",
    "WaitingCount",
    "act_on",
    "act_on_listed",
    "act_on_periodic",
    "act_on_queue",
    "cancel",
    "cancel_where",
    "claim",
    "complete",
    "count_jobs",
    "count_waiting",
    "delete",
    "delete_many",
    "delete_where",
    "discard",
    "fail",
    "finished_by_time",
    "get",
    "get_leader",
    "get_live_log",
    "get_queue",
    "insert",
    "insert_from",
    "insert_many",
    "insert_many_fast",
    "key_holder",
    "kind_stats",
    "list_actions",
    "list_clients",
    "list_failed",
    "list_failures",
    "list_jobs",
    "list_kinds",
    "list_periodic",
    "list_queues",
    "list_rescued",
    "list_samples",
    "newest_job_id",
    "overview",
    "pause_periodic",
    "pause_queue",
    "place_in_line",
    "record_action",
    "reschedule_where",
    "resume_periodic",
    "resume_queue",
    "retry",
    "retry_where",
    "run_periodic_now",
    "running_on",
    "schema_health",
    "snooze",
    "update",
    "update_queue",
]
