"""Mounts the dashboard in a Pyramid application, as a view that may require a permission."""

from collections.abc import Callable, Mapping
from typing import Any

from riverrun.client.client import Client
from riverrun.ext.mounts import Mount, environ_below

ROUTE = "riverrun_dashboard"


def add_dashboard(
    config: Any,
    path: str,
    client_of: Callable[[Any], Client],
    *,
    permission: str | None,
    factory: Any,
    options: Mapping[str, Any],
) -> None:
    """Add the dashboard's routes and views.

    Args:
        config: Pyramid's Configurator.
        path: Where the dashboard is.
        client_of: Returns the client of an application, by its registry.
        permission: The permission that the views require.
        factory: The root factory of the routes.
        options: The options of the Dashboard.

    Raises:
        InvalidOption: As for `Mount`.
    """
    mount = Mount(path, options)

    def view(request: Any) -> Any:
        copy = request.copy()  # Its body can be read again, even if the request's has been.
        # The route's own pattern, because config.include may have put a prefix before the path.
        pattern = request.matched_route.pattern.removesuffix("*subpath")
        copy.environ.update(environ_below(copy.environ, pattern))
        copy.environ["pyramid.request"] = request
        # A server in front may have put another name there than that of the user whom the host has
        # signed in.
        copy.environ.pop("REMOTE_USER", None)
        if request.authenticated_userid is not None:
            copy.environ["REMOTE_USER"] = str(request.authenticated_userid)
        return copy.get_response(mount.dashboard(lambda: client_of(request.registry)))

    # Not one route `path*subpath`, as that also matches `/admin/jobsearch`.
    patterns = {ROUTE: f"{mount.path}/*subpath", f"{ROUTE}_bare": mount.path}
    for name, pattern in patterns.items():
        if pattern:
            config.add_route(name, pattern, factory=factory)
            # The dashboard checks where a form comes from, and does not know the host's token.
            config.add_view(view, route_name=name, permission=permission, require_csrf=False)
