"""JSON as Go's encoder writes it."""

from typing import Any

import pytest

from riverrun.wire.go_json import encode, sorted_object


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # Source: encoding/json of Go 1.26.
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (1e-10, "1e-10"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (-0.0, "-0"),
        (0.0, "0"),
        (3.0, "3"),
        (-123.456, "-123.456"),
        (0.1, "0.1"),
        (123456789012345680.0, "123456789012345680"),
        (2**70, "1180591620717411303424"),
        (True, "true"),
        (None, "null"),
        ("<>&", '"\\u003c\\u003e\\u0026"'),
        ("\u2028\u2029", '"\\u2028\\u2029"'),
        ("\b\f\n\r\t\x01\x1f", '"\\b\\f\\n\\r\\t\\u0001\\u001f"'),
        ("\x7fé日😀", '"\x7fé日😀"'),
        ('"\\/', '"\\"\\\\/"'),
        ([1, "a", None], '[1,"a",null]'),
        ({"b": 1, "a": []}, '{"b":1,"a":[]}'),
    ],
)
def test_text_is_gos(value: Any, text: str) -> None:
    """The same value gives the same text as in Go."""
    assert encode(value) == text


def test_outermost_keys_are_sorted_by_their_bytes_and_written_plain() -> None:
    """River leaves `<` in an outermost key as it is, and escapes what is not ASCII with Go."""
    value = {"é": 1, "a<b": {"<": 2}, "B": 3, 'q"': 4}
    assert sorted_object(value) == '{"B":3,"a<b":{"\\u003c":2},"q\\"":4,"é":1}'


def test_what_json_does_not_know_is_refused() -> None:
    """A value of another type is an error, not a guess."""
    with pytest.raises(TypeError, match="set"):
        encode({1})
