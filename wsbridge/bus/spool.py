"""What waits to be published, in order and within a bound, until the broker has confirmed it.

Lines that wait together leave together: the longer the broker takes, the fewer and larger bodies there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from wsbridge.bus.bodies import BODY_BYTES, Parcel, can_join, pack
from wsbridge.flow import Batch

WINDOW = 32
"""Bodies on their way to the broker at once: 4 MB, and more than any link here could hold; of long messages what the spool allows."""
PARCEL_BYTES = 256
"""What a parcel counts besides its bytes: many tiny ones are not to pass for nothing."""


class Spool:
    """The parcels of one producer. `limit` is in bytes and counts what is on its way as well.

    `put`, `take`, `confirm`; after the broker was gone `put_back` or `give_up` what was on its way.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[list[Parcel]] = deque()
        """Each a run of parcels that leave as one body."""
        self._run_bytes = 0
        """Bytes of the last run."""
        self._under_way: dict[int, Parcel] = {}
        self._published = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        """Whether something waits to be taken."""
        return bool(self._waiting)

    @property
    def is_empty(self) -> bool:
        """Whether everything was confirmed."""
        return not self._waiting and not self._under_way

    @property
    def under_way(self) -> int:
        """How many bodies were taken and are not confirmed yet."""
        return len(self._under_way)

    @property
    def has_whole(self) -> bool:
        """Whether the next body will not grow, or not by much."""
        return len(self._waiting) > 1 or (bool(self._waiting) and self._run_bytes > BODY_BYTES // 2)

    @property
    def is_full(self) -> bool:
        return self.bytes >= self._limit

    @property
    def has_room(self) -> bool:
        """Whether it has drained so far that whoever was held up may go on."""
        return self.bytes <= self._limit // 2

    def put(self, batch: Batch) -> None:
        """Take a batch; a spool that is full takes it all the same."""
        for parcel in pack(batch, self._published):
            self._add(parcel)
        self._published += len(batch.messages)

    def take(self) -> Parcel:
        """Return the next body, which is on its way from now on."""
        run = self._waiting.popleft()
        parcel = run[0]
        if len(run) > 1:
            data = b"\n".join([part.data for part in run])
            parcel = Parcel(parcel.content_type, data, parcel.first, sum(part.messages for part in run))
            self.bytes -= sum(map(size_of, run)) - size_of(parcel)
        self._under_way[parcel.first] = parcel
        return parcel

    def confirm(self, parcel: Parcel) -> None:
        """A body has arrived: it need not be kept."""
        if self._under_way.pop(parcel.first, None) is not None:
            self.bytes -= size_of(parcel)

    def put_back(self, more: Sequence[Parcel] = ()) -> None:
        """What was on its way is to be sent again, before the rest and as it was: a repeat can be told only by that.

        So is what is given besides, which was confirmed before.
        """
        for parcel in more:
            self._under_way[parcel.first] = parcel
            self.bytes += size_of(parcel)
        if not self._waiting:
            # The last of them is not to be joined by what is published now.
            self._run_bytes = BODY_BYTES
        self._waiting.extendleft([parcel] for parcel in sorted(self._under_way.values(), key=lambda parcel: -parcel.first))
        self._under_way.clear()

    def drop_under_way(self, size: int) -> int:
        """Let go of the bodies on their way that have at least so many bytes; return how many messages that were."""
        dropped = [parcel for parcel in self._under_way.values() if len(parcel.data) >= size]
        for parcel in dropped:
            self.confirm(parcel)
        return sum(parcel.messages for parcel in dropped)

    def give_up(self) -> int:
        """Let go of what was on its way; return how many messages that were."""
        lost = sum(parcel.messages for parcel in self._under_way.values())
        self.bytes -= sum(map(size_of, self._under_way.values()))
        self._under_way.clear()
        return lost

    def abandon(self) -> int:
        """Let go of everything; return how many messages that were."""
        lost = self.give_up() + sum(part.messages for run in self._waiting for part in run)
        self._waiting.clear()
        self.bytes = 0
        return lost

    def drop_oldest(self) -> int:
        """Drop what has waited longest until the spool is not full; return how many messages that were."""
        dropped = 0
        while self._waiting and self.is_full:
            run = self._waiting.popleft()
            dropped += sum(part.messages for part in run)
            self.bytes -= sum(map(size_of, run))
        return dropped

    def _add(self, parcel: Parcel) -> None:
        self.bytes += size_of(parcel)
        last = self._waiting[-1] if self._waiting else None
        if last and last[-1].first + last[-1].messages == parcel.first and self._joins(last, parcel):
            last.append(parcel)
            self._run_bytes += len(parcel.data) + 1
        else:
            self._waiting.append([parcel])
            self._run_bytes = len(parcel.data) + 1

    def _joins(self, run: list[Parcel], parcel: Parcel) -> bool:
        return can_join(run[-1], parcel) and self._run_bytes + len(parcel.data) < BODY_BYTES


def size_of(parcel: Parcel) -> int:
    """Return what a parcel counts against a bound, in bytes."""
    return len(parcel.data) + PARCEL_BYTES
