"""The fanout: it sends the messages of each loop iteration as one buffer, the same for all subscribers in step.

A subscriber is in step while it accepts every buffer at once. Its only state here is its entry in a group, one group for each wire.
The fanout serves it with one call, and with bytes that it has already encoded. A full subscriber falls behind: it gets a cursor, and
the next piece whenever it has room, until it is in step again. A stalled subscriber does not slow down the other subscribers. The
fanout checks it only when it has room, or once a second if the policy is to disconnect it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from wsbridge.channel.position import Position
from wsbridge.channel.ring import Channel, Cursor, Join, Loss, Slice, Slow
from wsbridge.closecodes import TRY_LATER
from wsbridge.flow import Batch, End
from wsbridge.metrics import Metrics
from wsbridge.wire.positioned import Wire

PIECE = 64 * 1024
"""Bytes of messages in one piece for a subscriber that is behind. Between two pieces, the fanout can apply the lag limit again."""
FLUSH_BYTES = 256 * 1024
"""Maximum bytes that wait for the end of the loop iteration."""
SWEEP_SECONDS = 1.0
"""Interval of the checks of the subscribers that are behind, if the policy is to disconnect them."""

AHEAD_SECONDS = 10.0
"""Seconds that a subscriber waits for its position to arrive in this process, while the broker is connected."""

TOO_SLOW = End(TRY_LATER, "too slow; reconnect with the last position")


class Subscriber(Protocol):
    """Receives bytes of its wire; it calls `Fanout.full` when it has no room, and `Fanout.ready` when it has room again."""

    wire: Wire
    send: Callable[[bytes], object]
    """Sends the bytes for all subscribers in step. The fanout calls it in each loop iteration with messages, so it must be fast."""

    def deliver(self, data: bytes) -> bool:
        """Send bytes to this subscriber only; return whether it has room for more."""

    def end(self, reason: End) -> None:
        """Close the connection with this reason."""


class Fanout:
    """One channel of this process and its subscribers.

    The state of a subscriber is the collection that contains it, exactly one of three. In step, it has no object of its own.

        ahead     joined with a position that has not arrived here; behind after the position arrives, or after the wait
        behind    with a cursor of its own; in step after it has received all messages, or closed if it is too slow
        in step   behind when it is full, or at a new epoch
    """

    def __init__(self, channel: Channel, *, metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
        self.channel = channel
        self._metrics = metrics
        self._loop = loop
        self._front = channel.join(Join.NONE)
        """The cursor that all subscribers in step share."""
        self._pending = 0
        self._flush_bytes = 0
        """The flush threshold: at most `queue_bytes`, so that a subscriber in step does not count as lagging."""
        self._set_threshold()
        self._in_step: dict[Wire, dict[Subscriber, Callable[[bytes], object]]] = {}
        self._behind: dict[Subscriber, Cursor] = {}
        self.is_connected = True
        """Whether the broker is connected; true without a broker."""
        self._sending = False
        self._filled: list[Subscriber] = []
        """Subscribers whose buffers the current flush has filled."""
        self._ahead: dict[Subscriber, tuple[Position, float]] = {}
        """Subscribers whose position has not arrived here yet, each with the position and the end of its wait."""
        self._waiting: asyncio.TimerHandle | None = None
        self._lost: dict[Subscriber, int] = {}
        """Number of messages that each subscriber lost while it was behind."""
        self._leaving: dict[Subscriber, End] = {}
        """Subscribers to close as soon as they are in step, each with the reason."""
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._behind) + len(self._ahead) + sum(map(len, self._in_step.values()))

    # Publishing

    def publish(self, batch: Batch, mark: str | None = None, at: int | None = None) -> None:
        """Append a batch to the channel; the fanout sends it at the end of this loop iteration.

        `at` is the time of publication in milliseconds since 1970. `mark` names the batch in positions, if the bus stores it.
        """
        if self._pending >= self._flush_bytes:
            self.flush()
        if not self._pending:
            self._loop.call_soon(self.flush)
        # At least 1, because messages may be empty.
        self._pending += self.channel.append(batch, mark, at).size + 1
        if self._ahead:
            self._join_reached()

    def bound(self, *, queue_bytes: int, history: int, history_bytes: int, slow: Slow) -> None:
        """Set the bounds of the channel. A subscriber that lags beyond them is handled at its next message."""
        self.flush()
        self.channel.bound(queue_bytes=queue_bytes, history=history, history_bytes=history_bytes, slow=slow)
        self._set_threshold()

    def _set_threshold(self) -> None:
        self._flush_bytes = min(FLUSH_BYTES, self.channel.queue_bytes)

    def lose(self, messages: int) -> None:
        """Record messages that were lost on the way to this process; every subscriber receives a notice instead."""
        self.flush()
        self.channel.lose(messages)
        self._pending = 1
        self._loop.call_soon(self.flush)

    def renew(self, epoch: str) -> None:
        """Start a new epoch of the channel; every subscriber receives a notice before the next message."""
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

    def set_connected(self, is_connected: bool) -> None:
        """Record whether the broker is connected, and notify every subscriber whose wire can carry the notice.

        A subscriber that joins while the broker is disconnected receives the notice as well.
        """
        if is_connected == self.is_connected:
            return
        self.flush()
        self.is_connected = is_connected
        for subscriber in self._all_subscribers():
            if notice := subscriber.wire.broker(is_connected):
                # A full subscriber receives these few bytes as well, so that it can distinguish an outage from a silent channel.
                subscriber.deliver(notice)
        if is_connected:
            until = self._loop.time() + AHEAD_SECONDS
            self._ahead = {subscriber: (position, until) for subscriber, (position, _) in self._ahead.items()}
            self._watch_ahead()

    def flush(self) -> None:
        """Send the messages published since the last flush to all subscribers in step."""
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
        """Serve a subscriber from this cursor on."""
        self._behind[subscriber] = cursor
        # If messages are missing, the loss notice names the position at which the subscriber starts. If a greeting named that position
        # first, the client would treat the lost messages as received.
        greeting = subscriber.wire.joined(*self.channel.place(cursor.next)) if cursor.missed == 0 else b""
        if not self.is_connected:
            greeting += subscriber.wire.broker(False)
        # An earlier response may have filled the transport.
        if subscriber.deliver(greeting):
            self.ready(subscriber)
        if subscriber in self._behind:
            self._watch_behind()

    def resume(self, subscriber: Subscriber, position: Position | None) -> None:
        """Serve a subscriber from the position that it has sent; None stands for a text that is not a position.

        A position from another process may be ahead of this process. The subscriber then waits: the messages after it arrive here
        as well.
        """
        if position is None or not self.channel.is_ahead(position):
            self.join(subscriber, self.channel.resume(position))
            return
        self._ahead[subscriber] = (position, self._loop.time() + AHEAD_SECONDS)
        if not self.is_connected and (notice := subscriber.wire.broker(False)):
            subscriber.deliver(notice)
        self._watch_ahead()

    def _join_reached(self) -> None:
        """Serve the subscribers whose position has arrived."""
        for subscriber, (position, _) in list(self._ahead.items()):
            if not self.channel.is_ahead(position):
                self._join_at(subscriber, position)

    def _join_at(self, subscriber: Subscriber, position: Position) -> None:
        if self._ahead.pop(subscriber, None) is not None:
            self.join(subscriber, self.channel.resume(position))

    def _watch_ahead(self) -> None:
        # While the broker is disconnected, no message can arrive, so a missing position proves nothing.
        if self._ahead and self._waiting is None and self.is_connected:
            # The waits are in the order of their ends.
            _, until = next(iter(self._ahead.values()))
            self._waiting = self._loop.call_at(until, self._expire_ahead)

    def _expire_ahead(self) -> None:
        """End the wait for positions that did not arrive in time: they belong to another stream."""
        self._waiting = None
        if not self.is_connected:
            return
        now = self._loop.time()
        for subscriber, (position, until) in list(self._ahead.items()):
            if until <= now:
                self._join_at(subscriber, position)
        self._watch_ahead()

    def full(self, subscriber: Subscriber) -> None:
        """Record that a subscriber has no room; it falls behind."""
        if self._sending:
            self._filled.append(subscriber)
        else:
            self._fall_behind(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Stop serving a subscriber; a second call does nothing."""
        self._behind.pop(subscriber, None)
        self._ahead.pop(subscriber, None)
        self._leaving.pop(subscriber, None)
        self._in_step.get(subscriber.wire, {}).pop(subscriber, None)
        if not self._behind and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def lost_by(self, subscriber: Subscriber) -> int:
        """Return the number of messages that a removed subscriber lost while it was behind, and delete the number."""
        return self._lost.pop(subscriber, 0)

    def ready(self, subscriber: Subscriber) -> None:
        """Send a subscriber with room the messages that it missed, piece by piece, until it is full or in step."""
        cursor = self._behind.get(subscriber)
        if cursor is None:
            return
        # Without this flush, pending messages would reach the subscriber twice: by its cursor and by the flush.
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
            if data and not subscriber.deliver(data):
                return
        if subscriber not in self._behind:
            return
        del self._behind[subscriber]
        self._in_step.setdefault(subscriber.wire, {})[subscriber] = subscriber.send
        if (reason := self._leaving.get(subscriber)) is not None:
            self.dismiss(subscriber, reason)

    def dismiss(self, subscriber: Subscriber, reason: End) -> None:
        """Disconnect a subscriber after it has received all messages published so far."""
        self.flush()
        if subscriber in self._behind:
            self._leaving[subscriber] = reason
        else:
            self.leave(subscriber)
            subscriber.end(reason)

    def _all_subscribers(self) -> list[Subscriber]:
        return [*self._behind, *self._ahead, *(subscriber for group in self._in_step.values() for subscriber in group)]

    def _fall_behind(self, subscriber: Subscriber) -> None:
        """Give a full subscriber a cursor of its own, at the position of all subscribers in step."""
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
            entry = item.entry
            if not item.is_whole:
                pieces += (wire.published(entry.at), wire.encode(item.batch, entry.mark, item.first - entry.origin))
            else:
                if (data := entry.encoded.get(wire.name)) is None:
                    data = wire.published(entry.at) + wire.encode(entry.batch, entry.mark, entry.first - entry.origin)
                    entry.encoded[wire.name] = data
                pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _count(items: Sequence[Loss | Slice]) -> tuple[int, int]:
    """Return the number of messages, and the known number of lost messages."""
    messages = lost = 0
    for item in items:
        if isinstance(item, Slice):
            messages += item.end - item.first
        else:
            lost += item.messages or 0
    return messages, lost
