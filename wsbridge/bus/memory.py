"""The bus of a single process: what is published arrives, at once, and there is nothing that could be lost or repeated."""

from __future__ import annotations

from wsbridge.bus.base import Receiver
from wsbridge.flow import STILL, Batch, Source


class MemoryBus:
    """Keeps nothing: its receivers do."""

    def __init__(self, producer: str) -> None:
        self._producer = producer
        self._published = 0
        self._receivers: list[Receiver] = []
        self.source: Source = STILL

    async def open(self, receiver: Receiver) -> None:
        self._receivers.append(receiver)
        receiver.connected(True)

    def publish(self, batch: Batch) -> None:
        first = self._published
        self._published += len(batch.messages)
        for receiver in self._receivers:
            receiver.receive(self._producer, first, batch)

    async def close(self) -> None:
        self._receivers.clear()
