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
    return WSGIMiddleware(application)
