"""No framing at all: the bytes of one read of the pipe are one binary message.

Message boundaries are lost, but bytes are not, and they arrive without delay. `--binary` selects this framing.
"""

from __future__ import annotations

from wsbridge.flow import Batch, Kind
from wsbridge.framing import BareEncoder


class Decoder:
    """Makes one binary message of each read."""

    def feed(self, data: bytes) -> list[Batch]:
        return [Batch(Kind.BINARY, [data])]

    def eof(self) -> list[Batch]:
        return []


class Encoder(BareEncoder):
    """Writes the bytes of messages of either kind, with nothing between them."""

    def encode(self, batch: Batch) -> bytes:
        return b"".join(batch.messages)
