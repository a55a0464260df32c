"""Profiles of this process and its children, made with py-spy.

py-spy is installed into a folder of its own on first use; see `tools.environment`.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import tools

RATE = 500
"""Samples per second."""

SECONDS = 5.0
SHOWN = 12
REQUIREMENTS = Path(__file__).with_name("peers") / "requirements-profile.txt"


def profile(run: Callable[[], object]) -> str:
    """Call `run` repeatedly for five seconds; return the busiest functions."""
    try:
        program = tools.environment(REQUIREMENTS) / "bin" / "py-spy"
    except tools.Unavailable as error:
        return f"no profile: {error}"
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as stacks:
        spy = subprocess.Popen(
            [
                program,
                "record",
                f"--pid={os.getpid()}",
                "--subprocesses",
                "--gil",  # Only threads that compute, or a hundred waiting slots would hide them.
                f"--rate={RATE}",
                "--format=raw",
                "--duration=unlimited",
                f"--output={stacks.name}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                run()
        finally:
            spy.send_signal(signal.SIGINT)
            _, errors = spy.communicate(timeout=60)
        if spy.returncode != 0:
            return f"no profile: {errors.strip()}"
        return summary(stacks.read())


def summary(stacks: str) -> str:
    """Return the functions that held the interpreter in most of py-spy's raw stacks.

    If there are child processes, only these count, since this process then only waits for them.
    Imports do not count.
    """
    looks = [
        (path.split(";"), int(count))
        for path, _, count in (line.rpartition(" ") for line in stacks.splitlines())
        if "importlib" not in path
    ]
    deepest = max((_processes(path) for path, _ in looks), default=0)
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for path, count in looks:
        frames = [_short(frame) for frame in path if not frame.startswith("process ")]
        if frames and _processes(path) == deepest:
            own[frames[-1]] += count
            within.update(dict.fromkeys(frames, count))
    total = own.total()
    if not total:
        return "no profile: nothing was seen at work"
    lines = [f"{'own':>6} {'within':>6}  function, of {total:,} looks at who holds the interpreter"]
    for frame, count in own.most_common(SHOWN):
        lines.append(f"{count / total:6.1%} {within[frame] / total:6.1%}  {frame}")
    return "\n".join(lines)


def _processes(path: Sequence[str]) -> int:
    return sum(frame.startswith("process ") for frame in path)


def _short(frame: str) -> str:
    """Return `function (file)`, with the last two parts of the path and without the line."""
    name, _, place = frame.rpartition(" (")
    file = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({'/'.join(Path(file).parts[-2:])})"
