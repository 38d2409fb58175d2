"""No framing at all: whatever one read of the pipe brings is one binary message.

Boundaries of messages do not survive; bytes do, and at once. This is what `--binary` selects.
"""

from __future__ import annotations

from wsbridge.flow import Batch, Kind
from wsbridge.framing import Plain


class Decoder:
    """Make one binary message of each read."""

    def feed(self, data: bytes) -> list[Batch]:
        return [Batch(Kind.BINARY, [data])]

    def eof(self) -> list[Batch]:
        return []


class Encoder(Plain):
    """Write the bytes of messages of either kind, with nothing between them."""

    def encode(self, batch: Batch) -> bytes:
        return b"".join(batch.messages)
