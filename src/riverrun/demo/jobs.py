"""The four kinds of job that a sign-up inserts; each must run once per user."""

import attrs

from riverrun import InsertOpts, JobArgs, Ref, UniqueOpts
from riverrun.demo.tables import User

# A double click signs up once: the second click's jobs are duplicates of the first's.
ONCE = InsertOpts(unique=UniqueOpts(by_args=True))


@attrs.frozen(kw_only=True)
class SendWelcome(JobArgs, kind="demo_send_welcome", insert_opts=ONCE):
    """Args of the job that sends the welcome e-mail."""

    user: Ref[User]


@attrs.frozen(kw_only=True)
class RenderInvoice(JobArgs, kind="demo_render_invoice", insert_opts=ONCE):
    """Args of the job that renders an invoice as a PDF file."""

    user: Ref[User]


@attrs.frozen(kw_only=True)
class SyncCrm(JobArgs, kind="demo_sync_crm", insert_opts=ONCE):
    """Args of the job that adds the user to the CRM."""

    user: Ref[User]


@attrs.frozen(kw_only=True)
class CreditAccount(JobArgs, kind="demo_credit_account", insert_opts=ONCE):
    """Args of the job that gives the welcome credit: money, which must not be given twice."""

    user: Ref[User]


JOBS = (SendWelcome, RenderInvoice, SyncCrm, CreditAccount)

KINDS = tuple(args.kind for args in JOBS)
