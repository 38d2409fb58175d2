"""A subscriber's session: a client that is served from the hub, from its upgrade to its close.

What the channel brings goes from the hub straight to the client, and this object is not on its way. What the client says goes
into the inlet, if there is one; else it is closed with 1003.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from wsbridge.closecodes import ABNORMAL, GOING_AWAY, UNSUPPORTED_DATA
from wsbridge.flow import Batch, End, Joint, Sink, Source
from wsbridge.hub.channel import Join
from wsbridge.hub.position import Position
from wsbridge.logs import ACCESS, Pairs, extra, logger
from wsbridge.sessions.hub import Hub
from wsbridge.sessions.inlet import Inlet
from wsbridge.sessions.registry import Registry
from wsbridge.wire.subscribed import Wire

SHUTTING_DOWN = End(GOING_AWAY, "server is shutting down")
SPOKE = End(UNSUPPORTED_DATA, "this channel takes no messages (--input)")

log = logger("session")


class Client(Source, Protocol):
    """The session's view of a connected client: it is sent bytes of its wire."""

    source: Source
    received: int
    """Messages that came from the client."""

    @property
    def send(self) -> Callable[[bytes], object]:
        """What sends bytes; `source` is paused before it returns when they leave no room."""

    def take(self, data: bytes) -> bool:
        """Send bytes; return whether there is room for more."""

    def end(self, reason: End) -> None:
        """Say why, if there are words for it, and close."""

    def close(self) -> None:
        """Close without another word."""

    def abort(self) -> None:
        """Cut the connection."""

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""


class Subscription:
    """One subscriber. `start` joins it; the registry knows it until nothing is left of it."""

    __slots__ = ("_client", "_hub", "_inlet", "_is_over", "_pairs", "_registry", "send", "take", "wire")

    def __init__(self, client: Client, hub: Hub, wire: Wire, *, inlet: Inlet | None, registry: Registry, pairs: Pairs) -> None:
        self._client = client
        self._hub = hub
        self._inlet = inlet
        self._registry = registry
        self._pairs = pairs
        self._is_over = False
        self.wire = wire
        self.send = client.send
        self.take = client.take

    def start(self, begin: Join | Position | None) -> Sink:
        """Serve it from its position on, None for one that was never any, or from where all begin that bring none.

        Returns the sink for what the client says.
        """
        self._client.source = self
        if self._inlet is not None:
            self._inlet.join(self._client)
        if isinstance(begin, Join):
            self._hub.join(self, self._hub.channel.join(begin))
        else:
            self._hub.resume(self, begin)
        self._registry.add(self)
        return Joint(self._hear, self._left)

    # The hub's source and sink

    def pause(self) -> None:
        """The client is full."""
        self._hub.full(self)

    def resume(self) -> None:
        """It has room again."""
        self._hub.ready(self)

    def end(self, reason: End) -> None:
        """Close it."""
        self._client.end(reason)
        self._finish(reason)

    # What the registry tells

    def shut_down(self) -> None:
        """Close it when it has all that the channel has brought."""
        if not self._is_over:
            self._hub.dismiss(self, SHUTTING_DOWN)

    def hurry(self) -> None:
        self.end(SHUTTING_DOWN)
        self._client.abort()

    # What the client does

    def hung_up(self) -> None:
        """The client has gone while it was held up."""
        self._client.close()
        self._finish(End(ABNORMAL))

    def _hear(self, batch: Batch) -> None:
        if self._is_over:
            if self._inlet is not None:
                self._registry.metrics.discarded_in += len(batch.messages)
            return
        if self._inlet is None:
            self.end(SPOKE)
        else:
            self._registry.metrics.messages_in += len(batch.messages)
            self._inlet.write(self._client, batch)

    def _left(self, reason: End) -> None:
        self._client.close()
        self._finish(reason)

    def _finish(self, reason: End) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._hub.leave(self)
        lost = self._hub.lost_by(self)
        if self._inlet is not None:
            self._inlet.leave(self._client)
        self._registry.run(self._account(reason, lost), f"end of session {self._pairs.get('id', '')}")

    async def _account(self, reason: End, lost: int) -> None:
        # Until then it is a connection still, with what waits for it.
        await self._client.wait_closed()
        self._registry.slots.give()
        self._registry.remove(self)
        close = f"{reason.code} {reason.reason}".rstrip()
        pairs = {**self._pairs, "close": close}
        if counts := [f"{count} {what}" for count, what in ((self._client.received, "in"), (lost, "lost")) if count]:
            pairs["messages"] = ", ".join(counts)
        log.log(ACCESS, "DISCONNECT", extra=extra(pairs))
