"""A subscriber's session: it serves a client from the fanout, from the upgrade to the close.

Messages of the channel go from the fanout directly to the client and bypass this object. Messages of the client go into the fan-in;
without a fan-in, the session closes the connection with 1003.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from wsbridge.channel.position import Position
from wsbridge.channel.ring import Join
from wsbridge.closecodes import ABNORMAL, UNSUPPORTED_DATA
from wsbridge.flow import Batch, CallbackSink, End, Sink, Source
from wsbridge.logs import ACCESS, LogFields, extra, logger
from wsbridge.mentions import written
from wsbridge.sessions.fanin import FanIn
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.registry import SHUTTING_DOWN, Registry
from wsbridge.wire.positioned import Wire

NO_INPUT = "this channel accepts no messages (<input>)"

log = logger("session")


class SubscriberClient(Source, Protocol):
    """The interface of a connected client to the session; the client receives bytes of its wire."""

    source: Source
    received: int
    """Messages received from the client."""

    @property
    def send(self) -> Callable[[bytes], object]:
        """The function that sends bytes. If they fill the buffer, it pauses `source` before it returns."""

    def deliver(self, data: bytes) -> bool:
        """Send bytes; return whether the client has room for more."""

    def end(self, reason: End) -> None:
        """Close the connection, with the reason if the protocol can carry it."""

    def close(self) -> None:
        """Close the connection without a reason."""

    def abort(self) -> None:
        """Abort the connection."""

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""


class Subscription:
    """One subscriber; `start` joins it to the fanout, and the registry lists it until its connection is closed."""

    __slots__ = ("_client", "_fan_in", "_fanout", "_fields", "_is_over", "_registry", "deliver", "send", "wire")

    def __init__(
        self, client: SubscriberClient, fanout: Fanout, wire: Wire, *, fan_in: FanIn | None, registry: Registry, fields: LogFields
    ) -> None:
        self._client = client
        self._fanout = fanout
        self._fan_in = fan_in
        self._registry = registry
        self._fields = fields
        self._is_over = False
        self.wire = wire
        self.send = client.send
        self.deliver = client.deliver

    def start(self, start_at: Join | Position | None) -> Sink:
        """Serve the client from `start_at` on; return the sink for the client's messages.

        `start_at` is the position that the client has sent, or the channel's default if it has sent no position. It is None if the
        client has sent a text that is not a position.
        """
        self._client.source = self
        if self._fan_in is not None:
            self._fan_in.join(self._client)
        if isinstance(start_at, Join):
            self._fanout.join(self, self._fanout.channel.join(start_at))
        else:
            self._fanout.resume(self, start_at)
        self._registry.add(self)
        return CallbackSink(self._receive, self._disconnected)

    # Called by the client, as its source, and by the fanout

    def pause(self) -> None:
        """Report to the fanout that the client has no room."""
        self._fanout.full(self)

    def resume(self) -> None:
        """Report to the fanout that the client has room again."""
        self._fanout.ready(self)

    def end(self, reason: End) -> None:
        """Close the client's connection, and end the session."""
        self._client.end(reason)
        self._finish(reason)

    # Called by the registry

    def shut_down(self, reason: End = SHUTTING_DOWN) -> None:
        """Close the client's connection after it has received all messages published so far."""
        if not self._is_over:
            self._fanout.dismiss(self, reason)

    def force(self) -> None:
        self.end(SHUTTING_DOWN)
        self._client.abort()

    # Called by the client

    def hung_up(self) -> None:
        """End the session, because the client has disconnected while it was paused."""
        self._client.close()
        self._finish(End(ABNORMAL))

    def _receive(self, batch: Batch) -> None:
        if self._is_over:
            if self._fan_in is not None and self._fan_in.is_open:
                self._registry.metrics.discarded_in += len(batch.messages)
            return
        fan_in = self._fan_in
        if fan_in is None or not fan_in.is_open:
            self.end(End(UNSUPPORTED_DATA, written(NO_INPUT)))
        else:
            self._registry.metrics.messages_in += len(batch.messages)
            fan_in.write(self._client, batch)

    def _disconnected(self, reason: End) -> None:
        self._client.close()
        self._finish(reason)

    def _finish(self, reason: End) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._fanout.leave(self)
        lost = self._fanout.lost_by(self)
        if self._fan_in is not None:
            self._fan_in.leave(self._client)
        self._registry.run(self._account(reason, lost), f"end of session {self._fields.get('id', '')}")

    async def _account(self, reason: End, lost: int) -> None:
        # Until the connection is closed, it may hold unsent data, so the session still occupies its slot.
        await self._client.wait_closed()
        self._registry.limiter.release()
        self._registry.remove(self)
        close = f"{reason.code} {reason.reason}".rstrip()
        fields = {**self._fields, "close": close}
        if counts := [f"{count} {what}" for count, what in ((self._client.received, "in"), (lost, "lost")) if count]:
            fields["messages"] = ", ".join(counts)
        log.log(ACCESS, "DISCONNECT", extra=extra(fields))
