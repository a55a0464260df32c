"""Args of the one kind that most tests of threads work.

Not in conftest.py, which pytest and the tests import as two modules: a kind is one class.
"""

import attrs

from riverrun import JobArgs


@attrs.frozen
class Task(JobArgs, kind="task"):
    """Args without a meaning."""

    number: int = 0
