"""How far somebody has come in a channel, so that he can go on from there.

For a client a position is an opaque string, MARK-NUMBER. The mark names what the number counts in:

    the channel's incarnation      `k3x9`, made up when this process began it; messages are counted from its beginning
    a body that a broker keeps     `1207.9f3ac01b`, its offset in the stream and its fingerprint; messages are counted in it
    a stream's place without one   `0.5be04f71`, the offset of the next body and the fingerprint of the stream

`0-0` is the beginning of any stream: of the one that there is.

A mark is used once, ever: a channel that has begun anew, or a stream that was made anew and counts from 0 again, has other
marks, and a position of the one before is not taken for one of this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BEGINNING = "0"
"""The mark of the beginning of any stream."""
FORM = re.compile(r"([0-9a-z.]{1,64})-([0-9]{1,18})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two messages. Each message is sent with the one behind it."""

    mark: str
    """1 to 64 of 0-9, a-z and the full stop."""
    number: int
    """How many messages of what the mark names lie before it."""

    def __str__(self) -> str:
        return f"{self.mark}-{self.number}"

    @property
    def offset(self) -> int | None:
        """The offset in the stream of the body that the mark names; None where it names none."""
        return offset_of(self.mark)


def offset_of(mark: str) -> int | None:
    """Return the offset in a body's mark, `1207` of `1207.9f3ac01b`; None for a mark of another kind."""
    offset, dot, _ = mark.partition(".")
    return int(offset) if dot and offset.isdecimal() else None


def parse_position(text: str) -> Position | None:
    """Read a position that a client sent back; None for what was never one."""
    found = FORM.match(text)
    return Position(found[1], int(found[2])) if found is not None else None
