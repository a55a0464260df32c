"""Whether gevent or eventlet has made greenlets of this process's threads."""

import sys


def patched_by() -> str | None:
    """Return "gevent" or "eventlet" if its patches are in force; None in an ordinary process.

    Then all "threads" share one thread of the system, and each gets a turn when another waits. What
    waits in C, as libpq's own calls do, holds up all of them.
    """
    # Not imported: it is loaded wherever it has patched anything.
    if (monkey := sys.modules.get("gevent.monkey")) and monkey.is_module_patched("threading"):
        return "gevent"
    if (patcher := sys.modules.get("eventlet.patcher")) and patcher.is_monkey_patched("thread"):
        return "eventlet"
    return None
