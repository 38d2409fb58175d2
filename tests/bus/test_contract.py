"""The contract that every bus fulfills: the same assertions for memory, for RabbitMQ and for RabbitMQ with replay."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from urllib.parse import urlsplit

import aiormq
import pytest

from tests.bus.node import WAIT_SECONDS, Exchange, Node, Receiver, cancel_opening, spool, until
from tests.support.deadline import scaled
from tests.support.rabbit import Broker, Proxy
from tests.support.server import free_port
from tests.support.site import NEW_CERTIFICATE
from wsbridge.bus.base import Body, Bus
from wsbridge.bus.bodies import LINES, OutgoingBody
from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.rabbitmq import link as links
from wsbridge.bus.rabbitmq.bus import RabbitBus
from wsbridge.bus.rabbitmq.link import PREFETCH
from wsbridge.bus.rabbitmq.tuning import Tuning
from wsbridge.errors import BusError
from wsbridge.flow import Batch, Kind, Memory
from wsbridge.metrics import Metrics

pytestmark = pytest.mark.usefixtures("clean")

KINDS = ["memory", "rabbitmq", "replay"]
PASSWORD = "s3cr3t-w0rd"
ONE = OutgoingBody(LINES, b"one", first=0, messages=1)
TUNING = Tuning(probe_timeout=0.2)
"""A stream that holds nothing is soon taken for empty."""


@pytest.fixture(params=KINDS)
def channel(request: pytest.FixtureRequest) -> Exchange:
    """An unused exchange on each bus."""
    return make(request, request.param)


@pytest.fixture(params=KINDS[1:])
def brokered(request: pytest.FixtureRequest) -> Exchange:
    """An unused exchange on each bus with a broker."""
    return make(request, request.param)


def make(request: pytest.FixtureRequest, kind: str) -> Exchange:
    if kind == "memory":
        return Exchange("contract")
    broker: Broker = request.getfixturevalue("broker")
    return Exchange(f"contract-{secrets.token_hex(4)}", broker.url, {"replay": kind == "replay"}, TUNING)


@asynccontextmanager
async def two(channel: Exchange, **options: object) -> AsyncIterator[tuple[Bus, Receiver, Bus, Receiver]]:
    """Open two nodes of a channel; in memory, one node takes both parts."""
    one, other = Receiver(), Receiver()
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(channel.open(one, **options))
        if not channel.url:
            yield bus, one, bus, one
        else:
            yield bus, one, await stack.enter_async_context(channel.open(other, **options)), other


# Delivery


async def test_connected(channel: Exchange) -> None:
    """A bus reports the broker as connected when it has opened."""
    async with two(channel) as (_, one, _, other):
        assert one.connects == other.connects == [True]


BATCHES = [
    Batch(Kind.TEXT, [b"one"]),
    Batch(Kind.TEXT, [b"one", b"two", "drei °C".encode()]),
    Batch(Kind.TEXT, [b"with\na line feed"]),
    Batch(Kind.TEXT, [b"with\na line feed", b"\n", b"without", b"\n\n"]),
    Batch(Kind.TEXT, [b""]),
    Batch(Kind.TEXT, [b"", b"", b"a", b""]),
    Batch(Kind.TEXT, [b"carriage return\r", b"\r\n"]),
    Batch(Kind.BINARY, [b"\0\xff\n"]),
    Batch(Kind.BINARY, [b"\0", b"", b"\n", b"\xff" * 100]),
    Batch(Kind.BINARY, [b""]),
    Batch(Kind.TEXT, [b"x" * 300 * 1024]),
    Batch(Kind.BINARY, [os.urandom(300 * 1024), b"small"]),
    Batch(Kind.TEXT, [b"small", b"\n" * 300 * 1024]),
    Batch(Kind.TEXT, [b"%d" % number for number in range(5000)]),
    Batch(Kind.BINARY, [b"%d" % number for number in range(5000)]),
    Batch(Kind.BINARY, [b""] * 5000),
    Batch(Kind.BINARY, [bytearray(b"not bytes"), bytearray(b"either")]),
    Batch(Kind.TEXT, [bytearray(b"not bytes")]),
]


@pytest.mark.parametrize("wait", [True, False], ids=["one-by-one", "at-once"])
async def test_every_kind(channel: Exchange, wait: bool) -> None:
    """Every node, the publisher's own included, receives each message once, in order, byte for byte and with its kind."""
    expected: list[tuple[Kind, bytes]] = []
    async with two(channel) as (bus, one, _, other):
        for batch in BATCHES:
            bus.publish(batch)
            expected += [(batch.kind, bytes(message)) for message in batch.messages]
            if wait:
                await one.has(len(expected))
        for receiver in (one, other):
            await receiver.has(len(expected))
            assert receiver.messages == expected
            assert receiver.losses == 0


async def test_alternating_kinds(channel: Exchange) -> None:
    """Messages of alternating kinds keep their order and their kind, published at once or one by one."""
    published = []
    async with two(channel) as (bus, one, _, other):
        for number in range(200):
            batch = Batch(Kind(1 + number % 2), [b"%d" % number, b"with\na line feed", b""][: 1 + number % 3])
            bus.publish(batch)
            published += [(batch.kind, message) for message in batch.messages]
            if number % 7 == 0:
                await asyncio.sleep(0)
        for receiver in (one, other):
            await receiver.has(len(published))
            assert receiver.messages == published


async def test_order(channel: Exchange) -> None:
    """Every node receives the messages of each producer in the order of their publication."""
    dice = random.Random(1)
    names = ("a", "b", "c")
    async with channel_nodes(channel, names) as nodes:
        viewers = [node.view() for node in nodes]
        for _ in range(100):
            dice.choice(nodes).publish(dice.randint(1, 40))
            if dice.random() < 0.5:
                await asyncio.sleep(0)
        for viewer in viewers:
            for node in nodes:
                await viewer.has_all(node.name, node.published)
                assert viewer.seen[node.name] == node.published
            assert (viewer.total_lost, viewer.renewals) == (0, 0)


@asynccontextmanager
async def channel_nodes(channel: Exchange, names: tuple[str, ...]) -> AsyncIterator[list[Node]]:
    """Open a node for each name; in memory, one node serves all producers."""
    if channel.url:
        async with channel.nodes(*names) as nodes:
            yield nodes
    else:
        async with channel.node() as node:
            yield [Node(name, node.bus, node.fanout, node.metrics) for name in names]


# Backpressure


async def test_pause(channel: Exchange) -> None:
    """A paused bus delivers nothing, holds a bounded number of messages and loses none; it delivers all of them after `resume`."""
    async with two(channel) as (bus, receiver, publisher, other):
        publisher.source = source = Memory()
        bus.pause()
        published = 0
        for published in range(1, 1001):
            if not source.paused:
                publisher.publish(Batch(Kind.BINARY, [b"%d" % published]))
                await asyncio.sleep(0)
        if channel.url:
            assert isinstance(bus, RabbitBus)
            await other.has(1000)
            # RabbitMQ sends a stream in chunks.
            assert len(bus._backlog) <= 2 * PREFETCH
        else:
            assert source.paused
        assert receiver.messages == []
        bus.resume()
        assert not source.paused
        if not channel.url:
            for published in range(1, 1001):
                publisher.publish(Batch(Kind.BINARY, [b"%d" % published]))
        await receiver.has(1000)
        assert [int(message) for _, message in receiver.messages] == list(range(1, 1001))


async def test_pause_again(brokered: Exchange) -> None:
    """A receiver that pauses its bus with each message gets one message for each `resume`."""
    async with two(brokered) as (bus, receiver, publisher, _):
        receive, allowed = receiver.receive, 0

        def receive_one(body: object) -> None:
            assert receiver.count < allowed, "the bus was paused"
            receive(body)  # type: ignore[arg-type]
            bus.pause()

        bus.pause()
        bus._receiver.receive = receive_one  # type: ignore[attr-defined, union-attr]
        for number in range(20):
            publisher.publish(Batch(Kind.BINARY, [b"%d" % number]))
        for number in range(20):
            allowed = number + 1
            bus.resume()
            await receiver.has(allowed)
        bus.resume()


async def test_spool_blocks(brokered: Exchange) -> None:
    """A full spool pauses the publisher, and resumes it when half of the spool is confirmed; nothing is lost."""
    async with two(brokered, spool_bytes=4096) as (bus, receiver, _, other):
        source = Memory()
        bus.source = source
        published = pauses = 0
        while pauses < 10:
            bus.publish(Batch(Kind.TEXT, [b"%d" % (published + index) for index in range(100)]))
            published += 100
            if source.paused:
                pauses += 1
                await until(lambda: not source.paused, "the resume of the source")
        await receiver.has(published)
        await other.has(published)
        assert [int(message) for _, message in receiver.messages] == list(range(published))


async def test_new_source_of_a_full_bus(channel: Exchange) -> None:
    """A bus without room pauses a new source at once, and resumes it when there is room."""
    async with channel.open(Receiver(), **({"spool_bytes": 4096} if channel.url else {})) as bus:
        bus.source = earlier = Memory()
        if channel.url:
            bus.publish(Batch(Kind.TEXT, [b"x" * 1000] * 10))
        else:
            bus.pause()
        assert earlier.paused
        bus.source = later = Memory()
        assert later.paused
        if not channel.url:
            bus.resume()
        await until(lambda: not later.paused, "the resume of the source")


async def test_spool_drops(brokered: Exchange) -> None:
    """With `spool_drops`, a full spool drops and counts its oldest messages, and each viewer receives their number at the gap."""
    async with brokered.nodes("a", "b", spool_bytes=8192, spool_drops=True) as (a, b):
        source = Memory()
        a.bus.source = source
        viewers = [a.view(), b.view()]
        a.publish()
        await viewers[1].has_all("a", 1)
        for _ in range(100):
            a.publish(10, " " + "x" * 90)
        assert a.metrics.spool_dropped > 0
        for viewer in viewers:
            await viewer.has_all("a", a.published)
            assert viewer.total_lost == a.metrics.spool_dropped == a.published - viewer.seen["a"]
            assert viewer.renewals == 0
        assert not source.paused


# Closing


async def test_close_sends_the_last_messages(channel: Exchange) -> None:
    """The bus sends messages published just before its end, if that takes at most `seconds`."""
    receiver, metrics = Receiver(), Metrics()
    async with AsyncExitStack() as stack:
        if channel.url:
            await stack.enter_async_context(channel.open(receiver))
        bus = channel.bus(metrics)
        await bus.open(Receiver() if channel.url else receiver)
        for number in range(500):
            bus.publish(Batch(Kind(1 + number % 2), [b"%d" % number] * 10))
        await bus.close(60)
        await receiver.has(5000)
        assert metrics.bus_unconfirmed == 0


async def test_close_at_once(brokered: Exchange) -> None:
    """With a timeout of 0, the bus closes at once and counts unconfirmed messages."""
    metrics = Metrics()
    async with two(brokered) as (_, receiver, _, _):
        bus = brokered.bus(metrics)
        await bus.open(Receiver())
        for number in range(1000):
            bus.publish(Batch(Kind(1 + number % 2), [b"%d" % number]))
        began = time.monotonic()
        await bus.close(0)
        assert time.monotonic() - began < scaled(10)
        assert metrics.bus_unconfirmed + receiver.count >= 1000
        await bus.close(0)
        # A publisher may learn of the end late, and publish after it.
        before = metrics.bus_unconfirmed
        bus.publish(Batch(Kind.TEXT, [b"too", b"late"]))
        assert metrics.bus_unconfirmed == before + 2


async def test_close_waits_for_own_messages(brokered: Exchange) -> None:
    """A closing bus delivers its own messages to its own receiver too, if they arrive in time."""
    for seconds, is_in_time in ((60, True), (1, False)):
        metrics, receiver = Metrics(), Receiver()
        bus = brokered.bus(metrics, start="next" if brokered.replays else None)
        await bus.open(receiver)
        bus.pause()
        bus.publish(Batch(Kind.TEXT, [b"one", b"two"]))
        closing = asyncio.create_task(bus.close(seconds))
        if is_in_time:
            done, _ = await asyncio.wait((closing,), timeout=1)
            assert not done
            bus.resume()
        await closing
        assert receiver.count == (2 if is_in_time else 0)
        assert metrics.bus_unconfirmed == 0
        assert metrics.bus_lost == (0 if is_in_time or brokered.replays else 2)


@pytest.mark.parametrize("how", ["cut", "swallow", "refuse"])
async def test_close_without_a_broker(brokered: Exchange, broker: Broker, how: str) -> None:
    """A bus without its broker closes in bounded time, in every phase of a reconnect, and counts unsent messages."""
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        for wait in (0, 0.3):
            metrics, receiver = Metrics(), Receiver()
            bus = brokered.bus(metrics, url=f"amqp://guest:guest@127.0.0.1:{proxy.port}/")
            await bus.open(receiver)
            if how == "swallow":
                await asyncio.to_thread(proxy.swallow)
            else:
                if how == "refuse":
                    await asyncio.to_thread(proxy.refuse)
                await asyncio.to_thread(proxy.cut)
                if wait:
                    await until(lambda receiver=receiver: receiver.connects[-1] is False, "the report that the broker is unreachable")
            bus.publish(Batch(Kind.TEXT, [b"one", b"two"]))
            began = time.monotonic()
            await bus.close(wait)
            assert time.monotonic() - began < scaled(8)
            if how == "swallow" or (how == "refuse" and wait):
                assert metrics.bus_unconfirmed == 2
            await asyncio.to_thread(proxy.flow)
            await asyncio.to_thread(proxy.accept)


async def test_close_while_the_link_fails(broker: Broker) -> None:
    """A closing bus that waits for its last confirms stops waiting when the link fails, because no confirm can arrive."""
    exchange = Exchange(f"contract-{secrets.token_hex(4)}", broker.url)
    metrics, receiver = Metrics(), Receiver()
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        bus = exchange.bus(metrics, url=f"amqp://guest:guest@127.0.0.1:{proxy.port}/")
        await bus.open(receiver)
        await asyncio.to_thread(proxy.swallow)
        bus.publish(Batch(Kind.TEXT, [b"one", b"two"]))
        closing = asyncio.create_task(bus.close(3600))
        await until(lambda: spool(bus).under_way, "the body to be sent")
        await asyncio.to_thread(proxy.flow)
        await asyncio.to_thread(proxy.cut)
        async with asyncio.timeout(scaled(WAIT_SECONDS)):
            await closing
    assert metrics.bus_unconfirmed == 2


async def test_open_is_cancelled(brokered: Exchange, broker: Broker) -> None:
    """A bus whose `open` is cancelled, at any moment, leaves nothing behind."""
    for turns in (1, 5, 10, 20, 40, 80):
        await cancel_opening(brokered.bus(), turns)


async def test_cancelled_by_its_first_message(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """If a receiver cancels `open` at the first message of a history, the log reports no reconnect."""
    exchange = Exchange(f"contract-{secrets.token_hex(4)}", broker.url, {"replay": True}, TUNING)
    async with exchange.open(Receiver()) as bus:
        bus.publish(Batch(Kind.TEXT, [b"enough"]))

    class Cancelling(Receiver):
        def receive(self, body: Body) -> None:
            super().receive(body)
            opening.cancel()

    metrics = Metrics()
    bus = exchange.bus(metrics)
    with caplog.at_level(logging.INFO):
        opening = asyncio.create_task(bus.open(Cancelling()))
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert metrics.broker_reconnects == 0
    assert [record.getMessage() for record in caplog.records if record.name.startswith("wsbridge")] == []


async def test_all_begin_at_once(request: pytest.FixtureRequest) -> None:
    """A node waits for a stream that another node is declaring, because RabbitMQ fails operations on it until it exists."""
    rounds = 60

    async def begin(exchange: Exchange, start: float, use: Callable[[links.Link], Awaitable[None]]) -> None:
        link = links.Link(ExchangeSettings((exchange.url,), **exchange.options), exchange.name, exchange.url)
        await asyncio.sleep(start)
        try:
            await link.open()
            await use(link)
        finally:
            await link.close()

    async def publish(link: links.Link) -> None:
        await link.publish(ONE, "someone")

    async def consume(link: links.Link) -> None:
        await link.consume_stream(lambda delivery: None, "first")

    # Milliseconds and chance decide whether two nodes meet, so repeat the test.
    for _ in range(rounds):
        exchange = make(request, "replay")
        await asyncio.gather(
            begin(exchange, 0, publish), *(begin(exchange, random.random() / 50, use) for use in (publish, consume, consume))
        )


async def test_close_times_out(brokered: Exchange, broker: Broker) -> None:
    """A link that cannot close in time aborts its connection, and leaves nothing to the garbage collector."""
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        url = f"amqp://127.0.0.1:{proxy.port}/"
        link = links.Link(ExchangeSettings((url,), **brokered.options), brokered.name, url, tuning=Tuning(close_timeout=0.2))
        await link.open()
        connection = link._connection
        await asyncio.to_thread(proxy.swallow)
        await link.close()
        assert connection.is_closed


# Errors that waiting does not cure


async def refusal(exchange: Exchange, **options: object) -> str:
    """Open a bus that must fail; return its error. Check that the error does not show a password."""
    bus = exchange.bus(**options)  # type: ignore[arg-type]
    with pytest.raises(BusError) as raised:
        await bus.open(Receiver())
    await bus.close(1)
    message = str(raised.value)
    assert PASSWORD not in message
    assert "guest:guest" not in message
    return message


async def test_nothing_listens(brokered: Exchange) -> None:
    """If nothing listens at the address, the error names it and asks whether RabbitMQ runs there."""
    port = free_port()
    message = await refusal(brokered, url=f"amqp://user:{PASSWORD}@127.0.0.1:{port}/")
    assert message.startswith(f"the broker at amqp://127.0.0.1:{port}/ cannot be reached: ")
    assert "is RabbitMQ running there?" in message


async def test_unknown_host(brokered: Exchange) -> None:
    """The error says that a host without an address cannot be reached."""
    message = await refusal(brokered, url=f"amqp://user:{PASSWORD}@nowhere.invalid/")
    assert "the broker at amqp://nowhere.invalid:5672/ cannot be reached" in message


async def test_server_without_amqp(brokered: Exchange) -> None:
    """If the server at the address does not speak AMQP, the error names the address."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        message = await refusal(brokered, url=f"amqp://user:{PASSWORD}@127.0.0.1:{port}/")
    assert f"the broker at amqp://127.0.0.1:{port}/" in message


async def test_wrong_password(brokered: Exchange, broker: Broker) -> None:
    """The error names a wrong password as the cause, and does not show it."""
    message = await refusal(brokered, url=f"amqp://guest:{PASSWORD}@127.0.0.1:{broker.port}/")
    assert message == f"the broker at amqp://127.0.0.1:{broker.port}/ refuses the user guest with this password"


async def test_unknown_virtual_host(brokered: Exchange, broker: Broker) -> None:
    """The error names an unknown virtual host."""
    message = await refusal(brokered, url=f"amqp://guest:guest@127.0.0.1:{broker.port}/nowhere")
    assert f"the broker at amqp://127.0.0.1:{broker.port}/nowhere" in message
    assert "virtual host" in message


@pytest.mark.parametrize(("is_durable", "hint"), [(True, "is durable; add durable, or passive"), (False, "is not durable; remove durable")])
async def test_other_durability(brokered: Exchange, is_durable: bool, hint: str) -> None:
    """An exchange with the other durability is refused (406); the error says which setting to change."""
    async with brokered.open(Receiver(), durable=is_durable):
        pass
    message = await refusal(brokered, durable=not is_durable)
    assert f"refuses exchange {brokered.name}: it {hint}" in message
    async with brokered.open(Receiver(), durable=is_durable):
        pass


async def test_other_exchange_type(brokered: Exchange, broker: Broker) -> None:
    """An exchange that is not a fanout is refused (406); the error names its type."""
    async with external_channel(broker) as channel:
        await channel.exchange_declare(brokered.name, exchange_type="direct")
    message = await refusal(brokered)
    assert f"refuses exchange {brokered.name}: its type is direct, but a channel needs a fanout" in message


async def test_other_difference(brokered: Exchange, broker: Broker) -> None:
    """For an exchange with any other difference, the error suggests passive (406)."""
    async with external_channel(broker) as channel:
        await channel.exchange_declare(brokered.name, exchange_type="fanout", auto_delete=True)
        assert "add passive to use it unchanged" in await refusal(brokered)


async def test_stream_name_is_in_use(broker: Broker) -> None:
    """If another queue has the name of the stream, the error says so (406)."""
    exchange = Exchange(f"contract-{secrets.token_hex(4)}", broker.url, {"replay": True}, TUNING)
    async with external_channel(broker) as channel:
        await channel.queue_declare(f"wsbridge.{exchange.name}", exclusive=False, durable=True)
    assert f"has a queue wsbridge.{exchange.name} that is not a stream of wsbridge" in await refusal(exchange)
    await asyncio.to_thread(broker.delete_queue, f"wsbridge.{exchange.name}")


@asynccontextmanager
async def external_channel(broker: Broker) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    connection = await aiormq.connect(broker.url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def test_missing_exchange(brokered: Exchange) -> None:
    """With `passive`, a missing exchange is an error at once (404)."""
    message = await refusal(brokered, passive=True)
    assert f"no exchange {brokered.name}" in message
    assert "passive" in message


async def test_other_replay_bytes(broker: Broker) -> None:
    """A stream declared with another size is refused; the error names the setting (406)."""
    exchange = Exchange(f"contract-{secrets.token_hex(4)}", broker.url, {"replay": True}, TUNING)
    async with exchange.open(Receiver()):
        pass
    message = await refusal(exchange, replay_bytes=1 << 20)
    assert "replay_size" in message


@asynccontextmanager
async def user_with(broker: Broker, *rights: str) -> AsyncIterator[str]:
    """Make a user of the broker with these patterns for configure, write and read, or without permissions; yield its URL."""
    user = f"user-{secrets.token_hex(4)}"
    await asyncio.to_thread(broker.add_user, user, PASSWORD, *rights)
    try:
        yield f"amqp://{user}:{PASSWORD}@127.0.0.1:{broker.port}/"
    finally:
        await asyncio.to_thread(broker.delete_user, user)


@pytest.mark.parametrize("rights", [(), ("^$", ".*", ".*"), ("^wsbridge.*", "^$", ".*")], ids=["none", "no-declare", "no-publish"])
async def test_no_permission(brokered: Exchange, broker: Broker, rights: tuple[str, ...]) -> None:
    """If the user lacks a permission, the error names the user (403)."""
    async with user_with(broker, *rights) as url:
        message = await refusal(brokered, url=url)
        assert str(urlsplit(url).username) in message
        assert "virtual host" in message if not rights else f"exchange {brokered.name}" in message


async def test_publisher_that_may_not_read(request: pytest.FixtureRequest, broker: Broker) -> None:
    """A publisher with replay needs the permission to read the exchange, in order to bind to it, but not the stream."""
    exchange = make(request, "replay")
    async with exchange.node() as node, user_with(broker, ".*", ".*", f"^{exchange.name}$") as url:
        bus = exchange.bus(url=url, consumes=False)
        await bus.open(Receiver())
        bus.publish(Batch(Kind.TEXT, (b"one",)))
        await bus.close(10)
        await until(lambda: node.fanout.channel.end == 1, "the published messages")


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a CA, of a server at 127.0.0.1 and of a client."""
    folder = tmp_path_factory.mktemp("certificates")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key")
    for name, options in (
        ("ca", ()),
        ("server", ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *signed)),
        ("client", signed),
    ):
        words = (*NEW_CERTIFICATE, *options)
        files = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        subprocess.run([*words, *files], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def tls_broker(certificates: Path) -> Iterator[Broker]:
    with Broker(tls=(certificates / "ca.pem", certificates / "server.pem", certificates / "server.key")) as broker:
        yield broker


@pytest.mark.parametrize("replay", [False, True])
async def test_tls(tls_broker: Broker, certificates: Path, replay: bool) -> None:
    """TLS changes nothing else; the query of the URL names the CA file and the optional client certificate."""
    query = f"?cafile={certificates}/ca.pem&certfile={certificates}/client.pem&keyfile={certificates}/client.key"
    exchange = Exchange(f"contract-{secrets.token_hex(4)}", tls_broker.tls_url + query, {"replay": replay}, TUNING)
    async with two(exchange) as (bus, one, _, other):
        bus.publish(Batch(Kind.TEXT, [b"over TLS"] * 100 + [b"x" * 300_000]))
        for receiver in (one, other):
            await receiver.has(101)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
async def test_accepted_bytes(request: pytest.FixtureRequest, broker: Broker, is_tls: bool, certificates: Path) -> None:
    """The connection counts the bytes that the broker's machine accepts, over TLS approximately: a publish ends with its last byte."""
    url = broker.url
    if is_tls:
        tls_broker: Broker = request.getfixturevalue("tls_broker")
        url = f"{tls_broker.tls_url}?cafile={certificates}/ca.pem"
    link = links.Link(ExchangeSettings((url,)), f"contract-{secrets.token_hex(4)}", url)
    await link.open()
    connection = link._connection
    assert connection is not None
    for size in (10, 1_000_000, 100):
        before = connection.written
        await link.publish(OutgoingBody(LINES, b"x" * size, first=size, messages=1), "someone")
        await until(lambda: connection.written - connection.accepted() <= 0 or is_tls, "the acknowledgement of all bytes")
        assert abs(connection.written - connection.accepted()) <= (1000 if is_tls else 0)
        assert size < connection.written - before < size * 1.01 + 500
    await link.close()


@contextmanager
def silent(certificates: Path) -> Iterator[tuple[int, Event]]:
    """A TLS server that sends and reads nothing after the first bytes; it sets the event when they arrive."""
    asked = Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client = stack.enter_context(listener.accept()[0])
                    secure = stack.enter_context(context.wrap_socket(client, server_side=True))
                    secure.recv(8)
                    asked.set()

        thread = Thread(target=serve, name="silent")
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("how", ["waits", "is cancelled"])
async def test_silent_over_tls(certificates: Path, how: str) -> None:
    """A broker that sends nothing over TLS costs at most the timeout, and cancelling works too, without a TLS close_notify."""
    with silent(certificates) as (port, asked):
        timeout = 1.0 if how == "waits" else 60.0
        exchange = Exchange("silent", f"amqps://127.0.0.1:{port}/?cafile={certificates}/ca.pem", {"timeout": timeout})
        began = time.monotonic()
        if how == "waits":
            assert (await refusal(exchange)).endswith("does not answer")
        else:
            bus = exchange.bus()
            opening = asyncio.create_task(bus.open(Receiver()))
            await until(asked.is_set, "the protocol header")
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await bus.close(0)
        assert time.monotonic() - began < scaled(8)


async def test_tls_errors(tls_broker: Broker, certificates: Path) -> None:
    """The errors name an untrusted certificate, a missing file, and a port without TLS or with TLS only."""
    exchange = Exchange(f"contract-{secrets.token_hex(4)}")
    guest = f"amqps://guest:{PASSWORD}@127.0.0.1"
    message = await refusal(exchange, url=f"{guest}:{tls_broker.tls_port}/")
    assert "certificate that this machine does not trust" in message
    assert "cafile" in message
    message = await refusal(exchange, url=f"{guest}:{tls_broker.tls_port}/?cafile={certificates}/nothing.pem")
    assert "cafile" in message
    assert "does not exist" in message
    message = await refusal(exchange, url=f"{guest}:{tls_broker.port}/?cafile={certificates}/ca.pem")
    assert "failed the TLS handshake" in message
    message = await refusal(exchange, url=f"amqp://guest:{PASSWORD}@127.0.0.1:{tls_broker.tls_port}/")
    assert f"the broker at amqp://127.0.0.1:{tls_broker.tls_port}/" in message
