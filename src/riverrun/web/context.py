"""What a page works with: the database, the words, and what may be shown to a user."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Engine

from riverrun.client.client import Client
from riverrun.clock import Clock
from riverrun.events import UserActed
from riverrun.jobs.listing import JobBrief
from riverrun.web.errors import NotAllowed
from riverrun.web.filters import JobFilter
from riverrun.web.links import Link
from riverrun.web.reader import Reader
from riverrun.web.redaction import Redaction
from riverrun.web.users import Right, User
from riverrun.web.words import WORDS


@attrs.frozen(kw_only=True)
class Context:
    """What a page works with.

    Attributes:
        engine: The engine, for actions. Pages read with `read`.
        schema: The schema of River's tables; None for the search path's.
        read: Calls verbs that read.
        client: The application's client; None if the dashboard only has an engine.
        redaction: Hides what the application does not want shown.
        links: Links to other tools.
        clock: The process's clock.
        words: All texts.
    """

    engine: Engine
    schema: str | None
    read: Reader
    client: Client | None
    redaction: Redaction
    links: Sequence[Link]
    clock: Clock
    words: dict[str, str] = WORDS

    def on_done(self, done: UserActed) -> None:
        """Publish an action as an event of the application's client."""
        if self.client is not None:
            self.client.hub.publish(done)

    def now(self) -> datetime:
        """Return the time of the process."""
        return self.clock.now()

    def check_filter(self, user: User, chosen: JobFilter) -> None:
        """Refuse a filter that would let a user guess what the user may not see.

        Raises:
            NotAllowed: If the filter is by args, metadata or text, and the user may not see args.
        """
        names = {key for key, _ in chosen.fields}
        if names & {"arg", "meta", "q"} and not user.may(Right.view_args):
            raise NotAllowed(Right.view_args)

    def brief(self, user: User, job: JobBrief) -> JobBrief:
        """Return the short form of a job with what may be shown of it."""
        error: Any = job.last_error
        if error is not None:
            error = self.redaction.text(job, "error", error)
        args = self.redaction.brief_args(job) if user.may(Right.view_args) else None
        return attrs.evolve(job, args=args, last_error=error)
