"""Keeps published messages, in order and within a bound, until the broker has confirmed them.

Lines that wait together leave in one body: the more slowly the broker confirms, the fewer and larger the bodies are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from wsbridge.bus.bodies import BODY_BYTES, OutgoingBody, can_join, pack
from wsbridge.flow import Batch

WINDOW = 32
"""Maximum bodies in flight to the broker: 4 MB, which is more than any link can have in flight. Bodies of long messages are larger;
the limit of the spool bounds them."""
OVERHEAD_BYTES = 256
"""Bytes that a body counts besides its data, so that many tiny bodies count against the limit too."""


class Spool:
    """The bodies of one producer. `limit` is in bytes and includes the bodies in flight.

    Call `put`, `pop`, `confirm`. After a lost link, call `put_back` or `give_up` for the bodies in flight.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[list[OutgoingBody]] = deque()
        """Runs of bodies; each run leaves as one body."""
        self._run_bytes = 0
        """Bytes of the last run."""
        self._under_way: dict[int, OutgoingBody] = {}
        self._published = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        """Whether a body waits for `pop`."""
        return bool(self._waiting)

    @property
    def is_empty(self) -> bool:
        """Whether no body waits and none is in flight."""
        return not self._waiting and not self._under_way

    @property
    def under_way(self) -> int:
        """How many bodies are in flight: removed by `pop`, and not confirmed yet."""
        return len(self._under_way)

    @property
    def has_whole(self) -> bool:
        """Whether the next body will not grow any more, or only a little."""
        return len(self._waiting) > 1 or (bool(self._waiting) and self._run_bytes > BODY_BYTES // 2)

    @property
    def is_full(self) -> bool:
        return self.bytes >= self._limit

    @property
    def has_room(self) -> bool:
        """Whether it has drained so far that a paused source may resume."""
        return self.bytes <= self._limit // 2

    def put(self, batch: Batch) -> None:
        """Add a batch, even if the spool is full."""
        for body in pack(batch, self._published):
            self._add(body)
        self._published += len(batch.messages)

    def pop(self) -> OutgoingBody:
        """Return the next body, which is in flight from now on."""
        run = self._waiting.popleft()
        body = run[0]
        if len(run) > 1:
            data = b"\n".join([part.data for part in run])
            body = OutgoingBody(body.content_type, data, body.first, sum(part.messages for part in run))
            self.bytes -= sum(map(size_of, run)) - size_of(body)
        self._under_way[body.first] = body
        return body

    def confirm(self, body: OutgoingBody) -> None:
        """Remove a body from those in flight: the broker has it."""
        if self._under_way.pop(body.first, None) is not None:
            self.bytes -= size_of(body)

    def put_back(self, more: Sequence[OutgoingBody] = ()) -> None:
        """Queue the bodies in flight again, before the rest and unchanged: a receiver recognises a repeat only if its body is
        unchanged.

        `more` holds bodies that were confirmed before; they are queued again, too.
        """
        for body in more:
            self._under_way[body.first] = body
            self.bytes += size_of(body)
        if not self._waiting:
            # Messages that are published now must not join the last of these bodies.
            self._run_bytes = BODY_BYTES
        self._waiting.extendleft([body] for body in sorted(self._under_way.values(), key=lambda body: -body.first))
        self._under_way.clear()

    def drop_under_way(self, size: int) -> int:
        """Drop the bodies in flight that have at least `size` bytes; return the number of their messages."""
        dropped = [body for body in self._under_way.values() if len(body.data) >= size]
        for body in dropped:
            self.confirm(body)
        return sum(body.messages for body in dropped)

    def give_up(self) -> int:
        """Drop all bodies in flight; return the number of their messages."""
        lost = sum(body.messages for body in self._under_way.values())
        self.bytes -= sum(map(size_of, self._under_way.values()))
        self._under_way.clear()
        return lost

    def abandon(self) -> int:
        """Drop all bodies, waiting or in flight; return the number of their messages."""
        lost = self.give_up() + sum(part.messages for run in self._waiting for part in run)
        self._waiting.clear()
        self.bytes = 0
        return lost

    def drop_oldest(self) -> int:
        """Drop the bodies that have waited longest until the spool is not full; return the number of their messages."""
        dropped = 0
        while self._waiting and self.is_full:
            run = self._waiting.popleft()
            dropped += sum(part.messages for part in run)
            self.bytes -= sum(map(size_of, run))
        return dropped

    def _add(self, body: OutgoingBody) -> None:
        self.bytes += size_of(body)
        last = self._waiting[-1] if self._waiting else None
        if last and last[-1].first + last[-1].messages == body.first and self._joins(last, body):
            last.append(body)
            self._run_bytes += len(body.data) + 1
        else:
            self._waiting.append([body])
            self._run_bytes = len(body.data) + 1

    def _joins(self, run: list[OutgoingBody], body: OutgoingBody) -> bool:
        return can_join(run[-1], body) and self._run_bytes + len(body.data) < BODY_BYTES


def size_of(body: OutgoingBody) -> int:
    """Return the bytes that a body counts against a bound."""
    return len(body.data) + OVERHEAD_BYTES
