"""Keeps confirmed bodies until the stream delivers them back, so that they can be published again if it does not.

The broker confirms a body when every bound queue has it, and does not report a queue that is not bound. If the stream's binding
was removed, the stream lacks confirmed bodies. So a node that publishes with replay keeps each body until the stream delivers it.
"""

from __future__ import annotations

from wsbridge.bus.bodies import OutgoingBody
from wsbridge.bus.spool import size_of

KEPT_BYTES = 4 * 1024 * 1024
"""Maximum bytes kept in memory. Beyond it, the oldest bodies are assumed to be in the stream."""


class Returns:
    """The bodies of one producer that the broker has confirmed and the stream has not delivered. Times are in seconds of one clock."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._kept: dict[int, tuple[OutgoingBody, float]] = {}
        self._bytes = 0
        self._end = 0
        """The number after the last message that the stream has delivered."""

    def confirmed(self, body: OutgoingBody, now: float) -> None:
        """Keep a body until the stream delivers it, unless the stream already has."""
        if body.first + body.messages <= self._end:
            return
        self._kept[body.first] = body, now
        self._bytes += size_of(body)
        while self._bytes > self._limit:
            self._drop(next(iter(self._kept)))

    def returned(self, end: int) -> None:
        """Record that all messages before the number `end` have been delivered, or are known to be lost."""
        self._end = max(self._end, end)
        for first in [first for first, (body, _) in self._kept.items() if first + body.messages <= end]:
            self._drop(first)

    def is_missing(self, since: float) -> bool:
        """Return whether a body that was confirmed at the time `since`, or before, has not been delivered."""
        return any(confirmed <= since for _, confirmed in self._kept.values())

    def pop_all(self) -> list[OutgoingBody]:
        """Remove and return the bodies that have not been delivered, for the caller to publish again."""
        bodies = [body for body, _ in self._kept.values()]
        self._kept.clear()
        self._bytes = 0
        return bodies

    def _drop(self, first: int) -> None:
        body, _ = self._kept.pop(first)
        self._bytes -= size_of(body)
