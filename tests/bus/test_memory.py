"""Tests of the memory bus beyond the contract, with a receiver and a source that record their calls."""

from __future__ import annotations

import math

import pytest

from tests.bus.node import Receiver
from wsbridge.bus.base import Body
from wsbridge.bus.memory import MemoryBus
from wsbridge.flow import Batch, Kind, Memory


def lines(*messages: bytes) -> Batch:
    return Batch(Kind.TEXT, messages)


async def test_open() -> None:
    """The bus reports to its receiver once that it is connected, and delivers nothing."""
    receiver = Receiver()
    await MemoryBus("p").open(receiver)
    assert receiver == Receiver(connects=[True])


async def test_publish() -> None:
    """The bus delivers each batch before `publish` returns, unchanged, with its producer and the number of its first message."""
    bus, receiver = MemoryBus("p"), Receiver()
    await bus.open(receiver)
    text, binary = lines(b"a", b"b"), Batch(Kind.BINARY, [b"", b"\0", bytearray(b"c")])
    bus.publish(text)
    assert receiver.bodies == [Body(text, "p", 0)]
    bus.publish(binary)
    bus.publish(text)
    assert receiver.bodies == [Body(text, "p", 0), Body(binary, "p", 2), Body(text, "p", 5)]
    assert receiver.bodies[1].batch is binary


async def test_body() -> None:
    """A body of the bus has no mark and no time, and is neither lost nor past: the bus keeps nothing."""
    bus, receiver = MemoryBus("p"), Receiver()
    await bus.open(receiver)
    bus.publish(lines(b"a"))
    (body,) = receiver.bodies
    assert (body.mark, body.at, body.is_lost, body.is_past) == (None, None, False, False)


async def test_many_batches() -> None:
    """The bus neither loses nor repeats a message, and never begins a new epoch."""
    bus, receiver = MemoryBus("p"), Receiver()
    await bus.open(receiver)
    for number in range(1000):
        bus.publish(lines(*[b"%d" % number] * (number % 3 + 1)))
    assert [message for _, message in receiver.messages] == [b"%d" % number for number in range(1000) for _ in range(number % 3 + 1)]
    assert (receiver.renewals, receiver.losses, receiver.next) == ([], 0, {"p": receiver.count})


async def test_receiver_that_publishes() -> None:
    """A batch that the receiver publishes while it accepts another batch has the next numbers."""
    bus = MemoryBus("p")

    class Echo(Receiver):
        def receive(self, body: Body) -> None:
            super().receive(body)
            if self.count < 4:
                bus.publish(lines(b"echo"))

    receiver = Echo()
    await bus.open(receiver)
    bus.publish(lines(b"a", b"b"))
    assert [(body.first, *body.batch.messages) for body in receiver.bodies] == [(0, b"a", b"b"), (2, b"echo"), (3, b"echo")]


async def test_publish_without_a_receiver() -> None:
    """Before `open` and after `close` the bus accepts a batch and counts it, but keeps nothing for a later receiver."""
    bus, one, other = MemoryBus("p"), Receiver(), Receiver()
    bus.publish(lines(b"early", b"early"))
    await bus.open(one)
    bus.publish(lines(b"a"))
    await bus.close(0)
    bus.publish(lines(b"late"))
    await bus.open(other)
    bus.publish(lines(b"b"))
    assert one.bodies == [Body(lines(b"a"), "p", 2)]
    assert other.bodies == [Body(lines(b"b"), "p", 4)]


@pytest.mark.parametrize("seconds", [0, math.inf])
async def test_close(seconds: float) -> None:
    """`close` returns at once, whatever the timeout, also while the bus is paused; a second `close` does nothing."""
    bus, receiver = MemoryBus("p"), Receiver()
    await bus.close(seconds)
    await bus.open(receiver)
    bus.pause()
    await bus.close(seconds)
    await bus.close(seconds)
    assert receiver == Receiver(connects=[True])


def test_backpressure() -> None:
    """A full receiver pauses the publisher, and resumes it, any number of times."""
    bus, source = MemoryBus("p"), Memory()
    bus.source = source
    bus.pause()
    bus.pause()
    assert source.paused
    bus.resume()
    bus.resume()
    assert not source.paused


async def test_publish_while_paused() -> None:
    """The bus delivers a batch at once, even if it arrives after the pause of the publisher."""
    bus, receiver = MemoryBus("p"), Receiver()
    bus.source = source = Memory()
    await bus.open(receiver)
    bus.pause()
    bus.publish(lines(b"a"))
    assert (source.paused, receiver.count) == (True, 1)


def test_new_source() -> None:
    """The bus pauses the source that it has now, not an earlier one; without a source it does nothing."""
    bus, earlier, later = MemoryBus("p"), Memory(), Memory()
    bus.pause()
    bus.resume()
    bus.source = earlier
    bus.source = later
    bus.pause()
    assert (earlier.paused, later.paused) == (False, True)


async def test_alarm() -> None:
    """No broker blocks the publisher: the bus never has an alarm, also while it is paused."""
    bus = MemoryBus("p")
    await bus.open(Receiver())
    bus.pause()
    assert bus.alarm == ""
