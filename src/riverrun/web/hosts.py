"""The dashboard as an ASGI application."""

from typing import Any

from riverrun.web.dashboard import Dashboard


def asgi(dashboard: Dashboard) -> Any:
    """Return the dashboard as an ASGI application, to mount in Starlette or FastAPI.

    `authorize` finds the request's scope in `environ["asgi.scope"]`.

    Args:
        dashboard: The dashboard.

    Raises:
        ImportError: If a2wsgi is not installed.
    """
    try:
        from a2wsgi import WSGIMiddleware
    except ImportError as error:
        raise ImportError("riverrun.web.asgi needs a2wsgi: pip install 'riverrun[web]'") from error

    application: Any = dashboard
    served = WSGIMiddleware(application)

    async def pages(scope: Any, receive: Any, send: Any) -> None:
        await served(_with_prefix(scope), receive, send)

    return pages


def _with_prefix(scope: Any) -> Any:
    """Return the scope with the prefix in its path that a proxy removed, as the server adds it.

    The server does not know of `FastAPI(root_path=...)`. Starlette then looks up its routes by the
    path as it came, so a mount finds it without the prefix that `root_path` has.
    """
    prefix, root, path = (scope.get(key, "") for key in ("app_root_path", "root_path", "path"))
    if not prefix or f"{path}/".startswith(f"{root}/"):
        return scope
    return {**scope, "path": prefix + path}
