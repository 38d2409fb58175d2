"""Skipped offsets in a stream: native clients cause them when they store their read position, and they are not a loss."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from tests.bus.node import Exchange, nothing_left, spool, until
from tests.support.amqp import amqp_link
from tests.support.rabbit import Broker
from tests.support.streams import StreamClient
from wsbridge.bus.rabbitmq.tuning import Tuning
from wsbridge.channel.ring import Join

TUNING = Tuning(max_pause=0.2, probe_timeout=0.5)


@pytest.fixture(scope="module")
def stream_broker() -> Iterator[Broker]:
    """A broker that also accepts the stream protocol."""
    with Broker(streams=True) as broker:
        yield broker


@pytest.fixture(autouse=True)
async def clean(stream_broker: Broker) -> AsyncIterator[None]:
    async with nothing_left():
        yield


@pytest.fixture
def exchange(stream_broker: Broker) -> Exchange:
    return Exchange(f"gaps-{secrets.token_hex(4)}", stream_broker.url, {"replay": True}, TUNING)


async def store(broker: Broker, exchange: Exchange, count: int) -> None:
    """Store `count` offsets one by one, as a client may do after each message."""

    def store_all() -> None:
        with StreamClient(broker.stream_port) as client:
            client.store(f"wsbridge.{exchange.name}", secrets.token_hex(4), *range(1, count + 1))

    await asyncio.to_thread(store_all)


async def test_offsets_are_stored(exchange: Exchange, stream_broker: Broker) -> None:
    """If native clients store offsets between messages, no node reports a loss: not a running, a new or a reconnected node."""
    async with amqp_link(stream_broker.port) as link, exchange.node("p", url=link.url) as p:
        viewer, stays = p.view(), p.view()
        for number in range(1, 6):
            p.publish()
            await viewer.has_all("p", number)
            await store(stream_broker, exchange, 1 + number)
        viewer.leave()
        p.publish()
        await stays.has_all("p", 6)
        link.cut()
        await until(lambda: p.metrics.broker_reconnects == 1 and p.fanout.is_connected, "the reconnect")
        await store(stream_broker, exchange, 5)
        p.publish()
        await stays.has_all("p", 7)
        async with exchange.node("v") as v:
            late = v.view(Join.HISTORY)
            await late.has_all("p", 7)
            viewer.join(v.fanout)
            await viewer.has_all("p", 7)
            for one in (viewer, stays, late):
                assert (one.seen["p"], one.renewals, one.total_lost) == (7, 0, 0)
            assert p.metrics.bus_renewals == v.metrics.bus_renewals == 0


async def test_history_among_stored_offsets(exchange: Exchange, stream_broker: Broker) -> None:
    """A history counts messages, not offsets, and a node also recognizes repeats from before it."""
    async with exchange.node("p") as p:
        viewer = p.view()
        for number in range(30):
            p.publish(1, "\n")
            await viewer.has_all("p", number + 1)
            if number in (10, 20, 29):
                await store(stream_broker, exchange, 40)
        async with exchange.node("v", bus_history=25) as v:
            late = v.view(Join.HISTORY)
            await late.has_all("p", 30)
            assert (late.seen["p"], late.renewals, late.total_lost) == (25, 0, 0)


async def test_only_stored_offsets(exchange: Exchange, stream_broker: Broker) -> None:
    """A stream with only stored offsets is empty; its first message arrives."""
    async with exchange.node("p") as p:
        await store(stream_broker, exchange, 10)
        async with exchange.node("v") as v:
            viewers = [p.view(), v.view()]
            p.publish()
            for viewer in viewers:
                await viewer.has_all("p", 1)
                assert (viewer.renewals, viewer.total_lost) == (0, 0)


async def test_loss_among_gaps(exchange: Exchange, stream_broker: Broker) -> None:
    """If a stream drops messages that a slow node has not read, the node reports the gap as a loss."""
    exchange.tuning = replace(TUNING, segment_bytes=20_000)
    async with exchange.node("p", replay_bytes=100_000) as p, exchange.node("v", replay_bytes=100_000) as v:
        viewer = v.view()
        v.bus.pause()
        for _ in range(600):
            p.publish(1, " \n" + "x" * 5000)
            if spool(p.bus).bytes > 1 << 20:
                await p.published_all()
        await p.published_all()
        v.bus.resume()
        await until(lambda: viewer.last.get("p") == 599, lambda: f"the last message: {viewer}")
        assert viewer.renewals > 0
        assert viewer.seen["p"] < 600
