"""Tracebacks as people read them: the application's frames, libraries folded."""

import json
import traceback
from pathlib import Path
from types import ModuleType

import pytest

from riverrun.logs.traces import folded, place_of

SOURCE = """
import json
def worker(text):
    return helper(text)
def helper(text):
    return json.loads(text)
"""


@pytest.fixture
def error(tmp_path: Path) -> BaseException:
    """An error raised three library frames below an application's function."""
    path = tmp_path / "shop.py"
    path.write_text(SOURCE)
    module = ModuleType("shop")
    exec(compile(SOURCE, str(path), "exec"), module.__dict__)
    try:
        module.worker("{")
    except json.JSONDecodeError as raised:
        return raised
    raise AssertionError("nothing was raised")


def test_library_frames_are_one_line(error: BaseException) -> None:
    """A run of library frames is one line that counts it; the last frame is kept."""
    text = folded("".join(traceback.format_exception(error)))
    assert "in worker" in text
    assert "in helper" in text
    assert "  ... 2 frames in Python" in text
    assert "raw_decode" in text
    assert text.splitlines()[-1].startswith("json.decoder.JSONDecodeError")


def test_the_place_is_the_application_s(error: BaseException) -> None:
    """The place of an error is the innermost frame of the application, also below a library."""
    assert place_of(error) == "shop.py:6 in helper"
    assert place_of(ValueError("never raised")) == ""


def test_what_is_no_traceback_stays_as_it_is() -> None:
    """Text of other languages' clients is shown as it was written."""
    for text in ("", "goroutine 1 [running]:\nmain.go:7", "no traceback\n  at all"):
        assert folded(text) == text.rstrip("\n")


def test_each_exception_of_a_chain_is_folded(error: BaseException) -> None:
    """A cause and what it caused are each shown with their own frames and texts."""
    outer = RuntimeError("outer")
    outer.__cause__ = error
    text = folded("".join(traceback.format_exception(outer)))
    assert text.count("Traceback (most recent call last):") == 1
    assert "direct cause" in text
    assert text.splitlines()[-1] == "RuntimeError: outer"
