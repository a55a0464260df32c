"""Reads a client's options from an application's settings: Python values, or text of INI files."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from riverrun.config import ClientConfig, Notify, QueueConfig
from riverrun.errors import InvalidOption

_TRUE, _FALSE = frozenset({"1", "on", "true", "yes"}), frozenset({"0", "false", "no", "off"})


def client_options(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the options for a Client from an application's settings.

    Text is converted to the type of the option: numbers of seconds, "true" or "false", "none", and
    queues as "default:10 mail:2".

    Args:
        settings: Settings by name, in lower case and without their prefix.
        prefix: The prefix, to name a setting in errors.

    Raises:
        InvalidOption: If there is no such option, or a text cannot be converted.
    """

    def full(name: str) -> str:
        return prefix + (name.upper() if prefix.isupper() else name)

    options = {}
    for name, value in settings.items():
        if name not in _READERS:
            raise InvalidOption("setting", full(name), f"one of {', '.join(map(full, _READERS))}")
        try:
            options[name] = _READERS[name](value)
        except (ValueError, TypeError):
            raise InvalidOption(full(name), value, _EXPECTED[_READERS[name]]) from None
    return options


def _text(value: Any) -> Any:
    return value


def _flag(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError(value)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        return None if value.strip().lower() == "none" else float(value)
    return value


def _queues(value: Any) -> dict[str, QueueConfig]:
    if isinstance(value, str):
        pairs = [queue.partition(":") for queue in value.split()]
        return {name: _queue(int(slots) if colon else None) for name, colon, slots in pairs}
    if not isinstance(value, Mapping):
        raise TypeError(value)
    return {name: _queue(config) for name, config in value.items()}


def _queue(config: Any) -> QueueConfig:
    match config:
        case QueueConfig():
            return config
        case None:
            return QueueConfig()
        case int():
            return QueueConfig(max_workers=config)
        case Mapping():
            return QueueConfig(**config)
    raise TypeError(config)


_READERS_BY_TYPE: dict[Any, Callable[[Any], Any]] = {
    str | None: _text,
    Notify: _text,
    Mapping[str, QueueConfig]: _queues,
    bool: _flag,
    int: _number,
    float: _seconds,
    float | None: _seconds,
}
# Options that take other objects, such as plugins, are given to the client in Python.
_READERS = {
    str(option.alias): _READERS_BY_TYPE[option.type]
    for option in attrs.fields(ClientConfig)
    if option.type in _READERS_BY_TYPE
}
_EXPECTED: dict[Callable[[Any], Any], str] = {
    _queues: 'queues by name, such as "default:10 mail:2" or {"default": 10}',
    _flag: "true or false",
    _number: "a whole number",
    _seconds: "a number of seconds",
}
