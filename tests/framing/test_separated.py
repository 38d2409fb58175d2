"""Lines and NUL-separated messages: the end of a message, and the rest at the end of the stream."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.decoding import Outcome, decode
from wsbridge.errors import MessageTooLong
from wsbridge.flow import Batch, Kind
from wsbridge.framing import Decoder, make_framing

Make = Callable[[], Decoder]

lines, _ = make_framing("lines", limit=10)
nul, _ = make_framing("nul", limit=10)


def texts(*messages: bytes) -> list[tuple[Kind, bytes]]:
    return [(Kind.TEXT, message) for message in messages]


@pytest.mark.parametrize(
    ("printed", "messages"),
    [
        (b"", []),
        (b"one\n", [b"one"]),
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"\n", [b""]),
        (b"\n\n\n", [b"", b"", b""]),
        (b"x\r\n", [b"x"]),
        (b"x\r\r\n", [b"x\r"]),
        (b"\r\n", [b""]),
        (b"a\rb\n", [b"a\rb"]),
        (b"\rx\n", [b"\rx"]),
        (b"x\r\ny\nz\r\n", [b"x", b"y", b"z"]),
        (b"  \t x \t\n", [b"  \t x \t"]),
        (b"a\0b\n", [b"a\0b"]),
        ("é€😀\n".encode(), ["é€😀".encode()]),
    ],
)
def test_lines(printed: bytes, messages: list[bytes]) -> None:
    """A message ends with LF; one CR before it is dropped, any other stays; an empty line is an empty message."""
    assert decode(lines, printed, tail=b"more\n") == Outcome(texts(*messages))


@pytest.mark.parametrize(
    ("printed", "messages"),
    [
        (b"one\0two\0", [b"one", b"two"]),
        (b"\0\0", [b"", b""]),
        (b"a\nb\r\n\0", [b"a\nb\r\n"]),
        (b"x\r\0", [b"x\r"]),
    ],
)
def test_nul(printed: bytes, messages: list[bytes]) -> None:
    """A message ends with NUL and is otherwise unchanged: a file name may contain LF and CR."""
    assert decode(nul, printed, tail=b"more\0") == Outcome(texts(*messages))


@pytest.mark.parametrize(
    ("make", "printed", "messages"),
    [
        (lines, b"one\nlast", [b"one", b"last"]),
        (lines, b"last", [b"last"]),
        (nul, b"one\0last", [b"one", b"last"]),
        (nul, b"x\n", [b"x\n"]),
    ],
)
def test_last_message_without_its_end(make: Make, printed: bytes, messages: list[bytes]) -> None:
    """An unterminated last message is delivered at the end of the stream."""
    assert decode(make, printed) == Outcome(texts(*messages))


def test_nothing_before_the_separator() -> None:
    """Output without a newline is not sent until the newline appears."""
    decoder = lines()
    assert [list(decoder.feed(piece)) for piece in (b"wai", b"ting", b"\n")] == [[], [], [Batch(Kind.TEXT, [b"waiting"])]]


def test_messages_of_one_read_are_one_batch() -> None:
    """Messages in one read form one batch, in order."""
    decoder = lines()
    decoder.feed(b"a")
    assert decoder.feed(b"b\nc\n\nd") == [Batch(Kind.TEXT, [b"ab", b"c", b""])]


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (b"caf\xe9\n", "caf�"),
        (b"\xff\xfe\n", "��"),
        (b"ok \xe2\x82\n", "ok �"),
        (b"\xed\xa0\x80\n", "���"),
        (b"\xc0\xaf\n", "��"),
        (b"\xf4\x90\x80\x80\n", "����"),
        (b"\xe2\x82", "�"),
    ],
    ids=["latin-1", "no lead byte", "cut short", "surrogate", "overlong", "past U+10FFFF", "at the end"],
)
def test_text_that_is_not_utf8(printed: bytes, message: str) -> None:
    """Bytes that are not UTF-8 reach a text client as U+FFFD."""
    assert decode(lines, printed) == Outcome(texts(message.encode()))


def test_only_the_damaged_message_is_replaced() -> None:
    """A character that the separator cuts in two stays invalid, and the neighbouring messages are unchanged."""
    assert decode(lines, "é\n".encode() + b"\xc3\n\xa9\n" + "€\n".encode()) == Outcome(texts(*map(str.encode, ("é", "�", "�", "€"))))


@pytest.mark.parametrize("make", [lines, nul])
def test_limit_passes(make: Make) -> None:
    """A message of exactly the limit is valid, with and without its separator."""
    separator = b"\n" if make is lines else b"\0"
    message = b"x" * 10
    assert decode(make, separator.join([message, b"", message])) == Outcome(texts(message, b"", message))


@pytest.mark.parametrize(
    ("make", "printed", "before"),
    [
        (lines, b"x" * 11 + b"\n", []),
        (lines, b"a\nb\n" + b"x" * 11 + b"\nc\n", [b"a", b"b"]),
        (lines, b"a\n" + b"x" * 30, [b"a"]),
        (lines, b"a\n" + b"x" * 11, [b"a"]),
        (lines, b"x" * 10 + b"\r\r\n", []),
        (nul, b"x" * 11 + b"\0", []),
        (nul, b"a\0" + b"x" * 11, [b"a"]),
        (nul, b"x" * 10 + b"\r\0", []),
    ],
    ids=["one", "between others", "far beyond", "at the end", "a CR counts", "nul", "nul, at the end", "nul has no CR"],
)
def test_message_past_the_limit(make: Make, printed: bytes, before: list[bytes]) -> None:
    """A message of one byte more than the limit is an error, not a truncation; earlier messages are delivered."""
    assert decode(make, printed) == Outcome(texts(*before), MessageTooLong)


def test_cr_before_lf_does_not_count() -> None:
    """The CR before the LF does not count towards the limit."""
    assert decode(lines, b"x" * 10 + b"\r\n" + b"y" * 10 + b"\r\n") == Outcome(texts(b"x" * 10, b"y" * 10))


def test_limit_is_of_bytes() -> None:
    """The limit counts the bytes of the program, not characters, and not the bytes of U+FFFD."""
    assert decode(lines, "€€€€\n".encode()).error is MessageTooLong
    assert decode(lines, b"\xff" * 10 + b"\n") == Outcome(texts("�".encode() * 10))


def test_no_limit() -> None:
    """A limit of 0 means no limit: a line of a mebibyte arrives whole."""
    make, _ = make_framing("lines", limit=0)
    decoder = make()
    line = b"x" * (1 << 20)
    pieces = [line[start : start + 65536] for start in range(0, len(line), 65536)]
    assert [list(decoder.feed(piece)) for piece in (*pieces, b"\n")] == [[]] * len(pieces) + [[Batch(Kind.TEXT, [line])]]


def test_error_names_the_limit() -> None:
    """The error names the limit, and closes with 1009."""
    with pytest.raises(MessageTooLong, match="longer than 10 bytes") as caught:
        lines().feed(b"x" * 20)
    assert (caught.value.limit, caught.value.code) == (10, 1009)


@pytest.mark.parametrize(
    ("framing", "batch", "written"),
    [
        ("lines", Batch(Kind.TEXT, [b"abc"]), b"abc\n"),
        ("lines", Batch(Kind.TEXT, [b"a\nb"]), b"a\nb\n"),
        ("lines", Batch(Kind.TEXT, [b""]), b"\n"),
        ("lines", Batch(Kind.TEXT, [b" a\t\r", b"\0", b"b"]), b" a\t\r\n\0\nb\n"),
        ("lines", Batch(Kind.BINARY, [b"\x00\xff", b"x"]), b"\x00\xffx"),
        ("lines", Batch(Kind.TEXT, [bytearray(b"a"), bytearray(b"b")]), b"a\nb\n"),
        ("nul", Batch(Kind.TEXT, [b"a", b"", b"b\n"]), b"a\0\0b\n\0"),
        ("nul", Batch(Kind.BINARY, [b"a", b"b"]), b"ab"),
    ],
)
def test_to_the_program(framing: str, batch: Batch, written: bytes) -> None:
    """A text message is written with its separator, a binary message unchanged and without one."""
    _, encoder = make_framing(framing, limit=0)
    assert encoder.encode(batch) == written
