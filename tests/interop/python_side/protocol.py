"""The JSON-RPC protocol: requests, their params, results and errors."""

import json
import logging
import typing
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import IO, Any

import attrs
from cattrs import Converter
from sqlalchemy.exc import SQLAlchemyError

from riverrun.errors import JobNotFound, QueueNotFound, RiverrunError

logger = logging.getLogger(__name__)

# Source of the codes: River 0.49, conformance/adapter/contract.json.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL = -32000
NOT_FOUND = -32001
REJECTED = -32002
DATABASE = -32003
UNSUPPORTED = -32004


class Failure(Exception):
    """A call's error, which becomes its response."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[1])


@attrs.frozen(kw_only=True)
class Empty:
    """The params of a method that has none."""


METHODS: dict[str, tuple[type[Any], Callable[[Any, Any], Any]]] = {}

converter = Converter(forbid_extra_keys=True)


def _datetime(value: Any, _: type[datetime]) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.utcoffset() is None:
        raise ValueError(f"{value} has no time zone")
    return moment


converter.register_structure_hook(datetime, _datetime)


def _strict(value: Any, expected: type[Any]) -> Any:
    """Return a JSON value unchanged if it has the expected type: true is not a number."""
    if issubclass(expected, Enum):
        return expected(value)
    if type(value) is not expected:
        raise TypeError(f"{value!r} is not of {expected.__name__}")
    return value


for _kind in (bool, int, str):
    converter.register_structure_hook(_kind, _strict)


def method(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Register `function` as the method of its name; its second parameter's class is the params."""
    return named(function.__name__)(function)


def named(name: str) -> Callable[[Callable[[Any, Any], Any]], Callable[[Any, Any], Any]]:
    """Register a function as the method `name`."""

    def add(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        METHODS[name] = (typing.get_type_hints(function)["params"], function)
        return function

    return add


def serve(state: Any, requests: IO[str], answers: IO[str]) -> None:
    """Answer each request line, in order."""
    for line in requests:
        answers.write(json.dumps(_answer(state, line), ensure_ascii=False) + "\n")
        answers.flush()


def decode(text: str, **options: Any) -> Any:
    """Return decoded JSON. Minus zero becomes a float, since Python's int has none."""
    return json.loads(text, parse_int=_int, **options)


def exact(text: str) -> Any:
    """Return decoded JSON in which each number keeps all of its digits."""
    return decode(text, parse_float=Decimal)


def _int(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def _answer(state: Any, line: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": None}
    try:
        request = _request(line)
        answer["id"] = request["id"]
        answer["result"] = _call(state, request["method"], request.get("params") or {}) or {}
    except Failure as failure:
        answer["error"] = {"code": failure.code, "message": str(failure)}
    except (JobNotFound, QueueNotFound) as error:
        answer["error"] = {"code": NOT_FOUND, "message": str(error)}
    except RiverrunError as error:
        answer["error"] = {"code": REJECTED, "message": str(error)}
    except SQLAlchemyError as error:
        answer["error"] = {"code": DATABASE, "message": str(error)}
    except Exception as error:
        logger.exception("failed at %s", line[:200])
        answer["error"] = {"code": INTERNAL, "message": f"{type(error).__name__}: {error}"}
    return answer


def _request(line: str) -> dict[str, Any]:
    try:
        request = decode(line)
    except ValueError as error:
        raise Failure(PARSE_ERROR, str(error)) from error
    if not isinstance(request, dict) or request.get("jsonrpc") != "2.0" or "id" not in request:
        raise Failure(INVALID_REQUEST, "no request of JSON-RPC 2.0")
    return request


def _call(state: Any, name: str, given: Any) -> Any:
    if name not in METHODS:
        raise Failure(METHOD_NOT_FOUND, f"no method {name!r}")
    expected, function = METHODS[name]
    try:
        params = converter.structure(given, expected)
    except Exception as error:
        problem = "; ".join(str(each) for each in getattr(error, "exceptions", [error]))
        raise Failure(INVALID_PARAMS, f"{name}: {problem}") from error
    return function(state, params)
