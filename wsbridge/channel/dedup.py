"""Deduplicates the messages of each producer, and detects gaps between them.

A producer counts its messages from 0, and sends with each body the number of its first message. An at-least-once bus may deliver a body
again, and several bodies after a reconnect. An at-most-once bus may lose some. The bus keeps the order of the bodies of one producer.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

PRODUCERS = 1024
"""Producers that are remembered; the producer that was silent for longest is forgotten first. Each costs some hundred bytes."""


class Verdict(Enum):
    """The verdict on a body that is not new."""

    REPEAT = "repeat"


class Dedup:
    """The number of the next message from each producer."""

    def __init__(self, limit: int = PRODUCERS) -> None:
        self._limit = limit
        self._next: OrderedDict[str, int] = OrderedDict()

    def check(self, producer: str, first: int, count: int) -> int | Verdict:
        """Record a body; return how many messages are missing before it, or REPEAT for a repeat, which the caller must drop.

        Before the first body of a producer nothing is missing: the producer began before this process listened.
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
