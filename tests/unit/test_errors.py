"""What `SchemaMissing` advises."""

import pickle
import shlex

import pytest

from riverrun.errors import SchemaMissing


@pytest.mark.parametrize("schema", ["jobs", "User Data", "it's", "-x"])
def test_the_advice_names_the_schema(schema: str) -> None:
    """The command it names is for the schema that was looked in, quoted for a shell."""
    error = SchemaMissing("no table river_job", "shop", schema)
    command = str(error).split("`")[1]
    assert shlex.split(command) == ["riverrun", "migrate", "up", "--schema", schema]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_without_a_schema_it_names_none() -> None:
    """The search path's schema needs no option."""
    assert "`riverrun migrate up`" in str(SchemaMissing("no table river_job", "shop"))
