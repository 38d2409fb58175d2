"""Where one has come to in a stream, and what it says of the stream when what comes next is not what should.

A stream that was deleted and made again counts from 0 like the first. So not the offset alone is remembered but also the
fingerprint of the body at it, and after each break the last body that was had is asked for again.

Offsets that are left out are no loss by themselves. A stream begins each segment with a note of its own, so that one is left out
there; where native clients store how far they have read, any number is. What can be a loss is a gap of more than one: where
the stream has let go of whole segments before they were read. If the last body is still there, it has let go of nothing behind it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

STEP = 2
"""From one body to the next, the beginning of a segment between them."""


@dataclass(frozen=True, slots=True)
class Place:
    """A body's place in a stream."""

    offset: int
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.offset}.{self.fingerprint}"


class Found(Enum):
    """What a body is that comes from the stream."""

    FIRST = "first"
    """The first of a stream that was not known."""
    NEWS = "news"
    """The one after the last."""
    GAP = "gap"
    """A later one: the stream has let go of what lay between, as far as is known."""
    DOUBT = "doubt"
    """A later one: what lay between is a loss only if the stream has let go of the last; nothing is changed by this."""
    KNOWN = "known"
    """One that was had."""
    OTHER = "other"
    """Not the one that was there: it is another stream."""


class Tail:
    """The last body of a stream that was had."""

    def __init__(self) -> None:
        self.last: Place | None = None
        self._expects_last = False
        self._reached = asyncio.Event()
        self._goal = -1

    def expect_last(self) -> None:
        """The last body is asked for again."""
        self._expects_last = self.last is not None

    def forget(self) -> None:
        """The stream is another."""
        self.last = None
        self._expects_last = False

    def take(self, place: Place, oldest: int | None = None) -> Found:
        """Say what a body is, by its place. `oldest` is the offset of the oldest body that the stream had when this one had come."""
        found = self._judge(place, oldest)
        if found not in (Found.KNOWN, Found.OTHER, Found.DOUBT):
            self.last = place
            if place.offset >= self._goal:
                self._reached.set()
        return found

    async def reach(self, offset: int) -> None:
        """Wait until a body at or behind an offset was had."""
        self._goal = offset
        if self.last is None or self.last.offset < offset:
            self._reached.clear()
            await self._reached.wait()

    def _judge(self, place: Place, oldest: int | None) -> Found:
        last, expects_last = self.last, self._expects_last
        self._expects_last = False
        if last is None:
            return Found.FIRST
        if expects_last:
            return Found.KNOWN if place == last else Found.GAP if place.offset > last.offset else Found.OTHER
        if place.offset <= last.offset:
            return Found.KNOWN
        if place.offset <= last.offset + STEP:
            return Found.NEWS
        if oldest is None:
            return Found.DOUBT
        return Found.NEWS if oldest <= last.offset else Found.GAP
