"""Keeps confirmed bodies until the stream delivers them back, so that they can be published again if it does not.

The broker confirms a body when every bound queue has it, and does not report a queue that is not bound. If the stream's binding
was removed, the stream lacks confirmed bodies. So a node that publishes with replay keeps each body until the stream delivers it.
"""

from __future__ import annotations

from wsbridge.bus.bodies import Parcel
from wsbridge.bus.spool import size_of

KEPT_BYTES = 4 * 1024 * 1024
"""Maximum bytes kept in memory. Beyond it, the oldest bodies are assumed to be in the stream."""


class Returns:
    """The bodies of one producer that the broker has confirmed and the stream has not delivered. Times are in seconds of one clock."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._kept: dict[int, tuple[Parcel, float]] = {}
        self._bytes = 0
        self._end = 0
        """The number after the last message that the stream has delivered."""

    def confirmed(self, parcel: Parcel, now: float) -> None:
        """Keep a body until the stream delivers it, unless the stream already has."""
        if parcel.first + parcel.messages <= self._end:
            return
        self._kept[parcel.first] = parcel, now
        self._bytes += size_of(parcel)
        while self._bytes > self._limit:
            self._drop(next(iter(self._kept)))

    def returned(self, end: int) -> None:
        """Record that all messages before the number `end` have been delivered, or are known to be lost."""
        self._end = max(self._end, end)
        for first in [first for first, (parcel, _) in self._kept.items() if first + parcel.messages <= end]:
            self._drop(first)

    def is_missing(self, since: float) -> bool:
        """Return whether a body that was confirmed at the time `since`, or before, has not been delivered."""
        return any(confirmed <= since for _, confirmed in self._kept.values())

    def take(self) -> list[Parcel]:
        """Remove and return the bodies that have not been delivered, for the caller to publish again."""
        parcels = [parcel for parcel, _ in self._kept.values()]
        self._kept.clear()
        self._bytes = 0
        return parcels

    def _drop(self, first: int) -> None:
        parcel, _ = self._kept.pop(first)
        self._bytes -= size_of(parcel)
