"""How far somebody has come in a channel, so that he can go on from there.

For a client a position is an opaque string. It names the incarnation of the channel, its epoch: a channel that has begun
anew counts from the start again, and a position of the one before must not be taken for one of this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FORM = re.compile(r"([0-9a-z]{1,32})-([0-9]{1,18})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two messages. Each message is sent with the one behind it."""

    epoch: str
    """1 to 32 of 0-9 and a-z."""
    number: int
    """How many messages of the epoch lie before it; messages are counted from 0, so it is the number of the next."""

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"


def parse_position(text: str) -> Position | None:
    """Read a position that a client sent back; None for what was never one."""
    found = FORM.match(text)
    return Position(found[1], int(found[2])) if found is not None else None
