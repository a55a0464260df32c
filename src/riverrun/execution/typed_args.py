"""Args of the type that the application's worker takes, from JSON that an operator gives."""

from collections.abc import Mapping
from typing import Any

from riverrun.execution.workers import Workers
from riverrun.jobs.args import AnyArgs, RawArgs, decode, kind_of


def typed_args(workers: Workers | None, kind: str, encoded: Mapping[str, Any]) -> AnyArgs:
    """Return args of the type that the worker of `kind` takes: checked, with its options.

    Without a typed worker for the kind, return them raw.

    Args:
        workers: The application's workers, if it has any.
        kind: The kind.
        encoded: The args as a JSON object.

    Raises:
        UndecodableArgs: If they do not fit the worker's type.
    """
    raw = RawArgs(kind=kind, encoded=encoded)
    worker = workers.find(kind) if workers else None
    if worker is None or worker.args_type is RawArgs:
        return raw
    args_type: type[AnyArgs] = worker.args_type
    args = decode(kind, encoded, args_type)
    return args if kind_of(args) == kind else raw
