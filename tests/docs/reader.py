"""A reader who does what a page of Markdown shows, block by block, in an empty folder.

A Python block that begins with `# name.py` is that file; `# name.py (continued)` adds to it.
Another one is run. Of a shell block every line is run: `riverrun work` until nothing waits any
more, what serves until the page ends. A `text` block is what the block before it printed, `...`
standing for anything. Files of other sorts are written, and checked by `files`.
"""

import builtins
import importlib.metadata
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from sqlalchemy import create_engine

from docs import files
from network import fetch, free_ports
from riverrun import verbs
from riverrun.errors import SchemaMissing
from waiting import DEADLINE_S, until

"""Deadline for programs to start: each takes a second, unless many start at the same time."""
ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
PORTS = ("8000", "8080")
SERVERS = ("flask run", "gunicorn", "pserve", "uvicorn", "waitress-serve")
WARNINGS = (
    "error::Warning",
    "ignore::DeprecationWarning",
    "ignore:pkg_resources is:UserWarning",
    "ignore:<psycopg.Connection object:ResourceWarning",
)
"""As for tests; but what frameworks import for each other's old releases is not for us to mend.
Nor is that Flask-SQLAlchemy does not dispose of the engines of an application that is dropped."""
OTHERS = ("celery", "procrastinate", "redis", "rq")
"""What files may import that are of the library one comes from: they are compiled, not run."""

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"(?:#|;|--) (\S+\.\w+|Dockerfile)( \(continued\))?\n")


@attrs.frozen
class Block:
    """A fenced block of a page.

    Attributes:
        at: Where it is, for messages.
        language: What its fence says.
        body: What is in it.
        file: The file that it is; None if it is none.
        continued: Whether it adds to that file.
    """

    at: str
    language: str
    body: str
    file: str | None
    continued: bool


def pages() -> list[Path]:
    """Return the README and all of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of `page`."""
    text = page.read_text()
    for found in _FENCE.finditer(text):
        language, body = found.groups()
        line = text.count("\n", 0, found.start()) + 1
        named = _FILE.match(body)
        yield Block(
            at=f"{page.name}:{line}",
            language=language,
            body=body,
            file=named and named[1],
            continued=bool(named and named[2]),
        )


def broken_links(page: Path) -> Iterator[str]:
    """Yield the links of `page` to files that are not there."""
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        if not (page.parent / link).exists():
            yield link


class Reader:
    """Reads one page.

    Args:
        folder: An empty folder.
        url: The database's.
    """

    languages = ("dockerfile", "ini", "python", "sh", "sql", "text", "toml", "yaml")

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.printed = ""
        port = free_ports(len(PORTS))
        self._ports = {known: str(port + n) for n, known in enumerate(PORTS)}
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "CI"},
            "DATABASE_URL": url,
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "PYTHONWARNINGS": ",".join(WARNINGS),
            "PYTHONUNBUFFERED": "1",
        }
        self._files: dict[str, str] = {}
        self._programs: set[str] = set()  # the files that were run, not imported
        self._servers: list[subprocess.Popen[bytes]] = []
        self._count = 0

    def read(self, page: Path) -> None:
        """Do what `page` shows; fail if a result differs."""
        ahead = [*blocks(page)]
        for block, following in zip(ahead, [*ahead, None][1:], strict=True):
            wanted = following.body if following and following.language == "text" else ""
            if block.file is not None:
                self._write(block)
            elif block.language == "python":
                self.run_python(self._placed(block.body), block.at)
            elif block.language == "sh":
                self._shell(block, wanted)
            elif block.language == "text":
                assert _matches(block.body, self.printed), (
                    f"{block.at}: printed was\n{self.printed}"
                )
            else:
                known = ", ".join(Reader.languages)
                raise AssertionError(
                    f"{block.at}: a block of {block.language!r} needs a file's name in its first"
                    f" line, such as `# jobs.yaml`; the reader knows {known}"
                )
        for name, body in self._files.items():
            self._check_file(name, body)

    def close(self) -> None:
        """End the servers; each must end without an error."""
        for server in self._servers:
            assert server.poll() is None, f"{server.args} has ended with {server.returncode}"
            server.send_signal(signal.SIGTERM)
        for server in self._servers:
            try:
                assert server.wait(DEADLINE_S) in {0, -signal.SIGTERM}, server.args
            finally:
                server.kill()

    def run_python(self, body: str, at: str) -> None:
        """Run `body` as a program."""
        self._fork(["-c"], body, at)

    def _write(self, block: Block) -> None:
        assert block.file is not None
        path = self.folder / block.file
        body = self._placed(block.body)
        if block.continued:
            body = self._files[block.file] + body
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
        self._files[block.file] = body
        if path.suffix == ".py":
            compile(body, block.at, "exec")

    def _check_file(self, name: str, body: str) -> None:
        path = self.folder / name
        if path.suffix != ".py":
            files.check(path, self.folder)
        elif name not in self._programs and not re.search(
            rf"^(?:from|import) (?:{'|'.join(OTHERS)})\b", body, re.MULTILINE
        ):
            compiled = [*(path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")]
            assert compiled, f"nothing on the page runs {name}"

    def _shell(self, block: Block, wanted: str) -> None:
        body = self._placed(block.body).replace("\\\n", " ")
        self.printed = ""
        for line in body.splitlines():
            command = line.partition("  #")[0].strip()
            if command and not command.startswith("#"):
                self._command(command, block.at, wanted)

    def _command(self, command: str, at: str, wanted: str) -> None:
        words = shlex.split(command)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            if name != "DATABASE_URL":  # the reader has its own
                self._environment[name] = value
        elif words[0] in {"pip", "git", "cd", "python3", "uv"} or "tests/" in command:
            check_repository_command(words, at)
        elif words[0] == "curl":
            self.printed += self._fetch(words[-1])
        elif re.search(r"\briverrun work\b|^priverrun \S+ work\b", command):
            self._work(words, at, wanted)
        elif command.startswith(SERVERS):
            self._serve(words, at)
        elif words[0] == "python":
            self._programs.add(words[1])
            self._run(words, at)
        elif words[0] == "pytest":  # pytest must import the modules that it rewrites first
            self._run(words, at)
        elif re.search(r"[|<>&;$]", command):
            self._run([shutil.which("sh") or "/bin/sh", "-c", command], at)
        else:
            self._fork(words, None, at)

    def _fetch(self, url: str) -> str:
        answers: list[tuple[int, str]] = []

        def answered() -> bool:
            try:
                answers.append(fetch(url if "://" in url else f"http://{url}"))
            except OSError:
                return False
            return True

        until(answered, f"an answer of {url}", DEADLINE_S)
        assert answers[0][0] == 200, f"{url}: {answers[0]}"
        return answers[0][1]

    def _fork(self, words: Sequence[str], body: str | None, at: str) -> None:
        output = self._output()
        process = _forks().Process(
            target=_forked, args=(words, body, at, self._environment, self.folder, output)
        )
        process.start()
        process.join(DEADLINE_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        self._end(output, process.exitcode, at)

    def _run(self, words: Sequence[str], at: str) -> None:
        output = self._output()
        process = self._popen(words, output)
        process.wait(DEADLINE_S)
        self._end(output, process.returncode, at)

    def _work(self, words: Sequence[str], at: str, wanted: str) -> None:
        """Work until no job waits and the wanted output is printed."""
        output = self._output()
        process = self._popen(words, output)
        engine = create_engine(self.url)
        try:

            def idle() -> bool:
                assert process.poll() is None, f"{at}: ended early\n{output.read_text()}"
                try:
                    queues = {name for each in verbs.list_clients(engine) for name in each.queues}
                    waiting = verbs.count_jobs(engine)
                except SchemaMissing:
                    return False
                due = any(
                    each.queue in queues and each.state in {"available", "running"}
                    for each in waiting
                )
                return bool(queues) and not due and _matches(wanted, output.read_text())

            try:
                until(idle, f"{at}: the end of all jobs, and {wanted!r}", DEADLINE_S)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{output.read_text()}") from None
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)
        finally:
            engine.dispose()
            process.kill()
            process.wait()
        self._end(output, process.returncode, at)

    def _serve(self, words: Sequence[str], at: str) -> None:
        """Start a server, and wait until it listens on one of our ports."""
        output = self._output()
        before = self._listening()
        process = self._popen(words, output)
        self._servers.append(process)

        def listens() -> bool:
            assert process.poll() is None, f"{at}: {output.read_text()}"
            return self._listening() > before

        until(listens, f"{at}: a server", DEADLINE_S)

    def _listening(self) -> int:
        count = 0
        for port in self._ports.values():
            with socket.socket() as each:
                count += each.connect_ex(("127.0.0.1", int(port))) == 0
        return count

    def _popen(self, words: Sequence[str], output: Path) -> "subprocess.Popen[bytes]":
        with output.open("wb") as file:
            return subprocess.Popen(
                words, cwd=self.folder, env=self._environment, stdout=file, stderr=file
            )

    def _end(self, output: Path, code: int | None, at: str) -> None:
        text = output.read_text()
        assert code == 0, f"{at} ended with {code}:\n{text}"
        self.printed += text

    def _output(self) -> Path:
        self._count += 1
        folder = self.folder.parent / "printed"
        folder.mkdir(exist_ok=True)
        return folder / f"{self._count}.txt"

    def _placed(self, body: str) -> str:
        """Return `body` with its ports replaced by free ones."""
        for known, ours in self._ports.items():
            body = re.sub(rf"\b{known}\b", ours, body)
        return body


def check_repository_command(words: Sequence[str], at: str) -> None:
    """Check the extras and files of a command that installs riverrun or is for its repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"(?:riverrun|\.)\[([\w,]+)\]", " ".join(words)):
        unknown = {*extras.split(",")} - {*project["optional-dependencies"]}
        assert not unknown, f"{at}: riverrun has no extra {unknown}"
    for word in words[1:]:
        path = word.partition("::")[0]
        if re.fullmatch(r"[\w./-]+\.py|(?:tests|benchmarks|docs|alembic)/[\w./-]*", path):
            assert (ROOT / path).exists(), f"{at}: there is no {path}"
    if "dev.py" in words:
        known = runpy.run_path(str(ROOT / "dev.py"))["__doc__"]
        assert f"dev.py {words[words.index('dev.py') + 1]}" in known, at


def _matches(wanted: str, printed: str) -> bool:
    """Return whether the lines of `wanted` are in `printed`, in their order.

    Other text may come between, because a thread writes a line and its end separately. "..." stands
    for any text within a line.
    """
    patterns = [
        re.escape(want.strip()).replace(r"\.\.\.", ".*")
        for want in wanted.splitlines()
        if want.strip() not in {"", "..."}
    ]
    return re.search("(?s:.*)".join(patterns), printed) is not None


def _forks() -> multiprocessing.context.ForkServerContext:
    """Return a fork server that has imported most examples' modules, as that takes a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["docs.reader", "riverrun.cli.main", "sqlalchemy.orm", "attrs"])
    return context


def _forked(
    words: Sequence[str],
    body: str | None,
    at: str,
    environment: Mapping[str, str],
    folder: Path,
    output: Path,
) -> None:
    """In the new process: run `body`, or the console script that `words` name."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for action, message, category in (each.split(":") for each in WARNINGS):
        warnings.filterwarnings(action, re.escape(message), getattr(builtins, category))
    # Not "", which multiprocessing replaces by the folder that the server was started in.
    tests = str(Path(__file__).parents[1])
    sys.path[:] = [str(folder), *(each for each in sys.path if each not in {"", tests})]
    sys.argv = list(words)
    code = 0
    try:
        if body is not None:
            sys.modules["__main__"].__dict__["__name__"] = "__main__"
            exec(compile(body, at, "exec"), {"__name__": "__main__"})
        else:
            (script,) = importlib.metadata.entry_points(group="console_scripts", name=words[0])
            code = script.load()()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code or 0)
