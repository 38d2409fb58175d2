"""The last body that was read from a stream, and the conclusions from an unexpected next body.

A stream that was deleted and declared again counts from 0 like the first. So the tail remembers the offset of the last body and
its fingerprint. After each lost link, the reader requests that body again.

Skipped offsets alone are not a loss. A stream begins each segment with its own record, which skips one offset. Where native
clients store their read position, any number of offsets is skipped. A gap of more than one offset can be a loss: the stream may
have dropped whole segments before they were read. If the last body still exists, the stream has dropped nothing after it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from wsbridge.channel.position import stream_mark

STEP = 2
"""Maximum step from one body to the next, with the beginning of a segment between them."""


@dataclass(frozen=True, slots=True)
class Place:
    """A body's place in a stream."""

    offset: int
    fingerprint: str

    def __str__(self) -> str:
        return stream_mark(self.offset, self.fingerprint)


class Relation(Enum):
    """How a body that arrives from the stream relates to the last body."""

    FIRST = "first"
    """The first body of a stream that was not known."""
    NEXT = "next"
    """The body after the last body."""
    GAP = "gap"
    """A later body: as far as is known, the stream has dropped the bodies between."""
    DOUBT = "doubt"
    """A later body: the gap is a loss only if the stream has dropped the last body. This result changes no state."""
    KNOWN = "known"
    """A body that has arrived before."""
    OTHER = "other"
    """Not the expected body: the stream is a different stream."""


class Tail:
    """The last body that has arrived from a stream."""

    def __init__(self) -> None:
        self.last: Place | None = None
        self._expects_last = False
        self._reached = asyncio.Event()
        self._goal = -1

    def expect_last(self) -> None:
        """Expect the last body again: the reader requests it."""
        self._expects_last = self.last is not None

    def forget(self) -> None:
        """Forget the last body: the stream is a different stream."""
        self.last = None
        self._expects_last = False

    def classify(self, place: Place, oldest: int | None = None) -> Relation:
        """Classify a body by its place; record it if it is new.

        `oldest` is the offset of the oldest body in the stream when this body had arrived, or None if that is not known.
        """
        found = self._judge(place, oldest)
        if found not in (Relation.KNOWN, Relation.OTHER, Relation.DOUBT):
            self.last = place
            if place.offset >= self._goal:
                self._reached.set()
        return found

    async def reach(self, offset: int) -> None:
        """Wait until a body at or after `offset` has arrived."""
        self._goal = offset
        if self.last is None or self.last.offset < offset:
            self._reached.clear()
            await self._reached.wait()

    def _judge(self, place: Place, oldest: int | None) -> Relation:
        last, expects_last = self.last, self._expects_last
        self._expects_last = False
        if last is None:
            return Relation.FIRST
        if expects_last:
            return Relation.KNOWN if place == last else Relation.GAP if place.offset > last.offset else Relation.OTHER
        if place.offset <= last.offset:
            return Relation.KNOWN
        if place.offset <= last.offset + STEP:
            return Relation.NEXT
        if oldest is None:
            return Relation.DOUBT
        return Relation.NEXT if oldest <= last.offset else Relation.GAP
