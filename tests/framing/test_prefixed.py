"""The framing `prefixed`: a length of four bytes, big-endian, a byte with the WebSocket opcode, and the payload."""

from __future__ import annotations

import pytest

from tests.support.decoding import Outcome, decode
from wsbridge.errors import MessageTooLong, ProgramError
from wsbridge.flow import Batch, Kind
from wsbridge.framing import make_framing

HELLO = b"\0\0\0\5\1hello"
BYTES = b"\0\0\0\3\2\x00\xff\n"

prefixed, _ = make_framing("prefixed", limit=300)


@pytest.mark.parametrize(
    ("printed", "messages"),
    [
        (b"", []),
        (HELLO, [(Kind.TEXT, b"hello")]),
        (BYTES, [(Kind.BINARY, b"\x00\xff\n")]),
        (HELLO + HELLO + BYTES + HELLO, [(Kind.TEXT, b"hello")] * 2 + [(Kind.BINARY, b"\x00\xff\n"), (Kind.TEXT, b"hello")]),
        (b"\0\0\0\0\1" + b"\0\0\0\0\2", [(Kind.TEXT, b""), (Kind.BINARY, b"")]),
        (b"\0\0\1\0\2" + b"x" * 256, [(Kind.BINARY, b"x" * 256)]),
        (b"\0\0\0\3\1a\nb", [(Kind.TEXT, b"a\nb")]),
        (b"\0\0\0\2\1\xff\xc3" + b"\0\0\0\1\2\xff", [(Kind.TEXT, "��".encode()), (Kind.BINARY, b"\xff")]),
    ],
    ids=["nothing", "text", "binary", "mixed", "empty", "big-endian", "newline", "not UTF-8"],
)
def test_messages(printed: bytes, messages: list[tuple[Kind, bytes]]) -> None:
    """Boundaries and kinds survive; invalid text is repaired, binary messages stay unchanged."""
    assert decode(prefixed, printed, tail=HELLO) == Outcome(messages)


def test_runs_of_a_kind_are_batches() -> None:
    """Messages of both kinds in one read become consecutive batches."""
    assert prefixed().feed(HELLO + HELLO + BYTES) == [Batch(Kind.TEXT, [b"hello"] * 2), Batch(Kind.BINARY, [b"\x00\xff\n"])]


@pytest.mark.parametrize("part", [HELLO[:count] for count in range(1, len(HELLO))])
def test_end_within_a_message(part: bytes) -> None:
    """A stream that ends within a message is an error of the program, and the partial message is not delivered."""
    assert decode(prefixed, BYTES + part) == Outcome([(Kind.BINARY, b"\x00\xff\n")], ProgramError)


@pytest.mark.parametrize("kind", [0, 3, 8, 9, 10, 255])
def test_other_kinds(kind: int) -> None:
    """A kind that is neither text nor binary ends the session after the messages before it; later bytes are ignored."""
    assert decode(prefixed, HELLO + bytes((0, 0, 0, 1, kind)) + b"x", tail=HELLO) == Outcome([(Kind.TEXT, b"hello")], ProgramError)


def test_limit() -> None:
    """A payload of exactly the limit is valid; its header does not count."""
    assert decode(prefixed, b"\0\0\1\x2c\2" + b"x" * 300) == Outcome([(Kind.BINARY, b"x" * 300)])


@pytest.mark.parametrize("length", [301, 65536, 2**31, 2**32 - 1])
def test_past_the_limit(length: int) -> None:
    """A length above the limit is an error as soon as the header arrives, before the payload."""
    assert decode(prefixed, HELLO + length.to_bytes(4, "big") + b"\2") == Outcome([(Kind.TEXT, b"hello")], MessageTooLong)


def test_no_limit() -> None:
    """A limit of 0 means no limit."""
    make, _ = make_framing("prefixed", limit=0)
    decoder = make()
    assert decoder.feed((1 << 20).to_bytes(4, "big") + b"\2") == []
    assert decoder.feed(b"x" * (1 << 20)) == [Batch(Kind.BINARY, [b"x" * (1 << 20)])]


def test_errors_name_the_kind() -> None:
    """The log line names the kind found and the valid kinds."""
    with pytest.raises(ProgramError, match=r"kind 7.*1 for text, 2 for binary") as caught:
        prefixed().feed(b"\0\0\0\1\7x")
    assert caught.value.code == 1011


@pytest.mark.parametrize(
    ("batch", "written"),
    [
        (Batch(Kind.TEXT, [b"hello"]), HELLO),
        (Batch(Kind.BINARY, [b"\x00\xff\n", b""]), BYTES + b"\0\0\0\0\2"),
        (Batch(Kind.TEXT, [bytearray(b"hello"), bytearray()]), HELLO + b"\0\0\0\0\1"),
        (Batch(Kind.BINARY, [b"x" * 0x010203]), b"\0\1\2\3\2" + b"x" * 0x010203),
    ],
    ids=["text", "binary", "bytearrays", "long"],
)
def test_to_the_program(batch: Batch, written: bytes) -> None:
    """The output is the length of the payload alone, the kind and the payload: the same bytes in both directions."""
    _, encoder = make_framing("prefixed", limit=0)
    assert encoder.encode(batch) == written
