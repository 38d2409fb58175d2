"""Failures of a real broker and of the network to it. Viewers receive a notice of each loss; with replay, no confirmed message is lost.

Tests that stop the broker test a channel without replay and a channel with replay side by side, so that one stop serves both.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import aiormq
import pytest
from aiormq.abc import ChannelFrame
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from tests.bus.node import QUICK, Exchange, Node, Receiver, SlowLink, Viewer, nothing_left, publish_until_received, spool, until
from tests.support.deadline import scaled
from tests.support.rabbit import Broker, Proxy
from wsbridge.bus.rabbitmq import link as links
from wsbridge.bus.rabbitmq.tuning import SEGMENT_BYTES, Tuning
from wsbridge.channel.ring import Join
from wsbridge.errors import BusError
from wsbridge.flow import Batch, Kind, Memory
from wsbridge.metrics import Metrics

NEVER_MS = 1_800_000


@pytest.fixture(scope="module")
def shaken() -> Iterator[Broker]:
    """A broker that the tests of this file may stop or change, if they leave it running and in its original state."""
    with Broker(consumer_timeout_ms=NEVER_MS) as broker:
        yield broker


@pytest.fixture(autouse=True)
async def clean(shaken: Broker) -> AsyncIterator[None]:
    """Check that each test cleans up."""
    async with nothing_left():
        yield


@dataclass
class Stage:
    """A channel with two nodes, a publisher and a node with a viewer, each over a link that the test can break."""

    exchange: Exchange
    producer: Node
    node: Node
    viewer: Viewer
    to_producer: Proxy
    to_node: Proxy
    stack: AsyncExitStack

    @property
    def replays(self) -> bool:
        return self.exchange.replays

    @property
    def stream(self) -> str:
        return f"wsbridge.{self.exchange.name}"

    async def another(self, name: str, **options: Any) -> Node:
        """Add a node that connects without a proxy."""
        return await self.stack.enter_async_context(self.exchange.node(name, **options))

    async def has_all(self) -> None:
        """Wait until the viewer has the producer's last message."""
        await publish_until_received([self.producer], [self.viewer])

    def lost_nothing(self) -> None:
        """Check that the viewer received each message once, and no notice of a loss."""
        viewer = self.viewer
        assert (viewer.total_lost, viewer.renewals) == (0, 0)
        assert viewer.seen["p"] == self.producer.published
        for node in (self.producer, self.node):
            assert (node.metrics.bus_lost, node.metrics.bus_renewals, node.metrics.bus_unconfirmed) == (0, 0, 0)

    async def away(self, *, proxy: Proxy) -> None:
        """Cut a link, and refuse new connections over it."""
        await asyncio.to_thread(proxy.refuse)
        await asyncio.to_thread(proxy.cut)


@asynccontextmanager
async def stage(
    broker: Broker, *, query: str = "", producer: dict[str, Any] | None = None, tuning: Tuning = QUICK, **options: Any
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        exchange = Exchange(f"day-{secrets.token_hex(4)}", broker.url + query, options, tuning)
        proxies = [stack.enter_context(Proxy(("127.0.0.1", broker.port))) for _ in range(2)]
        urls = [f"amqp://guest:guest@127.0.0.1:{proxy.port}/{query}" for proxy in proxies]
        one = await stack.enter_async_context(exchange.node("p", url=urls[0], **producer or {}))
        # A node waits a second for an empty stream.
        one.bus.publish(Batch(Kind.TEXT, [b"first 0"]))
        await one.published_all()
        other = await stack.enter_async_context(exchange.node("v", url=urls[1]))
        viewer = other.view()
        one.publish()
        await viewer.has_all("p", 1)
        yield Stage(exchange, one, other, viewer, *proxies, stack)


@asynccontextmanager
async def stages(broker: Broker, **options: Any) -> AsyncIterator[tuple[Stage, Stage]]:
    """A channel without replay and a channel with replay."""
    async with stage(broker, **options) as plain, stage(broker, replay=True, **options) as replay:
        yield plain, replay


@asynccontextmanager
async def publishing(*stages: Stage, padding: str = "") -> AsyncIterator[None]:
    """Publish continuously on the given stages."""

    async def publish() -> None:
        while True:
            for one in stages:
                one.producer.publish(3, padding)
            await asyncio.sleep(0.002)

    task = asyncio.create_task(publish())
    try:
        for one in stages:
            await has_come(one, 100)
        yield
        for one in stages:
            await has_come(one, 100)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def publishing_continuously(node: Node) -> AsyncIterator[None]:
    """Let a node publish so much that some messages are always unconfirmed."""
    source = Memory()
    node.bus.source = source

    async def publish() -> None:
        while True:
            if not source.paused:
                node.publish(1, " " + "x" * 100_000)
            await asyncio.sleep(0)

    task = asyncio.create_task(publish())
    try:
        yield
    finally:
        task.cancel()


async def has_come(one: Stage, count: int) -> None:
    """Wait until `count` more messages have arrived."""
    goal = one.viewer.seen["p"] + count
    await until(lambda: one.viewer.seen["p"] >= goal, lambda: f"{count} more messages: {one.viewer}, of {one.producer.published}")


# The broker


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_broker_restarts(shaken: Broker, how: str) -> None:
    """When a broker stops and starts again in the middle of a stream, all nodes reconnect and viewers receive both reports.

    With replay, the channel neither loses nor repeats a message. Without replay, viewers receive notice of an unknown loss.
    """
    async with stages(shaken) as (plain, replay), stage(shaken, replay=True, durable=True) as durable:
        every = (plain, replay, durable)
        async with publishing(*every):
            await asyncio.to_thread(shaken.stop if how == "stop" else shaken.kill)
            for one in every:
                await until(lambda one=one: one.viewer.words == ["away"], "the report that the broker is unreachable")
            await asyncio.to_thread(shaken.start)
            for one in every:
                await until(lambda one=one: one.viewer.words[-1] == "here", "the report that the broker is connected again")
        for one in every:
            await one.has_all()
        for one in (replay, durable):
            one.lost_nothing()
        assert plain.viewer.renewals == plain.node.metrics.bus_renewals > 0
        assert plain.viewer.missing <= plain.viewer.lost


async def test_connections_closed(shaken: Broker) -> None:
    """When an administrator closes all connections, wsbridge treats that as a short outage of the broker."""
    async with stages(shaken) as every:
        async with publishing(*every):
            await asyncio.to_thread(shaken.close_connections)
            for one in every:
                await until(lambda one=one: one.viewer.words[-1:] == ["here"], "the report that the broker is connected again")
        for one in every:
            await one.has_all()
        every[1].lost_nothing()
        assert every[0].viewer.renewals > 0


async def test_alarm(shaken: Broker) -> None:
    """In a memory alarm, a full spool pauses the publisher; after the alarm, it continues and nothing is lost."""
    async with stages(shaken, producer={"spool_bytes": 20_000}) as every:
        sources = [Memory(), Memory()]
        for one, source in zip(every, sources, strict=True):
            one.producer.bus.source = source
        await asyncio.to_thread(shaken.alarm, True)
        try:
            for one, source in zip(every, sources, strict=True):
                while not source.paused:
                    one.producer.publish(1, " " + "x" * 100)
                    await asyncio.sleep(0)
                # The connections of both publishers are blocked from here on.
                one.node.publish(10)
                assert one.producer.published < 2000
        finally:
            await asyncio.to_thread(shaken.alarm, False)
        for one, source in zip(every, sources, strict=True):
            await until(lambda source=source: not source.paused, "the resume of the source")
            one.producer.publish()
            await one.viewer.has_all("p", one.producer.published)
            await one.viewer.has_all("v", 10)
            one.lost_nothing()
            assert one.viewer.words == []


async def test_publisher_that_receives_in_an_alarm(shaken: Broker) -> None:
    """In an alarm, the broker does not read a publisher's acknowledgements and stops its deliveries; afterwards all messages arrive."""
    async with stages(shaken) as every:
        await asyncio.to_thread(shaken.alarm, True)
        try:
            for one in every:
                for node in (one.producer, one.node):
                    for _ in range(500):
                        node.publish(1, "\n")
        finally:
            await asyncio.to_thread(shaken.alarm, False)
        for one in every:
            await one.viewer.has_all("p", 501)
            await one.viewer.has_all("v", 500)
            one.lost_nothing()


async def test_late_acknowledgement(shaken: Broker) -> None:
    """A node whose receiver pauses it beyond consumer_timeout loses its AMQP channel, reconnects, and loses its link again.

    Its backlog does not grow meanwhile. Afterwards, every message arrives once with replay; without replay, viewers receive notice of the
    loss.
    """
    await asyncio.to_thread(shaken.eval, "application:set_env(rabbit, consumer_timeout, 1000)")
    try:
        async with stages(shaken) as every:
            for one in every:
                one.node.bus.pause()
                for _ in range(3000):
                    one.producer.publish(1, "\n")
            for one in every:
                await one.producer.published_all()
            for one in every:
                for times in range(2, 6):
                    await until(lambda one=one, times=times: one.to_node.accepted >= times, "the reconnect of the node")
                    await until(lambda one=one: len(one.node.bus._backlog) >= links.PREFETCH, "the prefetched deliveries")
                    await asyncio.to_thread(one.to_node.cut)
                assert len(one.node.bus._backlog) <= 2 * links.PREFETCH + 100, "the backlog has grown"
            for one in every:
                one.node.bus.resume()
                await one.has_all()
            every[1].lost_nothing()
            assert every[0].viewer.renewals > 0
    finally:
        await asyncio.to_thread(shaken.eval, f"application:set_env(rabbit, consumer_timeout, {NEVER_MS})")


async def test_paused_node_publishes(shaken: Broker) -> None:
    """A paused node publishes as before, even after the loss of its link; its backlog does not grow with each reconnect."""
    async with stages(shaken) as every:
        for one in every:
            other = one.producer.view()
            one.node.publish()
            await other.has_all("v", 1)
            one.node.bus.pause()
            for _ in range(1000):
                one.producer.publish(1, "\n")
            await one.producer.published_all()
            await until(lambda one=one: len(one.node.bus._backlog) >= links.PREFETCH, "the prefetched deliveries")
            kept = set()
            for times in range(1, 4):
                await asyncio.to_thread(one.to_node.cut)
                await until(lambda one=one, times=times: one.node.metrics.broker_reconnects == times, "the reconnect of the node")
                one.node.publish()
                await other.has_all("v", 1 + times)
                kept.add(len(one.node.bus._backlog))
            assert len(kept) == 1
            one.node.bus.resume()
            await one.has_all()
            await until(lambda one=one: one.viewer.words == ["away", "here"], "the report that the broker is connected again")
        every[1].lost_nothing()
        assert every[0].viewer.renewals > 0


# The link


@pytest.mark.parametrize("whose", ["node", "producer"])
async def test_link_is_cut(shaken: Broker, whose: str) -> None:
    """A link breaks three times in the middle of a stream: with replay, nothing is lost or repeated.

    Without replay, viewers of the disconnected node receive notice of an unknown loss. Viewers of other nodes receive the exact number of
    its lost messages.
    """
    async with stages(shaken) as every:
        for _ in range(3):
            async with publishing(*every):
                for one in every:
                    await asyncio.to_thread((one.to_node if whose == "node" else one.to_producer).cut)
        for one in every:
            cut = one.node if whose == "node" else one.producer
            await until(lambda cut=cut: cut.metrics.broker_reconnects >= 3 and cut.fanout.is_connected, "three reconnects")
            await one.has_all()
        plain, replay = every
        replay.lost_nothing()
        if whose == "node":
            assert plain.viewer.renewals == plain.node.metrics.bus_renewals > 0
            assert plain.producer.metrics.bus_unconfirmed == 0
        else:
            assert plain.viewer.renewals == 0
            assert plain.viewer.missing == plain.viewer.lost == plain.node.metrics.bus_lost
            assert plain.viewer.lost <= plain.producer.metrics.bus_unconfirmed
            assert plain.viewer.seen["p"] + plain.viewer.lost == plain.producer.published


async def test_link_is_silent(shaken: Broker) -> None:
    """A link that carries nothing in either direction fails its heartbeat; then the node treats it as closed."""
    async with stages(shaken, query="?heartbeat=1") as every:
        async with publishing(*every):
            for one in every:
                await asyncio.to_thread(one.to_node.swallow)
                await asyncio.to_thread(one.to_producer.swallow)
            began = time.monotonic()
            for one in every:
                await until(lambda one=one: one.viewer.words == ["away"], "the report that the broker is unreachable")
                await until(lambda one=one: not one.producer.fanout.is_connected, "the producer to lose its link")
            assert time.monotonic() - began < scaled(20)
            for one in every:
                await asyncio.to_thread(one.to_node.flow)
                await asyncio.to_thread(one.to_producer.flow)
                # Otherwise, a blocked attempt would last until its own deadline.
                await asyncio.to_thread(one.to_node.cut)
                await asyncio.to_thread(one.to_producer.cut)
            for one in every:
                await until(lambda one=one: one.viewer.words[-1] == "here", "the report that the broker is connected again")
        for one in every:
            await one.has_all()
        every[1].lost_nothing()
        assert every[0].viewer.renewals > 0


async def test_slow_link(shaken: Broker) -> None:
    """A node waits for a long history and a long body over a slow link, while bytes arrive, and loses nothing."""
    exchange = Exchange(
        f"day-{secrets.token_hex(4)}", shaken.url, {"replay": True, "timeout": 1.5}, replace(QUICK, history_timeout=1.0, probe_timeout=0.5)
    )
    async with exchange.node("p") as p, SlowLink(("127.0.0.1", shaken.port), 150_000) as slow:
        for _ in range(4):
            p.publish(1, " \n" + "x" * 150_000)
        await p.published_all()
        async with exchange.node("v", url=f"amqp://guest:guest@127.0.0.1:{slow.port}/") as v:
            viewer = v.view(Join.HISTORY)
            await viewer.has_all("p", 4)
            slow.cut()
            await until(lambda: viewer.words == ["away", "here"], "the report that the broker is connected again")
            assert v.metrics.broker_reconnects == 1
            p.publish()
            await viewer.has_all("p", 5)
            assert (viewer.seen["p"], viewer.total_lost, viewer.renewals) == (5, 0, 0)


async def test_busy_node_whose_binding_is_removed(shaken: Broker) -> None:
    """A node restores a binding that an administrator removed, even if it always has unconfirmed messages."""
    async with stage(shaken, tuning=replace(QUICK, check_interval=0.2)) as one, publishing_continuously(one.node):
        exchange = f'rabbit_misc:r(<<"/">>, exchange, <<"{one.exchange.name}">>)'
        for name in await bound_to(shaken, one.exchange.name):
            binding = f'{{binding, {exchange}, <<>>, rabbit_misc:r(<<"/">>, queue, <<"{name}">>), []}}'
            await asyncio.to_thread(shaken.eval, f'rabbit_binding:remove({binding}, <<"guest">>)')
        await publish_until_received([one.producer], [one.viewer])


async def test_stream_without_a_leader(private_broker: Callable[..., Broker]) -> None:
    """If the node that stores a stream is lost, the error names the stream; it does not report a broker without an answer."""
    broker = await asyncio.to_thread(private_broker)
    exchange = Exchange("lost", broker.url, {"replay": True, "timeout": 2.0})
    connection = await aiormq.connect(broker.url)
    channel = await connection.channel()
    arguments = {"x-queue-type": "stream", "x-max-length-bytes": 256 << 20, "x-stream-max-segment-size-bytes": SEGMENT_BYTES}
    await channel.queue_declare("wsbridge.lost", durable=True, arguments=arguments)
    await asyncio.to_thread(broker.kill, at_once=True)
    await until(lambda: connection.is_closed, "the end of the link")
    await asyncio.to_thread(broker.start)
    bus = exchange.bus()
    with pytest.raises(BusError, match="cannot reach the stream of exchange lost"):
        await bus.open(Receiver())


async def test_next_after_a_break(shaken: Broker) -> None:
    """A receiver that begins with the next message gets no earlier message, even if the link fails before the first one."""
    exchange = Exchange(f"day-{secrets.token_hex(4)}", shaken.url, {"replay": True})
    receiver, other = Receiver(), Receiver()
    with Proxy(("127.0.0.1", shaken.port)) as proxy:
        async with exchange.open(other) as publisher:
            publisher.publish(Batch(Kind.TEXT, [b"before"] * 5))
            await other.has(5)
            async with exchange.open(receiver, start="next", url=f"amqp://guest:guest@127.0.0.1:{proxy.port}/"):
                await asyncio.to_thread(proxy.cut)
                await until(lambda: receiver.connects == [True, False, True], "the report that the broker is connected again")
                publisher.publish(Batch(Kind.TEXT, [b"next"]))
                await other.has(6)
                await until(lambda: (Kind.TEXT, b"next") in receiver.messages, "the next message")
                assert receiver.messages == [(Kind.TEXT, b"next")]


async def test_node_is_behind(shaken: Broker) -> None:
    """A viewer may bring a position ahead of its node, whose link is down. It receives the messages after that position, once."""
    async with stage(shaken, replay=True) as one:
        own = one.producer.view()
        one.producer.publish(10)
        for viewer in (one.viewer, own):
            await viewer.has_all("p", 11)
        await one.away(proxy=one.to_node)
        await until(lambda: one.viewer.words == ["away"], "the report that the broker is unreachable")
        ahead = one.producer.view()
        one.producer.publish(10)
        await ahead.has_all("p", 21)
        ahead.leave()
        ahead.join(one.node.fanout)
        await asyncio.to_thread(one.to_node.accept)
        await one.has_all()
        await ahead.has_all("p", one.producer.published)
        assert (ahead.renewals, ahead.total_lost) == (0, 0)
        assert ahead.seen["p"] == one.producer.published - 11


class Clock:
    """A loop whose time the test sets, and which counts the reads of its time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0

    def time(self) -> float:
        self.asked += 1
        return self.now


class Silent:
    """A link whose broker never confirms a message."""

    async def publish(self, packed: object, producer: str) -> None:
        await asyncio.Event().wait()


async def test_confirm_timeout_begins_with_a_publish(caplog: pytest.LogCaptureFixture) -> None:
    """The timeout of a confirm begins with the publish, not with the last frame of the broker."""
    bus: Any = Exchange("silent", "amqp://nowhere/", tuning=Tuning(confirm_silence=0.01)).bus()
    clock, link = Clock(), Silent()
    bus._loop = clock
    async with asyncio.TaskGroup() as group:
        working = [group.create_task(bus._feed(link, group)), group.create_task(bus._watch_feeding())]
        clock.now += 100
        bus.publish(Batch(Kind.TEXT, [b"x"]))
        await until(lambda: spool(bus).under_way, "the body to be sent")
        seen = clock.asked
        await until(lambda: clock.asked >= seen + 5, "five checks")
        assert caplog.text == ""
        clock.now += 1
        await until(lambda: "is not confirming messages" in caplog.text, "the log line that the broker confirms no messages")
        for task in working:
            task.cancel()
        spool(bus).abandon()
        for task in asyncio.all_tasks():
            if task.get_name() == "bus: publish":
                task.cancel()


async def test_loss_is_logged(shaken: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """The log gives the number of unconfirmed messages that a lost link may have lost and that the bus does not send again."""
    async with stage(shaken) as one:
        await asyncio.to_thread(one.to_producer.swallow)
        one.producer.publish(3)
        await until(lambda: spool(one.producer.bus).under_way, "the body to be sent")
        await asyncio.to_thread(one.to_producer.flow)
        await asyncio.to_thread(one.to_producer.cut)
        await one.has_all()
        assert one.producer.metrics.bus_unconfirmed >= 3
    (said,) = [record for record in caplog.records if "may be lost" in record.getMessage()]
    assert said.levelno == logging.ERROR
    assert said.getMessage().endswith(f": {one.producer.metrics.bus_unconfirmed}")


async def test_idle_channel(shaken: Broker) -> None:
    """A lost link of a channel without messages causes no notice with replay, and nothing is lost."""
    exchange = Exchange(f"day-{secrets.token_hex(4)}", shaken.url, {"replay": True})
    with Proxy(("127.0.0.1", shaken.port)) as proxy:
        async with exchange.node("p") as p, exchange.node("v", url=f"amqp://guest:guest@127.0.0.1:{proxy.port}/") as v:
            viewer = v.view()
            await asyncio.to_thread(proxy.refuse)
            await asyncio.to_thread(proxy.cut)
            await until(lambda: viewer.words == ["away"], "the report that the broker is unreachable")
            p.publish(10)
            await p.published_all()
            await asyncio.to_thread(proxy.accept)
            await viewer.has_all("p", 10)
            assert (viewer.seen["p"], viewer.total_lost, viewer.renewals, v.metrics.bus_renewals) == (10, 0, 0, 0)


# The queue, the stream and the exchange


async def test_queue_is_deleted(shaken: Broker) -> None:
    """A node declares its queue again at once after an administrator deletes it; its viewers receive notice of an unknown loss."""
    async with stage(shaken) as one:
        async with publishing(one):
            for queue in await bound_to(shaken, one.exchange.name):
                await asyncio.to_thread(shaken.delete_queue, queue)
            await until(lambda: one.viewer.renewals > 0, "the notice of the loss")
        await one.has_all()


@pytest.mark.parametrize("replay", [False, True])
async def test_exchange_is_deleted(shaken: Broker, replay: bool) -> None:
    """A publishing node declares a deleted exchange again, and all nodes receive the later messages."""
    async with stage(shaken, replay=replay, tuning=replace(QUICK, check_interval=0.5)) as one:
        resource = f'rabbit_misc:r(<<"/">>, exchange, <<"{one.exchange.name}">>)'
        await asyncio.to_thread(shaken.eval, f'rabbit_exchange:delete({resource}, false, <<"guest">>)')
        await publish_until_received([one.producer], [one.viewer])


async def test_stream_is_deleted(shaken: Broker) -> None:
    """A node declares a deleted stream again; viewers receive notice of an unknown loss, and then all messages of the new stream."""
    async with stage(shaken, replay=True) as one:
        async with publishing(one):
            await asyncio.to_thread(shaken.delete_queue, one.stream)
            await until(lambda: one.viewer.renewals > 0, "the notice of the loss")
        await one.has_all()
        late = await one.another("l")
        viewer = Viewer()
        viewer.position = one.viewer.position
        viewer.join(late.fanout)
        one.producer.publish(10)
        await viewer.has_all("p", one.producer.published)
        assert (viewer.renewals, viewer.total_lost) == (0, 0)


@pytest.mark.parametrize("bodies", [0, 2, 31, 120])
async def test_replaced_stream(shaken: Broker, bodies: int) -> None:
    """A stream is deleted and declared again, with fewer or more messages, while a node is disconnected.

    When the node reconnects, its viewers receive notice of an unknown loss, and each message of the new stream once.
    """
    async with stage(shaken, replay=True) as one:
        for _ in range(29):
            one.producer.publish(1, "\n")
        await one.viewer.has_all("p", 30)
        await one.away(proxy=one.to_node)
        await until(lambda: one.viewer.words == ["away"], "the report that the broker is unreachable")
        await asyncio.to_thread(shaken.delete_queue, one.stream)
        await until(lambda: one.producer.metrics.broker_reconnects == 1 and one.producer.fanout.is_connected, "the new stream")
        for _ in range(bodies):
            one.producer.publish(1, "\n")
        await one.producer.published_all()
        await asyncio.to_thread(one.to_node.accept)
        await until(lambda: one.viewer.renewals > 0 and one.viewer.words[-1] == "here", "the notice of the loss")
        one.producer.publish(1, "\n")
        await one.viewer.has_all("p", 31 + bodies)
        assert one.viewer.seen["p"] == 31 + bodies


async def test_replaced_stream_and_an_early_position(shaken: Broker) -> None:
    """A position before the first message of a stream is not valid in the stream that replaces it."""
    exchange = Exchange(f"day-{secrets.token_hex(4)}", shaken.url, {"replay": True})
    async with exchange.node("p") as p:
        viewer = p.view()
        assert viewer.position is not None
        viewer.leave()
        p.publish(5)
        await p.published_all()
        await asyncio.to_thread(shaken.delete_queue, f"wsbridge.{exchange.name}")
        await until(lambda: p.metrics.broker_reconnects == 1 and p.fanout.is_connected, "the new stream")
        p.publish(5)
        viewer.join(p.fanout)
        await viewer.has_all("p", 10)
        assert viewer.seen["p"] == 10 or viewer.renewals + viewer.total_lost > 0, f"an unreported loss: {viewer}"


async def test_stream_is_truncated(shaken: Broker) -> None:
    """A node reports messages that a stream dropped during its absence as a loss, and delivers the rest."""
    async with stage(shaken, replay=True, replay_bytes=100_000, tuning=replace(QUICK, segment_bytes=20_000)) as one:
        await one.away(proxy=one.to_node)
        await until(lambda: one.viewer.words == ["away"], "the report that the broker is unreachable")
        for _ in range(100):
            one.producer.publish(1, " \n" + "x" * 5000)
            await asyncio.sleep(0)
        await one.producer.published_all()
        # A stream drops messages when it begins its next segment.
        await until(lambda: first_offset(shaken, one.stream) > 1, "the stream to drop messages")
        await asyncio.to_thread(one.to_node.accept)
        # RabbitMQ may have dropped every message: a body, or a chunk of several, may be larger than the limit of the stream.
        await until(lambda: one.viewer.renewals > 0, "the notice of the loss")
        await one.has_all()
        assert one.node.metrics.bus_renewals > 0
        assert 1 < one.viewer.seen["p"] < one.producer.published


def first_offset(broker: Broker, stream: str) -> int:
    """Return the oldest offset that a stream keeps."""
    writer = f'{{osiris_writer, rabbit_misc:r(<<"/">>, queue, <<"{stream}">>)}}'
    expression = f"maps:get(first_offset, maps:get({writer}, osiris_counters:overview()))"
    return int(broker.eval(expression))


async def bound_to(broker: Broker, exchange: str) -> list[str]:
    """Return the queues that are bound to an exchange."""
    return [queue for source, queue in await asyncio.to_thread(broker.bindings) if source == exchange]


# Bodies of external publishers


async def publish_raw(url: str, exchange: str, bodies: Sequence[tuple[bytes, commands.Basic.Properties]]) -> None:
    """Publish bodies with any properties, as an external publisher does."""
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel(publisher_confirms=False)
        assert isinstance(channel, aiormq.Channel)
        for body, properties in bodies:
            head = ContentHeader(body_size=len(body), properties=properties)
            frames: list[Any] = [commands.Basic.Publish(exchange=exchange, routing_key=""), head]
            frames += [ContentBody(body[start : start + 100_000]) for start in range(0, len(body), 100_000)]
            await channel.write_queue.put(ChannelFrame.marshall(channel_number=channel.number, frames=frames))
        await channel.close()
    finally:
        await connection.close()


Properties = commands.Basic.Properties
OURS = {"wsbridge-producer": "q", "wsbridge-first": 0, "wsbridge-count": 1}
STRANGE = {
    "text": "x", "integer": 1, "negative": -1, "long": 1 << 40, "true": True, "nothing": None, "float": 1.5,
    "time": datetime(2026, 1, 1, tzinfo=UTC), "bytes": bytearray(b"\xff\0"), "table": {"a": {"b": [1, "c"]}}, "array": [1, "two", None],
    "x-stream-offset": "not an offset", "wsbridge-count": 7, "wsbridge-first": "seven",
}  # fmt: skip


@pytest.mark.parametrize("replay", [False, True])
async def test_bodies_of_external_publishers(shaken: Broker, replay: bool) -> None:
    """A body of an external publisher becomes lines, one text message or one binary message; unknown headers have no effect."""
    exchange = Exchange(f"day-{secrets.token_hex(4)}", shaken.url, {"replay": replay})
    receiver, metrics = Receiver(), Metrics()
    async with exchange.open(receiver, metrics=metrics) as bus:
        await publish_raw(
            shaken.url,
            exchange.name,
            [
                (b"", Properties()),
                (b"one\ntwo\r\n", Properties()),
                (b"\xff\n", Properties(content_type="text/plain; charset=latin-1")),
                (b'{"a":\n1}', Properties(content_type="application/json")),
                (b"\0\n\xff", Properties(content_type="image/png")),
                (b"", Properties(content_type="application/octet-stream")),
                (b"strange", Properties(headers=STRANGE, message_id="m", correlation_id="c", reply_to="r", expiration="60000", priority=3)),
                (b"\0\0\0\1x", Properties(content_type="application/vnd.wsbridge.binary")),
            ],
        )
        bus.publish(Batch(Kind.TEXT, [b"ours"]))
        await receiver.has(10)
        assert receiver.messages == [
            (Kind.TEXT, b""), (Kind.TEXT, b"one"), (Kind.TEXT, b"two"), (Kind.TEXT, "\N{REPLACEMENT CHARACTER}".encode()),
            (Kind.TEXT, b'{"a":\n1}'), (Kind.BINARY, b"\0\n\xff"), (Kind.BINARY, b""), (Kind.TEXT, b"strange"), (Kind.BINARY, b"x"),
            (Kind.TEXT, b"ours"),
        ]  # fmt: skip
        assert metrics.nonzero() == ""


@pytest.mark.parametrize("replay", [False, True])
async def test_malformed_bodies(shaken: Broker, replay: bool) -> None:
    """A malformed body counts as one lost message, on a later node too; the next messages arrive."""
    exchange = Exchange(f"day-{secrets.token_hex(4)}", shaken.url, {"replay": replay})
    receiver, metrics = Receiver(), Metrics()
    malformed = [
        (b"", Properties(content_type="application/vnd.wsbridge.text")),
        (b"\0\0\0\5x", Properties(content_type="application/vnd.wsbridge.binary", headers=OURS)),
        (b"\0\0", Properties(content_type="application/vnd.wsbridge.binary", headers=OURS)),
        (b"a\nb", Properties(content_type="text/plain", headers={**OURS, "wsbridge-count": 3})),
    ]
    async with exchange.open(receiver, metrics=metrics) as bus:
        await publish_raw(shaken.url, exchange.name, malformed)
        bus.publish(Batch(Kind.TEXT, [b"ours"]))
        await receiver.has(1)
        assert receiver.losses == metrics.bus_malformed == len(malformed)
        if replay:
            later = Receiver()
            async with exchange.open(later):
                await later.has(1)
                assert later.losses == len(malformed)


@pytest.mark.parametrize("replay", [False, True])
async def test_long_bodies(shaken: Broker, replay: bool) -> None:
    """The channel drops, counts and reports a message over --maxline, and delivers the others; an AMQP body may have 20 MiB."""
    long = b"x" * (20 << 20)
    async with stage(shaken, replay=replay) as one:
        receiver = Receiver()
        async with one.exchange.open(receiver, max_message_bytes=0):
            had = receiver.count
            await publish_raw(shaken.url, one.exchange.name, [(long, Properties(content_type="application/octet-stream"))])
            one.producer.bus.publish(Batch(Kind.BINARY, [long]))
            one.producer.published += 1
            one.producer.publish(10)
            await one.viewer.has_all("p", one.producer.published)
            await receiver.has(had + 12)
            assert one.viewer.total_lost == 2
            assert one.node.metrics.bus_too_long == 2
            assert one.viewer.renewals == 0


async def test_repeat_from_before_the_history(shaken: Broker) -> None:
    """A node whose history begins after the first copy of a message still recognizes the repeat: no viewer receives it again."""
    exchange = Exchange(f"day-{secrets.token_hex(4)}", shaken.url, {"replay": True})
    bodies = [
        (f"{name} 0".encode(), Properties(content_type="text/plain", headers={**OURS, "wsbridge-producer": name}))
        for name in ("x", "y", "x", "z")
    ]
    async with exchange.node("v") as v:
        viewer = v.view()
        for count, body in enumerate(bodies, 1):
            await publish_raw(shaken.url, exchange.name, [body])
            await until(lambda count=count: v.fanout.channel.end + v.metrics.bus_repeats == count, "the body")
        viewer.leave()
        async with exchange.node("w", bus_history=3) as w:
            late = w.view(Join.HISTORY)
            await late.has_all("z", 1)
            assert (late.seen, w.metrics.bus_repeats) == ({"y": 1, "z": 1}, 1)
            viewer.join(w.fanout)
            await publish_raw(shaken.url, exchange.name, [(b"u 0", Properties(content_type="text/plain"))])
            await viewer.has_all("u", 1)
            assert (viewer.seen, viewer.renewals, viewer.total_lost) == ({"x": 1, "y": 1, "z": 1, "u": 1}, 0, 0)


@pytest.mark.parametrize("replay", [False, True])
async def test_first_message_is_too_long(shaken: Broker, replay: bool) -> None:
    """A node reports a message over --maxline once, even if it is the first message of its producer."""
    exchange = Exchange(f"day-{secrets.token_hex(4)}", shaken.url, {"replay": replay})
    async with exchange.node("v", max_message_bytes=1000) as v, exchange.node("p") as p:
        viewer = v.view()
        p.publish(1, "x" * 2000)
        await until(lambda: viewer.total_lost == 1, "the notice of the loss")
        p.publish()
        await viewer.has_all("p", 2)
        assert (viewer.seen["p"], viewer.total_lost, viewer.renewals) == (1, 1, 0)
        assert (v.metrics.bus_lost, v.metrics.bus_too_long) == (1, 1)


@pytest.mark.parametrize("replay", [False, True])
async def test_rejected_by_another_queue(shaken: Broker, replay: bool) -> None:
    """A full queue of another program rejects bodies: wsbridge counts them, publishes on, and all other receivers get each body once."""
    async with stage(shaken, replay=replay) as one:
        connection = await aiormq.connect(shaken.url)
        try:
            channel = await connection.channel()
            await channel.queue_declare("full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
            await channel.queue_bind("full", one.exchange.name)
            for _ in range(20):
                one.producer.publish(1, "\n")
            await one.producer.published_all()
            await channel.queue_delete("full")
        finally:
            await connection.close()
        one.producer.publish()
        await one.viewer.has_all("p", 22)
        assert (one.viewer.seen["p"], one.viewer.total_lost, one.viewer.renewals) == (22, 0, 0)
        assert 0 < one.producer.metrics.bus_unconfirmed < 20
        assert one.producer.metrics.broker_reconnects == 0


async def test_too_long_for_the_broker(shaken: Broker) -> None:
    """The bus drops and counts a body over the broker's max_message_size. With replay it reports the loss and delivers the other bodies."""
    # RabbitMQ 4 reads the setting once, at its start, and stores it there.
    set_size = "Size = {}, persistent_term:put(max_message_size, Size), application:set_env(rabbit, max_message_size, Size)"
    await asyncio.to_thread(shaken.eval, set_size.format(1_000_000))
    try:
        async with stages(shaken, producer={"spool_bytes": 1_000_000}) as every:
            for one in every:
                one.producer.bus.source = source = Memory()
                one.producer.publish(10, "\n")
                one.producer.publish(1, " " + "x" * 2_000_000)
                assert source.paused
                await until(lambda source=source: not source.paused, "the resume of the source")
                for _ in range(10):
                    one.producer.publish(1, "\n")
                await one.has_all()
            plain, replay = every
            assert replay.viewer.total_lost == replay.producer.metrics.bus_unconfirmed == 1
            assert replay.producer.metrics.broker_reconnects == 1
            assert plain.producer.metrics.bus_unconfirmed >= plain.viewer.total_lost > 0
    finally:
        await asyncio.to_thread(shaken.eval, set_size.format(134_217_728))


def nested(depth: int) -> bytes:
    """Return field tables nested `depth` levels deep."""
    table = b"\0\0\0\0"
    for _ in range(depth):
        table = struct.pack(">I", len(table) + 3) + b"\x01aF" + table
    return table


CONTENT_TYPE, HEADERS, TIMESTAMP = 0x8000, 0x2000, 0x0040
POISON: list[tuple[bytes, int, bytes]] = [
    (b"", CONTENT_TYPE, b"\x04te\xe4t"),
    (b"r\xf6uting", 0, b""),
    (b"", HEADERS, b"\0\0\0\x09" + b"\x03\xe4\xf6\xfcS\0\0\0\0"),
    (b"", HEADERS, b"\0\0\0\x0b" + b"\x01aT" + b"\xff" * 8),
    (b"", HEADERS, nested(4000)),
    (b"", TIMESTAMP, b"\xff" * 8),
]
"""A routing key, the flag of a property, and its bytes: AMQP permits them, but many readers fail on them."""


@pytest.mark.parametrize("replay", [False, True])
async def test_poison(shaken: Broker, replay: bool) -> None:
    """Invalid UTF-8, out-of-range times and deeply nested tables of an external publisher neither stop the channel nor lose a message."""
    exchange = Exchange(f"day-{secrets.token_hex(4)}", shaken.url, {"replay": replay})
    receiver, metrics = Receiver(), Metrics()
    async with exchange.open(receiver, metrics=metrics) as bus:
        connection = await aiormq.connect(shaken.url)
        try:
            channel = await connection.channel(publisher_confirms=False)
            assert isinstance(channel, aiormq.Channel)
            for key, flag, value in POISON:
                method = struct.pack(">HHH", 60, 40, 0) + short(exchange.name.encode()) + short(key) + b"\0"
                head = struct.pack(">HHQH", 60, 0, 3, flag) + value
                sent = b"".join(frame(kind, channel.number, payload) for kind, payload in ((1, method), (2, head), (3, b"abc")))
                await channel.write_queue.put(replace(ChannelFrame.marshall(channel.number, []), payload=sent))
            await channel.close()
        finally:
            await connection.close()
        bus.publish(Batch(Kind.TEXT, [b"ours"]))
        await receiver.has(len(POISON) + 1)
        assert [message for _, message in receiver.messages] == [*[b"abc"] * len(POISON), b"ours"]
        assert metrics.nonzero() == ""


def short(value: bytes) -> bytes:
    """Return a short string of AMQP."""
    return bytes([len(value)]) + value


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame of AMQP."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"
