"""WebSocket frames (RFC 6455): the encoding of batches, and of control frames.

Server frames are never masked, so a batch becomes one buffer: frame headers from a table, unchanged payloads, one join. A message
is one frame and is never fragmented: a long frame costs nothing extra. reader.py reads frames.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from wsbridge.closecodes import NO_CODE, REASON_LIMIT
from wsbridge.flow import Batch, End, Kind
from wsbridge.wire.deflate import Deflate, SharedDeflate

FIN, RSV1, MASKED = 0x80, 0x40, 0x80
CONTROL = 0x08
SHORT = Struct(">BBH")
LONG = Struct(">BBQ")
CODE = Struct(">H")
SHORT_LENGTH = 125
"""The longest payload, in bytes, whose length fits into the second byte of a header."""


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


def head(first: int, length: int) -> bytes:
    """Return the header of an unmasked frame; `first` holds FIN, RSV and opcode."""
    if length < 126:
        return bytes((first, length))
    return SHORT.pack(first, 126, length) if length < 65536 else LONG.pack(first, 127, length)


class _Heads(dict[int, bytes]):
    """Headers by payload length. The headers of short frames are made once; the header of a long frame is made each time."""

    def __init__(self, first: int) -> None:
        super().__init__((length, head(first, length)) for length in range(126))
        self._first = first

    def __missing__(self, length: int) -> bytes:
        return head(self._first, length)


_HEADS = {kind: _Heads(FIN | kind) for kind in Kind}


def encode(batch: Batch, deflate: Deflate | None = None) -> bytes:
    """Return the frames of a batch, one frame per message. With `deflate`, each message is compressed."""
    kind, messages = batch
    heads = _HEADS[kind]
    if deflate is not None:
        compressed = [deflate.compress(message) for message in messages]
        return b"".join([part for message in compressed for part in (head(FIN | RSV1 | kind, len(message)), message)])
    if len(messages) == 1:
        return heads[len(messages[0])] + messages[0]
    parts: list[bytes | bytearray] = [b""] * (2 * len(messages))
    parts[0::2] = map(heads.__getitem__, map(len, messages))
    parts[1::2] = messages
    return b"".join(parts)


def compress(batch: Batch, deflate: SharedDeflate) -> bytes:
    """Return the frames of a batch for any number of clients: a message is compressed if that makes it shorter."""
    kind, messages = batch
    heads = _HEADS[kind]
    parts: list[bytes | bytearray] = []
    for message in messages:
        compressed = deflate.compress(message)
        if len(compressed) < len(message):
            parts += (head(FIN | RSV1 | kind, len(compressed)), compressed)
        else:
            parts += (heads[len(message)], message)
    return b"".join(parts)


def ping(payload: bytes = b"") -> bytes:
    """Return a ping with at most 125 bytes of payload."""
    return head(FIN | Opcode.PING, len(payload)) + payload


def pong(payload: bytes) -> bytes:
    """Return the pong that answers a ping."""
    return head(FIN | Opcode.PONG, len(payload)) + payload


def close(end: End) -> bytes:
    """Return a close frame. A long reason is cut between two characters; code 1005 makes the frame empty."""
    if end.code == NO_CODE:
        return head(FIN | Opcode.CLOSE, 0)
    reason = end.reason.encode("utf-8", "replace")[:REASON_LIMIT].decode("utf-8", "ignore").encode()
    return head(FIN | Opcode.CLOSE, 2 + len(reason)) + CODE.pack(end.code) + reason
