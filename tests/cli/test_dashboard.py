"""`riverrun dashboard`: who gets in, where it is served, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine

import riverrun
from factories import insert_job
from network import fetch
from processes import end
from riverrun.cli.dashboard import dashboard
from waiting import DEADLINE_S

NO_WAITRESS = "import sys; sys.modules['waitress'] = None; sys.modules['waitress.server'] = None; "
RUN = "from riverrun.cli.main import main; main(prog_name='riverrun')"


@contextmanager
def serving(
    *arguments: str, before: str = "", host: str = "127.0.0.1"
) -> Iterator["subprocess.Popen[str]"]:
    """Run `riverrun dashboard` on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-c", before + RUN, "dashboard", "--bind", f"{host}:0", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(riverrun.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def printed_link(process: "subprocess.Popen[str]", title: str) -> str:
    """Return the link in the next line that the process prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(rf"{title}[^:]*: (http://\S+:\d+/sign-in\?token=\S+)\n", line)
    assert found, line or process.communicate()
    return found[1]


@pytest.mark.parametrize(
    ("before", "number"),
    [("", signal.SIGINT), (NO_WAITRESS, signal.SIGTERM)],
    ids=["waitress", "standard library"],
)
def test_a_link_signs_one_browser_in(
    database_url: str, engine: Engine, schema: str, before: str, number: signal.Signals
) -> None:
    """The printed link works once, its cookie opens all pages, and a signal ends it cleanly."""
    insert_job(engine, schema, kind="greet_everyone")
    arguments = ("--database-url", database_url, "--schema", schema)
    with serving(*arguments, before=before) as process:
        link = printed_link(process, "Dashboard")
        root = link.partition("/sign-in")[0]
        assert fetch(f"{root}/jobs")[0] == 403
        assert fetch(f"{root}/sign-in?token=guess")[0] == 403
        jar = CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        with browser.open(link) as answer:
            cookie = answer.headers["Set-Cookie"]
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
        with browser.open(f"{root}/jobs") as answer:
            assert "greet_everyone" in answer.read().decode()
        assert fetch(link)[0] == 403
        assert fetch(printed_link(process, "Another browser"))[0] == 200
        printed_link(process, "Another browser")
        process.send_signal(number)
        assert end(process) == (0, "stopped\n")


@pytest.mark.parametrize(
    ("before", "host", "shown"),
    [("", "[::1]", "[::1]"), ("", "0.0.0.0", None), (NO_WAITRESS, "localhost", "localhost")],
    ids=["waitress on IPv6", "waitress on all", "standard library on a name"],
)
def test_addresses(
    database_url: str, schema: str, before: str, host: str, shown: str | None
) -> None:
    """It is served at IPv6 addresses, names, and all addresses of the machine if that is wished."""
    arguments = ["--database-url", database_url, "--schema", schema]
    if shown is None:
        arguments.append("--allow-network")
    with serving(*arguments, before=before, host=host) as process:
        link = urlsplit(printed_link(process, "Dashboard"))
        assert link.hostname == (shown or socket.gethostname()).strip("[]").lower()
        with socket.create_connection(((shown or "127.0.0.1").strip("[]"), link.port)) as idle:
            request = urllib.request.Request(f"http://{shown or '127.0.0.1'}:{link.port}/jobs")
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request)
            process.send_signal(signal.SIGINT)
            assert end(process) == (0, "stopped\n")
            idle.settimeout(DEADLINE_S)
            assert idle.recv(1) == b""


def test_read_only(database_url: str, engine: Engine, schema: str) -> None:
    """With --read-only pages show args, and offer no action; --user names who looks."""
    insert_job(engine, schema)
    arguments = ("--database-url", database_url, "--schema", schema, "--user", "bob")
    with serving(*arguments, "--read-only") as process:
        link = printed_link(process, "Dashboard")
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        browser.open(link).close()
        with browser.open(f"{link.partition('/sign-in')[0]}/jobs") as answer:
            page = answer.read().decode()
    assert "Ada" in page
    assert "<b>bob</b>" in page
    assert "action=cancel" not in page
    assert 'name="action"' not in page


@pytest.mark.parametrize("bind", ["0.0.0.0:8300", "[::]:8300", "192.0.2.1:8300", "example:8300"])
def test_other_machines_are_a_decision(bind: str) -> None:
    """An address that other machines can reach is refused, and the message says what it means."""
    result = CliRunner().invoke(dashboard, ["--bind", bind, "--database-url", "postgresql:///x"])
    assert result.exit_code == 2
    for part in ("plain HTTP", "act as the user", "SSH tunnel", "--allow-network"):
        assert part in result.stderr


@pytest.mark.parametrize(
    "bind", ["8300", ":8300", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536"]
)
def test_an_address_has_a_host_and_a_port(bind: str) -> None:
    """Anything but HOST:PORT is refused with an example."""
    result = CliRunner().invoke(dashboard, ["--bind", bind, "--database-url", "postgresql:///x"])
    assert result.exit_code == 2
    assert "expected HOST:PORT, such as 127.0.0.1:8300" in result.stderr


def test_a_taken_port_is_one_line(database_url: str, schema: str) -> None:
    """A port that is in use ends the command with one line that names it."""
    arguments = ("--database-url", database_url, "--schema", schema)
    with serving(*arguments) as process:
        port = printed_link(process, "Dashboard").split(":")[2].partition("/")[0]
        result = CliRunner().invoke(dashboard, ["--bind", f"127.0.0.1:{port}", *arguments])
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr


def test_no_database_is_one_line() -> None:
    """A database that cannot be reached ends the command with exit code 3."""
    arguments = ["--bind", "127.0.0.1:0", "--database-url", "postgresql://127.0.0.1:1/x"]
    result = CliRunner().invoke(dashboard, arguments)
    assert result.exit_code == 3
    assert "cannot reach the database" in result.stderr
