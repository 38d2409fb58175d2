"""The wires of subscribers: how messages of a channel, and the loss of some, lie on the way to a browser.

What is encoded depends on nothing but the channel, so that the same bytes serve everyone. A position is the channel's mark
and a number, as in `k3x9-17`; the one that goes with a message is the place behind it.

    Plain       a frame a message, as from any server; of a loss nothing is said
    Positioned  the subprotocol wsbridge.v1: the same frame, with the position and a newline before the payload. Text frames
                of their own, which begin with `!` as no position does, say the rest:
                    !at POSITION            where one who has just joined is: he can come back before there was any message
                    !lost POSITION COUNT    what he has lost before what comes next; COUNT is `?` where nobody knows
                    !broker away            the broker has gone, or `here` again
                    !time MILLISECONDS      to a client that asks for it: when what comes next was published, since 1970; or `?`
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from wsbridge.flow import Batch, Kind
from wsbridge.wire import frames
from wsbridge.wire.deflate import Squeezer

SUBPROTOCOL = "wsbridge.v1"


class Wire(Protocol):
    """How messages lie on the way to a subscriber."""

    name: str

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        """Return the bytes of messages that follow each other; `first` is the number of the first of them, counted from 0."""

    def published(self, at: int | None) -> bytes:
        """Return the bytes that tell when the next messages were published, in milliseconds since 1970, None where that is not known.

        Empty where the wire has no words for it, or the client has not asked.
        """

    def joined(self, mark: str, number: int) -> bytes:
        """Return the bytes that tell a subscriber where it begins, before any message; `number` is that of the next."""

    def lost(self, messages: int | None, mark: str, number: int) -> bytes:
        """Return the bytes that tell of lost messages, None where nobody knows how many; `number` is that of the next.

        Empty where the wire has no words for it.
        """

    def broker(self, is_here: bool) -> bytes:
        """Return the bytes that tell that the broker has gone or come again; empty where the wire has no words for it."""


HERE = {True: "here", False: "away"}


def _framing(bits: int) -> Callable[[Batch], bytes]:
    """Return what makes frames, compressed for a window of so many bits; 0 is none."""
    return partial(frames.squeeze, squeezer=Squeezer(bits)) if bits else frames.encode


class Plain:
    """For who has asked for nothing else. Of `bits` is the window of who has agreed to compression; 0 for others."""

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

    def broker(self, is_here: bool) -> bytes:
        return b""


class Positioned:
    """For who wants to come back and go on; `bits` as above. With `times` it tells for each body when that was published."""

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

    def broker(self, is_here: bool) -> bytes:
        return frames.encode(Batch(Kind.TEXT, [f"!broker {HERE[is_here]}".encode()]))
