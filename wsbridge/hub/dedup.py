"""Each producer's messages once and in order: what a repeat is, and what a gap.

A producer counts its messages from 0 and says with each body the number of its first. A bus that delivers at least once may
bring a body again, after a reconnect also several; one that delivers at most once may leave some out. Between the bodies of
one producer the bus keeps the order.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

PRODUCERS = 1024
"""Producers that are remembered; the one that was not heard for longest is forgotten. Each costs some hundred bytes."""


class Verdict(Enum):
    """Of a body that is no news."""

    REPEAT = "repeat"


class Dedup:
    """What was heard of each producer."""

    def __init__(self, limit: int = PRODUCERS) -> None:
        self._limit = limit
        self._next: OrderedDict[str, int] = OrderedDict()

    def take(self, producer: str, first: int, count: int) -> int | Verdict:
        """Return how many messages are missing before this body, or that it is a repeat and to be dropped.

        Of a producer that is heard for the first time nothing is missing: it began before we listened.
        """
        expected = self._next.get(producer, first)
        if first < expected:
            self._next.move_to_end(producer)
            return Verdict.REPEAT
        self._next[producer] = first + count
        self._next.move_to_end(producer)
        if len(self._next) > self._limit:
            self._next.popitem(last=False)
        return first - expected
