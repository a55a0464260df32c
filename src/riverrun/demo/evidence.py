"""Gathers the traces that the jobs left in the database, the mails, the files and the CRM."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import select
from sqlalchemy.orm import Session

from riverrun import JobState
from riverrun.demo.browsers import Answer
from riverrun.demo.settings import Settings
from riverrun.demo.tables import Credit, User
from riverrun.models import Job


@attrs.frozen(kw_only=True)
class JobSeen:
    """The columns of a job that the audit needs."""

    kind: str
    user_id: int
    state: JobState
    attempt: int
    rescues: int = 0
    attempted_at: datetime | None = None


@attrs.frozen(kw_only=True)
class Evidence:
    """The traces that the audit judges by.

    Attributes:
        answers: The service's answers to the clicks.
        users: The ids of the users in the database, by e-mail address.
        jobs: The jobs in the database.
        mails: The recipients of the mails that the mail server accepted.
        invoices: The address inside each PDF file, or "" if it is broken, by the user's id.
        renderings: The user's id, once per rendering of an invoice.
        crm: The e-mail address and the status, per request that the CRM answered.
        credits: The user's id, per credit in the database.
        killed_at: When a worker was killed, by the database's clock; None if none was.
    """

    answers: Sequence[Answer]
    users: Mapping[str, int]
    jobs: Sequence[JobSeen]
    mails: Sequence[str]
    invoices: Mapping[int, str]
    renderings: Sequence[int]
    crm: Sequence[tuple[str, int]]
    credits: Sequence[int]
    killed_at: datetime | None = None


def gather(settings: Settings, answers: Sequence[Answer], killed_at: datetime | None) -> Evidence:
    """Return the evidence. Call it when nothing runs any more."""
    engine = settings.engine()
    try:
        with Session(engine) as session:
            users = {user.email: user.id for user in session.scalars(select(User))}
            jobs = [
                JobSeen(
                    kind=job.kind,
                    user_id=job.args["user"],
                    state=job.state,
                    attempt=job.attempt,
                    rescues=job.metadata_.get("river:rescue_count", 0),
                    attempted_at=job.attempted_at,
                )
                for job in session.scalars(select(Job))
            ]
            credited = list(session.scalars(select(Credit.user_id)))
    finally:
        engine.dispose()
    return Evidence(
        answers=answers,
        users=users,
        jobs=jobs,
        mails=[to for mail in _lines(settings.path("mails")) for to in mail["to"]],
        invoices={
            int(path.stem): _addressee(path.read_bytes())
            for path in settings.path("invoices").glob("*.pdf")
        },
        renderings=[
            int(Path(name).stem) for name in settings.path("renderings").read_text().split()
        ],
        crm=[(request["email"], request["status"]) for request in _lines(settings.path("crm"))],
        credits=credited,
        killed_at=killed_at,
    )


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _addressee(pdf: bytes) -> str:
    whole = pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")
    found = re.search(rb"<([^<>\s]+@[^<>\s]+)>", pdf) if whole else None
    return found[1].decode() if found else ""
