"""Mounts the dashboard in a Flask application, as a view. What guards views also guards it."""

import io
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from flask import Flask, request
from werkzeug.wrappers import Response

from riverrun.client.client import Client
from riverrun.ext.mounts import Mount, environ_below

ENDPOINT = "riverrun_dashboard"


def has_dashboard(app: Flask) -> bool:
    """Return whether `app` has the dashboard."""
    return ENDPOINT in app.view_functions


def add_dashboard(app: Flask, mount: Mount, client: Callable[[], Client]) -> None:
    """Add the dashboard to `app`.

    Args:
        app: The application.
        mount: What to mount, and where.
        client: Returns the application's client.
    """

    def riverrun_dashboard(**_: Any) -> Response:
        environ = environ_below(request.environ, mount.path)
        # A hook of the application may have read the body: as a form, or as it came.
        body = vars(request).get("_cached_data")
        if "form" in vars(request):
            body = urlencode(list(request.form.items(multi=True))).encode()
        if body is not None:
            environ.update({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
        return Response.from_app(mount.dashboard(client), environ)

    def exempt() -> None:
        # Flask-WTF wants the host's token in each form. The dashboard checks where a form comes
        # from instead, and has no session to keep a token in.
        if "csrf" in app.extensions:
            app.extensions["csrf"].exempt(riverrun_dashboard)

    options: dict[str, Any] = {
        "view_func": riverrun_dashboard,
        "methods": ["GET", "POST"],
        "merge_slashes": False,  # The name of a queue may have several.
    }
    if app.url_map.host_matching:
        options["host"] = "<riverrun_host>"  # any; without one, the rules match no request
    app.add_url_rule(f"{mount.path}/", ENDPOINT, strict_slashes=True, **options)
    app.add_url_rule(f"{mount.path}/<path:riverrun_path>", ENDPOINT, **options)
    if not mount.path:
        # At the root Flask's own route of static files comes first, but for whole addresses.
        for name in mount.asset_names():
            app.add_url_rule(f"/static/{name}", ENDPOINT, **options)
    exempt()
    app.before_request(exempt)  # Flask-WTF may be initialized later.
