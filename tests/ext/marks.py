"""Marks of tests that need certain releases of other packages."""

import alembic
import pytest

VERSION = tuple(int(part) for part in alembic.__version__.split(".")[:2])
needs_plugins = pytest.mark.skipif(VERSION < (1, 18), reason="Alembic before 1.18 has no plugins")
