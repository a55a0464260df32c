"""Drafts of jobs, as plugins change them before the insert."""

import json
from datetime import UTC, datetime

import attrs
import pytest

from riverrun import JobArgs, UniqueOpts
from riverrun.errors import InvalidArgs, InvalidOption
from riverrun.jobs.options import InsertOpts
from riverrun.verbs.draft import draft

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@attrs.frozen
class Pay(JobArgs, kind="pay"):
    card: str


def test_other_args_keep_the_unique_key() -> None:
    """A plugin can replace the args, such as by encrypted ones; the key stays that of the args."""
    job = draft(Pay("4000"), InsertOpts(unique=UniqueOpts(by_args=True)), now=NOW)
    changed = job.with_args({"card": "sealed"})
    assert changed.encoded == {"card": "sealed"}
    assert json.loads(changed.args_text) == {"card": "sealed"}
    assert changed.mark == job.mark is not None
    assert job.encoded == {"card": "4000"}


def test_metadata_is_merged() -> None:
    """A plugin's metadata is added to the job's own, and replaces keys of the same name."""
    job = draft(Pay("4000"), InsertOpts(metadata={"a": 1, "b": 1}), now=NOW)
    assert json.loads(job.with_metadata({"b": 2}).metadata_text) == {"a": 1, "b": 2}


def test_refuses_what_json_cannot_hold() -> None:
    """Args and metadata that jsonb cannot hold are refused before the insert."""
    job = draft(Pay("4000"), now=NOW)
    with pytest.raises(InvalidArgs, match="NUL"):
        job.with_args({"card": "\x00"})
    with pytest.raises(InvalidOption, match="NUL"):
        job.with_metadata({"note": "\x00"})
