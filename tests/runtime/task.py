"""Args of the one kind that most tests of threads work.

They are not in conftest.py because pytest and the tests import that as two modules, and a kind
must be one class.
"""

import attrs

from riverrun import JobArgs


@attrs.frozen
class Task(JobArgs, kind="task"):
    """Args that mean nothing."""

    number: int = 0
