"""The hub: what was published since the last turn of the loop goes out as one buffer, the same to everyone in step.

A subscriber that takes everything has no state here but its place in a group, one group for each wire: to serve it is one
call with bytes that exist already. One that is full falls behind: it gets a cursor, and the next piece when it has room,
until it is in step again. What is stuck costs the others nothing: nobody looks at it until it has room, or once a second
where it is to be closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from wsbridge.closecodes import TRY_LATER
from wsbridge.flow import Batch, End
from wsbridge.hub.channel import Channel, Cursor, Join, Loss, Slice
from wsbridge.hub.position import Position
from wsbridge.metrics import Metrics
from wsbridge.wire.subscribed import Wire

PIECE = 64 * 1024
"""Bytes of messages for one that catches up: what it gets at once, so that it can be moved on when it lags again."""
FLUSH_BYTES = 256 * 1024
"""Bytes that wait for the end of the turn at most."""
SWEEP_SECONDS = 1.0
"""How often those who lag are looked at, where they are to be closed for it."""

AHEAD_SECONDS = 10.0
"""How long, with its broker there, one is waited for who comes with a position of messages that have not come here yet."""

TOO_SLOW = End(TRY_LATER, "too slow; come back with the last position")


class Subscriber(Protocol):
    """Takes bytes of its wire. It calls `Hub.full` when it has no room left, and `Hub.ready` when it has room again."""

    wire: Wire
    send: Callable[[bytes], object]
    """Send what everyone in step gets; called once for each turn of the loop that brought something, so it is to be cheap."""

    def take(self, data: bytes) -> bool:
        """Send what this one alone gets, to catch up; return whether there is room for more."""

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
        self._in_step: dict[Wire, dict[Subscriber, Callable[[bytes], object]]] = {}
        self._behind: dict[Subscriber, Cursor] = {}
        self.is_connected = True
        """Whether the broker is there, if there is to be one."""
        self._sending = False
        self._filled: list[Subscriber] = []
        """Who was filled by what is being sent."""
        self._ahead: dict[Subscriber, tuple[Position, float]] = {}
        """Who comes with a position that is still to come here, and until when it is waited for."""
        self._waiting: asyncio.TimerHandle | None = None
        self._lost: dict[Subscriber, int] = {}
        """How many messages those have lost who were behind."""
        self._leaving: dict[Subscriber, End] = {}
        """Who is to be closed when it is in step."""
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._behind) + len(self._ahead) + sum(map(len, self._in_step.values()))

    # What is published

    def publish(self, batch: Batch, mark: str | None = None, at: int | None = None) -> None:
        """Take a batch, published at a time in milliseconds, into the channel; it is sent at the end of this turn of the loop."""
        if self._pending >= self._flush_bytes:
            self.flush()
        if not self._pending:
            self._loop.call_soon(self.flush)
        # At least 1: messages may be empty.
        self._pending += self.channel.append(batch, mark, at).size + 1
        if self._ahead:
            self._join_reached()

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
        for subscriber, (position, _) in list(self._ahead.items()):
            self._join_at(subscriber, position)

    def say(self, is_connected: bool) -> None:
        """The broker has come or gone; everyone is told whose wire has words for it, and so is who joins while it is away."""
        if is_connected == self.is_connected:
            return
        self.flush()
        self.is_connected = is_connected
        for subscriber in self._everyone():
            if word := subscriber.wire.broker(is_connected):
                # A few bytes, also to one that is full: it is not to take for silence what is none.
                subscriber.take(word)
        if is_connected:
            self._watch_ahead()

    def flush(self) -> None:
        """Send what was published since the last flush to everyone who is in step."""
        if not self._pending:
            return
        self._pending = 0
        items = self.channel.read(self._front, self.channel.bytes + 1)
        messages, lost = _count(items)
        self._sending = True
        for wire, group in self._in_step.items():
            if group and (data := self._encode(wire, items)):
                for send in list(group.values()):
                    send(data)
                self._metrics.messages_out += messages * len(group)
            self._metrics.messages_lost += lost * len(group)
        self._sending = False
        for subscriber in self._filled:
            self._fall_behind(subscriber)
        self._filled.clear()

    # Subscribers

    def join(self, subscriber: Subscriber, cursor: Cursor) -> None:
        """Serve a subscriber from its cursor on."""
        self._behind[subscriber] = cursor
        # With a loss to tell, that is what says where it begins: told before, it would pass for known.
        greeting = subscriber.wire.joined(*self.channel.place(cursor.next)) if cursor.missed == 0 else b""
        if not self.is_connected:
            greeting += subscriber.wire.broker(False)
        # It may be full with nothing from us, of an answer that came before this.
        if subscriber.take(greeting):
            self.ready(subscriber)
        if subscriber in self._behind:
            self._watch_behind()

    def resume(self, subscriber: Subscriber, position: Position | None) -> None:
        """Serve a subscriber from a position on that it brings; None for one that was never any.

        One that another process gave, which is ahead of this one, is waited for: what follows it follows here as well.
        """
        if position is None or not self.channel.is_ahead(position):
            self.join(subscriber, self.channel.resume(position))
            return
        self._ahead[subscriber] = (position, self._loop.time() + AHEAD_SECONDS)
        if not self.is_connected and (word := subscriber.wire.broker(False)):
            subscriber.take(word)
        self._watch_ahead()

    def _join_reached(self) -> None:
        """Serve who has waited for what has come now."""
        for subscriber, (position, _) in list(self._ahead.items()):
            if not self.channel.is_ahead(position):
                self._join_at(subscriber, position)

    def _join_at(self, subscriber: Subscriber, position: Position) -> None:
        if self._ahead.pop(subscriber, None) is not None:
            self.join(subscriber, self.channel.resume(position))

    def _watch_ahead(self) -> None:
        # While the broker is away nothing can come, and nothing is known.
        if self._ahead and self._waiting is None and self.is_connected:
            self._waiting = self._loop.call_later(AHEAD_SECONDS, self._tire)

    def _tire(self) -> None:
        """Wait no longer for what does not come: it was of another stream."""
        self._waiting = None
        if not self.is_connected:
            return
        now = self._loop.time()
        for subscriber, (position, until) in list(self._ahead.items()):
            if until <= now:
                self._join_at(subscriber, position)
        self._watch_ahead()

    def full(self, subscriber: Subscriber) -> None:
        """A subscriber has no room left: it falls behind."""
        if self._sending:
            self._filled.append(subscriber)
        else:
            self._fall_behind(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Serve it no more; leaving twice is leaving."""
        self._behind.pop(subscriber, None)
        self._ahead.pop(subscriber, None)
        self._leaving.pop(subscriber, None)
        self._in_step.get(subscriber.wire, {}).pop(subscriber, None)
        if not self._behind and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def lost_by(self, subscriber: Subscriber) -> int:
        """Return how many messages one that has left has lost by being behind, and forget it."""
        return self._lost.pop(subscriber, 0)

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
            messages, lost = _count(items)
            self._metrics.messages_out += messages
            if lost:
                self._metrics.messages_lost += lost
                self._lost[subscriber] = self._lost.get(subscriber, 0) + lost
            data = self._encode(subscriber.wire, items)
            if data and not subscriber.take(data):
                return
        if subscriber not in self._behind:
            return
        del self._behind[subscriber]
        self._in_step.setdefault(subscriber.wire, {})[subscriber] = subscriber.send
        if (reason := self._leaving.get(subscriber)) is not None:
            self.dismiss(subscriber, reason)

    def dismiss(self, subscriber: Subscriber, reason: End) -> None:
        """Close a subscriber when it has all that was published until now."""
        self.flush()
        if subscriber in self._behind:
            self._leaving[subscriber] = reason
        else:
            self.leave(subscriber)
            subscriber.end(reason)

    def _everyone(self) -> list[Subscriber]:
        return [*self._behind, *self._ahead, *(one for group in self._in_step.values() for one in group)]

    def _fall_behind(self, subscriber: Subscriber) -> None:
        """Give one that was in step a cursor of its own: it has all that the others have, and is full."""
        if self._in_step.get(subscriber.wire, {}).pop(subscriber, None) is None:
            return
        self._behind[subscriber] = Cursor(self._front.next, self.channel.bytes)
        self._watch_behind()

    def _watch_behind(self) -> None:
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        for subscriber, cursor in list(self._behind.items()):
            if self.channel.is_too_slow(cursor):
                self._close(subscriber)
        if self._behind:
            self._watch_behind()

    def _close(self, subscriber: Subscriber) -> None:
        self.leave(subscriber)
        subscriber.end(TOO_SLOW)

    def _encode(self, wire: Wire, items: Sequence[Loss | Slice]) -> bytes:
        pieces = []
        for item in items:
            if isinstance(item, Loss):
                pieces.append(wire.lost(item.messages, *self.channel.place(item.next)))
                continue
            body = item.body
            if not item.is_whole:
                pieces += (wire.published(body.at), wire.encode(item.batch, body.mark, item.begin - body.origin))
            else:
                if (data := body.encoded.get(wire.name)) is None:
                    data = wire.published(body.at) + wire.encode(body.batch, body.mark, body.first - body.origin)
                    body.encoded[wire.name] = data
                pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _count(items: Sequence[Loss | Slice]) -> tuple[int, int]:
    """Return how many messages there are, and how many are lost, as far as that is known."""
    messages = lost = 0
    for item in items:
        if isinstance(item, Slice):
            messages += item.end - item.begin
        else:
            lost += item.messages or 0
    return messages, lost
