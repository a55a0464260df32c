"""A PostgreSQL server that tests shut down, crash and set up; its commits reach the disk."""

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
    # As docs/operating.md has it, and sooner: hosts vanish.
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 2,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms; no peer is asked while an answer to it is on its way
}


class Server(Cluster):
    """A durable server, started again as it was."""

    def __init__(self) -> None:
        super().__init__(port=free_ports(1), durable=True, settings=SETTINGS)
        self._again: Callable[[], subprocess.Popen[bytes]] | None = None

    @property
    def socket_path(self) -> Path:
        """The Unix socket it listens on."""
        return self.directory / f".s.PGSQL.{self._socket_port}"

    def engine(self) -> Engine:
        """Return an engine that keeps no connection, so none that a fault has spoilt."""
        return create_engine(self.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def has_ended(self) -> bool:
        """Return whether the server has given up, and must be started again."""
        assert self._server is not None
        return self._server.poll() is not None

    def has_said(self, what: str) -> bool:
        """Return whether the server's log, since its last start, has `what`."""
        return what in self._log_file.read_text(errors="replace")

    def let_in(self, network: str) -> None:
        """Trust whoever connects from `network`."""
        with (self.directory / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {network} trust\n")
        self.run("SELECT pg_reload_conf()")

    def shut_down(self, wish: int = signal.SIGQUIT) -> None:
        """End the server, by immediate shutdown unless said: what was not committed is lost."""
        assert self._server is not None
        self._server.send_signal(wish)
        self._server.wait(30)

    def start_again(self) -> None:
        """Start the server on its data, through recovery if need be."""
        assert self._again is not None
        self._server = self._again()
        self._wait_until_ready(self._server)

    def crash_a_backend(self) -> None:
        """Kill one connection's process: the server ends all the others and recovers."""
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        # The oldest: it is some pool's, and will hardly have ended by itself meanwhile.
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
        """Wait until the server takes connections, after a crash of its own."""

        def up() -> bool:
            try:
                self.run("SELECT 1")
            except OperationalError:
                return False
            return True

        until(up, "the server up again", 60)

    def run(self, statement: str) -> list[Any]:
        """Execute `statement` on a connection of its own; return its rows, if it has any."""
        with self.engine().connect() as connection:
            # As the settings of a fault would have it, the way back would be barred.
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text("SET default_transaction_read_only = off"))
            result = connection.execute(text(statement))
            return list(result) if result.returns_rows else []

    def cut_all(self) -> None:
        """Terminate every connection but the one that says so."""
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    @contextmanager
    def settings_changed(self, **settings: str) -> Iterator[None]:
        """Set `settings` for every connection, those that are open too, for a while."""
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
    """A server that follows `primary`, which commits nothing from now on that it has not got."""

    def __init__(self, primary: Server) -> None:
        super().__init__()
        self._primary = primary
        self._password = primary._password

    def start(self) -> None:
        """Copy the primary, start, and wait until it waits for us at each commit."""
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
    """Have a file system of `size` at `folder`; yield the file to be filled and removed there."""
    need("mount")
    folder.mkdir()
    options = f"size={size},uid={folder.parent.stat().st_uid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder / "ballast"
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(ballast: Path) -> None:
    """Leave no room on the disk that `ballast` is on."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65_536))
