"""The dashboard: a WSGI application that shows queues, jobs and clients, and acts on them.

    from riverrun.web import Dashboard, User

    def authorize(environ):
        name = environ.get("REMOTE_USER")
        return User(name=name, rights={"view", "retry"}) if name else None

    dashboard = Dashboard(client, authorize=authorize)

Needs the extra: `pip install 'riverrun[web]'`.
"""

from riverrun.web.dashboard import Dashboard
from riverrun.web.hosts import asgi
from riverrun.web.links import Link
from riverrun.web.redaction import Redact
from riverrun.web.users import Right, User

__all__ = ["Dashboard", "Link", "Redact", "Right", "User", "asgi"]
