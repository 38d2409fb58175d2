"""A position in a channel, from which a client can resume.

For a client a position is an opaque string, MARK-NUMBER. The mark names the unit in which the number counts:

    an incarnation of the channel    `k3x9`, made when this process began it; messages are counted from its beginning
    a body that a broker keeps       `1207.9f3ac01b`, its offset in the stream and its fingerprint; messages are counted in it
    a place in a stream, no body     `0.5be04f71`, the offset of the next body and the fingerprint of the stream

`0-0` is the beginning of the stream that exists now.

A mark is never used twice. A channel that begins again has other marks, and so has a recreated stream that counts from 0 again. A
position of the old channel or stream is therefore never mistaken for one of the new.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BEGINNING = "0"
"""The mark of the beginning of any stream."""
FORM = re.compile(r"([0-9a-z.]{1,64})-([0-9]{1,18})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two messages. Each message is sent with the position after it."""

    mark: str
    """1 to 64 characters of 0-9, a-z and the full stop."""
    number: int
    """How many messages precede it, in the unit that the mark names."""

    def __str__(self) -> str:
        return f"{self.mark}-{self.number}"

    @property
    def offset(self) -> int | None:
        """The stream offset in the mark; None if the mark has none."""
        return offset_of(self.mark)


def stream_mark(offset: int, fingerprint: str) -> str:
    """Return the mark of a place in a stream, such as `1207.9f3ac01b`."""
    return f"{offset}.{fingerprint}"


def offset_of(mark: str) -> int | None:
    """Return the offset in a mark, `1207` for `1207.9f3ac01b`; None for a mark without one."""
    offset, dot, _ = mark.partition(".")
    return int(offset) if dot and offset.isdecimal() else None


def have_one_fingerprint(mark: str, other: str) -> bool:
    """Whether two marks of stream bodies are of the same body, whatever offsets it has."""
    return mark.partition(".")[1:] == other.partition(".")[1:]


def parse_position(text: str) -> Position | None:
    """Parse a position that a client sent; None if the text never was a position."""
    found = FORM.match(text)
    return Position(found[1], int(found[2])) if found is not None else None
