"""A stream that is deleted and declared again is a new stream, even with the same bodies at the same offsets.

Positions in the old stream are not valid in the new one.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import pytest
from aiormq.abc import AbstractChannel

from tests.bus.node import Exchange, Node, Viewer, until
from tests.support.amqp import amqp_link
from tests.support.rabbit import Broker, bro_publish
from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.rabbitmq.link import Link
from wsbridge.bus.rabbitmq.tuning import Tuning
from wsbridge.channel.ring import Join

pytestmark = pytest.mark.usefixtures("clean")

SAME = "21.5"
TUNING = Tuning(max_pause=0.2, probe_timeout=0.5)


@pytest.fixture
def exchange(broker: Broker) -> Exchange:
    return Exchange(f"again-{secrets.token_hex(4)}", broker.url, {"replay": True}, TUNING)


class Counter(Viewer):
    """A viewer of messages with identical text."""

    def _message(self, message: str) -> None:
        self.seen[message] += 1

    @property
    def is_told(self) -> bool:
        return self.renewals + self.total_lost > 0


async def same(exchange: Exchange, count: int) -> None:
    """Publish the same message `count` times, as an external publisher does."""
    for _ in range(count):
        await bro_publish(exchange.url, exchange.name, SAME)


async def has(node: Node, count: int) -> None:
    await until(lambda: node.fanout.channel.end == count, lambda: f"{count} messages; {node.fanout.channel.end} arrived")


@asynccontextmanager
async def by_hand(exchange: Exchange) -> AsyncIterator[AbstractChannel]:
    """An AMQP channel for changes outside of wsbridge."""
    connection = await aiormq.connect(exchange.url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def delete(exchange: Exchange) -> None:
    async with by_hand(exchange) as channel:
        await channel.queue_delete(f"wsbridge.{exchange.name}")


async def make_by_hand(exchange: Exchange) -> None:
    """Declare and bind the stream as another program may, without an identity."""
    async with by_hand(exchange) as channel:
        await channel.exchange_declare(exchange.name, exchange_type="fanout")
        arguments = {"x-queue-type": "stream", "x-max-length-bytes": 256 << 20, "x-stream-max-segment-size-bytes": TUNING.segment_bytes}
        await channel.queue_declare(f"wsbridge.{exchange.name}", durable=True, arguments=arguments)
        await channel.queue_bind(f"wsbridge.{exchange.name}", exchange.name)


@pytest.mark.parametrize("after", [7, 10, 17])
async def test_made_again_by_a_node(exchange: Exchange, after: int) -> None:
    """A node declares its stream again.

    Viewers that return with an old position, to any node, receive notice of a loss and all messages.
    """
    async with exchange.node("a") as a:
        viewers = [Counter().join(a.fanout), Counter().join(a.fanout)]
        await same(exchange, 10)
        for viewer in viewers:
            await until(lambda viewer=viewer: viewer.seen[SAME] == 10, "the published messages")
            viewer.leave()
        await delete(exchange)
        await until(lambda: a.metrics.bus_renewals == 1 and a.fanout.is_connected, "the new stream")
        await same(exchange, after)
        await has(a, after)
        async with exchange.node("b") as b:
            await has(b, after)
            for viewer, node in zip(viewers, (a, b), strict=True):
                viewer.join(node.fanout)
                await until(lambda viewer=viewer: viewer.is_told, "the notice of the loss")
                assert viewer.seen[SAME] == 10 + after


@pytest.mark.parametrize("is_by_hand", [(False, False), (False, True), (True, False), (True, True)])
async def test_made_again_without_a_node(exchange: Exchange, is_by_hand: tuple[bool, bool]) -> None:
    """If the stream is declared again while no node runs, the next node rejects old positions."""
    viewers = [Counter(), Counter()]
    for is_again, made_by_hand in enumerate(is_by_hand):
        if is_again:
            await delete(exchange)
        if made_by_hand:
            await make_by_hand(exchange)
        async with exchange.node("a") as a:
            if not is_again:
                # One viewer has a position before the first message, the other viewer a position after it.
                viewers[0].join(a.fanout).leave()
                viewers[1].join(a.fanout)
            await same(exchange, 17 if is_again else 10)
            await has(a, 17 if is_again else 10)
            if is_again:
                for viewer in viewers:
                    viewer.join(a.fanout)
            await until(lambda is_again=is_again: viewers[1].is_told if is_again else viewers[1].seen[SAME] == 10, "the published messages")
            viewers[1].leave()
    for viewer in viewers:
        assert viewer.is_told, f"an unreported loss: {viewer}"


async def test_same_stream(exchange: Exchange) -> None:
    """A position in a stream is valid on every node of the stream, at any time, even among identical messages."""
    viewer, early = Counter(), Counter()
    async with exchange.node("a") as a:
        early.join(a.fanout).leave()
        viewer.join(a.fanout)
        await same(exchange, 5)
        await until(lambda: viewer.seen[SAME] == 5, "the published messages")
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
    """A node that reconnects continues in the same stream, even if the last message came from an external publisher."""
    async with amqp_link(broker.port) as link, exchange.node("a", url=link.url) as a:
        viewer = Counter().join(a.fanout)
        await same(exchange, 5)
        await until(lambda: viewer.seen[SAME] == 5, "the published messages")
        link.cut()
        await until(lambda: a.metrics.broker_reconnects == 1 and a.fanout.is_connected, "the reconnect")
        await same(exchange, 5)
        await until(lambda: viewer.seen[SAME] == 10, "the published messages")
        assert not viewer.is_told


async def test_own_messages_in_a_stream_without_identity(exchange: Exchange) -> None:
    """In a stream without an identity, the numbers of wsbridge's own messages identify them: their positions are valid on every node."""
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
    """All links find the same identity, and a stream that is declared again has a new one."""

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
    """If a stream is declared again before a node has read from it, an old position still results in notice of a loss."""
    async with amqp_link(broker.port) as link, exchange.node("a", url=link.url) as a:
        viewer = Counter().join(a.fanout)
        link.refuses = True
        link.cut()
        await until(lambda: not a.fanout.is_connected, "the report that the broker is unreachable")
        await same(exchange, 3)
        await delete(exchange)
        link.refuses = False
        await until(lambda: a.fanout.is_connected, "the reconnect")
        await same(exchange, 3)
        await until(lambda: viewer.seen[SAME] == 3, "the published messages")
        assert viewer.is_told
