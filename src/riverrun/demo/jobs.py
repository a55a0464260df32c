"""What a sign-up leaves to do later: four kinds of job, each wanted once for a user."""

import attrs

from riverrun import InsertOpts, JobArgs, UniqueOpts

# Who clicks twice signs up once: the second click's jobs are the first's.
ONCE = InsertOpts(unique=UniqueOpts(by_args=True))


@attrs.frozen(kw_only=True)
class SendWelcome(JobArgs, kind="demo_send_welcome", insert_opts=ONCE):
    """A welcome e-mail."""

    user_id: int
    email: str
    name: str


@attrs.frozen(kw_only=True)
class RenderInvoice(JobArgs, kind="demo_render_invoice", insert_opts=ONCE):
    """An invoice as a PDF file."""

    user_id: int
    email: str
    name: str


@attrs.frozen(kw_only=True)
class SyncCrm(JobArgs, kind="demo_sync_crm", insert_opts=ONCE):
    """The user's entry in the CRM."""

    user_id: int
    email: str


@attrs.frozen(kw_only=True)
class CreditAccount(JobArgs, kind="demo_credit_account", insert_opts=ONCE):
    """The welcome credit in the user's account: money, which must not be given twice."""

    user_id: int
    email: str


KINDS = (SendWelcome.kind, RenderInvoice.kind, SyncCrm.kind, CreditAccount.kind)
