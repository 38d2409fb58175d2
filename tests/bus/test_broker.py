"""The broker for tests: it shares no state, its data survives a kill, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiormq
import pytest
from aiormq.abc import AbstractChannel, ArgumentsType, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity

from tests.bus.conftest import PrivateBroker
from tests.support.client import DEADLINE
from tests.support.deadline import scaled
from tests.support.proc import nothing_left
from tests.support.rabbit import Broker
from tests.support.server import children, descendants, free_port, is_alive, wait_until

STREAM: ArgumentsType = {"x-queue-type": "stream"}


@asynccontextmanager
async def channel_to(broker: Broker) -> AsyncIterator[AbstractChannel]:
    connection = await aiormq.connect(broker.url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def test_two_brokers_run_at_once(broker: Broker, private_broker: PrivateBroker) -> None:
    """A queue of one broker is unknown to another broker on the same machine, also according to rabbitmqctl."""
    other = private_broker()
    async with channel_to(other) as channel:
        await channel.queue_declare("only there", durable=True)
        assert other.queues() == other.ctl("list_queues", "--no-table-headers", "name").splitlines() == ["only there"]
        assert "only there" not in broker.queues()


async def test_confirmed_messages_survive_a_kill(private_broker: PrivateBroker) -> None:
    """After a KILL and a new start at the same address, a stream holds each confirmed message."""
    broker = private_broker()
    async with channel_to(broker) as channel:
        await channel.queue_declare("stream", durable=True, arguments=STREAM)
        for number in range(10):
            await channel.basic_publish(b"%d" % number, routing_key="stream")
    address = broker.url
    broker.kill()
    broker.start()
    assert broker.url == address
    wait_until(lambda: broker.queues() == ["stream"], "the stream after a start of the broker")
    assert await first_of_stream(broker, 10) == [b"%d" % number for number in range(10)]


async def first_of_stream(broker: Broker, count: int) -> list[bytes]:
    """Return the first messages of the stream. Wait for it: shortly after a start, it may not be available."""
    bodies: asyncio.Queue[bytes] = asyncio.Queue()

    async def keep(message: DeliveredMessage) -> None:
        bodies.put_nowait(message.body)

    async with asyncio.timeout(scaled(DEADLINE)):
        while True:
            with suppress(ChannelNotFoundEntity):
                async with channel_to(broker) as channel:
                    await channel.basic_qos(prefetch_count=count)
                    await channel.basic_consume("stream", keep, arguments={"x-stream-offset": "first"})
                    return [await bodies.get() for _ in range(count)]


@pytest.mark.parametrize("end", ["close", "fail"])
def test_nothing_is_left(end: str) -> None:
    """A broker leaves no process, no descriptor and no file when it closes or when its test fails."""
    with nothing_left():
        before = set(children(os.getpid()))
        try:
            with Broker() as broker:
                started = [pid for child in set(children(os.getpid())) - before for pid in (child, *descendants(child))]
                home = broker.home
                broker.ctl("status")
                assert {broker.pid, *descendants(broker.pid)} < set(started)
                if end == "fail":
                    raise InterruptedError
        except InterruptedError:
            pass
        assert len(started) > 4
        assert not any(map(is_alive, started))
        assert not home.exists()


def test_ports_are_unique() -> None:
    """A broker reserves four different ports before it listens on any of them."""
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == 500
