"""A channel: a ring buffer of entries, in which each subscriber is a cursor.

An entry is one published batch. The ring holds the entries within a subscriber's permitted lag, and the history for a subscriber
that joins. A subscriber has no queue of its own, so a stalled subscriber needs no memory. The channel checks the lag of a
subscriber when that subscriber reads again. Messages are counted from 0 in each epoch, and a cursor holds such a number.

No message is lost or repeated silently. A cursor that skips messages returns a `Loss` before the next message.

A client holds a position: a mark and a number. The mark is usually the epoch's mark. If the bus keeps the entries, a client may
resume in any process, and the mark is the entry's mark.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

from wsbridge.channel.position import BEGINNING, Position, have_one_fingerprint, offset_of
from wsbridge.flow import Batch, Kind

TRIM = 64
"""Dropped entries that may remain at the head of the ring before it is compacted: moving the rest costs the same each time."""
MESSAGE_BYTES = 32
"""The size of a message in the ring besides its bytes: about its real cost, so that many tiny messages count."""
BODY_BYTES = 600
"""The size of an entry besides its messages: its real cost (measured: 550, and 200 more for each wire)."""
WHOLE_BYTES = 128 * 1024
"""Bytes. A subscriber at the beginning of a shorter entry reads it whole, because that encoding already exists for other subscribers."""
MARKS = 4096
"""Marks remembered for entries that are no longer kept: a client that resumes with such a mark learns how many messages it lost."""


class Slow(StrEnum):
    """The policy for a subscriber that lags too far (`--slow`)."""

    DROP_OLDEST = "drop-oldest"
    LATEST = "latest"
    CLOSE = "close"


class Join(StrEnum):
    """Where a subscriber without a position begins (`--join`)."""

    HISTORY = "history"
    LAST = "last"
    NONE = "none"


class Loss(NamedTuple):
    """Messages that this subscriber will not receive."""

    messages: int | None
    """How many; None if the number is unknown."""
    next: int
    """The number of the message after them."""


@dataclass(slots=True)
class Entry:
    """One published batch, and its encodings, one for each wire."""

    first: int
    """The number of its first message."""
    start: int
    """Bytes of all messages before it in this epoch."""
    batch: Batch
    size: int
    mark: str
    """The part before the number in a position within this entry, including the hyphen."""
    origin: int = 0
    """The number of the message that its mark counts as 0."""
    each: int = 0
    """The size of each message besides its bytes. `size` includes it, and also the cost of the entry itself, which counts after
    the last message."""
    gap: int = 0
    """Numbers that it occupies besides those of its messages, for messages that were lost before they reached this channel."""
    at: int | None = None
    """When it was published, in milliseconds since 1970; None if unknown."""
    encoded: dict[str, bytes] = field(default_factory=dict)
    _ends: list[int] | None = None

    @property
    def end(self) -> int:
        """The number of the message after its last."""
        return self.first + len(self.batch.messages) + self.gap

    def bytes_before(self, number: int) -> int:
        """Return the bytes of all messages of the epoch before a message of this entry, or before the first message after this entry."""
        index = number - self.first
        if index >= len(self.batch.messages):
            return self.start + self.size
        return self.start + (self._sums()[index - 1] if index else 0)

    def first_after(self, position: int) -> int:
        """Return the number of the first message that begins at or after a byte of the epoch."""
        if position <= self.start:
            return self.first
        ends = self._sums()
        index = bisect_right(ends, position - self.start - 1)
        return self.first + index + 1 if index < len(ends) else self.end

    def _sums(self) -> list[int]:
        # Computed on demand: subscribers read most entries whole.
        if self._ends is None:
            self._ends = list(accumulate(len(message) + self.each for message in self.batch.messages))
        return self._ends


_start = attrgetter("start")
NOTHING = Entry(0, 0, Batch(Kind.TEXT, ()), 0, "")
"""The placeholder in the ring for an entry that is no longer kept."""


class Slice(NamedTuple):
    """Messages of one entry: the numbers from `first` up to `end`, which is excluded."""

    entry: Entry
    first: int
    end: int

    @property
    def is_whole(self) -> bool:
        return self.first == self.entry.first and self.end == self.entry.end

    @property
    def messages(self) -> Sequence[bytes | bytearray]:
        entry = self.entry
        return entry.batch.messages if self.is_whole else entry.batch.messages[self.first - entry.first : self.end - entry.first]

    @property
    def batch(self) -> Batch:
        return self.entry.batch if self.is_whole else Batch(self.entry.batch.kind, self.messages)


class Cursor:
    """The place of one subscriber: the number of its next message, and the losses to report before that message."""

    __slots__ = ("_grace", "missed", "next")

    def __init__(self, number: int, grace: int, missed: int | None = 0) -> None:
        self.reset(number, grace, missed)

    def reset(self, number: int, grace: int, missed: int | None) -> None:
        self.next = number
        self._grace = grace
        """Byte of the epoch up to which its lag does not count: the messages that were there when it joined are not its delay."""
        self.missed = missed
        """Messages that it has lost and that are not reported yet; None if their number is unknown."""

    def move(self, number: int) -> None:
        """Move to a later message; the subscriber loses the messages between."""
        if number > self.next:
            self.missed = self.missed + number - self.next if self.missed is not None else None
            self.next = number

    def lag(self, newest: int, here: int) -> int:
        """Return the bytes that it could have read but has not: the distance from `here` to `newest`, without its grace."""
        return newest - max(here, self._grace)


class Channel:
    """A channel, one epoch after the other; `renew` begins the next epoch. `epoch` is the mark of its beginning.

    `queue_bytes` is how far a subscriber may lag behind the newest entry, which every subscriber receives, however long it is.
    `history` and `history_bytes` bound the messages for a subscriber that joins. All three may be 0. Bytes are those of the
    messages, plus `message_bytes` for each message and `body_bytes` for each entry.
    """

    def __init__(
        self,
        epoch: str,
        *,
        queue_bytes: int,
        history: int,
        history_bytes: int,
        slow: Slow,
        message_bytes: int = MESSAGE_BYTES,
        body_bytes: int = BODY_BYTES,
    ) -> None:
        self.bound(queue_bytes=queue_bytes, history=history, history_bytes=history_bytes, slow=slow)
        self._message_bytes = message_bytes
        self._body_bytes = body_bytes
        self._is_kept = False
        """Whether the bus keeps the entries, so that each entry has a mark of its own."""
        self._start_epoch(epoch)

    def bound(self, *, queue_bytes: int, history: int, history_bytes: int, slow: Slow) -> None:
        """Set the bounds. Lower bounds apply to the messages that are there when the next message is published."""
        self.queue_bytes = queue_bytes
        self._history = history
        self._history_bytes = history_bytes
        self._slow = slow

    def _start_epoch(self, epoch: str) -> None:
        self.epoch = epoch
        self._entries: list[Entry] = []
        self._firsts: list[int] = []
        self._dead = 0
        """Bodies at the head of both lists that are no longer kept."""
        self._marks: dict[str, tuple[int, int]] = {}
        """For each entry's mark: the number that it counts as 0, and the number after the entry's last message."""
        self.end = 0
        """The number of the next message."""
        self.bytes = 0
        """Bytes of all messages of this epoch."""
        offset = offset_of(epoch)
        self._newest_offset = offset - 1 if offset is not None else -1
        """The stream offset of the newest entry; before the first entry, the offset that precedes it."""
        self._is_kept |= offset is not None

    def append(self, batch: Batch, mark: str | None = None, at: int | None = None) -> Entry:
        """Append a published batch; return its entry. Without a `mark`, the entry has the mark of the epoch."""
        each = self._message_bytes
        size = sum(map(len, batch.messages)) + each * len(batch.messages) + self._body_bytes
        if mark is None:
            entry = Entry(self.end, self.bytes, batch, size, f"{self.epoch}-", each=each, at=at)
        else:
            entry = Entry(self.end, self.bytes, batch, size, f"{mark}-", self.end, each=each, at=at)
            self._marks[mark] = (entry.first, entry.end)
            self._newest_offset = offset_of(mark) or 0
            self._is_kept = True
        self._add(entry)
        return entry

    def repeat(self, mark: str) -> None:
        """Record that an entry came again under this mark: a position with it resumes at the same place as one with the first mark."""
        known = next((known for known in reversed(self._marks) if have_one_fingerprint(known, mark)), None)
        if known is not None:
            self._marks[mark] = self._marks[known]
            self._newest_offset = max(self._newest_offset, offset_of(mark) or 0)

    def lose(self, messages: int) -> None:
        """Record that messages were lost before they reached this channel: every subscriber receives a notice in their place.

        If their number is unknown, call `renew` instead.
        """
        last = self._entries[-1] if self._entries else None
        mark, origin = (last.mark, last.origin) if last is not None else (f"{self.epoch}-", 0)
        if last is not None and last.gap:
            last.gap += messages
            self.end = last.end
            self._forget()
        else:
            self._add(Entry(self.end, self.bytes, Batch(Kind.TEXT, ()), 0, mark, origin, gap=messages))
        if mark[:-1] in self._marks:
            self._marks[mark[:-1]] = (origin, self.end)

    def renew(self, epoch: str, cursors: Sequence[Cursor]) -> None:
        """Begin a new epoch: cursors lose the unread messages of the last epoch, and possibly more; the number is unknown."""
        self._start_epoch(epoch)
        for cursor in cursors:
            cursor.reset(0, 0, None)

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._firsts.append(entry.first)
        self.end = entry.end
        self.bytes += entry.size
        self._forget()

    # Subscribers

    def join(self, how: Join) -> Cursor:
        """Return a cursor for a subscriber without a position."""
        match how:
            case Join.HISTORY:
                first = self._history_first()
            case Join.LAST:
                first = self._last()
            case Join.NONE:
                first = self.end
        return Cursor(first, self.bytes)

    def resume(self, position: Position | None) -> Cursor:
        """Return a cursor after a position: with all later messages, or with the loss of those that are no longer kept.

        A position of another epoch, or one after messages that have not arrived yet, has no meaning here: the loss is unknown.
        """
        number = self._number(position) if position is not None else None
        if number is None:
            return Cursor(self.first, self.bytes, None)
        cursor = Cursor(number, self.bytes)
        cursor.move(self.first)
        return cursor

    def is_ahead(self, position: Position) -> bool:
        """Return whether a position belongs to an entry that has not arrived here yet, so that nothing is known about it.

        Either another process has that entry already, or the position belongs to another stream. The latter shows when the entry
        with that offset arrives.
        """
        if not self._is_kept or position.offset is None or self._number(position) is not None:
            return False
        return position.offset > self._newest_offset

    def _number(self, position: Position) -> int | None:
        is_of_epoch = position.mark == self.epoch or (position.mark == BEGINNING and offset_of(self.epoch) == 0)
        origin, end = (0, self.end) if is_of_epoch else self._marks.get(position.mark, (0, -1))
        number = origin + position.number
        return number if number <= end else None

    def place(self, number: int) -> tuple[str, int]:
        """Return the position before a kept message or before the next message: the part before the number, and the number."""
        index = bisect_right(self._firsts, number, lo=self._dead) - 1
        if index < self._dead:
            return (f"{self.epoch}-", number)
        entry = self._entries[index]
        if entry.gap and number == entry.end and index + 1 < len(self._entries):
            entry = self._entries[index + 1]
        return entry.mark, number - entry.origin

    def read(self, cursor: Cursor, limit: int) -> list[Loss | Slice]:
        """Return the next messages of a subscriber, about `limit` bytes, and move its cursor past them; empty at the end.

        A message is never cut. Unless the cursor is at the end, the result holds at least one message, however long it is. The
        last message may pass the limit. A loss comes as soon as it is known, before the messages after it.
        """
        self._catch_up(cursor)
        items: list[Loss | Slice] = []
        if cursor.missed != 0:
            items.append(Loss(cursor.missed, cursor.next))
            cursor.missed = 0
        if cursor.next == self.end:
            return items
        index = bisect_right(self._firsts, cursor.next, lo=self._dead) - 1
        while limit > 0 and cursor.next < self.end:
            entry = self._entries[index]
            here = entry.bytes_before(cursor.next)
            whole = entry.start + entry.size - here <= limit or (cursor.next == entry.first and self._is_short(entry))
            end = entry.end if whole else max(entry.first_after(here + limit), cursor.next + 1)
            if entry.gap:
                items.append(Loss(end - cursor.next, end))
            else:
                items.append(Slice(entry, cursor.next, end))
            limit -= entry.bytes_before(end) - here
            cursor.next = end
            index += 1
        return items

    @staticmethod
    def _is_short(entry: Entry) -> bool:
        return entry.size - entry.each * len(entry.batch.messages) <= WHOLE_BYTES

    def is_too_slow(self, cursor: Cursor) -> bool:
        """Return whether a subscriber lags so far that it must be closed; it may resume later."""
        return self._slow is Slow.CLOSE and self._lags(cursor)

    @property
    def first(self) -> int:
        """The number of the oldest kept message; `end` if there is none."""
        return self._firsts[self._dead] if self._dead < len(self._firsts) else self.end

    # Retention

    def _catch_up(self, cursor: Cursor) -> None:
        if self._slow is not Slow.CLOSE and self._lags(cursor):
            cursor.move(self.end if self._slow is Slow.LATEST else self._within(self._newest - self.queue_bytes))
        cursor.move(self.first)

    def _lags(self, cursor: Cursor) -> bool:
        if cursor.next >= self.end:
            return False
        here = 0
        if cursor.next >= self.first:
            here = self._entries[bisect_right(self._firsts, cursor.next, lo=self._dead) - 1].bytes_before(cursor.next)
        # A message that is no longer kept lies beyond the permitted lag: here 0 gives the same result as its exact byte.
        return cursor.lag(self._newest, here) > self.queue_bytes

    @property
    def _newest(self) -> int:
        """Bytes of this epoch before the newest entry."""
        return self._entries[-1].start if self._entries else 0

    def _history_first(self) -> int:
        return max(self.end - self._history, self._within(self.bytes - self._history_bytes))

    def _last(self) -> int:
        """Return the number of the last kept message, after which losses may follow; `end` if there is none."""
        kept = range(len(self._entries) - 1, self._dead - 1, -1)
        newest = next((entry for index in kept if (entry := self._entries[index]).batch.messages), None)
        return newest.first + len(newest.batch.messages) - 1 if newest is not None else self.end

    def _within(self, first_byte: int) -> int:
        """Return the number of the first kept message that begins at or after a byte of this epoch."""
        index = bisect_left(self._entries, first_byte, lo=self._dead, key=_start) - 1
        return self._entries[index].first_after(first_byte) if index >= self._dead else self.first

    def _forget(self) -> None:
        """Drop the entries that no subscriber can need any more."""
        while self._dead < len(self._entries):
            entry = self._entries[self._dead]
            end = entry.start + entry.size
            may_lag = self._newest - end <= self.queue_bytes
            if may_lag or (self.bytes - end < self._history_bytes and self.end - entry.end < self._history):
                break
            self._entries[self._dead] = NOTHING
            self._dead += 1
        if self._dead > TRIM and self._dead * 2 > len(self._entries):
            del self._entries[: self._dead], self._firsts[: self._dead]
            self._dead = 0
        while len(self._marks) > MARKS:
            mark, (_, end) = next(iter(self._marks.items()))
            if end > self.first:
                break
            del self._marks[mark]
