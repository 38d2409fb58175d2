"""No framing: bytes, at once, in binary messages."""

from __future__ import annotations

from tests.support.decoding import Outcome, decode
from wsbridge.flow import Batch, Kind
from wsbridge.framing import make_framing

EVERY_BYTE = bytes(range(256))


chunks, _ = make_framing("chunks", limit=4)


def test_each_read_is_a_message() -> None:
    """What one read brings is one binary message, whatever it holds, at once and of any length."""
    decoder = chunks()
    reads = [b"no newline", b"\n", EVERY_BYTE, b"\xff"]
    assert [list(decoder.feed(read)) for read in reads] == [[Batch(Kind.BINARY, [read])] for read in reads]
    assert list(decoder.eof()) == []


def test_bytes_survive() -> None:
    """Boundaries of messages do not survive; bytes do."""
    assert decode(chunks, EVERY_BYTE, boundaries=False) == Outcome([(Kind.BINARY, EVERY_BYTE)])
    assert decode(chunks, b"", boundaries=False) == Outcome([])


def test_to_the_program() -> None:
    """Messages of either kind are written as they are: nothing is appended to a text one."""
    _, encoder = make_framing("chunks", limit=0)
    assert encoder.encode(Batch(Kind.BINARY, [EVERY_BYTE, b"", b"\n"])) == EVERY_BYTE + b"\n"
    assert encoder.encode(Batch(Kind.TEXT, [b"one", bytearray(b"two")])) == b"onetwo"
