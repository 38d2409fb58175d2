"""The hub: what was published since the last turn of the loop goes out as one buffer, the same to everyone in step.

A subscriber that takes everything has no state here but its place in a group, one group for each wire: to serve it is one
call with bytes that exist already. One that is full falls behind: it gets a cursor, and the next piece when it has room,
until it is in step again. What is stuck costs the others nothing: nobody looks at it until it has room, or once a second
where it is to be closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from wsbridge.closecodes import TRY_LATER
from wsbridge.flow import Batch, End
from wsbridge.hub.channel import Channel, Cursor, Join, Loss, Slice
from wsbridge.metrics import Metrics
from wsbridge.wire.subscribed import Wire

PIECE = 64 * 1024
"""Bytes of messages for one that catches up: what it gets at once, so that it can be moved on when it lags again."""
FLUSH_BYTES = 256 * 1024
"""Bytes that wait for the end of the turn at most."""
SWEEP_SECONDS = 1.0
"""How often those who lag are looked at, where they are to be closed for it."""

TOO_SLOW = End(TRY_LATER, "too slow; come back with the last position")


class Subscriber(Protocol):
    """Takes bytes of its wire. It calls `Hub.ready` when it was full and has room again."""

    wire: Wire

    def take(self, data: bytes) -> bool:
        """Send; return whether there is room for more."""

    def end(self, reason: End) -> None:
        """Close."""


class Hub:
    """One channel of this process and its subscribers."""

    def __init__(self, channel: Channel, *, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self.channel = channel
        self._metrics = metrics
        self._loop = loop
        self._front = channel.join(Join.NONE)
        """The cursor that all who are in step share."""
        self._pending = 0
        self._flush_bytes = min(FLUSH_BYTES, channel.queue_bytes)
        """Those in step must not be taken for such who lag."""
        self._in_step: dict[Wire, dict[Subscriber, None]] = {}
        self._behind: dict[Subscriber, Cursor] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._behind) + sum(map(len, self._in_step.values()))

    # What is published

    def publish(self, batch: Batch) -> None:
        """Take a batch into the channel; it is sent at the end of this turn of the loop."""
        if self._pending >= self._flush_bytes:
            self.flush()
        if not self._pending:
            self._loop.call_soon(self.flush)
        # At least 1: messages may be empty.
        self._pending += self.channel.append(batch).size + 1

    def lose(self, messages: int) -> None:
        """Messages were lost on their way here; everyone is told in their place."""
        self.flush()
        self.channel.lose(messages)
        self._pending = 1
        self._loop.call_soon(self.flush)

    def renew(self, epoch: str) -> None:
        """The channel begins anew; everyone is told, before the next message."""
        self.flush()
        had_room = [subscriber for group in self._in_step.values() for subscriber in group]
        for subscriber in had_room:
            self._fall_behind(subscriber)
        self.channel.renew(epoch, list(self._behind.values()))
        self._front = self.channel.join(Join.NONE)
        for subscriber in had_room:
            self.ready(subscriber)

    def flush(self) -> None:
        """Send what was published since the last flush to everyone who is in step."""
        if not self._pending:
            return
        self._pending = 0
        items = self.channel.read(self._front, self.channel.bytes + 1)
        for wire, group in self._in_step.items():
            if not group:
                continue
            data = self._encode(wire, items)
            full = [subscriber for subscriber in group if not subscriber.take(data)]
            for subscriber in full:
                self._fall_behind(subscriber)

    # Subscribers

    def join(self, subscriber: Subscriber, cursor: Cursor) -> None:
        """Serve a subscriber from its cursor on."""
        self._behind[subscriber] = cursor
        # With a loss to tell, that is what says where it begins: told before, it would pass for known.
        if cursor.missed == 0:
            greeting = subscriber.wire.joined(self.channel.mark, cursor.next)
            if greeting and not subscriber.take(greeting):
                return
        self.ready(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Serve it no more; leaving twice is leaving."""
        self._behind.pop(subscriber, None)
        self._in_step.get(subscriber.wire, {}).pop(subscriber, None)

    def ready(self, subscriber: Subscriber) -> None:
        """A subscriber has room: it gets what it has missed, a piece after the other, until it is full or in step."""
        cursor = self._behind.get(subscriber)
        if cursor is None:
            return
        # What is pending would else reach it twice, by its cursor and by the flush.
        self.flush()
        if self.channel.is_too_slow(cursor):
            self._close(subscriber)
            return
        while items := self.channel.read(cursor, PIECE):
            if not subscriber.take(self._encode(subscriber.wire, items)):
                return
        if subscriber in self._behind:
            del self._behind[subscriber]
            self._in_step.setdefault(subscriber.wire, {})[subscriber] = None

    def end(self, reason: End) -> None:
        """Close everyone."""
        self.flush()
        for subscriber in [*self._behind, *(one for group in self._in_step.values() for one in group)]:
            self.leave(subscriber)
            subscriber.end(reason)
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _fall_behind(self, subscriber: Subscriber) -> None:
        self._in_step[subscriber.wire].pop(subscriber, None)
        self._behind[subscriber] = self.channel.join(Join.NONE)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        for subscriber, cursor in list(self._behind.items()):
            if self.channel.is_too_slow(cursor):
                self._close(subscriber)
        if self._behind:
            self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _close(self, subscriber: Subscriber) -> None:
        self.leave(subscriber)
        subscriber.end(TOO_SLOW)

    def _encode(self, wire: Wire, items: Sequence[Loss | Slice]) -> bytes:
        pieces = []
        for item in items:
            if isinstance(item, Loss):
                pieces.append(wire.lost(item.messages, self.channel.mark, item.next))
            elif not item.is_whole:
                pieces.append(wire.encode(item.batch, self.channel.mark, item.begin))
            else:
                encoded = item.body.encoded
                if (data := encoded.get(wire.name)) is None:
                    data = encoded[wire.name] = wire.encode(item.batch, self.channel.mark, item.begin)
                pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
