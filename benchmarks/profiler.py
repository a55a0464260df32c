"""Where the time goes: what py-spy sees of this process and its children meanwhile.

py-spy is installed into a folder of its own when it is first needed; see `tools.environment`.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks import tools

RATE = 200
"""Looks a second."""

SECONDS = 3.0
SHOWN = 12
REQUIREMENTS = Path(__file__).with_name("peers") / "requirements-profile.txt"


def profile(run: Callable[[], object]) -> str:
    """Call `run` until three seconds have passed; return the functions that were busiest."""
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
            _, said = spy.communicate(timeout=60)
        if spy.returncode != 0:
            return f"no profile: {said.strip()}"
        return summary(stacks.read())


def summary(stacks: str) -> str:
    """Return, of py-spy's raw stacks, the functions most looks found at work."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in stacks.splitlines():
        path, _, count = line.rpartition(" ")
        looks = int(count)
        frames = [_short(frame) for frame in path.split(";") if not frame.startswith("process ")]
        if not frames:
            continue
        total += looks
        own[frames[-1]] += looks
        for frame in set(frames):
            within[frame] += looks
    if not total:
        return "no profile: nothing was seen at work"
    lines = [f"{'own':>6} {'within':>6}  function ({total:,} looks)"]
    for frame, looks in own.most_common(SHOWN):
        lines.append(f"{looks / total:6.1%} {within[frame] / total:6.1%}  {frame}")
    return "\n".join(lines)


def _short(frame: str) -> str:
    """Return `function (file)`: the file's last two names, and no line number."""
    name, _, place = frame.rpartition(" (")
    file = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({'/'.join(Path(file).parts[-2:])})"
