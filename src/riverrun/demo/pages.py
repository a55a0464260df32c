"""The dashboard of the demo, for the user who started it."""

import socket

from werkzeug.serving import make_server

from riverrun.demo.processes import serve
from riverrun.demo.settings import LINK
from riverrun.demo.signup import Quiet
from riverrun.demo.work import client, settings
from riverrun.web import Dashboard, User
from riverrun.web.one_time_link import OneTimeLink


def main() -> None:
    """Serve until SIGTERM, and keep the current link in a file."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def publish() -> None:
            place = settings.path(LINK)
            unfinished = place.with_suffix(".unready")
            unfinished.write_text(f"http://127.0.0.1:{port}{link.path}")
            unfinished.replace(place)  # Atomically, so that no half link is read.

        user = User.all("demo")
        link = OneTimeLink(user, cookie=f"riverrun_{port}", on_used=publish)
        pages = Dashboard(client, authorize=link.authorize, title="Riverbank")
        application = link.around(pages)
        server = make_server(
            "127.0.0.1",
            port,
            application,
            threaded=True,
            request_handler=Quiet,
            fd=listener.fileno(),
        )
        serve(server, publish)
    client.engine.dispose()


if __name__ == "__main__":
    main()
