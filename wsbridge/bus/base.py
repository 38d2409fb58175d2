"""The bus carries the messages of a channel between its producers and its subscribers.

This file is its contract; one test suite checks every bus against it.

Order: the messages of one producer arrive in the order in which it published them. Between producers there is no order.

Each producer has its own id and counts its messages from 0. With each body the bus delivers the id and the number of the body's
first message. Both let a receiver distinguish a repeat and a gap from new messages. An external publisher, which publishes
without wsbridge, has neither.

Possible losses of each bus:

    memory     nothing, while the process lives
    at most once (a broker without replay)
               messages that the broker or the link loses. A later body of the same producer shows how many. After a time
               without the broker the number is unknown; then the bus calls `renewed` before it delivers anything else
    at least once (a broker with replay)
               nothing that the broker has confirmed. A body may arrive again, but only after its first arrival. Each body has
               a mark that is the same in every process; with it a subscriber can resume in another process

While the broker is unreachable, published messages wait in a spool. When the spool is full, the bus pauses its `source`. If it is
configured to drop messages, it drops the oldest instead, and receivers see the gap.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from wsbridge.flow import Batch, Source


def now() -> int:
    """Return the current time as bodies carry it, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Body(NamedTuple):
    """Messages that were published together; all are of one kind."""

    batch: Batch
    producer: str = ""
    """The id of the producer; empty for an external publisher."""
    first: int = 0
    """The number of its first message among the messages of its producer."""
    mark: str | None = None
    """The name of the body in a position, if the bus keeps bodies."""
    is_lost: bool = False
    """Whether a receiver must count its messages as lost: they arrived, but cannot be delivered."""
    at: int | None = None
    """When it was published, in milliseconds since 1970; None if the bus does not know."""
    is_past: bool = False
    """Whether it precedes the requested start. The bus delivers it only for its numbers, because it may arrive again after the start."""


class Receiver(Protocol):
    """Receives the deliveries of a bus. The bus calls it from the loop, never from inside `publish` of another receiver."""

    def receive(self, body: Body) -> None:
        """Accept a body that has arrived."""

    def renewed(self, mark: str | None = None) -> None:
        """Begin a new epoch: an unknown number of messages was lost, and later messages have no relation to earlier ones.

        `mark` names the place before the new epoch, if the bus keeps bodies.
        """

    def lost(self, messages: int) -> None:
        """Count messages that arrived but cannot be delivered; their producer is unknown."""

    def connected(self, is_connected: bool) -> None:
        """Record whether the broker is connected."""


class Bus(Source, Protocol):
    """The bus of one channel: the sink of the messages that this process publishes, and the source of its receiver."""

    source: Source
    """The publisher in this process; the bus pauses it when there is no room for more. If there is no room when it is set, the bus
    pauses it at once."""
    max_message_bytes: int
    """The size limit for messages from a broker, in bytes; 0 means no limit. It may change at any time."""

    @property
    def alarm(self) -> str:
        """The broker's reason for blocking publishers; empty while it does not block them."""

    async def open(self, receiver: Receiver) -> None:
        """Begin to deliver published messages. With replay, first deliver the requested part of the messages that the broker stores.

        Raises BusError for an error that waiting does not cure, and if no broker is reachable at the start.
        """

    def publish(self, batch: Batch) -> None:
        """Publish a batch; this never blocks and never refuses."""

    async def close(self, seconds: float) -> None:
        """Release all resources. Send the published messages within `seconds`; count the rest as unconfirmed."""
