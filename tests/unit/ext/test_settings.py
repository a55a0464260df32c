"""A client's options from an application's settings."""

import inspect

import pytest

from riverrun import Client, QueueConfig
from riverrun.errors import InvalidOption
from riverrun.ext.settings import client_options

OBJECTS = {
    *("self", "engine", "listen_engine", "workers", "periodic_jobs", "plugins", "clock", "rng"),
    *("backoff", "error_handler", "job_stuck_handler", "reindexer_schedule"),
    *("reindexer_index_names", "sessionmaker", "async_sessionmaker"),
}


def test_every_option_is_a_setting() -> None:
    """Every option of a client that text can express is a setting; no other is."""
    with pytest.raises(InvalidOption) as refused:
        client_options({"nothing": 1}, "RIVERRUN_")
    named = str(refused.value).partition("one of ")[2].split(", ")
    options = set(inspect.signature(Client.__init__).parameters) - OBJECTS
    assert {name.removeprefix("RIVERRUN_").lower() for name in named} == options


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        (
            "queues",
            "default:10 mail",
            {"default": QueueConfig(max_workers=10), "mail": QueueConfig()},
        ),
        ("queues", {"mail": 3}, {"mail": QueueConfig(max_workers=3)}),
        ("queues", {"mail": None}, {"mail": QueueConfig()}),
        ("queues", {"mail": {"max_workers": 3}}, {"mail": QueueConfig(max_workers=3)}),
        ("poll_only", " Yes ", True),
        ("poll_only", "off", False),
        ("job_timeout", "2.5", 2.5),
        ("soft_stop_timeout", "none", None),
        ("max_attempts", "7", 7),
        ("schema", "jobs", "jobs"),
    ],
)
def test_reads_texts_and_values(name: str, text: object, value: object) -> None:
    """Text of an INI file and Python values have the same result."""
    assert client_options({name: text}, "riverrun.") == {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queues", "mail:"),
        ("queues", "mail:many"),
        ("queues", ["mail"]),
        ("queues", {"mail": {"slots": 3}}),
        ("queues", {"mail": "3"}),
        ("poll_only", "maybe"),
        ("job_timeout", "soon"),
        ("max_attempts", "7.5"),
    ],
)
def test_says_what_it_expects(name: str, value: object) -> None:
    """The error about an invalid value has the full name of the setting."""
    with pytest.raises(InvalidOption, match=rf"riverrun\.{name} is"):
        client_options({name: value}, "riverrun.")
