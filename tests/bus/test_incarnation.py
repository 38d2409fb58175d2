"""A stream that is deleted and made again is another one, though it hold the same at the same offsets: no position of before is good."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import pytest
from aiormq.abc import AbstractChannel

from tests.bus.node import Exchange, Node, Viewer, nothing_left, until
from tests.support.amqp import amqp_link
from tests.support.rabbit import Broker, bro_publish
from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.rabbitmq import stream as streams
from wsbridge.bus.rabbitmq import topology
from wsbridge.bus.rabbitmq.connection import Link
from wsbridge.channel.ring import Join
from wsbridge.rules import backoff

SAME = "21.5"


@pytest.fixture(autouse=True)
async def clean(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Nothing is left behind; a stream that holds nothing is soon taken for empty, and nobody waits for long."""
    monkeypatch.setattr(streams, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(backoff, "MAX_PAUSE", 0.2)
    async with nothing_left():
        yield


@pytest.fixture
def exchange(broker: Broker) -> Exchange:
    return Exchange(f"again-{secrets.token_hex(4)}", broker.url, {"replay": True})


class Counter(Viewer):
    """A viewer of messages that are all the same."""

    def _message(self, message: str) -> None:
        self.seen[message] += 1

    @property
    def is_told(self) -> bool:
        return self.renewals + self.total_lost > 0


async def same(exchange: Exchange, count: int) -> None:
    """Publish the same as strangers do, so many times."""
    for _ in range(count):
        await bro_publish(exchange.url, exchange.name, SAME)


async def has(node: Node, count: int) -> None:
    await until(lambda: node.fanout.channel.end == count, lambda: f"{count} messages; {node.fanout.channel.end} came")


@asynccontextmanager
async def by_hand(exchange: Exchange) -> AsyncIterator[AbstractChannel]:
    """A channel of somebody who does something by hand."""
    connection = await aiormq.connect(exchange.url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def delete(exchange: Exchange) -> None:
    async with by_hand(exchange) as channel:
        await channel.queue_delete(f"wsbridge.{exchange.name}")


async def make_by_hand(exchange: Exchange) -> None:
    """Declare and bind the stream as anybody may, without an identity."""
    async with by_hand(exchange) as channel:
        await channel.exchange_declare(exchange.name, exchange_type="fanout")
        arguments = {"x-queue-type": "stream", "x-max-length-bytes": 256 << 20, "x-stream-max-segment-size-bytes": topology.SEGMENT_BYTES}
        await channel.queue_declare(f"wsbridge.{exchange.name}", durable=True, arguments=arguments)
        await channel.queue_bind(f"wsbridge.{exchange.name}", exchange.name)


@pytest.mark.parametrize("after", [7, 10, 17])
async def test_made_again_by_a_node(exchange: Exchange, after: int) -> None:
    """A node makes its stream again; who comes back to it, or to another, with a position of before is told of a loss, and gets all."""
    async with exchange.node("a") as a:
        viewers = [Counter().join(a.fanout), Counter().join(a.fanout)]
        await same(exchange, 10)
        for viewer in viewers:
            await until(lambda viewer=viewer: viewer.seen[SAME] == 10, "what was published")
            viewer.leave()
        await delete(exchange)
        await until(lambda: a.metrics.bus_renewals == 1 and a.fanout.is_connected, "the stream to be made again")
        await same(exchange, after)
        await has(a, after)
        async with exchange.node("b") as b:
            await has(b, after)
            for viewer, node in zip(viewers, (a, b), strict=True):
                viewer.join(node.fanout)
                await until(lambda viewer=viewer: viewer.is_told, "word of the loss")
                assert viewer.seen[SAME] == 10 + after


@pytest.mark.parametrize("is_by_hand", [(False, False), (False, True), (True, False), (True, True)])
async def test_made_again_while_nobody_is_there(exchange: Exchange, is_by_hand: tuple[bool, bool]) -> None:
    """The stream is made again while no node runs, by a node or by hand: the next node takes no position of before for one of its own."""
    viewers = [Counter(), Counter()]
    for is_again, made_by_hand in enumerate(is_by_hand):
        if is_again:
            await delete(exchange)
        if made_by_hand:
            await make_by_hand(exchange)
        async with exchange.node("a") as a:
            if not is_again:
                # One has a position of before the first message, the other one behind it.
                viewers[0].join(a.fanout).leave()
                viewers[1].join(a.fanout)
            await same(exchange, 17 if is_again else 10)
            await has(a, 17 if is_again else 10)
            if is_again:
                for viewer in viewers:
                    viewer.join(a.fanout)
            await until(lambda is_again=is_again: viewers[1].is_told if is_again else viewers[1].seen[SAME] == 10, "what was published")
            viewers[1].leave()
    for viewer in viewers:
        assert viewer.is_told, f"a loss in silence: {viewer}"


async def test_the_same_stream(exchange: Exchange) -> None:
    """Positions of one and the same stream are good on every node and at every time, also among messages that are all the same."""
    viewer, early = Counter(), Counter()
    async with exchange.node("a") as a:
        early.join(a.fanout).leave()
        viewer.join(a.fanout)
        await same(exchange, 5)
        await until(lambda: viewer.seen[SAME] == 5, "what was published")
        viewer.leave()
        async with exchange.node("b") as b:
            await same(exchange, 5)
            await has(b, 10)
            viewer.join(b.fanout)
            assert viewer.seen[SAME] == 10
            viewer.leave()
            early.join(b.fanout)
            assert early.seen[SAME] == 10
            early.leave()
    async with exchange.node("c") as c:
        await same(exchange, 5)
        await has(c, 15)
        viewer.join(c.fanout)
        assert (viewer.seen[SAME], viewer.is_told, early.is_told) == (15, False, False)


async def test_same_stream_after_a_break(exchange: Exchange, broker: Broker) -> None:
    """A node that loses its link reads on in the same stream, also where the last message was a stranger's."""
    async with amqp_link(broker.port) as link, exchange.node("a", url=link.url) as a:
        viewer = Counter().join(a.fanout)
        await same(exchange, 5)
        await until(lambda: viewer.seen[SAME] == 5, "what was published")
        link.cut()
        await until(lambda: a.metrics.broker_reconnects == 1 and a.fanout.is_connected, "the way back")
        await same(exchange, 5)
        await until(lambda: viewer.seen[SAME] == 10, "what was published")
        assert not viewer.is_told


async def test_our_own_in_a_stream_without_identity(exchange: Exchange) -> None:
    """In a stream that something else has declared, our own messages are known by their numbers: their positions are good everywhere."""
    await make_by_hand(exchange)
    async with exchange.nodes("a", "b") as (a, b):
        viewer = a.view(Join.HISTORY)
        a.publish(5)
        await viewer.has_all("a", 5)
        viewer.leave()
        await has(b, 5)
        viewer.join(b.fanout)
        a.publish(5)
        await viewer.has_all("a", 10)
        assert (viewer.seen["a"], viewer.renewals, viewer.total_lost) == (10, 0, 0)


async def test_identity(exchange: Exchange) -> None:
    """All links find the same identity, and none of them makes a stream again under the one of before."""

    settings = ExchangeSettings((exchange.url,), replay=True)

    async def identity() -> str:
        link = Link(settings, exchange.name, exchange.url)
        try:
            await link.open()
            return await link.identity()
        finally:
            await link.close()

    first = await identity()
    assert first == await identity()
    await delete(exchange)
    assert first != await identity()
    await delete(exchange)
    await make_by_hand(exchange)
    assert await identity() == ""


async def test_made_again_while_idle(exchange: Exchange, broker: Broker) -> None:
    """A stream is made again before a node has had anything of it: a position of before is told of a loss there, too."""
    async with amqp_link(broker.port) as link, exchange.node("a", url=link.url) as a:
        viewer = Counter().join(a.fanout)
        link.refuses = True
        link.cut()
        await until(lambda: not a.fanout.is_connected, "word that the broker is away")
        await same(exchange, 3)
        await delete(exchange)
        link.refuses = False
        await until(lambda: a.fanout.is_connected, "the way back")
        await same(exchange, 3)
        await until(lambda: viewer.seen[SAME] == 3, "what was published")
        assert viewer.is_told
