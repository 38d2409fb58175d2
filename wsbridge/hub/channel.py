"""A channel: a ring of bodies, in which each subscriber is a cursor.

A body is what was published at once, a batch. The ring keeps as much as a subscriber may lag behind, and the history that
one who joins is given; a subscriber has no queue of its own, so one that takes nothing costs nothing. Whether it lags too
far is found out when it takes again. Messages are counted from 0 in each epoch, and that number is what a cursor holds.

Nothing is ever missed or repeated in silence: a cursor that moves past messages owes its subscriber a `Loss`, which comes
before the next message.

What a client holds is a position: a mark and a number. The mark is the epoch's, or where the bus keeps the bodies and any
process may be asked to go on, that of the body.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

from wsbridge.flow import Batch, Kind
from wsbridge.hub.position import BEGINNING, Position, offset_of

TRIM = 64
"""Bodies that may lie dead at the head of the ring before they are cut off: to move the rest costs as much each time."""
MESSAGE_BYTES = 32
"""What a message counts besides its bytes: many tiny ones are not to pass for nothing. It is about what one costs."""
BODY_BYTES = 600
"""What a body counts besides its messages: as much as it costs (measured: 550, and 200 more for each wire)."""
WHOLE_BYTES = 128 * 1024
"""A body of no more bytes is read whole by whoever stands at its beginning, since so it was encoded for others already."""
MARKS = 4096
"""Marks that are remembered of bodies that are not kept: who comes back with one learns how many messages he has lost."""


class Slow(StrEnum):
    """What becomes of a subscriber that lags too far (`--slow`)."""

    DROP_OLDEST = "drop-oldest"
    LATEST = "latest"
    CLOSE = "close"


class Join(StrEnum):
    """Where a subscriber begins that brings no position (`--join`)."""

    HISTORY = "history"
    LAST = "last"
    NONE = "none"


class Loss(NamedTuple):
    """Messages that this subscriber will not get."""

    messages: int | None
    """How many; None where nobody knows."""
    next: int
    """The number of the message that comes after them."""


@dataclass(slots=True)
class Body:
    """What was published at once, and what it was encoded to, once for each wire."""

    first: int
    """The number of its first message."""
    start: int
    """Bytes of all messages before it, in this epoch."""
    batch: Batch
    size: int
    mark: str
    """What stands before the number in a position within it, hyphen included."""
    origin: int = 0
    """The number of the message that its mark counts as 0."""
    each: int = 0
    """What each message counts besides its bytes; `size` holds it, and what the body counts itself, behind its last message."""
    gap: int = 0
    """Numbers that it takes up beside its messages: of such that were lost before they came here."""
    at: int | None = None
    """When it was published, in milliseconds since 1970; None where nobody knows."""
    encoded: dict[str, bytes] = field(default_factory=dict)
    _ends: list[int] | None = None

    @property
    def end(self) -> int:
        """The number of the message after its last."""
        return self.first + len(self.batch.messages) + self.gap

    def bytes_before(self, number: int) -> int:
        """Return the bytes of all messages of the epoch that come before one of this body, or before what follows it."""
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
        # Most bodies are taken whole, and nobody asks.
        if self._ends is None:
            self._ends = list(accumulate(len(message) + self.each for message in self.batch.messages))
        return self._ends


_start = attrgetter("start")
NOTHING = Body(0, 0, Batch(Kind.TEXT, ()), 0, "")
"""In the ring, in the place of a body that is no longer kept."""


class Slice(NamedTuple):
    """Messages of one body: the numbers from `begin` up to `end`."""

    body: Body
    begin: int
    end: int

    @property
    def is_whole(self) -> bool:
        return self.begin == self.body.first and self.end == self.body.end

    @property
    def messages(self) -> Sequence[bytes | bytearray]:
        body = self.body
        return body.batch.messages if self.is_whole else body.batch.messages[self.begin - body.first : self.end - body.first]

    @property
    def batch(self) -> Batch:
        return self.body.batch if self.is_whole else Batch(self.body.batch.kind, self.messages)


class Cursor:
    """Where one subscriber is: the number of the message that it gets next, and what it is to be told before it."""

    __slots__ = ("_grace", "missed", "next")

    def __init__(self, number: int, grace: int, missed: int | None = 0) -> None:
        self.begin(number, grace, missed)

    def begin(self, number: int, grace: int, missed: int | None) -> None:
        self.next = number
        self._grace = grace
        """Bytes of the epoch up to which it may lag as it likes: what was there when it joined was not its delay."""
        self.missed = missed
        """Messages that it has lost and was not told of; None for nobody knows how many."""

    def move(self, number: int) -> None:
        """Go on at a later message; what lies between is lost to it."""
        if number > self.next:
            self.missed = self.missed + number - self.next if self.missed is not None else None
            self.next = number

    def lag(self, newest: int, here: int) -> int:
        """Return the bytes that it could have taken and has not: those between here and the newest body, less its grace."""
        return newest - max(here, self._grace)


class Channel:
    """One epoch of a channel after the other; `renew` begins the next. `epoch` is the mark of its beginning.

    `queue_bytes` is how far a subscriber may lag behind the newest body, which everyone gets however long it is; `history`
    and `history_bytes` bound what one who joins is given. All three may be 0. Bytes here are those of
    the messages, `message_bytes` more for each of them, and `body_bytes` for each body.
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
        self.queue_bytes = queue_bytes
        self._history = history
        self._history_bytes = history_bytes
        self._slow = slow
        self._message_bytes = message_bytes
        self._body_bytes = body_bytes
        self._is_kept = False
        """Whether the bus keeps the bodies, so that they have marks of their own."""
        self._begin_epoch(epoch)

    def _begin_epoch(self, epoch: str) -> None:
        self.epoch = epoch
        self._bodies: list[Body] = []
        self._firsts: list[int] = []
        self._dead = 0
        """Bodies at the head of both lists that are no longer kept."""
        self._marks: dict[str, tuple[int, int]] = {}
        """What each body's mark counts as 0, and the number after its last message."""
        self.end = 0
        """The number that the next message will have."""
        self.bytes = 0
        """Bytes of all messages of this epoch."""
        offset = offset_of(epoch)
        self._newest_offset = offset - 1 if offset is not None else -1
        """In the stream, of the newest body; before the first, of what lies before it."""
        self._is_kept |= offset is not None

    def append(self, batch: Batch, mark: str | None = None, at: int | None = None) -> Body:
        """Take what was published; return the body that it has become. Without a mark of its own it has the epoch's."""
        each = self._message_bytes
        size = sum(map(len, batch.messages)) + each * len(batch.messages) + self._body_bytes
        if mark is None:
            body = Body(self.end, self.bytes, batch, size, f"{self.epoch}-", each=each, at=at)
        else:
            body = Body(self.end, self.bytes, batch, size, f"{mark}-", self.end, each=each, at=at)
            self._marks[mark] = (body.first, body.end)
            self._newest_offset = offset_of(mark) or 0
            self._is_kept = True
        self._add(body)
        return body

    def repeat(self, mark: str) -> None:
        """Take note that a body came again under this mark: a position with it goes on where one with the first does."""
        _, dot, fingerprint = mark.partition(".")
        known = next((known for known in reversed(self._marks) if known.endswith(dot + fingerprint)), None)
        if known is not None:
            self._marks[mark] = self._marks[known]
            self._newest_offset = max(self._newest_offset, offset_of(mark) or 0)

    def lose(self, messages: int) -> None:
        """Take note that so many messages were lost on their way here: in their place everyone is told.

        Where nobody knows how many, it is a new epoch.
        """
        last = self._bodies[-1] if self._bodies else None
        mark, origin = (last.mark, last.origin) if last is not None else (f"{self.epoch}-", 0)
        if last is not None and last.gap:
            last.gap += messages
            self.end = last.end
            self._forget()
        else:
            self._add(Body(self.end, self.bytes, Batch(Kind.TEXT, ()), 0, mark, origin, gap=messages))
        if mark[:-1] in self._marks:
            self._marks[mark[:-1]] = (origin, self.end)

    def renew(self, epoch: str, cursors: Sequence[Cursor]) -> None:
        """Begin a new epoch: what was not taken of the last one is lost, and nobody knows what else."""
        self._begin_epoch(epoch)
        for cursor in cursors:
            cursor.begin(0, 0, None)

    def _add(self, body: Body) -> None:
        self._bodies.append(body)
        self._firsts.append(body.first)
        self.end = body.end
        self.bytes += body.size
        self._forget()

    # Subscribers

    def join(self, how: Join) -> Cursor:
        """Return a cursor for a subscriber that brings no position."""
        match how:
            case Join.HISTORY:
                begin = self._history_begin()
            case Join.LAST:
                begin = self._last()
            case Join.NONE:
                begin = self.end
        return Cursor(begin, self.bytes)

    def resume(self, position: Position | None) -> Cursor:
        """Return a cursor after a position: with all that follows it, or with the loss of what is no longer kept.

        A position of another epoch, or behind messages that are still to come, says nothing here: what is lost is not known.
        """
        number = self._number(position) if position is not None else None
        if number is None:
            return Cursor(self.begin, self.bytes, None)
        cursor = Cursor(number, self.bytes)
        cursor.move(self.begin)
        return cursor

    def is_ahead(self, position: Position) -> bool:
        """Whether a position is of a body that is still to come here, so that nothing can be said of it yet.

        Another process has it already; or it is of another stream, which shows when that offset has come.
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
        """Return the position before a message that is kept or the next one: what stands before the number, and the number."""
        index = bisect_right(self._firsts, number, lo=self._dead) - 1
        if index < self._dead:
            return (f"{self.epoch}-", number)
        body = self._bodies[index]
        if body.gap and number == body.end and index + 1 < len(self._bodies):
            body = self._bodies[index + 1]
        return body.mark, number - body.origin

    def read(self, cursor: Cursor, limit: int) -> list[Loss | Slice]:
        """Return what a subscriber gets next, some `limit` bytes of it, and move its cursor past that; empty at the end.

        A message is never cut, so at least one is returned however long it is, and the last may pass the limit. A loss comes
        as soon as it is known, before the messages after it.
        """
        self._catch_up(cursor)
        taken: list[Loss | Slice] = []
        if cursor.missed != 0:
            taken.append(Loss(cursor.missed, cursor.next))
            cursor.missed = 0
        if cursor.next == self.end:
            return taken
        index = bisect_right(self._firsts, cursor.next, lo=self._dead) - 1
        while limit > 0 and cursor.next < self.end:
            body = self._bodies[index]
            here = body.bytes_before(cursor.next)
            whole = body.start + body.size - here <= limit or (cursor.next == body.first and self._is_short(body))
            end = body.end if whole else max(body.first_after(here + limit), cursor.next + 1)
            if body.gap:
                taken.append(Loss(end - cursor.next, end))
            else:
                taken.append(Slice(body, cursor.next, end))
            limit -= body.bytes_before(end) - here
            cursor.next = end
            index += 1
        return taken

    @staticmethod
    def _is_short(body: Body) -> bool:
        return body.size - body.each * len(body.batch.messages) <= WHOLE_BYTES

    def is_too_slow(self, cursor: Cursor) -> bool:
        """Whether a subscriber lags so far that it is to be closed, to resume later."""
        return self._slow is Slow.CLOSE and self._lags(cursor)

    @property
    def begin(self) -> int:
        """The number of the oldest message that is kept; `end` when there is none."""
        return self._firsts[self._dead] if self._dead < len(self._firsts) else self.end

    # What is kept

    def _catch_up(self, cursor: Cursor) -> None:
        if self._slow is not Slow.CLOSE and self._lags(cursor):
            cursor.move(self.end if self._slow is Slow.LATEST else self._within(self._newest - self.queue_bytes))
        cursor.move(self.begin)

    def _lags(self, cursor: Cursor) -> bool:
        if cursor.next >= self.end:
            return False
        here = 0
        if cursor.next >= self.begin:
            here = self._bodies[bisect_right(self._firsts, cursor.next, lo=self._dead) - 1].bytes_before(cursor.next)
        # What is not kept any more lies further back than one may lag: there 0 says as much as the very byte would.
        return cursor.lag(self._newest, here) > self.queue_bytes

    @property
    def _newest(self) -> int:
        """Bytes of this epoch before the newest body."""
        return self._bodies[-1].start if self._bodies else 0

    def _history_begin(self) -> int:
        return max(self.end - self._history, self._within(self.bytes - self._history_bytes))

    def _last(self) -> int:
        """Return the number of the last message that is kept, behind which losses may lie; `end` when there is none."""
        kept = range(len(self._bodies) - 1, self._dead - 1, -1)
        newest = next((body for index in kept if (body := self._bodies[index]).batch.messages), None)
        return newest.first + len(newest.batch.messages) - 1 if newest is not None else self.end

    def _within(self, first_byte: int) -> int:
        """Return the number of the first message that is kept and begins at or after a byte of this epoch."""
        index = bisect_left(self._bodies, first_byte, lo=self._dead, key=_start) - 1
        return self._bodies[index].first_after(first_byte) if index >= self._dead else self.begin

    def _forget(self) -> None:
        """Let go of bodies of which nobody may need a message any more."""
        while self._dead < len(self._bodies):
            body = self._bodies[self._dead]
            end = body.start + body.size
            may_lag = self._newest - end <= self.queue_bytes
            if may_lag or (self.bytes - end < self._history_bytes and self.end - body.end < self._history):
                break
            self._bodies[self._dead] = NOTHING
            self._dead += 1
        if self._dead > TRIM and self._dead * 2 > len(self._bodies):
            del self._bodies[: self._dead], self._firsts[: self._dead]
            self._dead = 0
        while len(self._marks) > MARKS:
            mark, (_, end) = next(iter(self._marks.items()))
            if end > self.begin:
                break
            del self._marks[mark]
