"""The wires of subscribers: how messages of a channel, and losses, are encoded for a client.

The encoding depends on nothing but the channel, so that the same bytes serve every subscriber. A position is the channel's mark
and a number, as in `k3x9-17`; the position sent with a message is the place after it.

    PlainWire       one frame per message, as from any server; losses are not reported
    Positioned  the subprotocol wsbridge.v1: the same frame, with the position and a newline before the payload. Separate text
                frames report all other events. They begin with `!`, which no position does:
                    !at POSITION            where a client that has just joined begins: it can resume even before the first message
                    !lost POSITION COUNT    messages that the client lost before the next message; COUNT is `?` if unknown
                    !broker away            the connection to the broker is lost; with `here`, it is back
                    !time MILLISECONDS      on request: when the next messages were published, since 1970; `?` if unknown
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from wsbridge.flow import Batch, Kind
from wsbridge.wire import frames
from wsbridge.wire.deflate import SharedDeflate

SUBPROTOCOL = "wsbridge.v1"


class Wire(Protocol):
    """How messages are encoded for a subscriber."""

    name: str

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        """Return the bytes of consecutive messages; `first` is the number of the first message, counted from 0."""

    def published(self, at: int | None) -> bytes:
        """Return the bytes that report when the next messages were published, in milliseconds since 1970; None if unknown.

        Empty if the wire has no form for it, or if the client has not requested it.
        """

    def joined(self, mark: str, number: int) -> bytes:
        """Return the bytes that report where a subscriber begins, before any message; `number` is the number of the next message."""

    def lost(self, messages: int | None, mark: str, number: int) -> bytes:
        """Return the bytes that report lost messages; None if their count is unknown. `number` is the number of the next message.

        Empty if the wire has no form for it.
        """

    def broker(self, is_connected: bool) -> bytes:
        """Return the bytes that report that the connection to the broker is lost or back; empty if the wire has no form for it."""


HERE = {True: "here", False: "away"}


def _framing(bits: int) -> Callable[[Batch], bytes]:
    """Return a function that makes frames, compressed for a window of `bits` bits; 0 means no compression."""
    return partial(frames.compress, deflate=SharedDeflate(bits)) if bits else frames.encode


class PlainWire:
    """The wire of a client that requests no positions. `bits` is the window size if the client negotiated compression, else 0."""

    def __init__(self, bits: int = 0) -> None:
        self.name = f"plain {bits}"
        self._frame = _framing(bits)

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        return self._frame(batch)

    def published(self, at: int | None) -> bytes:
        return b""

    def joined(self, mark: str, number: int) -> bytes:
        return b""

    def lost(self, messages: int | None, mark: str, number: int) -> bytes:
        return b""

    def broker(self, is_connected: bool) -> bytes:
        return b""


class Positioned:
    """The wire of a client that wants to resume; `bits` as in PlainWire. With `times`, it reports when each body was published."""

    def __init__(self, bits: int = 0, *, times: bool = False) -> None:
        self.name = f"{SUBPROTOCOL} {bits}{' times' if times else ''}"
        self._times = times
        self._frame = _framing(bits)

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        head = mark.encode()
        messages = [b"".join((b"%b%d\n" % (head, number), message)) for number, message in enumerate(batch.messages, first + 1)]
        return self._frame(Batch(batch.kind, messages))

    def published(self, at: int | None) -> bytes:
        if not self._times:
            return b""
        return frames.encode(Batch(Kind.TEXT, [b"!time ?" if at is None else b"!time %d" % at]))

    def joined(self, mark: str, number: int) -> bytes:
        return frames.encode(Batch(Kind.TEXT, [f"!at {mark}{number}".encode()]))

    def lost(self, messages: int | None, mark: str, number: int) -> bytes:
        count = "?" if messages is None else str(messages)
        return frames.encode(Batch(Kind.TEXT, [f"!lost {mark}{number} {count}".encode()]))

    def broker(self, is_connected: bool) -> bytes:
        return frames.encode(Batch(Kind.TEXT, [f"!broker {HERE[is_connected]}".encode()]))
