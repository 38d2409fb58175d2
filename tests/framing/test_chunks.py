"""The framing `chunks`: the bytes of each read, at once, in a binary message."""

from __future__ import annotations

from tests.support.decoding import Outcome, decode
from wsbridge.flow import Batch, Kind
from wsbridge.framing import make_framing

EVERY_BYTE = bytes(range(256))


chunks, _ = make_framing("chunks", limit=4)


def test_each_read_is_a_message() -> None:
    """The bytes of each read become one binary message, at once, whatever their content and length are."""
    decoder = chunks()
    reads = [b"no newline", b"\n", EVERY_BYTE, b"\xff"]
    assert [list(decoder.feed(read)) for read in reads] == [[Batch(Kind.BINARY, [read])] for read in reads]
    assert list(decoder.eof()) == []


def test_bytes_without_boundaries() -> None:
    """The framing keeps the bytes, but not the boundaries of messages."""
    assert decode(chunks, EVERY_BYTE, boundaries=False) == Outcome([(Kind.BINARY, EVERY_BYTE)])
    assert decode(chunks, b"", boundaries=False) == Outcome([])


def test_to_the_program() -> None:
    """Messages of either kind are written unchanged: the framing appends nothing to a text message."""
    _, encoder = make_framing("chunks", limit=0)
    assert encoder.encode(Batch(Kind.BINARY, [EVERY_BYTE, b"", b"\n"])) == EVERY_BYTE + b"\n"
    assert encoder.encode(Batch(Kind.TEXT, [b"one", bytearray(b"two")])) == b"onetwo"
