"""Many buses of one process over one connection to a real broker: what they share, and how a fault of one bus affects the others."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aiormq
import pytest
from aio_pika import exceptions
from pamqp import commands

from tests.bus.node import Exchange, Node, Receiver, Viewer, cancel_opening, nothing_left, until
from tests.support.amqp import AmqpLink, amqp_link
from tests.support.deadline import scaled
from tests.support.rabbit import Broker, Proxy
from tests.support.server import free_port
from wsbridge.bus.broker import rabbit_connections
from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.rabbitmq.alarm import Alarm
from wsbridge.bus.rabbitmq.connections import CHANNELS_A_LINK, Connection, Connections, with_heartbeat
from wsbridge.bus.rabbitmq.link import PREFETCH, Link
from wsbridge.channel.ring import Join
from wsbridge.errors import BusError
from wsbridge.flow import Batch, Kind

KINDS = [False, True]
OPEN_CHANNELS = "length(rabbit_channel:list())"
OPEN_CONNECTIONS = "length(rabbit_networking:connections())"


@pytest.fixture(scope="module")
def shaken() -> Iterator[Broker]:
    """A broker that the tests of this file may stop or change, if they leave it running and in its original state."""
    with Broker(consumer_timeout_ms=1_800_000) as broker:
        yield broker


@pytest.fixture(autouse=True)
async def clean(shaken: Broker) -> AsyncIterator[None]:
    """Check that each test cleans up, also at the broker."""
    async with nothing_left():
        yield
    await until_number(shaken, OPEN_CONNECTIONS, 0)


async def until_number(broker: Broker, expression: str, number: int) -> None:
    """Wait until an Erlang expression has this value at the broker."""
    found = -1

    def is_it() -> bool:
        return found == number

    for _ in range(100):
        found = int(await asyncio.to_thread(broker.eval, expression))
        with suppress(AssertionError):
            await until(is_it, "another check", 0.2)
            return
    raise AssertionError(f"{expression}: {found}, not {number}")


@asynccontextmanager
async def nodes(
    url: str, count: int, connections: Connections, *, replays: bool | None = None, **options: Any
) -> AsyncIterator[list[tuple[Node, Viewer]]]:
    """Open `count` nodes, each on its own channel and with a viewer; every second node has replay, unless `replay` is given."""
    async with AsyncExitStack() as stack:

        async def open_one(number: int) -> tuple[Node, Viewer]:
            replay = number % 2 == 1 if replays is None else replays
            exchange = Exchange(f"shared-{secrets.token_hex(4)}", url, {"replay": replay, **options})
            node = await stack.enter_async_context(exchange.node(f"n{number}", connections=connections))
            return node, node.view(Join.HISTORY)

        yield [await open_one(number) for number in range(count)]


async def all_get_what_they_publish(every: list[tuple[Node, Viewer]], *, times: int = 3) -> None:
    for _ in range(times):
        for node, _ in every:
            node.publish()
        for node, viewer in every:
            await viewer.has_all(node.name, node.published)


def undisturbed(*every: tuple[Node, Viewer]) -> None:
    """Check that these nodes have kept their links, and that their viewers have received everything."""
    for node, viewer in every:
        assert node.metrics.broker_reconnects == 0, f"{node.name} has lost its link"
        assert (viewer.seen[node.name], viewer.total_lost, viewer.renewals, viewer.words) == (node.published, 0, 0, []), node.name


async def has_last(node: Node, viewer: Viewer) -> None:
    await until(lambda: viewer.last.get(node.name) == node.published - 1, lambda: f"the last message of {node.name}: {viewer}")


@asynccontextmanager
async def publishing(*every: tuple[Node, Viewer]) -> AsyncIterator[None]:
    """Publish continuously on all nodes."""

    async def publish() -> None:
        while True:
            for node, _ in every:
                node.publish()
            await asyncio.sleep(0.005)

    task = asyncio.create_task(publish())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
    for node, viewer in every:
        await until(
            lambda node=node, viewer=viewer: viewer.last.get(node.name) == node.published - 1, lambda node=node: f"all of {node.name}"
        )


def link_of(node: Node) -> Link:
    link = node.bus._link  # type: ignore[attr-defined]
    assert isinstance(link, Link)
    return link


def connection_of(node: Node) -> Connection:
    connection = link_of(node)._connection
    assert connection is not None
    return connection


async def is_back(node: Node, times: int = 1) -> None:
    await until(lambda: node.metrics.broker_reconnects >= times and node.fanout.is_connected, f"the reconnect of {node.name}")


# Sharing


async def test_twenty_buses(shaken: Broker) -> None:
    """Twenty buses use one connection, with two channels each; the last close closes it."""
    connections = rabbit_connections()
    async with nodes(shaken.url, 20, connections) as every:
        assert len(connections) == 1
        await until_number(shaken, OPEN_CONNECTIONS, 1)
        await all_get_what_they_publish(every)
        await until_number(shaken, OPEN_CHANNELS, 40)
        undisturbed(*every)
    assert len(connections) == 0
    await until_number(shaken, OPEN_CONNECTIONS, 0)


async def test_opened_at_once(shaken: Broker) -> None:
    """Buses that open at the same time share one attempt."""
    connections = Connections()
    with Proxy(("127.0.0.1", shaken.port)) as proxy:
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
        buses = [Exchange(f"shared-{secrets.token_hex(4)}", url).bus(connections=connections) for _ in range(10)]
        await asyncio.gather(*(bus.open(Receiver()) for bus in buses))
        assert (proxy.accepted, len(connections)) == (1, 1)
        for number, bus in enumerate(buses, 1):
            await bus.close(1)
            assert len(connections) == (number < 10)
        await until(lambda: not proxy.links, "the end of the connection")


async def test_different_users(shaken: Broker) -> None:
    """Links with different users, virtual hosts or connection settings do not share a connection."""
    await asyncio.to_thread(shaken.add_user, "other", "secret", ".*", ".*", ".*")
    await asyncio.to_thread(shaken.ctl, "add_vhost", "other")
    await asyncio.to_thread(shaken.ctl, "set_permissions", "--vhost", "other", "guest", ".*", ".*", ".*")
    address = f"127.0.0.1:{shaken.port}/"
    urls = [shaken.url, f"amqp://other:secret@{address}", f"amqp://guest:guest@{address}other", f"{shaken.url}?heartbeat=5"]
    connections = Connections()
    async with AsyncExitStack() as stack:
        for url in (*urls, *urls):
            await stack.enter_async_context(Exchange(f"shared-{secrets.token_hex(4)}", url).open(Receiver(), connections=connections))
        assert len(connections) == len(urls)
        await until_number(shaken, OPEN_CONNECTIONS, len(urls))
    await asyncio.to_thread(shaken.delete_user, "other")
    await asyncio.to_thread(shaken.ctl, "delete_vhost", "other")


async def test_failed_attempt() -> None:
    """A failed attempt fails for all links that wait for it, with the same error; the next attempt is new."""
    connections = Connections()
    url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
    for _ in range(2):
        buses = [Exchange(f"shared-{number}", url).bus(connections=connections) for number in range(5)]
        errors = await asyncio.gather(*(bus.open(Receiver()) for bus in buses), return_exceptions=True)
        assert all(isinstance(error, BusError) for error in errors)
        assert len(set(map(str, errors))) == 1
        assert "cannot be reached" in str(errors[0])
        assert len(connections) == 0


async def test_cancelled_attempt(shaken: Broker) -> None:
    """A bus that stops waiting for an attempt does not end it for the other buses."""
    connections = Connections()
    buses = [Exchange(f"shared-{secrets.token_hex(4)}", shaken.url).bus(connections=connections) for _ in range(2)]
    opening = [asyncio.create_task(bus.open(Receiver())) for bus in buses]
    await until(lambda: len(connections) == 1, "the attempt")
    opening[0].cancel()
    await opening[1]
    await asyncio.wait((opening[0],))
    assert opening[0].cancelled()
    assert len(connections) == 1
    for bus in buses:
        await bus.close(0)
    assert len(connections) == 0


async def test_silent_attempt(shaken: Broker) -> None:
    """After an attempt has timed out for one link, no link joins it: the next attempt is new, and each link keeps its own deadline."""
    connections, timeout = Connections(), scaled(1.0)
    with Proxy(("127.0.0.1", shaken.port)) as proxy:
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/"
        await asyncio.to_thread(proxy.swallow)
        patient, hasty = (Exchange("shared", url, {"timeout": seconds}).bus(connections=connections) for seconds in (600, timeout))
        waiting = asyncio.create_task(patient.open(Receiver()))
        with pytest.raises(BusError, match="does not answer"):
            await hasty.open(Receiver())
        assert not waiting.done()
        await asyncio.to_thread(proxy.flow)
        async with Exchange(f"shared-{secrets.token_hex(4)}", url).open(Receiver(), connections=connections):
            assert (proxy.accepted, len(connections)) == (2, 2)
        waiting.cancel()
        await asyncio.wait((waiting,))
        await patient.close(0)
        assert len(connections) == 0


@pytest.mark.parametrize("replay", KINDS)
async def test_cancelled_opening(shaken: Broker, replay: bool) -> None:
    """A bus that is cancelled while it opens, at any moment, leaves no channel behind and does not disturb the other buses."""
    connections = Connections()
    async with nodes(shaken.url, 2, connections) as every:
        await all_get_what_they_publish(every)
        connection = connection_of(every[0][0])
        for turns in (1, 2, 3, 5, 8, 12, 20, 40, 80):
            exchange = Exchange(f"shared-{secrets.token_hex(4)}", shaken.url, {"replay": replay})
            await cancel_opening(exchange.bus(connections=connections), turns)
        await until_number(shaken, OPEN_CHANNELS, 4)
        await until(lambda: len(connection._channels) == 4, "the answers to all closes")
        await all_get_what_they_publish(every)
        undisturbed(*every)
        assert connection_of(every[0][0]) is connection


# A fault of one AMQP channel


async def delete_queue(broker: Broker, node: Node) -> None:
    queue = link_of(node)._queue or f"wsbridge.{link_of(node)._exchange}"
    await asyncio.to_thread(broker.delete_queue, queue)


async def exceed_size(broker: Broker, node: Node) -> None:
    node.published += 1
    node.bus.publish(Batch(Kind.TEXT, [f"{node.name} {node.published - 1} {'x' * 2_000_000}".encode()]))


async def late_acknowledgement(broker: Broker, node: Node) -> None:
    node.bus.pause()
    node.publish()
    await until(lambda: node.metrics.broker_reconnects, "the broker to close the channel")
    node.bus.resume()


async def delete_exchange(broker: Broker, node: Node) -> None:
    resource = f'rabbit_misc:r(<<"/">>, exchange, <<"{link_of(node)._exchange}">>)'
    await asyncio.to_thread(broker.eval, f'rabbit_exchange:delete({resource}, false, <<"guest">>)')
    node.publish()


FAULTS = [delete_queue, exceed_size, late_acknowledgement, delete_exchange]
SET_SIZE = "Size = {}, persistent_term:put(max_message_size, Size), application:set_env(rabbit, max_message_size, Size)"
SET_TIMEOUT = "application:set_env(rabbit, consumer_timeout, {})"


@pytest.mark.parametrize("replay", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_of_one_channel(shaken: Broker, fault: Callable[[Broker, Node], Any], replay: bool) -> None:
    """A fault of a link's channel affects only that link: it opens new channels on the same connection."""
    await asyncio.to_thread(shaken.eval, f"{SET_SIZE.format(1_000_000)}, {SET_TIMEOUT.format(round(scaled(1) * 1000))}")
    connections = Connections()
    try:
        async with nodes(shaken.url, 5, connections, replays=replay) as every:
            (node, viewer), *others = every
            await all_get_what_they_publish(every)
            connection = connection_of(node)
            async with publishing(*others):
                await fault(shaken, node)
                if fault is delete_exchange and not replay:
                    # The next check declares the exchange and binds the queue again: the link continues.
                    await until(lambda: viewer.last.get(node.name) == node.published - 1 or node.publish(), "the binding")
                else:
                    await is_back(node)
            node.publish()
            await has_last(node, viewer)
            undisturbed(*others)
            assert connection_of(node) is connection
            assert len(connections) == 1
            await until_number(shaken, OPEN_CHANNELS, 10)
            if not replay:
                assert len(await asyncio.to_thread(shaken.queues)) >= 5
                assert len([name for name in await asyncio.to_thread(shaken.queues) if name.startswith("amq.gen")]) == 5
    finally:
        await asyncio.to_thread(shaken.eval, f"{SET_SIZE.format(134_217_728)}, {SET_TIMEOUT.format(1_800_000)}")


async def test_channel_that_closes_while_much_is_sent(shaken: Broker) -> None:
    """If the broker closes a channel among many publishes of all links, the connection survives: no frame follows the answer."""
    await asyncio.to_thread(shaken.eval, SET_SIZE.format(300_000))
    connections = Connections()
    try:
        async with nodes(shaken.url, 4, connections, replays=True) as every:
            connection = connection_of(every[0][0])
            node, viewer = every[0]
            async with publishing(*every):
                for times in range(1, 6):
                    for _ in range(20):
                        node.publish(1, "\n")
                    node.bus.publish(Batch(Kind.TEXT, [f"{node.name} {node.published} {'x' * 400_000}".encode()]))
                    node.published += 1
                    for _ in range(200):
                        node.publish(1, " \n" + "x" * 1000)
                    await is_back(node, times)
            undisturbed(*every[1:])
            assert connection_of(node) is connection
            assert viewer.total_lost == viewer.missing == 5
            await until_number(shaken, OPEN_CHANNELS, 8)
    finally:
        await asyncio.to_thread(shaken.eval, SET_SIZE.format(134_217_728))


async def test_channels_do_not_accumulate(shaken: Broker) -> None:
    """However often a link opens its channels again, the broker and this process keep only two of its channels, and one queue."""
    connections = Connections()
    async with nodes(shaken.url, 2, connections, replays=False) as ((node, viewer), other):
        queues = set()
        for times in range(1, 31):
            queues.add(link_of(node)._queue)
            link_of(node).lose("a test")
            await is_back(node, times)
        assert len(queues) == 30
        await all_get_what_they_publish([(node, viewer), other])
        await until_number(shaken, OPEN_CHANNELS, 4)
        assert len(connection_of(node)._channels) == 4
        amqp: Any = connection_of(node)._connection.transport.connection
        assert len(amqp._closing._callbacks) < 10
        assert set(await asyncio.to_thread(shaken.queues)) & queues == set()
        undisturbed(other)


@pytest.fixture
async def link(shaken: Broker) -> AsyncIterator[AmqpLink]:
    async with amqp_link(shaken.port) as link:
        yield link


async def test_queue_without_a_consumer(shaken: Broker, link: AmqpLink) -> None:
    """A link that fails between the declaration of its queue and its consumer leaves no queue behind."""
    connections = Connections()
    async with nodes(link.url, 2, connections, replays=False) as ((node, viewer), other):
        link.drops = lambda frame: frame.method == "basic.qos-ok" and not link.dropped["basic.qos-ok"]
        link_of(node).lose("a test")
        await until(lambda: link.dropped["basic.qos-ok"], "the loss of the answer")
        link_of(node).lose("a test")
        await is_back(node)
        await all_get_what_they_publish([(node, viewer), other])
        assert len([name for name in await asyncio.to_thread(shaken.queues) if name.startswith("amq.gen")]) == 2
        assert link.accepted == 1


async def test_paused_receiver(shaken: Broker) -> None:
    """A receiver that applies backpressure does not delay the others, however many messages the broker holds for it."""
    connections = Connections()
    async with nodes(shaken.url, 4, connections) as every:
        (plain, _), (replay, _), *others = every
        for node in (plain, replay):
            node.bus.pause()
        for _ in range(3 * PREFETCH):
            for node in (plain, replay):
                node.publish(1, " \n" + "x" * 5000)
        await all_get_what_they_publish(others, times=10)
        undisturbed(*others)
        for node, viewer in every[:2]:
            assert viewer.seen[node.name] == 0
            assert len(node.bus._backlog) >= PREFETCH  # type: ignore[attr-defined]
            node.bus.resume()
            await viewer.has_all(node.name, node.published)
        undisturbed(*every)


# Missing answers


def timeouts() -> dict[str, float]:
    return {"timeout": scaled(2.0), "confirm_timeout": scaled(1.0)}


def channel_of(node: Node) -> int:
    return link_of(node)._publishing.number


async def test_lost_confirm(shaken: Broker, link: AmqpLink) -> None:
    """If a link misses a confirm that other links still receive, it opens new channels, and the second time a new connection.

    The other links keep their connection.
    """
    connections = Connections()
    async with nodes(link.url, 4, connections, replays=True, **timeouts()) as every:
        (node, viewer), *others = every
        await all_get_what_they_publish(every)
        first = connection_of(node)
        link.drops = lambda frame: (
            frame.method == "basic.ack" and frame.channel == channel_of(node) and connection_of(node) is first
            if link_of(node)._channels
            else False
        )
        async with publishing(*others):
            node.publish()
            await is_back(node)
            assert connection_of(node) is first
            await is_back(node, 2)
        assert connection_of(node) is not first
        assert {connection_of(other) for other, _ in others} == {first}
        undisturbed(*others)
        await all_get_what_they_publish(every)
        assert (viewer.seen[node.name], viewer.total_lost, node.metrics.publish_timeouts) == (node.published, 0, 2)
        assert (link.accepted, len(connections)) == (2, 2)
        async with nodes(link.url, 1, connections) as ((later, _),):
            assert connection_of(later) is connection_of(node)


async def test_opening_without_an_answer(shaken: Broker, link: AmqpLink) -> None:
    """A missing answer while a link opens is an error for that link alone; after the second time, it tries its own connection."""
    connections = Connections()
    async with nodes(link.url, 2, connections) as every:
        await all_get_what_they_publish(every)
        first = connection_of(every[0][0])
        last = max(first._channels)
        link.drops = lambda frame: frame.method == "exchange.declare-ok" and frame.channel > last and link.accepted == 1
        bus: Any = Exchange(f"shared-{secrets.token_hex(4)}", link.url, timeouts()).bus(connections=connections)
        async with publishing(*every):
            for _ in range(2):
                with pytest.raises(BusError, match="does not answer"):
                    await bus.open(Receiver())
                assert len(connections) == 1
            await bus.open(Receiver())
        assert bus._link._connection is not first
        assert len(connections) == 2
        await bus.close(1)
        undisturbed(*every)
        await until(lambda: len(first._channels) == 4, "the answers to all closes")


async def test_silent_connection(shaken: Broker, link: AmqpLink) -> None:
    """If a connection goes silent, the first link with a late confirm ends it, and all links share the next connection."""
    connections = Connections()
    async with nodes(link.url, 4, connections, replays=True, **timeouts()) as every:
        await all_get_what_they_publish(every)
        first = connection_of(every[0][0])
        link.drops = lambda frame: link.accepted == 1
        every[0][0].publish()
        for node, _ in every:
            await is_back(node)
        assert len({connection_of(node) for node, _ in every}) == len(connections) == 1
        assert connection_of(every[0][0]) is not first
        assert sum(node.metrics.publish_timeouts for node, _ in every) <= 1
        await all_get_what_they_publish(every)
        for node, viewer in every:
            assert (viewer.seen[node.name], viewer.total_lost, viewer.renewals) == (node.published, 0, 0)


# A fault of the connection


async def close_by_operator(broker: Broker, proxy: Proxy) -> None:
    await asyncio.to_thread(broker.close_connections)


async def cut(broker: Broker, proxy: Proxy) -> None:
    await asyncio.to_thread(proxy.cut)


async def swallow(broker: Broker, proxy: Proxy) -> None:
    await asyncio.to_thread(proxy.swallow)
    await until(lambda: not proxy.links, "the late heartbeat")
    await asyncio.to_thread(proxy.flow)


async def restart(broker: Broker, proxy: Proxy) -> None:
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)


@pytest.mark.parametrize("fault", [close_by_operator, cut, swallow, restart])
async def test_connection_is_lost(shaken: Broker, fault: Callable[[Broker, Proxy], Any]) -> None:
    """When a connection ends, each of its links reconnects, over one new connection, and replay loses nothing."""
    connections = Connections()
    with Proxy(("127.0.0.1", shaken.port)) as proxy:
        url = f"amqp://guest:guest@127.0.0.1:{proxy.port}/?heartbeat=1"
        async with nodes(url, 10, connections, replays=True) as every:
            await all_get_what_they_publish(every)
            assert proxy.accepted == 1
            async with publishing(*every):
                await fault(shaken, proxy)
                for node, _ in every:
                    await is_back(node)
            for node, viewer in every:
                assert (viewer.seen[node.name], viewer.total_lost, viewer.renewals) == (node.published, 0, 0)
                assert viewer.words == ["away", "here"]
            if fault is not restart:
                assert len({connection_of(node) for node, _ in every}) == len(connections) == 1


class Tool:
    """A user of a connection that does nothing."""

    def __init__(self) -> None:
        self.alarm = Alarm()
        self.why = ""
        self.is_suspect: bool | None = None

    def connection_lost(self, why: str, *, is_suspect: bool) -> None:
        self.why, self.is_suspect = why, is_suspect


async def test_connection_error_of_one_link(shaken: Broker) -> None:
    """If the broker closes the connection for an error of one link, only links that waited for an answer are suspects."""
    connections, links = Connections(), [Tool(), Tool()]
    connection, _ = (connections.join(link, shaken.url) for link in links)
    await connection.opened()
    channels = [await connection.channel(link) for link in links]
    with pytest.raises(exceptions.ConnectionClosed, match=r"second 'channel\.open'"):
        await channels[0].request(commands.Channel.Open())
    assert [link.is_suspect for link in links] == [True, False]
    for link in links:
        assert "second 'channel.open'" in link.why
    assert [connections.leave(link, connection) for link in links] == [False, True]
    await connection.close(1)


async def test_suspect_opens_alone(shaken: Broker) -> None:
    """A suspect link opens its next connection alone, so that it cannot end the connection of the others repeatedly."""
    connections = Connections()
    async with nodes(shaken.url, 3, connections, replays=True) as every:
        (node, _), *others = every
        await all_get_what_they_publish(every)
        for times in (1, 2):
            with suppress(exceptions.ConnectionClosed):
                await link_of(node)._publishing.request(commands.Channel.Open())
            await is_back(node, times)
            for other, _ in others:
                await is_back(other)
        assert [other.metrics.broker_reconnects for other, _ in others] == [1, 1]
        await all_get_what_they_publish(every)
        for other, viewer in every:
            assert (viewer.seen[other.name], viewer.total_lost, viewer.renewals) == (other.published, 0, 0)
        async with nodes(shaken.url, 1, connections) as ((later, _),):
            assert connection_of(later) is not connection_of(node)
            link_of(node).lose("a test")
            await is_back(node, 3)
            assert connection_of(later) is connection_of(node)


# The log


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str | None, str]]:
    """Return the first word of each line about the broker, with the exchange that the line names."""
    records = [record for record in caplog.records if record.name == "wsbridge.bus"]
    return [(getattr(record, "fields", {}).get("exchange"), record.getMessage().partition(" ")[0]) for record in records]


async def test_log_of_a_lost_connection(shaken: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """The log shows a lost connection and its reconnection once each, and not once for each channel."""
    caplog.set_level(logging.INFO, "wsbridge")
    connections = Connections()
    async with nodes(shaken.url, 10, connections, replays=True) as every:
        await asyncio.to_thread(shaken.close_connections)
        for node, _ in every:
            await is_back(node)
        said = logged(caplog)
    assert said == [(None, "disconnected"), (None, "reconnected")]


class CountedConnections(Connections):
    """Counts the attempts of the links to get a connection."""

    attempts = 0

    def join(self, *arguments: Any, **options: Any) -> Connection:
        self.attempts += 1
        return super().join(*arguments, **options)


async def test_log_of_an_unreachable_broker(shaken: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """The log shows once that the broker is unreachable, however many buses try however often."""
    caplog.set_level(logging.INFO, "wsbridge")
    connections = CountedConnections()
    with Proxy(("127.0.0.1", shaken.port)) as proxy:
        async with nodes(f"amqp://guest:guest@127.0.0.1:{proxy.port}/", 5, connections, replays=True) as every:
            await asyncio.to_thread(proxy.refuse)
            await asyncio.to_thread(proxy.cut)
            before = connections.attempts
            await until(lambda: connections.attempts >= before + 15, "some attempts of every bus")
            await asyncio.to_thread(proxy.accept)
            for node, _ in every:
                await is_back(node)
    assert [caplog.text.count(words) for words in ("disconnected from", "cannot be reached", "reconnected to")] == [1, 1, 1]


async def test_log_of_a_lost_link(shaken: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the exchange of a channel that alone has lost its link."""
    caplog.set_level(logging.INFO, "wsbridge")
    connections = Connections()
    async with nodes(shaken.url, 3, connections, replays=True) as every:
        node = every[1][0]
        exchange = link_of(node)._exchange
        await delete_queue(shaken, node)
        await is_back(node)
        said = logged(caplog)
    assert (said[0], said[-1]) == ((exchange, "disconnected"), (exchange, "reconnected"))


async def test_log_of_a_wrong_exchange(shaken: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the exchange of a channel that alone cannot be used, in the error as well."""
    caplog.set_level(logging.INFO, "wsbridge")
    connections = Connections()
    async with nodes(shaken.url, 3, connections, replays=True) as every:
        node = every[1][0]
        exchange = link_of(node)._exchange
        external = await aiormq.connect(shaken.url)
        channel = await external.channel()
        await channel.exchange_delete(exchange)
        await channel.exchange_declare(exchange, exchange_type="direct")
        link_of(node).lose("a test")
        await until(lambda: "its type is direct" in caplog.text, "the error about the exchange")
        await channel.exchange_delete(exchange)
        await is_back(node)
        await external.close()
        said = logged(caplog)
    assert said == [(exchange, "disconnected"), (exchange, "the"), (exchange, "reconnected")]


# Alarms


async def test_alarm_reaches_each_link(shaken: Broker) -> None:
    """Each link of the connection learns of an alarm, even a link that publishes nothing; a new link has to open another connection."""
    connections = Connections()
    async with nodes(shaken.url, 3, connections) as every:
        await all_get_what_they_publish(every)
        await asyncio.to_thread(shaken.alarm, True)
        try:
            every[0][0].publish()
            for node, _ in every:
                await until(lambda node=node: "memory" in node.bus.alarm, "the report of the alarm")
            async with nodes(shaken.url, 2, connections, replays=False) as ((later, _), (last, _)):
                assert connection_of(later) is connection_of(last) is not connection_of(every[0][0])
                assert later.bus.alarm == ""
        finally:
            await asyncio.to_thread(shaken.alarm, False)
        for node, _ in every:
            await until(lambda node=node: not node.bus.alarm, "the end of the alarm")
        await all_get_what_they_publish(every)
        undisturbed(*every)
        assert [node.metrics.broker_alarms for node, _ in every] == [1, 1, 1]


async def test_close_in_an_alarm(shaken: Broker) -> None:
    """A link that closes during an alarm takes bounded time; the broker closes its channels after the alarm, and the others continue."""
    connections = Connections()
    async with nodes(shaken.url, 1, connections) as every:
        async with nodes(shaken.url, 1, connections, replays=False) as other:
            await all_get_what_they_publish([*every, *other])
            await asyncio.to_thread(shaken.alarm, True)
            every[0][0].publish()
            await until(lambda: other[0][0].bus.alarm, "the report of the alarm")
        await asyncio.to_thread(shaken.alarm, False)
        await until_number(shaken, OPEN_CHANNELS, 2)
        assert len(connection_of(every[0][0])._channels) == 2
        await all_get_what_they_publish(every)
        undisturbed(*every)


# The number of AMQP channels


async def test_channel_max(shaken: Broker) -> None:
    """If a connection has no room for another link, the process opens another connection."""
    await asyncio.to_thread(shaken.eval, f"application:set_env(rabbit, channel_max, {2 * CHANNELS_A_LINK + 1})")
    try:
        connections = Connections()
        async with nodes(shaken.url, 5, connections) as every:
            assert len(connections) == 3
            await all_get_what_they_publish(every)
        buses = [Exchange(f"shared-{secrets.token_hex(4)}", shaken.url).bus(connections=connections) for _ in range(5)]
        await asyncio.gather(*(bus.open(Receiver()) for bus in buses))
        assert len(connections) == 3
        for bus in buses:
            await bus.close(1)
        assert len(connections) == 0
    finally:
        await asyncio.to_thread(shaken.eval, "application:set_env(rabbit, channel_max, 2047)")


async def test_too_few_channels(shaken: Broker) -> None:
    """The error for a broker that permits fewer channels than one link needs names the setting."""
    await asyncio.to_thread(shaken.eval, "application:set_env(rabbit, channel_max, 1)")
    try:
        with pytest.raises(BusError, match="its connection has 1 channels, and the broker permits no more \\(channel_max\\)"):
            await Exchange("shared", shaken.url).bus(connections=Connections()).open(Receiver())
    finally:
        await asyncio.to_thread(shaken.eval, "application:set_env(rabbit, channel_max, 2047)")


async def test_numbers_are_used_in_turn(shaken: Broker) -> None:
    """A channel number is not used again at once: a late frame cannot reach a new channel."""
    connections, tool = Connections(), Tool()
    connection = connections.join(tool, shaken.url)
    await connection.opened()
    numbers = []
    for _ in range(3):
        async with connection.temporary(tool) as channel:
            numbers.append(channel.number)
    assert numbers == [1, 2, 3]
    assert connections.leave(tool, connection)
    await connection.close(1)
    assert connection.is_closed


async def test_link_without_shared_connections(shaken: Broker) -> None:
    """A link without shared connections has its own connection."""
    links = [Link(ExchangeSettings((shaken.url,)), "shared", shaken.url) for _ in range(2)]
    for link in links:
        await link.open()
    await until_number(shaken, OPEN_CONNECTIONS, 2)
    for link in links:
        await link.close()


def test_with_heartbeat() -> None:
    """A URL may set its own heartbeat interval."""
    assert with_heartbeat("amqp://u:p@host/v") == "amqp://u:p@host/v?heartbeat=10"
    assert with_heartbeat("amqp://host/?heartbeat=3&name=x") == "amqp://host/?heartbeat=3&name=x"
