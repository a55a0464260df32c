"""Further jobs, for the demo with its dashboard: they fail for good, take long, recur and wait."""

import random
from datetime import timedelta
from functools import partial

import attrs
from sqlalchemy.orm import Session

from riverrun import (
    Client,
    Cron,
    InsertOpts,
    Interval,
    JobArgs,
    JobCancel,
    JobContext,
    JobSnooze,
    PeriodicJob,
    UniqueOpts,
    Workers,
)
from riverrun.logs.loggers import logger_of

CARDS_DECLINED = 0.15
CARDS_STOLEN = 0.05
REPORT_EVERY, ARCHIVE_EVERY, REMINDER_EVERY = 4, 40, 5
QUEUES = ("billing", "reports")
"""Queues that the workers of the demo work, beside the default one."""

logger = logger_of(__name__)


ONCE = UniqueOpts(by_args=True)
"""A double click charges once."""


class CardDeclined(Exception):
    """The bank declined a card."""


class BankUnavailable(Exception):
    """The bank did not answer."""


@attrs.frozen(kw_only=True)
class ChargeCard(
    JobArgs,
    kind="demo_charge_card",
    insert_opts=InsertOpts(queue="billing", max_attempts=2, unique=ONCE),
):
    """Args of the job that charges a card, which the bank declines now and then."""

    user_id: int
    card: str


@attrs.frozen(kw_only=True)
class BuildReport(JobArgs, kind="demo_build_report", insert_opts=InsertOpts(queue="reports")):
    """Args of the job that builds a report, in steps of some seconds each."""

    user_id: int
    pages: int


@attrs.frozen(kw_only=True)
class SendReminder(JobArgs, kind="demo_send_reminder"):
    """Args of the job that reminds a user, some minutes after the sign-up."""

    user_id: int


@attrs.frozen(kw_only=True)
class SendDigest(JobArgs, kind="demo_send_digest"):
    """Args of the job that recurs."""


@attrs.frozen(kw_only=True)
class ArchiveMails(JobArgs, kind="demo_archive_mails", insert_opts=InsertOpts(queue="archive")):
    """Args of the job that waits in a queue which no client works."""

    user_id: int


PERIODIC = (
    PeriodicJob(Interval(timedelta(seconds=30)), SendDigest(), id="digest"),
    PeriodicJob(Cron("0 3 * * *"), SendDigest(), id="nightly"),
)


def insert_further_jobs(client: Client, session: Session, user_id: int) -> None:
    """Insert what follows a sign-up, in its transaction."""
    client.insert(session, ChargeCard(user_id=user_id, card=f"**** {1000 + user_id % 9000}"))
    if user_id % REPORT_EVERY == 0:
        client.insert(session, BuildReport(user_id=user_id, pages=2 + user_id % 5))
    if user_id % REMINDER_EVERY == 0:
        client.insert(session, SendReminder(user_id=user_id), delay=300 + user_id % 300)
    if user_id % ARCHIVE_EVERY == 0:
        client.insert(session, ArchiveMails(user_id=user_id))


def register(workers: Workers) -> None:
    """Register the workers of these jobs."""
    for worker in (charge_card, build_report, send_reminder, send_digest, archive_mails):
        workers.register(worker)


def charge_card(args: ChargeCard, ctx: JobContext) -> None:
    """Charge the card."""
    fate = random.random()
    logger.info("charging %s", args.card)
    if ctx.wait(0.05 + fate / 4):
        return
    if fate < CARDS_STOLEN:
        raise JobCancel("the card is reported as stolen")
    if fate < CARDS_DECLINED:
        raise CardDeclined(f"the bank declined card {args.card} of user {args.user_id}")
    if args.user_id % 11 == 0:
        raise BankUnavailable("no answer from the bank within 30 s")


def build_report(args: BuildReport, ctx: JobContext) -> None:
    """Build the report, page by page."""

    def page(number: int) -> None:
        logger.info("page %d of %d", number, args.pages)
        ctx.wait(1.0 + random.random())
        ctx.raise_if_cancelled()

    for number in range(1, args.pages + 1):
        ctx.step(f"page-{number}", partial(page, number))
    ctx.record_output({"pages": args.pages, "file": f"report-{args.user_id}.pdf"})


def send_reminder(args: SendReminder) -> None:
    """Remind the user, or look again later."""
    if random.random() < 0.3:
        raise JobSnooze(60)
    logger.info("user %d is reminded", args.user_id)


def send_digest(args: SendDigest, ctx: JobContext) -> None:
    """Send the digest."""
    del args
    ctx.record_output({"recipients": random.randrange(100)})


def archive_mails(args: ArchiveMails) -> None:
    """Archive a user's mails."""
    logger.info("mails of user %d are archived", args.user_id)
