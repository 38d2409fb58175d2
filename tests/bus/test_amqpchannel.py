"""An AMQP channel of a shared connection: frames in, frames out, without a broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aio_pika import exceptions
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from wsbridge.bus.rabbitmq.amqpchannel import AmqpChannel, Properties

FRAME_BYTES = 64


class Wire:
    """A connection that records the frames sent."""

    def __init__(self) -> None:
        self.frame_bytes = FRAME_BYTES
        self.channels: dict[int, AmqpChannel] = {}
        self.turns = 0
        self._data = b""

    def write(self, data: bytes) -> None:
        self._data += data

    def route(self, channel: AmqpChannel) -> None:
        self.channels[channel.number] = channel

    async def turn(self) -> None:
        self.turns += 1

    def sent(self) -> list[Any]:
        """Return the frames sent since the last call."""
        found, data = [], self._data
        while data:
            size, _, value = frame.unmarshal(data)
            assert size <= FRAME_BYTES or not isinstance(value, ContentBody)
            found.append(value)
            data = data[size:]
        self._data = b""
        return found

    def names(self) -> list[str]:
        return [str(value.name) for value in self.sent()]


class Broker:
    """The broker's side: an open channel 7, which records deliveries and errors."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.failures: list[str] = []
        self.taken: list[tuple[int, bytes]] = []
        self.channel = AmqpChannel(self.wire, 7, failed=self.failures.append)

    def take(self, tag: int, properties: Properties, data: bytes) -> None:
        self.taken.append((tag, data))

    async def sends(self, *values: Any) -> None:
        """Pass frames to the channel as aiormq does: it first removes a closed channel from its table."""
        for value in values:
            channel = self.wire.channels.get(7)
            if isinstance(value, commands.Channel.Close | commands.Channel.CloseOk):
                self.wire.channels.pop(7, None)
            if channel is not None:
                await channel.frames.put((0, value))

    async def delivers(self, tag: int, *parts: bytes, **properties: Any) -> None:
        head = ContentHeader(body_size=sum(map(len, parts)), properties=Properties(**properties))
        await self.sends(commands.Basic.Deliver("c", tag, False, "x", ""), head, *map(ContentBody, parts))

    async def consumes(self) -> None:
        consuming = asyncio.create_task(self.channel.consume("q", self.take, prefetch=5))
        await asyncio.sleep(0)
        await self.sends(commands.Basic.QosOk())
        await asyncio.sleep(0)
        await self.sends(commands.Basic.ConsumeOk("c"))
        assert await consuming == "c"
        assert self.wire.names() == ["Basic.Qos", "Basic.Consume"]

    def publishes(self, number: int, data: bytes = b"x", *, mandatory: bool = False) -> asyncio.Future[Any]:
        return self.channel.publish("x", data, Properties(message_id=str(number)), mandatory=mandatory)


@pytest.fixture
async def broker() -> Broker:
    return Broker()


async def test_requests_are_answered_in_order(broker: Broker) -> None:
    """Requests sent at once get their answers in the order of the requests."""
    declare, bind = asyncio.create_task(broker.channel.declare_queue("")), asyncio.create_task(broker.channel.bind_queue("q", "x", ""))
    await asyncio.sleep(0)
    assert broker.wire.names() == ["Queue.Declare", "Queue.Bind"]
    assert broker.channel.is_asking
    await broker.sends(commands.Queue.DeclareOk("amq.gen-1", 0, 0), commands.Queue.BindOk())
    assert await declare == "amq.gen-1"
    await bind
    assert not broker.channel.is_asking


async def test_cancelled_request(broker: Broker) -> None:
    """A cancelled request closes nothing; its answer does not reach the next request."""
    declare = asyncio.create_task(broker.channel.declare_queue(""))
    await asyncio.sleep(0)
    declare.cancel()
    await asyncio.wait((declare,))
    assert not broker.channel.is_asking
    other = asyncio.create_task(broker.channel.declare_queue(""))
    await asyncio.sleep(0)
    await broker.sends(commands.Queue.DeclareOk("one", 0, 0), commands.Queue.DeclareOk("two", 0, 0))
    assert await other == "two"
    assert broker.wire.names() == ["Queue.Declare", "Queue.Declare"]
    assert broker.channel.is_open


async def test_wrong_answer(broker: Broker) -> None:
    """An answer to a different request ends the channel: it shows that an earlier answer was lost."""
    declare = asyncio.create_task(broker.channel.declare_queue(""))
    await asyncio.sleep(0)
    await broker.sends(commands.Queue.BindOk())
    with pytest.raises(exceptions.InvalidFrameError):
        await declare
    assert broker.failures == ["the broker answers Queue.Declare with Queue.BindOk"]
    assert broker.wire.names() == ["Queue.Declare", "Channel.Close"]


async def test_deliveries(broker: Broker) -> None:
    """The channel delivers a complete body, however many frames carry it, and an empty body too."""
    await broker.consumes()
    await broker.delivers(1, b"one")
    await broker.delivers(2)
    await broker.delivers(3, b"th", b"re", b"e")
    assert broker.taken == [(1, b"one"), (2, b""), (3, b"three")]
    broker.channel.acknowledge(3)
    (ack,) = broker.wire.sent()
    assert (ack.delivery_tag, ack.multiple) == (3, True)
    assert broker.wire.turns > 8


async def test_drain(broker: Broker) -> None:
    """The answer to a drain arrives after all deliveries that the broker sent before it."""
    await broker.consumes()
    before = broker.channel.delivered_at
    draining = asyncio.create_task(broker.channel.drain())
    await asyncio.sleep(0)
    (flow,) = broker.wire.sent()
    assert (flow.name, flow.active) == ("Channel.Flow", True)
    await broker.delivers(1, b"one")
    assert not draining.done()
    await broker.sends(commands.Channel.FlowOk(True))
    await draining
    assert before < broker.channel.delivered_at <= broker.channel.received_at


async def test_error_of_a_consumer(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in the consumer does not reach the connection; the next delivery arrives."""
    await broker.consumes()
    taken = broker.taken
    broker.taken = None  # type: ignore[assignment]
    await broker.delivers(1, b"one")
    broker.taken = taken
    await broker.delivers(2, b"two")
    assert taken == [(2, b"two")]
    assert "internal error in a consumer" in caplog.text


async def test_consumer_is_cancelled(broker: Broker) -> None:
    """When the broker cancels a consumer because its queue was deleted, the channel reports it once."""
    await broker.consumes()
    for _ in range(2):
        await broker.sends(commands.Basic.Cancel("c", True))
    assert broker.failures == ["the broker cancelled the consumer"]


async def test_publish(broker: Broker) -> None:
    """The channel sends a body at once, in frames that the broker accepts; the publish ends when the broker confirms it."""
    outcome = broker.publishes(1, b"x" * 100)
    method, head, *bodies = broker.wire.sent()
    assert (method.name, head.body_size, head.properties.message_id) == ("Basic.Publish", 100, "1")
    assert [len(part.value) for part in bodies] == [56, 44]
    empty = broker.publishes(2, b"")
    assert len(broker.wire.sent()) == 2
    assert not outcome.done()
    await broker.sends(commands.Basic.Ack(2))
    assert (outcome.done(), empty.done()) == (False, True)
    await broker.sends(commands.Basic.Nack(1))
    assert isinstance(await outcome, commands.Basic.Nack)


async def test_confirm_of_several(broker: Broker) -> None:
    """A confirm with `multiple` confirms all publishes up to its tag."""
    outcomes = [broker.publishes(number) for number in range(4)]
    await broker.sends(commands.Basic.Ack(3, multiple=True))
    assert [outcome.done() for outcome in outcomes] == [True, True, True, False]


async def test_returned(broker: Broker) -> None:
    """The broker returns a mandatory body without a queue and then confirms it: the return decides the result."""
    outcomes = [broker.publishes(number, mandatory=True) for number in range(2)]
    head = ContentHeader(body_size=1, properties=Properties(message_id="1"))
    await broker.sends(commands.Basic.Return(312, "NO_ROUTE", "x", ""), head, ContentBody(b"x"), commands.Basic.Ack(2, multiple=True))
    assert isinstance(await outcomes[0], commands.Basic.Ack)
    assert isinstance(await outcomes[1], commands.Basic.Return)


async def test_closed_by_the_broker(broker: Broker) -> None:
    """When the broker closes the channel, it gets one answer and nothing after it, and everything that waits gets the error."""
    declare = asyncio.create_task(broker.channel.declare_queue("q"))
    await asyncio.sleep(0)
    outcome = broker.publishes(1)
    broker.wire.sent()
    await broker.sends(commands.Channel.Close(406, "PRECONDITION_FAILED - size", 60, 40))
    for waiting in (declare, outcome):
        with pytest.raises(exceptions.ChannelPreconditionFailed, match="size"):
            await waiting
    with pytest.raises(exceptions.ChannelPreconditionFailed):
        broker.publishes(2)
    broker.channel.acknowledge(1)
    broker.channel.delete_queue("q")
    broker.channel.close_nowait()
    await broker.channel.close()
    assert broker.wire.names() == ["Channel.CloseOk"]
    assert broker.failures == ["the broker closed the channel: PRECONDITION_FAILED - size"]
    assert broker.wire.channels == {}


@pytest.mark.parametrize(
    ("code", "kind"),
    [(403, exceptions.ChannelClosed), (404, exceptions.ChannelNotFoundEntity), (406, exceptions.ChannelPreconditionFailed)],
)
async def test_errors(broker: Broker, code: int, kind: type[Exception]) -> None:
    """The reply code determines the exception."""
    await broker.sends(commands.Channel.Close(code, "why", 0, 0))
    with pytest.raises(kind, match=r"^why$") as raised:
        await broker.channel.open()
    assert type(raised.value) is kind


async def test_close(broker: Broker) -> None:
    """The channel closes once and ignores later frames; its number stays in use until the broker answers."""
    await broker.consumes()
    closing = asyncio.create_task(broker.channel.close())
    await asyncio.sleep(0)
    broker.channel.close_nowait()
    await broker.delivers(1, b"late")
    await broker.sends(commands.Basic.Cancel("c", True))
    assert not closing.done()
    assert list(broker.wire.channels) == [7]
    await broker.sends(commands.Channel.CloseOk())
    await closing
    assert broker.wire.names() == ["Channel.Close"]
    assert (broker.taken, broker.failures, broker.wire.channels) == ([], [], {})


async def test_both_close_at_once(broker: Broker) -> None:
    """If both sides close the channel at the same time, each answers. The number stays in use until both answers have arrived."""
    broker.channel.close_nowait()
    await broker.sends(commands.Channel.Close(404, "NOT_FOUND", 0, 0))
    assert broker.wire.names() == ["Channel.Close", "Channel.CloseOk"]
    assert list(broker.wire.channels) == [7]
    await broker.sends(commands.Channel.CloseOk())
    assert (broker.wire.channels, broker.failures) == ({}, [])


async def test_end_of_the_connection(broker: Broker) -> None:
    """When the connection ends, everything that waits gets its error once, and a close returns at once."""
    outcome = broker.publishes(1)
    closing = AmqpChannel(broker.wire, 8)
    closing.close_nowait()
    lost = exceptions.AMQPConnectionError("lost")
    for channel in (broker.channel, closing):
        channel.connection_lost(lost)
        await channel.close()
    with pytest.raises(exceptions.AMQPConnectionError, match="lost"):
        await outcome
    with pytest.raises(exceptions.AMQPConnectionError, match="lost"):
        await broker.channel.declare_queue("q")
    assert broker.failures == []
