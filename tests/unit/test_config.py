"""A client's options: declared once, and the same wherever they are given."""

import inspect
from datetime import timedelta
from typing import Any

import attrs
import pytest
from sqlalchemy import create_engine

from riverrun import Client
from riverrun.config import ClientConfig
from riverrun.errors import InvalidOption
from riverrun.ext.settings import client_options

ENGINE = create_engine("postgresql+psycopg://localhost/none")
PARAMETERS = inspect.signature(Client).parameters


def test_the_client_takes_each_option_that_is_declared() -> None:
    """In their order, by keyword, and none beside them; each has its sentence in the docstring."""
    assert list(PARAMETERS) == [option.alias for option in attrs.fields(ClientConfig)]
    given = (inspect.getdoc(Client) or "").partition("Args:")[2].partition("Raises:")[0]
    for name in PARAMETERS:
        assert f"    {name}: " in given, name


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "engine"])
def test_each_default_is_one_that_its_check_accepts(name: str) -> None:
    """A client made with nothing but an engine has every option."""
    client = Client(ENGINE)
    option = next(each for each in attrs.fields(ClientConfig) if each.alias == name)
    assert hasattr(client.config, option.name)


@pytest.mark.parametrize(
    "name",
    [each.alias for each in attrs.fields(ClientConfig) if each.name.endswith("_s")],
)
def test_durations_are_seconds_or_timedeltas(name: str) -> None:
    """Both come to seconds; what is neither is refused by the option's name."""
    attribute = f"{name}_s"
    for value in (90, timedelta(seconds=90)):
        options: dict[str, Any] = {name: value}
        assert getattr(Client(ENGINE, **options).config, attribute) == 90
    for value in ("90", True, float("nan"), -1):
        options = {name: value}
        with pytest.raises(InvalidOption, match=name):
            Client(ENGINE, **options)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("processes", 0),
        ("reindexer_index_names", None),
        ("reindexer_index_names", 5),
        ("clock", "utc"),
        ("rng", 7),
    ],
)
def test_options_of_a_wrong_type_are_refused_by_name(name: str, wrong: object) -> None:
    """They would fail, or be replaced by a default, where the client uses them."""
    options: dict[str, Any] = {name: wrong}
    with pytest.raises(InvalidOption, match=f"{name} is {wrong!r}; expected"):
        Client(ENGINE, **options)


def test_settings_take_every_option_that_text_can_give() -> None:
    """What is a number, a flag, a text or queues; objects, such as plugins, are given in Python."""
    objects = {
        *("engine", "workers", "listen_engine", "job_stuck_handler", "backoff", "plugins"),
        *("periodic_jobs", "error_handler", "reindexer_index_names", "reindexer_schedule"),
        *("sessionmaker", "async_sessionmaker", "clock", "rng"),
    }
    with pytest.raises(InvalidOption) as refused:
        client_options({"nothing": "1"}, "riverrun.")
    for name in PARAMETERS:
        assert (f"riverrun.{name}" in str(refused.value)) is (name not in objects), name
