"""Workers that other processes import."""

import os
import signal
import subprocess
import time
from pathlib import Path

import attrs

from riverrun import JobArgs, JobCancel, JobContext, JobSnooze


@attrs.frozen
class Crunch(JobArgs, kind="crunch"):
    """Args of work for other processes."""

    how: str = "return"


class Unpicklable(Exception):
    """An error that only its own process can hold."""

    def __init__(self) -> None:
        super().__init__("held by a lock")
        self.lock = lambda: None


def crunch_by_name(args: Crunch, *, ctx: JobContext | None = None) -> None:
    """Take the context by its name."""
    assert ctx is not None
    ctx.record_output(args.how)


def crunch(args: Crunch, ctx: JobContext) -> object:
    """End in the way that the args name."""
    match args.how:
        case "generator":
            return (str(number) for number in range(3))
        case "return":
            ctx.record_output({"pid": os.getpid(), "main": False})
        case "raise":
            raise ValueError("no good number")
        case "raise unpicklable":
            raise Unpicklable
        case "cancel":
            raise JobCancel("no use")
        case "snooze":
            raise JobSnooze(600)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "leave a program":
            # As os.system("program &") does, it keeps the files of its parent open.
            program = subprocess.Popen(["sleep", "60"], close_fds=False)
            Path(ctx.job.metadata["file"]).write_text(str(program.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        case "system exit":
            raise SystemExit(3)
        case "look":
            while not ctx.wait(0.05):
                pass
            ctx.raise_if_cancelled()
        case "nap":
            time.sleep(0.4)
        case "ignore":
            time.sleep(60)  # as code does that knows nothing of us
        case "steps":
            ctx.step("one", lambda: None)
            ctx.set_metadata("seen", True)
            ctx.step("two", lambda: 1 / 0)
    return None
