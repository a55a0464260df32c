"""Background jobs for SQLAlchemy applications, inside your own transaction, on River's tables.

A job passes through five steps. Each module that it passes through begins with its step:

1. insert (`client/client.py`, `client/inserter.py`, `verbs/draft.py`, `verbs/insert.py`): the job
   is a row in the caller's transaction;
2. notify (`db/commit_hooks.py`, `runtime/announcer.py`, `verbs/notify.py`; in each working client
   `runtime/notifier.py`, `client/services.py`): after the commit, producers are woken;
3. claim (`runtime/producer.py`, `runtime/passed_over.py`, `verbs/claim.py`,
   `verbs/claim_apart.py`): the row becomes `running`, for a slot;
4. execute (`execution/slots.py`, `execution/threads.py`, `execution/coroutines.py`,
   `execution/processes.py`, `execution/attempt.py`, `outcome.py`): the worker runs, and what it
   returned or raised decides the outcome;
5. complete (`runtime/completer.py`, `runtime/writer.py`, `runtime/isolator.py`,
   `verbs/complete.py`, `verbs/record.py`): the outcome is written, if the job still runs.

Plugins (`execution/plugins.py`) take part in steps 1 and 4. A job that comes due later becomes
available in `maintenance/job_scheduler.py`, and goes on with step 2.
"""

import riverrun.libpq  # noqa: F401  # isort: split
from riverrun.client.client import Client
from riverrun.config import Notify, QueueConfig
from riverrun.errors import (
    JobCancel,
    JobError,
    JobSnooze,
    ObjectGone,
    OwnerBypassed,
    RiverrunError,
    RuleBypassed,
)
from riverrun.events import (
    Event,
    JobCancelled,
    JobCompleted,
    JobConflicted,
    JobDeferred,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobsClaimed,
    JobSnoozed,
    QueueEvent,
    QueuePaused,
    QueueResumed,
    UserActed,
)
from riverrun.execution.context import JobContext
from riverrun.execution.handlers import ErrorHandlerResult, JobStuckHandlerResult
from riverrun.execution.job_log import JobLog
from riverrun.execution.plugins import Plugin
from riverrun.execution.workers import Executor, Workers
from riverrun.jobs.args import JobArgs, RawArgs
from riverrun.jobs.listing import JobList, JobListParams, JobOrder
from riverrun.jobs.options import InsertOpts, OnConflict
from riverrun.jobs.row import JobRow
from riverrun.jobs.states import JobState
from riverrun.orm.added import AddedJob
from riverrun.orm.refs import Ref
from riverrun.orm.relationships import jobs_of
from riverrun.orm.rules import Rule
from riverrun.outcome import IfGone
from riverrun.periodic_jobs import Missed, PeriodicJob
from riverrun.policies.backoff import Constant, Explicit, Exponential, Linear, RiverBackoff
from riverrun.policies.schedule import Cron, Interval
from riverrun.policies.uniqueness import UniqueKey, UniqueOpts
from riverrun.verbs.draft import JobDraft
from riverrun.verbs.insert import InsertResult
from riverrun.verbs.queues import QueueRow

__all__ = [
    "AddedJob",
    "Client",
    "Constant",
    "Cron",
    "ErrorHandlerResult",
    "Event",
    "Executor",
    "Explicit",
    "Exponential",
    "IfGone",
    "InsertOpts",
    "InsertResult",
    "Interval",
    "JobArgs",
    "JobCancel",
    "JobCancelled",
    "JobCompleted",
    "JobConflicted",
    "JobContext",
    "JobDeferred",
    "JobDraft",
    "JobError",
    "JobEvent",
    "JobFailed",
    "JobInterrupted",
    "JobList",
    "JobListParams",
    "JobLog",
    "JobOrder",
    "JobRow",
    "JobSnooze",
    "JobSnoozed",
    "JobState",
    "JobStuckHandlerResult",
    "JobsClaimed",
    "Linear",
    "Missed",
    "Notify",
    "ObjectGone",
    "OnConflict",
    "OwnerBypassed",
    "PeriodicJob",
    "Plugin",
    "QueueConfig",
    "QueueEvent",
    "QueuePaused",
    "QueueResumed",
    "QueueRow",
    "RawArgs",
    "Ref",
    "RiverBackoff",
    "RiverrunError",
    "Rule",
    "RuleBypassed",
    "UniqueKey",
    "UniqueOpts",
    "UserActed",
    "Workers",
    "jobs_of",
]

__version__ = "0.1.0"
