"""Parsing the bytes of a file: UTF-8 and TOML, with the line of each error."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.config.parsing import InvalidFile, parse


def why(content: bytes) -> tuple[int, str]:
    with pytest.raises(InvalidFile) as caught:
        parse(content)
    return caught.value.line, caught.value.sentence


def test_tables_and_places() -> None:
    """A BOM and both kinds of line endings are valid; an empty file has no tables."""
    assert parse(b"") == parse(b"\xef\xbb\xbf") == parse(b"\n# comment\n") == ({}, {})
    assert parse(b"\xef\xbb\xbf\r\na = 1\r\n") == ({"a": 1}, {("a",): 2})


@pytest.mark.parametrize(
    ("content", "line", "sentence"),
    [
        (b"a = 1\nb = 'caf\xe9'\n", 2, "not UTF-8 at column 9 (byte 0xE9); save the file as UTF-8"),
        ("é = 'ü".encode() + b"\xff", 1, "not UTF-8 at column 7 (byte 0xFF); save the file as UTF-8"),
        (b"\n\n\xed\xa0\x80 = 1", 3, "not UTF-8 at column 1 (byte 0xED); save the file as UTF-8"),
        (b"a = 'x\xc3", 1, "not UTF-8 at column 7 (byte 0xC3); save the file as UTF-8"),
        ("a = 1".encode("utf-16"), 0, "the file is UTF-16; save it as UTF-8"),
    ],
    ids=["Latin-1", "after other letters", "lone surrogate", "cut off", "UTF-16"],
)
def test_other_encodings(content: bytes, line: int, sentence: str) -> None:
    """A file that is not UTF-8 is an error with the position of the first wrong byte, or with the name UTF-16."""
    assert why(content) == (line, sentence)


def test_odd_bytes() -> None:
    """NUL bytes, lines that end in CR alone and a second BOM are errors with their position."""
    assert why(b"a = 1\nb\0 = 1") == (
        2,
        "invalid TOML at column 2: U+0000 (an unnamed character) is not allowed here; remove this character",
    )
    assert why(b"\0" * 1000)[0] == 1
    assert why(b"a = 1\rb = 2\r") == (
        1,
        "invalid TOML at column 6: a carriage return alone does not end a line; save the file with LF or CR LF at the line ends",
    )
    assert "U+FEFF (ZERO WIDTH NO-BREAK SPACE)" in why(b"\xef\xbb\xbf\xef\xbb\xbfa = 1")[1]


@pytest.mark.parametrize("value", ["[" * 100_000, "{a=" * 100_000, "[" * 100_000 + "]" * 100_000])
def test_deep_nesting(value: str) -> None:
    """Deep nesting is an error with its line, before tomllib raises RecursionError."""
    assert why(f"a = 1\nb = {value}".encode()) == (2, "more than 64 levels of keys, arrays or tables; reduce the nesting")


def test_key_with_many_dots() -> None:
    """tomllib would need hours for this key."""
    assert why(b".".join([b"a"] * 500_000) + b" = 1") == (1, "more than 64 levels of keys, arrays or tables; reduce the nesting")


def test_nesting_on_a_deep_stack() -> None:
    """A caller with a nearly exhausted stack gets an error too."""

    def below(frames: int) -> tuple[int, str]:
        return below(frames - 1) if frames else why(b"a = " + b"[" * 60 + b"]" * 60)

    frame, used = sys._getframe(), 0
    while frame.f_back:
        frame, used = frame.f_back, used + 1
    assert below(sys.getrecursionlimit() - used - 90) == (0, "arrays or tables have too many levels; reduce the nesting")


def test_long_number() -> None:
    """Python does not convert a number of more than 4300 digits; the error still has its line."""
    assert why(b"a = 1\nb = " + b"9" * 5000) == (2, "a number is too long; write fewer than 4000 digits")


@given(content=st.binary() | st.text(alphabet="a=[]{}\"'\\#\n\r .,1").map(str.encode))
def test_any_bytes(content: bytes) -> None:
    """Any bytes result in tables or in an error of one line, and never in another exception."""
    found = [(0, "")]
    try:
        parse(content)
    except InvalidFile as error:
        found.append((error.line, error.sentence))
    for line, sentence in found:
        assert sentence.isprintable()
        assert 0 <= line <= content.count(b"\n") + 1
