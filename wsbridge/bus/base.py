"""The bus carries the messages of a channel between producers and hubs. This is its contract; one suite of tests holds every bus to it.

Order: the messages of one producer arrive in the order in which it published them. Between producers there is none.

Each producer has an id of its own and counts its messages from 0. With each body the bus brings the id and the number of the
body's first message, so that a repeat and a gap can be told from news. A stranger, who publishes past wsbridge, has neither.

What can be lost, and what cannot:

    memory     nothing, while the process lives
    at most once (a broker without replay)
               what the broker or the link loses; where a later body of the same producer shows it, it is known how much. After
               a time without the broker nobody knows: `renewed` is called before anything else arrives
    at least once (a broker with replay)
               nothing that the broker has confirmed; a body may come again, and never before its first time is over. Each
               body has a mark, the same in every process, by which a subscriber may go on in another one

While the broker is away, what is published waits in a spool. When that is full, the bus pauses its `source`, or where it is
told to, drops the oldest and lets the gap be seen.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from wsbridge.flow import Batch, Source


def now() -> int:
    """Return the time as bodies tell it, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Body(NamedTuple):
    """What was published at once, in one piece; all of it is of one kind."""

    batch: Batch
    producer: str = ""
    """Who published it; empty for a stranger."""
    first: int = 0
    """The number of its first message, of those of its producer."""
    mark: str | None = None
    """What names it in a position, where the bus keeps it."""
    is_lost: bool = False
    """Whether its messages are not to be handed on: they have come, and are lost here."""
    at: int | None = None
    """When it was published, in milliseconds since 1970, where the bus knows it."""
    is_past: bool = False
    """Whether it lies before what is wanted, and is brought for its numbers alone: it may come again behind that."""


class Receiver(Protocol):
    """Takes what the bus brings. It is called from the loop, never from inside `publish` of another receiver."""

    def receive(self, body: Body) -> None:
        """A body has come."""

    def renewed(self, mark: str | None = None) -> None:
        """Something was lost, and nobody knows what: what comes now stands in no relation to what came before.

        `mark` names the place before it, where the bus keeps its bodies.
        """

    def lost(self, messages: int) -> None:
        """So many messages came here and cannot be handed on, and whose they were is not known."""

    def connected(self, is_connected: bool) -> None:
        """The broker has come or gone."""


class Bus(Source, Protocol):
    """One channel's bus: the sink of what this process publishes on it, and the source of what its receiver gets."""

    source: Source
    """Who publishes: it is paused when there is no room for more."""

    @property
    def alarm(self) -> str:
        """Why the broker blocks publishers just now, in its own words; empty while it does not."""

    async def open(self, receiver: Receiver) -> None:
        """Begin to bring what is published, and with replay first what the broker keeps of it, as far as it is wanted.

        Raises BusError for what waiting will not cure, and when there is no broker to begin with.
        """

    def publish(self, batch: Batch) -> None:
        """Publish; never blocks and never refuses."""

    async def close(self, patience: float) -> None:
        """Let go of everything; what was published is sent if that takes no longer than `patience` seconds, and counted else."""
