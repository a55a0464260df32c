"""What the mounts of the dashboard in Flask and in Pyramid share."""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from riverrun.client.client import Client
from riverrun.errors import InvalidOption

if TYPE_CHECKING:  # It needs Jinja2, which only applications with a dashboard must have.
    from riverrun.web import Dashboard


class Mount:
    """A dashboard below a path of the host, made on the first request, as its client is.

    Args:
        path: The path, such as `/admin/jobs`. In braces or angle brackets, as the host's routes
            have it, a part stands for any one part of an address.
        options: The options of the Dashboard.

    Raises:
        ImportError: If Jinja2 is not installed.
        InvalidOption: If there is no `authorize`, or the path does not begin with a slash.
    """

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        if not isinstance(path, str) or not path.startswith("/"):
            expected = "one that begins with a slash, such as '/admin/jobs'"
            raise InvalidOption("the dashboard's path", path, expected)
        if not callable(options.get("authorize")):
            expected = f"a function of the environ, because the dashboard is mounted at {path!r}; "
            advice = "it returns a riverrun.web.User, or None for those who may not see it"
            raise InvalidOption("authorize", options.get("authorize"), expected + advice)
        # Imported here, so that a missing package fails the start and not the first request.
        from riverrun.web import Dashboard

        self._dashboard = Dashboard
        self.path = path.rstrip("/")  # "" is the root
        self._options = options
        self._lock = threading.Lock()  # guards _made, so that only one is made
        self._made: Dashboard | None = None

    def asset_names(self) -> Iterable[str]:
        """Return the names of the dashboard's files below `static/`."""
        from riverrun.web.render import assets_by_name

        return assets_by_name()

    def dashboard(self, client: Callable[[], Client]) -> "Dashboard":
        """Return the dashboard of the client that `client` returns."""
        with self._lock:
            if self._made is None:
                self._made = self._dashboard(client(), **self._options)
            return self._made


def environ_below(environ: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the environ of a request for a WSGI application that is mounted at `path`."""
    # Not the rest of the path from the router: routers decode it, and some merge slashes.
    parts = environ["PATH_INFO"].split("/")
    inner = path.strip("/")
    depth = 1 + (inner.count("/") + 1 if inner else 0)
    return {
        **environ,
        "SCRIPT_NAME": environ.get("SCRIPT_NAME", "").rstrip("/") + "/".join(parts[:depth]),
        "PATH_INFO": "".join(f"/{part}" for part in parts[depth:]),
    }
