"""The text of a group of failed jobs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.verbs.failures import TEXT_CHARS, pattern

EQUAL = [
    ("no order 17", "no order #"),
    ("no order -17.50", "no order #"),
    ("at 2026-11-25 22:30:01,123", "at # #"),
    ("refused by 10.0.0.17:5432", "refused by #"),
    ("user 0b9c4a6e-1111-4A6E-8b1e-0123456789ab gone", "user # gone"),
    ("user abcdefab-1111-4A6E-8b1e-0123456789ab gone", "user # gone"),
    ("<Order object at 0x7f00DEADbeef>", "<Order object at #>"),
    ("digest 9e107d9d372bb6826bd81d3542a419d6", "digest #"),
    ("digest abcdef1234", "digest #"),
    ("facade, decade and beefcafe", "facade, decade and beefcafe"),
    ("user42 of shop-7", "user# of shop-#"),
    ("utf8", "utf#"),
    ("٣ orders", "٣ orders"),
    ("", ""),
    (" \n\r\n first \nsecond", "first "),
]


@pytest.mark.parametrize(("error", "text"), EQUAL)
def test_numbers_are_taken_out(error: str, text: str) -> None:
    """Numbers, UUIDs and hexadecimal texts are replaced in the first line; words are kept."""
    assert pattern(error) == text


@given(st.text(), st.integers(), st.integers(), st.uuids(), st.uuids())
def test_errors_that_differ_in_numbers_are_equal(
    words: str, one: int, other: int, first: object, second: object
) -> None:
    """Errors that differ only in a number or in a UUID have the same text, of bounded length."""
    start = f"at {words.strip()} "
    assert pattern(f"{start} {abs(one)} {first}.") == pattern(f"{start} {abs(other)} {second}.")
    assert len(pattern(words)) <= TEXT_CHARS


@pytest.mark.parametrize("text", ["a" * 1_000, "1" * 1_000, "a1" * 500, "1-" * 500, "-" * 1_000])
def test_long_words(text: str) -> None:
    """A text of any form is read."""
    assert len(pattern(text)) <= TEXT_CHARS
