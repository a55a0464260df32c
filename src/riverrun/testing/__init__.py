"""Helpers for an application's tests: find inserted jobs, and work them in the test's transaction.

    with Session(engine) as session:                     # rolled back at the end
        sign_up(session, "alice@example.com")            # the code under test
        require_inserted(session, SendEmail(to="alice@example.com"), queue="mail")
        drain(session, client, "mail")                   # its jobs, and the jobs that they insert

Each function takes the test's Session or Connection first, so `run_sync` of an AsyncSession can
call it. None of them commits, so they work with SQLAlchemy's recipe for test suites: a session
joined to a transaction that is rolled back.
"""

from riverrun.testing.clock import FrozenClock
from riverrun.testing.jobs import AsyncJobs, Jobs
from riverrun.testing.look import require_inserted, require_many_inserted, require_not_inserted
from riverrun.testing.sessions import rolled_back, rolled_back_async, without_uniqueness
from riverrun.testing.work import drain, drain_async, work_one, work_one_async
from riverrun.testing.workbench import Worked

__all__ = [
    "AsyncJobs",
    "FrozenClock",
    "Jobs",
    "Worked",
    "drain",
    "drain_async",
    "require_inserted",
    "require_many_inserted",
    "require_not_inserted",
    "rolled_back",
    "rolled_back_async",
    "without_uniqueness",
    "work_one",
    "work_one_async",
]
