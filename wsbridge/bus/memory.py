"""The bus of a single process: it delivers each batch at once, and never loses or repeats a message."""

from __future__ import annotations

from wsbridge.bus.base import Body, Receiver
from wsbridge.flow import NULL_SOURCE, Batch, Source


class MemoryBus:
    """Keeps no messages; its receiver does. A full receiver pauses the publisher."""

    def __init__(self, producer: str) -> None:
        self._producer = producer
        self._published = 0
        self._receiver: Receiver | None = None
        self._source: Source = NULL_SOURCE
        self._is_paused = False
        self.alarm = ""
        self.max_message_bytes = 0
        """Without effect: the framing of the program and the limit of the clients bound the messages of this process."""

    @property
    def source(self) -> Source:
        return self._source

    @source.setter
    def source(self, source: Source) -> None:
        self._source = source
        if self._is_paused:
            source.pause()

    async def open(self, receiver: Receiver) -> None:
        self._receiver = receiver
        receiver.connected(True)

    def publish(self, batch: Batch) -> None:
        first = self._published
        self._published += len(batch.messages)
        if self._receiver is not None:
            self._receiver.receive(Body(batch, self._producer, first))

    def pause(self) -> None:
        self._is_paused = True
        self._source.pause()

    def resume(self) -> None:
        self._is_paused = False
        self._source.resume()

    async def close(self, seconds: float) -> None:
        self._receiver = None
