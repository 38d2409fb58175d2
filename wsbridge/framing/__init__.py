"""Framings: how messages are encoded in the byte streams of a child.

Each framing has a decoder for the child's stdout and an encoder for its stdin:

    name      from the program                        to the program
    lines     a line, without LF or CR LF             the message and LF
    chunks    the bytes of one read of the pipe       only the message
    nul       ends with NUL                           the message and NUL
    prefixed  length, kind, payload                   length, kind, payload
    json      one object per line                     one object per line

A decoder accepts bytes in pieces of any size, and returns the messages that they complete. It is pure: it uses no clock, no file and
no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from wsbridge.errors import ProgramError
from wsbridge.flow import Batch, End


class Decoder(Protocol):
    """Splits the stdout of a child into messages."""

    def feed(self, data: bytes) -> Sequence[Batch | End]:
        """Accept bytes, any number of them; return the messages that they complete, in order. An `End` asks for the end of the session.

        Raises ProgramError when the stream violates the framing. Raises its subclass MessageTooLong as soon as an unfinished
        message passes the limit. The error carries the items that were complete before the fault.
        """

    def eof(self) -> Sequence[Batch | End]:
        """Return the rest after the stream has ended. Raises the same errors as `feed`."""


class Encoder(Protocol):
    """Encodes messages for the stdin of a child."""

    def opening(self, details: Callable[[], Mapping[str, object]]) -> bytes:
        """Return the bytes for the program when the session begins. Most framings return nothing and do not call `details`."""

    def encode(self, batch: Batch) -> bytes:
        """Return the bytes of a batch."""

    def closing(self, reason: End) -> bytes:
        """Return the bytes for the program after the client has disconnected. Most framings return nothing."""


class BareEncoder:
    """The base of encoders that write nothing at the beginning and at the end of a session."""

    def opening(self, details: Callable[[], Mapping[str, object]]) -> bytes:
        return b""

    def closing(self, reason: End) -> bytes:
        return b""


FRAMINGS = ("lines", "chunks", "nul", "prefixed", "json")


def make_framing(name: str, *, limit: int) -> tuple[Callable[[], Decoder], Encoder]:
    """Return a factory that makes a decoder for each session, and one encoder for all sessions: encoders keep no state.

    `limit` is the maximum length of a message from the program in bytes; 0 means no limit. Raises ProgramError for an unknown name.
    """
    # Imported here: only JSON needs msgspec, and these modules import this one.
    match name:
        case "lines":
            from wsbridge.framing import separated

            return partial(separated.Decoder, b"\n", limit=limit, strip_cr=True), separated.Encoder(b"\n")
        case "nul":
            from wsbridge.framing import separated

            return partial(separated.Decoder, b"\0", limit=limit), separated.Encoder(b"\0")
        case "chunks":
            from wsbridge.framing import chunks

            return chunks.Decoder, chunks.Encoder()
        case "prefixed":
            from wsbridge.framing import prefixed

            return partial(prefixed.Decoder, limit=limit), prefixed.Encoder()
        case "json":
            from wsbridge.framing import records

            return partial(records.Decoder, limit=limit), records.Encoder()
    raise ProgramError(f"unknown framing {name!r}")
