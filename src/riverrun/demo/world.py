"""The outside world: a mail server that keeps its mails, and a CRM that fails one time in five.

Both write each request to a file, as a line of JSON, for the audit.
"""

import asyncio
import json
import random
import signal
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as SmtpSession

from riverrun.demo.processes import report_ready
from riverrun.demo.settings import settings_from_environment
from riverrun.runtime.parent_death import end_with_parent

FAILING_SHARE = 0.2
SEED = 20


class Mailbox:
    """The mail server's handler, which writes each mail to a file.

    Args:
        path: The file, which gets a line per mail.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def handle_DATA(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: SmtpSession, envelope: Envelope
    ) -> str:
        """Write the mail to the file, then accept it."""
        del server, session
        content = envelope.content or b""
        text = content if isinstance(content, str) else content.decode(errors="replace")
        append(self._path, {"to": envelope.rcpt_tos, "text": text})
        return "250 OK"


class Crm(ThreadingHTTPServer):
    """A CRM that answers 503 to a fifth of its requests: the same ones in every run.

    Args:
        path: The file, which gets a line per request.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), CrmRequest)
        self._path = path
        self._tries: Counter[str] = Counter()
        self._lock = threading.Lock()  # guards the tries, and the order of lines

    def status_for(self, email: str, user_id: int) -> int:
        """Write a request and its status to the file; return the status."""
        with self._lock:
            self._tries[email] += 1
            # The same in every run: it depends on the user and the try, not on the order.
            fate = random.Random(f"{SEED} {email} {self._tries[email]}").random()
            status = 503 if fate < FAILING_SHARE else 201
            append(self._path, {"email": email, "user_id": user_id, "status": status})
        return status


class CrmRequest(BaseHTTPRequestHandler):
    """One request to the CRM."""

    def do_POST(self) -> None:
        """Accept a contact, or answer 503."""
        assert isinstance(self.server, Crm)  # noqa: S101
        contact = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.server.status_for(contact["email"], contact["user_id"]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing: the file has every request."""


def append(path: Path, line: object) -> None:
    """Add a line to a file of JSON lines, in one write."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")


async def receive_mail(mailbox: Mailbox, crm_port: int) -> None:
    """Serve SMTP until SIGTERM."""
    settings = settings_from_environment()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: SMTP(mailbox, loop=loop), "127.0.0.1", 0)
    smtp_port = server.sockets[0].getsockname()[1]
    report_ready(settings, smtp_port, crm_port)
    await stop.wait()
    server.close()


def main() -> None:
    """Serve SMTP and the CRM until SIGTERM."""
    end_with_parent(0)
    settings = settings_from_environment()
    crm = Crm(settings.path("crm"))
    thread = threading.Thread(target=crm.serve_forever, name="crm")
    thread.start()
    try:
        asyncio.run(receive_mail(Mailbox(settings.path("mails")), crm.server_port))
    finally:
        crm.shutdown()
        thread.join()
        crm.server_close()


if __name__ == "__main__":
    main()
