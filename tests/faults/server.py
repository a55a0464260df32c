"""A durable PostgreSQL server that tests can shut down, crash and reconfigure."""

import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from needs import need
from network import free_ports
from riverrun.embedded import SUPERUSER, Cluster, _run_as
from waiting import until

SETTINGS = {
    "deadlock_timeout": "50ms",
    "listen_addresses": "0.0.0.0",
    # As docs/operating.md recommends, but with shorter times: hosts vanish in these tests.
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 2,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms; no keepalives are sent while data is unacknowledged
}


class Server(Cluster):
    """A durable server that can be started again with its data."""

    def __init__(self) -> None:
        super().__init__(port=free_ports(1), durable=True, settings=SETTINGS)
        self._again: Callable[[], subprocess.Popen[bytes]] | None = None

    @property
    def socket_path(self) -> Path:
        """The Unix socket that the server listens on."""
        return self.directory / f".s.PGSQL.{self._socket_port}"

    def engine(self) -> Engine:
        """Return an engine without a pool, so that no connection survives a fault."""
        return create_engine(self.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def has_ended(self) -> bool:
        """Return whether the server process has exited and must be started again."""
        assert self._server is not None
        return self._server.poll() is not None

    def has_said(self, what: str) -> bool:
        """Return whether the server's log contains `what` since the last start."""
        return what in self._log_file.read_text(errors="replace")

    def let_in(self, network: str) -> None:
        """Trust all connections from `network`."""
        with (self.directory / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {network} trust\n")
        self.run("SELECT pg_reload_conf()")

    def shut_down(self, wish: int = signal.SIGQUIT) -> None:
        """Shut the server down. Default: immediately, as by a power failure.

        An immediate shutdown loses what was not committed.
        """
        assert self._server is not None
        self._server.send_signal(wish)
        self._server.wait(30)

    def start_again(self) -> None:
        """Start the server on its data, with recovery if it is needed."""
        assert self._again is not None
        self._server = self._again()
        self._wait_until_ready(self._server)

    def crash_a_backend(self) -> None:
        """Kill the process of one connection: the server terminates all others and recovers."""
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        # The oldest connection belongs to a pool, so it is unlikely to close in the meantime.
        order = "ORDER BY backend_start LIMIT 1"

        def killed() -> bool:
            found = self.run(f"SELECT pid FROM pg_stat_activity WHERE {others} {order}")
            try:
                for row in found:
                    os.kill(row.pid, signal.SIGKILL)
            except ProcessLookupError:
                return False
            return bool(found)

        until(killed, "a connection after the last crash")

    def wait_until_up(self) -> None:
        """Wait until the server accepts connections after a crash of one of its processes."""

        def up() -> bool:
            try:
                self.run("SELECT 1")
            except OperationalError:
                return False
            return True

        until(up, "the server up again", 60)

    def run(self, statement: str) -> list[Any]:
        """Execute `statement` on a new connection and return its rows, if it has any."""
        with self.engine().connect() as connection:
            # The settings of a fault apply here, too. Without this they could not be reset.
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text("SET default_transaction_read_only = off"))
            result = connection.execute(text(statement))
            return list(result) if result.returns_rows else []

    def cut_all(self) -> None:
        """Terminate every connection except the one that executes this."""
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    @contextmanager
    def settings_changed(self, **settings: str) -> Iterator[None]:
        """Change `settings` for all connections, including open ones, while the block runs."""
        for name, value in settings.items():
            self.run(f"ALTER SYSTEM SET {name} = '{value}'")
        self.run("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            for name in settings:
                self.run(f"ALTER SYSTEM RESET {name}")
            self.run("SELECT pg_reload_conf()")

    def _launch(self, *how: Any) -> subprocess.Popen[bytes]:
        self._again = partial(super()._launch, *how)
        return self._again()


class Standby(Server):
    """A server that replicates `primary`. The primary waits for it at each commit."""

    def __init__(self, primary: Server) -> None:
        super().__init__()
        self._primary = primary
        self._password = primary._password

    def start(self) -> None:
        """Copy the primary, start, and wait until the primary waits for this standby at commits."""
        super().start()
        self._primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._primary.run("SELECT pg_reload_conf()")
        follows = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
        until(lambda: self._primary.run(follows), "the standby follows")

    def _initdb(self, programs: Path, user: pwd.struct_passwd | None) -> None:
        source = f"host={self._primary.directory} port={self._primary.port} user={SUPERUSER}"
        data = str(self.directory / "data")
        command = [str(programs / "pg_basebackup"), "-d", source, "-D", data, "-R", "-c", "fast"]
        done = _run_as(user, command, self.directory)
        assert done.returncode == 0, done.stdout.decode()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of `size` at `folder`; yield a file there that can fill it."""
    need("mount")
    folder.mkdir()
    options = f"size={size},uid={folder.parent.stat().st_uid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder / "ballast"
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(ballast: Path) -> None:
    """Fill the disk that `ballast` is on."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65_536))
