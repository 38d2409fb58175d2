"""How messages lie in the byte streams of a child: a decoder for its stdout and an encoder for its stdin.

    name      from the program                        to the program
    lines     a line, without LF or CR LF             the message and LF
    chunks    whatever one read of the pipe brings    the message alone
    nul       ends with NUL                           the message and NUL
    prefixed  length, kind, payload                   length, kind, payload
    json      one object a line                       one object a line

A decoder is fed bytes as they come and returns what they complete. It is pure: no clock, no file, no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from wsbridge.errors import ProgramError
from wsbridge.flow import Batch, End


class Decoder(Protocol):
    """Cuts the stdout of a child into messages."""

    def feed(self, data: bytes) -> Sequence[Batch | End]:
        """Take bytes, any number of them; return what they complete, in order. An `End` asks to close the session.

        Raises ProgramError when the stream does not keep to the framing, and its subclass MessageTooLong as soon as an
        unfinished message passes the limit; the error holds what was complete before it.
        """

    def eof(self) -> Sequence[Batch | End]:
        """Return what is left when the stream has ended."""


class Encoder(Protocol):
    """Writes messages for the stdin of a child."""

    def opening(self, details: Callable[[], Mapping[str, object]]) -> bytes:
        """Return what the program is told when the session begins; nothing, in most framings, which then do not ask."""

    def encode(self, batch: Batch) -> bytes:
        """Return the bytes of a batch."""

    def closing(self, reason: End) -> bytes:
        """Return what the program is told when the client has left; nothing, in most framings."""


class Plain:
    """The beginning and the end of an encoder that says nothing of them."""

    def opening(self, details: Callable[[], Mapping[str, object]]) -> bytes:
        return b""

    def closing(self, reason: End) -> bytes:
        return b""


FRAMINGS = ("lines", "chunks", "nul", "prefixed", "json")


def make_framing(name: str, *, limit: int) -> tuple[Callable[[], Decoder], Encoder]:
    """Return what makes a decoder for each session, and the encoder for all: encoders keep no state.

    `limit` is the longest message from the program in bytes, 0 for any.
    """
    # Imported here: only JSON needs msgspec, and the modules need this one.
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
    raise ProgramError(f"no framing is called {name!r}")
