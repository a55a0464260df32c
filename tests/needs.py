"""Programs that some tests need and pip does not bring: where they are, and what is without them.

`dev.py test` loads this file before any installation, and names at its start what will be skipped.
"""

import glob
import os
import shutil

WHAT = {
    "chromium": ("your system's package chromium", "tests/browser: the dashboard in a browser"),
    "go": ("Go 1.21 or newer", "tests/interop: River itself is not tried against"),
    "pgbouncer": ("your system's package pgbouncer", "tests/faults/test_pgbouncer.py"),
    "libfaketime": ("Debian's package libfaketime", "tests/faults/test_clocks.py"),
    "ip": ("root, and your system's package iproute2", "tests/faults/test_network.py: lost hosts"),
    "mount": ("root", "tests/faults/test_server.py: full disks"),
}
"""By program: what to install, and the tests that are skipped without it."""


def find(program: str) -> str | None:
    """Return where a program or library is, or None if tests cannot use it here."""
    if program == "libfaketime":
        return min(glob.glob("/usr/lib/*/faketime/libfaketime.so.1"), default=None)
    if program in {"ip", "mount"} and os.geteuid() != 0:
        return None
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def missing() -> list[str]:
    """Return a line for each thing that is not here: the tests without it, and what to install."""
    return [
        f"{tests} (needs {package})"
        for program, (package, tests) in WHAT.items()
        if not find(program)
    ]


def need(program: str) -> str:
    """Return where a program is; without it skip the test, or fail it if `CI` is set."""
    import pytest

    found = find(program)
    if found is None:
        package, tests = WHAT[program]
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{tests}: needs {package}")
    return found
