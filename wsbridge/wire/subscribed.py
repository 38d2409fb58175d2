"""The wires of subscribers: how messages of a channel, and the loss of some, lie on the way to a browser.

What is encoded depends on nothing but the channel, so that the same bytes serve everyone. A position is the channel's mark
and a number, as in `k3x9-17`; the one that goes with a message is the place behind it.

    Plain       a frame a message, as from any server; of a loss nothing is said
    Positioned  the subprotocol wsbridge.v1: the same frame, with the position and a newline before the payload. Text frames
                of their own, which begin with `!` as no position does, say the rest:
                    !at POSITION            where one who has just joined is: he can come back before there was any message
                    !lost POSITION COUNT    what he has lost before what comes next; COUNT is `?` where nobody knows
                    !broker away            the broker has gone, or `here` again
"""

from __future__ import annotations

from typing import Protocol

from wsbridge.flow import Batch, Kind
from wsbridge.wire import frames

SUBPROTOCOL = "wsbridge.v1"


class Wire(Protocol):
    """How messages lie on the way to a subscriber."""

    name: str

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        """Return the bytes of messages that follow each other; `first` is the number of the first of them, counted from 0."""

    def joined(self, mark: str, number: int) -> bytes:
        """Return the bytes that tell a subscriber where it begins, before any message; `number` is that of the next."""

    def lost(self, messages: int | None, mark: str, number: int) -> bytes:
        """Return the bytes that tell of lost messages, None where nobody knows how many; `number` is that of the next.

        Empty where the wire has no words for it.
        """

    def broker(self, is_here: bool) -> bytes:
        """Return the bytes that tell that the broker has gone or come again; empty where the wire has no words for it."""


HERE = {True: "here", False: "away"}


class Plain:
    """For who has asked for nothing else."""

    name = "plain"

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        return frames.encode(batch)

    def joined(self, mark: str, number: int) -> bytes:
        return b""

    def lost(self, messages: int | None, mark: str, number: int) -> bytes:
        return b""

    def broker(self, is_here: bool) -> bytes:
        return b""


class Positioned:
    """For who wants to come back and go on."""

    name = SUBPROTOCOL

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        head = mark.encode()
        messages = [b"".join((b"%b%d\n" % (head, number), message)) for number, message in enumerate(batch.messages, first + 1)]
        return frames.encode(Batch(batch.kind, messages))

    def joined(self, mark: str, number: int) -> bytes:
        return frames.encode(Batch(Kind.TEXT, [f"!at {mark}{number}".encode()]))

    def lost(self, messages: int | None, mark: str, number: int) -> bytes:
        count = "?" if messages is None else str(messages)
        return frames.encode(Batch(Kind.TEXT, [f"!lost {mark}{number} {count}".encode()]))

    def broker(self, is_here: bool) -> bytes:
        return frames.encode(Batch(Kind.TEXT, [f"!broker {HERE[is_here]}".encode()]))
