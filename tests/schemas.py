"""Names for the tests' schemas: `t_7`, or `User Data 7` where the run is to try awkward ones."""

import os
import sys
from itertools import count
from pathlib import Path

AWKWARD = os.environ.get("RIVERRUN_TEST_SCHEMA", "")
"""What every schema's name begins with, such as `User Data`; empty for plain names."""

DECOY = "decoy"
"""A schema that, where names are awkward, is before all others on the search path, and empty."""

_HERE = str(Path(__file__).parent)
_numbers = count(1)


class QuotedName(str):
    """A schema's name, which in a test's f-string is the quoted identifier.

    So `f"SELECT ... FROM {schema}.river_job"` is right for every name. Formatted by the library,
    and in every other way, it is the name itself; `{schema!s}` is too.
    """

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        caller = sys._getframe(1).f_code.co_filename
        if not caller.startswith(_HERE):
            return format(str(self), spec)
        return '"' + self.replace('"', '""') + '"'


def new_schema_name(prefix: str) -> str:
    """Return a name that no other test of this process has; `prefix` begins a plain one."""
    number = next(_numbers)
    return QuotedName(f"{AWKWARD} {number}") if AWKWARD else f"{prefix}_{number}"


def search_path_options(*schemas: str) -> str:
    """Return the connection's `options` that set the search path to `schemas`."""
    names = ",".join('"' + name.replace('"', '""') + '"' for name in schemas)
    return "-csearch_path=" + names.replace("\\", "\\\\").replace(" ", "\\ ")
