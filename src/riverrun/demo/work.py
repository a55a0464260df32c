"""The workers of the demo, run by `riverrun work riverrun.demo.work:client`."""

import http.client
import json
import logging
import os
import smtplib
import tempfile
from email.message import EmailMessage

from fpdf import FPDF
from sqlalchemy.orm import Session

from riverrun import Client, Exponential, JobContext, JobLog, QueueConfig, Workers
from riverrun.demo import business
from riverrun.demo.jobs import CreditAccount, RenderInvoice, SendWelcome, SyncCrm
from riverrun.demo.processes import report_ready
from riverrun.demo.settings import settings_from_environment
from riverrun.demo.tables import Credit
from riverrun.runtime.parent_death import end_with_parent

SLOTS = 4
TIMEOUT_S = 30.0

settings = settings_from_environment()
workers = Workers()


class CrmUnavailable(Exception):
    """The CRM refused the request; a retry may succeed."""


@workers.register
def send_welcome(args: SendWelcome, ctx: JobContext, session: Session) -> None:
    """Send the welcome e-mail."""
    user = args.user.get_one(session)
    message = EmailMessage()
    message["From"] = "Riverbank <hello@riverbank.example>"
    message["To"] = user.email
    message["Subject"] = f"Welcome, {user.name}"
    message["Message-ID"] = f"<welcome-{ctx.job.id}@riverbank.example>"
    message.set_content(f"Dear {user.name},\n\nyour account is ready.\n")
    with smtplib.SMTP("127.0.0.1", settings.smtp_port, timeout=TIMEOUT_S) as smtp:
        smtp.send_message(message)


@workers.register
def render_invoice(args: RenderInvoice, session: Session) -> None:
    """Render the invoice into a file, which appears whole or not at all."""
    user = args.user.get_one(session)
    pdf = FPDF()
    pdf.set_compression(False)  # So that the audit can read it without a PDF library.
    pdf.add_page()
    pdf.set_font("Helvetica", size=20)
    pdf.cell(text=f"Invoice {user.id}", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", size=12)
    pdf.cell(text=f"{user.name} <{user.email}>", new_x="LMARGIN", new_y="NEXT")
    pdf.cell(text="One month of Riverbank: EUR 9.00", new_x="LMARGIN", new_y="NEXT")
    name = f"{user.id}.pdf"
    with tempfile.NamedTemporaryFile(dir=settings.path("invoices"), delete=False) as file:
        file.write(bytes(pdf.output()))
    os.replace(file.name, settings.path("invoices") / name)
    # Without this log, a second rendering would replace the first unnoticed.
    with settings.path("renderings").open("ab", buffering=0) as log:
        log.write(f"{name}\n".encode())


# The demo is short, so the delays are: in production, give a CRM that is down minutes.
@workers.register(backoff=Exponential(initial=0.2, base=2, cap=2))
def sync_crm(args: SyncCrm, session: Session) -> None:
    """Add the user to the CRM."""
    user = args.user.get_one(session)
    connection = http.client.HTTPConnection("127.0.0.1", settings.crm_port, timeout=TIMEOUT_S)
    try:
        body = json.dumps({"user_id": user.id, "email": user.email})
        connection.request("POST", "/contacts", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    if answer.status != http.client.CREATED:
        raise CrmUnavailable(f"the CRM answered {answer.status}")


@workers.register
def credit_account(args: CreditAccount, session: Session) -> None:
    """Give the welcome credit in the commit that completes the job, so that it happens once."""
    session.add(Credit(user_id=args.user.key, cents=500))


queues = ["default"]
if settings.dashboard:
    business.register(workers)
    queues += business.QUEUES
    logging.getLogger("riverrun.demo").setLevel(logging.INFO)  # kept with the jobs by JobLog
client = Client(
    settings.engine(),
    workers=workers,
    queues={name: QueueConfig(max_workers=SLOTS) for name in queues},
    schema=settings.schema,
    id=settings.name,
    periodic_jobs=business.PERIODIC if settings.dashboard else (),
    plugins=[JobLog(live=True)] if settings.dashboard else (),
)
end_with_parent(0)
report_ready(settings)
