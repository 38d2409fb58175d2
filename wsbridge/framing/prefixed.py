"""Messages with a length prefix: boundaries and kinds survive in both directions.

4 bytes   length of the payload, big-endian
1 byte    kind, the WebSocket opcode: 1 text, 2 binary
n bytes   payload
"""

from __future__ import annotations

from struct import Struct

from wsbridge.errors import MessageTooLong, ProgramError
from wsbridge.flow import Batch, Kind, batches, valid_text
from wsbridge.framing import BareEncoder

HEAD = Struct(">IB")


class Decoder:
    """Splits a byte stream into messages of either kind."""

    __slots__ = ("_limit", "_need", "_rest")

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._need = HEAD.size
        """Bytes that `_rest` must hold before the next parse, so that reads do not rescan a long unfinished message."""

    def feed(self, data: bytes) -> list[Batch]:
        """Return a batch for each run of one kind. Raises MessageTooLong, and ProgramError for an unknown kind."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        messages: list[tuple[Kind, bytes]] = []
        start, available = 0, len(data)
        self._need = HEAD.size
        while available - start >= HEAD.size:
            length, kind = HEAD.unpack_from(data, start)
            if kind not in (Kind.TEXT, Kind.BINARY):
                reason = f"prefixed message of unknown kind {kind}; use 1 for text, 2 for binary"
                raise ProgramError(reason, before=_valid(messages))
            if self._limit and length > self._limit:
                raise MessageTooLong(self._limit, before=_valid(messages))
            end = start + HEAD.size + length
            if end > available:
                self._need = end - start
                break
            messages.append((Kind(kind), data[start + HEAD.size : end]))
            start = end
        self._rest += data[start:]
        return _valid(messages)

    def eof(self) -> list[Batch]:
        """Check that the stream did not end within a message.

        Raises ProgramError if it did: a part of a message is never delivered.
        """
        if self._rest:
            raise ProgramError(f"stdout ended within a prefixed message, after {len(self._rest)} of {self._need} bytes")
        return []


class Encoder(BareEncoder):
    """Writes length, kind and payload of each message."""

    def encode(self, batch: Batch) -> bytes:
        kind, messages = batch
        parts: list[bytes | bytearray] = []
        for message in messages:
            parts += (HEAD.pack(len(message), kind), message)
        return b"".join(parts)


def _valid(messages: list[tuple[Kind, bytes]]) -> list[Batch]:
    return [Batch(kind, valid_text(part) if kind is Kind.TEXT else part) for kind, part in batches(messages)]  # type: ignore[arg-type]
