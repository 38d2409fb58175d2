"""A reader of a stream over one link after the other, with links and streams as values: which bodies are new, and which epochs begin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from wsbridge.bus.backlog import Backlog
from wsbridge.bus.rabbitmq.link import Delivery, Link
from wsbridge.bus.rabbitmq.stream import NOTES, StreamReader
from wsbridge.errors import LinkLost


class Stream(dict[int, bytes]):
    """A stream: its bodies by their offsets, and its identity."""

    def __init__(self, bodies: dict[int, bytes], identity: str) -> None:
        super().__init__(bodies)
        self.identity = identity


def stream(offsets: range, identity: str = "one") -> Stream:
    return Stream({offset: b"%d of %s" % (offset, identity.encode()) for offset in offsets}, identity)


class Wire:
    """A link to a stream that delivers `brings` bodies."""

    def __init__(self, stream: Stream, *, brings: int | None = None, chunk: int = 1, finds: bool = True) -> None:
        self.stream = stream
        self.is_lost = False
        self._brings = brings
        self._chunk = chunk
        self._finds = finds

    async def identity(self) -> str:
        return self.stream.identity

    async def find(self, where: str, seconds: float) -> int | None:
        if not self.stream or not self._finds:
            return None
        return min(self.stream) if where == "first" else max(self.stream) // self._chunk * self._chunk

    async def offsets(self, start: int, end: int, seconds: float, *, max_periods: float) -> list[int]:
        return [offset for offset in sorted(self.stream) if start <= offset <= end]

    async def has(self, offset: int, start: int, seconds: float) -> bool:
        return start <= offset and offset in self.stream

    async def consume_stream(self, take: Callable[[Delivery], None], start: int | str) -> None:
        first = 0 if start == "first" else max(self.stream) + 1 if start == "next" else start
        for offset in [offset for offset in sorted(self.stream) if offset >= cast(int, first)][: self._brings]:
            self.bring(take, offset)

    def bring(self, take: Callable[[Delivery], None], offset: int) -> None:
        take(Delivery(self.stream[offset], None, None, None, {}, 0, offset, None))

    async def stop_consuming(self) -> None:
        pass

    async def wait_delivered(self, seconds: float, work: Coroutine[Any, Any, object], *, max_periods: float) -> bool:
        """Return whether `work` ends at once: nothing arrives later."""
        try:
            async with asyncio.timeout(0):
                await work
        except TimeoutError:
            return False
        return True

    def lose(self, why: str) -> None:
        self.is_lost = True

    def handled(self, delivery: Delivery) -> None:
        pass


class Reader:
    """A reader, and the bodies and epochs that it reports."""

    def __init__(self, history: int = 1000) -> None:
        self.told: list[object] = []
        self.reader = StreamReader(
            Backlog(),
            history=history,
            start=None,
            on_body=lambda link, delivery, mark: self.told.append(delivery.offset),
            learn=lambda link, delivery: None,
            renew=lambda mark: self.told.append("epoch"),
            on_arrival=lambda delivery: None,
        )

    async def attach(self, wire: Wire) -> list[object]:
        """Attach to a link, and return the reports."""
        self.told.clear()
        await self.reader.attach(cast(Link, wire))
        return self.told


def test_read_on() -> None:
    """Over another link to the same stream, only bodies after the last body are new."""

    async def play() -> None:
        reader = Reader()
        assert await reader.attach(Wire(stream(range(5)))) == ["epoch", 0, 1, 2, 3, 4]
        assert await reader.attach(Wire(stream(range(7)))) == [5, 6]

    asyncio.run(play())


def test_other_stream_after_half_a_history() -> None:
    """If the first link fails within the history, and the next link finds another stream, all bodies are new."""

    async def play() -> None:
        reader = Reader()
        with pytest.raises(LinkLost):
            await reader.attach(Wire(stream(range(991, 1001)), brings=7))
        assert await reader.attach(Wire(stream(range(50, 60), "other"))) == ["epoch", *range(50, 60)]

    asyncio.run(play())


def test_same_stream_after_half_a_history() -> None:
    """If the next link finds the same stream, only the remaining bodies are new."""

    async def play() -> None:
        reader = Reader()
        with pytest.raises(LinkLost):
            await reader.attach(Wire(stream(range(10)), brings=7))
        assert await reader.attach(Wire(stream(range(10)))) == [7, 8, 9]

    asyncio.run(play())


@pytest.mark.parametrize(("first", "epochs"), [(0, 1), (NOTES, 1), (NOTES + 1, 2), (5000, 2)])
def test_stream_that_is_slow_to_begin(first: int, epochs: int) -> None:
    """If a stream delivers nothing in time, its first body later shows whether there were bodies before it."""

    async def play() -> None:
        reader = Reader()
        offsets = range(first, first + 3)
        assert await reader.attach(Wire(stream(offsets), finds=False)) == [*["epoch"] * epochs, *offsets]

    asyncio.run(play())


def test_stream_that_is_slow_after_a_break() -> None:
    """If the last body is late, but the newest chunk begins before it, the stream is the same: the reader requests the body again."""

    async def play() -> None:
        reader = Reader()
        await reader.attach(Wire(stream(range(150))))
        with pytest.raises(LinkLost):
            await reader.attach(Wire(stream(range(150)), brings=0, chunk=50))
        assert await reader.attach(Wire(stream(range(152)))) == [150, 151]

    asyncio.run(play())


def test_shorter_stream_after_a_break() -> None:
    """A stream with fewer bodies than the reader has received is another stream."""

    async def play() -> None:
        reader = Reader()
        await reader.attach(Wire(stream(range(150))))
        assert await reader.attach(Wire(stream(range(20)))) == ["epoch", *range(20)]

    asyncio.run(play())
