"""Bodies that the broker has confirmed and that have not come back by the stream: where its binding was removed they are not in it.

The broker confirms what it has brought to every queue that is bound, and says nothing of one that is not. So what a node publishes
with replay is kept until the stream brings it, and published again if it does not.
"""

from __future__ import annotations

from wsbridge.bus.bodies import Parcel
from wsbridge.bus.spool import size_of

KEPT_BYTES = 4 * 1024 * 1024
"""What is kept, in memory; the oldest beyond that is taken for kept by the stream."""


class Returns:
    """The bodies of one producer that are confirmed and not come back. Times are seconds of one clock."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._kept: dict[int, tuple[Parcel, float]] = {}
        self._bytes = 0
        self._end = 0
        """Behind the last message that has come back."""

    def confirmed(self, parcel: Parcel, now: float) -> None:
        """Keep a body until it comes back, unless it has come already."""
        if parcel.first + parcel.messages <= self._end:
            return
        self._kept[parcel.first] = parcel, now
        self._bytes += size_of(parcel)
        while self._bytes > self._limit:
            self._drop(next(iter(self._kept)))

    def returned(self, end: int) -> None:
        """Take note that all messages before a number have come back, or are known to be lost."""
        self._end = max(self._end, end)
        for first in [first for first, (parcel, _) in self._kept.items() if first + parcel.messages <= end]:
            self._drop(first)

    def is_missing(self, since: float) -> bool:
        """Return whether a body that was confirmed at that time, or before, has not come back."""
        return any(confirmed <= since for _, confirmed in self._kept.values())

    def take(self) -> list[Parcel]:
        """Return what has not come back, to be published again."""
        parcels = [parcel for parcel, _ in self._kept.values()]
        self._kept.clear()
        self._bytes = 0
        return parcels

    def _drop(self, first: int) -> None:
        parcel, _ = self._kept.pop(first)
        self._bytes -= size_of(parcel)
