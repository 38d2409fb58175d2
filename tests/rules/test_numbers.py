"""Go's syntax of integers and booleans (Go's package strconv)."""

from __future__ import annotations

import pytest

from wsbridge.rules.numbers import parse_bool, parse_int, parse_unsigned

SAYS_SOMETHING = r"\S"


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_true(text: str) -> None:
    """Go's spellings of true."""
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_false(text: str) -> None:
    """Go's spellings of false."""
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "y", "tRUE", "2", " true", "true ", "truetrue"])
def test_invalid_boolean(text: str) -> None:
    """Any other text is no boolean."""
    with pytest.raises(ValueError, match=SAYS_SOMETHING):
        parse_bool(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("80", 80),
        ("-1", -1),
        ("+80", 80),
        ("0x1F90", 8080),
        ("0X1f90", 8080),
        ("0x_1F_90", 8080),
        ("1_000", 1000),
        ("1_2_3", 123),
        ("010", 8),
        ("0_10", 8),
        ("00", 0),
        ("-010", -8),
        ("0o17", 15),
        ("0O1_7", 15),
        ("0b101", 5),
        ("0B_1", 1),
        ("-0x10", -16),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_integer(text: str, number: int) -> None:
    """An integer has the syntax of Go source; a leading 0 means octal."""
    assert parse_int(text) == number


NO_INTEGERS = ["", " ", "x", "8080x", "08080", "09", "0x", "0b", "0o", "0b2", "_1", "1_", "1__0", "0_", "0x1_", "--1", "+-1", "-"]


@pytest.mark.parametrize("text", [*NO_INTEGERS, " 1", "1 ", "1\n", "1.0", "1e3", "٣", "9223372036854775808", "-9223372036854775809"])
def test_invalid_integer(text: str) -> None:
    """Any other text, and a number beyond 64 bits, is an error with a readable reason instead of Python's message."""
    with pytest.raises(ValueError, match=SAYS_SOMETHING) as caught:
        parse_int(text)
    assert "literal" not in str(caught.value)
    assert "base" not in str(caught.value)


def test_unsigned() -> None:
    """An unsigned integer has no sign, not even a plus."""
    assert [parse_unsigned(text) for text in ("0", "0x10", "010", "1_000")] == [0, 16, 8, 1000]
    for text in ("-1", "+1", "-0", *NO_INTEGERS):
        with pytest.raises(ValueError, match=SAYS_SOMETHING):
            parse_unsigned(text)
