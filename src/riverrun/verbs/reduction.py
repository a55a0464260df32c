"""Reduce an outcome that the database refuses, part by part, until the database accepts it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from riverrun.jobs.json_values import json_problem, json_text
from riverrun.jobs.row import AttemptError
from riverrun.outcome import Outcome
from riverrun.wire.characters import ASCII, storable

SMALL_BYTES = 1_000
"""Largest value of an attempt's metadata, in bytes of JSON, that is not removed for its size."""


def reductions(outcome: Outcome, reason: str) -> Iterator[tuple[str, Outcome]]:
    """Yield what is removed, and `outcome` without it. Each step removes more, but never the state.

    Args:
        outcome: The outcome that the database refuses.
        reason: The text that replaces an error's text when that is removed.
    """
    metadata, error = outcome.metadata, outcome.error
    untraced = error and attrs.evolve(error, trace="")
    steps: list[tuple[str, Mapping[str, Any] | None, AttemptError | None]] = [
        (
            "the characters and values that it cannot hold",
            _plain(metadata),
            error and _ascii(error),
        ),
        ("the larger part of its metadata", _small(metadata), error and _ascii(error)),
        ("its metadata", None, error and _ascii(error)),
        ("its metadata and its error's trace", None, untraced and _ascii(untraced)),
        (
            "its metadata and its error's text",
            None,
            untraced and attrs.evolve(untraced, error=f"(not recorded: {reason})"),
        ),
        ("its metadata and its error", None, None),
    ]
    last = (metadata, error)
    for lost, kept, entry in steps:
        if (kept, entry) != last:
            last = (kept, entry)
            yield lost, attrs.evolve(outcome, metadata=kept or None, error=entry)


def barest(outcome: Outcome) -> Outcome:
    """Return `outcome` without metadata and error."""
    return attrs.evolve(outcome, metadata=None, error=None)


def _ascii(error: AttemptError) -> AttemptError:
    texts = {
        name: getattr(error, name).replace("\x00", "\\x00").encode("ascii", "backslashreplace")
        for name in ("error", "trace")
    }
    return attrs.evolve(error, **{name: text.decode() for name, text in texts.items()})


def _plain(metadata: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if metadata is None:
        return None
    kept = {}
    for key, value in metadata.items():
        try:
            kept.update(json.loads(storable(json_text({key: value}), ASCII)))
        except (TypeError, ValueError, RecursionError):
            continue
    return {key: value for key, value in kept.items() if not json_problem({key: value})}


def _small(metadata: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    plain = _plain(metadata) or {}
    return {key: value for key, value in plain.items() if len(json_text(value)) <= SMALL_BYTES}
