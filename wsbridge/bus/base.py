"""The bus carries the messages of a channel between producers and hubs. This is its contract; one suite of tests holds every bus to it.

Order: the messages of one producer arrive in the order in which it published them. Between producers there is none.

Each producer has an id of its own and counts its messages from 0. With each body the bus brings the id and the number of the
body's first message, so that a repeat and a gap can be told from news.

What can be lost, and what cannot:

    memory     nothing, while the process lives
    at most once (a broker without replay)
               what the broker or the link loses; where a later body of the same producer shows it, it is known how much. After
               a time without the broker nobody knows: `renewed` is called before anything else arrives
    at least once (a broker with replay)
               nothing that the broker has confirmed; a body may come again, and never before its first time is over
"""

from __future__ import annotations

from typing import Protocol

from wsbridge.flow import Batch, Source


class Receiver(Protocol):
    """Takes what the bus brings. It is called from the loop, never from inside `publish` of another receiver."""

    def receive(self, producer: str, first: int, batch: Batch) -> None:
        """A body has come: messages of a producer, of which the first is its `first`-th."""

    def renewed(self) -> None:
        """Something was lost, and nobody knows what: what comes now stands in no relation to what came before."""

    def connected(self, is_connected: bool) -> None:
        """The broker has come or gone."""


class Bus(Protocol):
    """One channel's bus, and the sink of what this process publishes on it."""

    source: Source
    """Who publishes: it is paused when there is no room for more."""

    async def open(self, receiver: Receiver) -> None:
        """Begin to bring what is published. Raises ConfigurationError for what will not be cured by waiting."""

    def publish(self, batch: Batch) -> None:
        """Publish; never blocks and never refuses."""

    async def close(self) -> None:
        """Let go of everything; what was published and can still be sent is sent, in bounded time."""
