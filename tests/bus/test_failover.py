"""Several addresses of one broker: if one fails in any way, the channel uses another, and the log gives the reason."""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiormq
import pytest

from tests.bus.conftest import PrivateBroker
from tests.bus.node import QUICK, Exchange, Node, Receiver, publish_until_received, until
from tests.support.rabbit import Broker, Proxy
from tests.support.server import free_port
from tests.support.site import NEW_CERTIFICATE
from wsbridge.errors import BusError
from wsbridge.flow import Batch, Kind

pytestmark = pytest.mark.usefixtures("clean")

PASSWORD = "not-to-be-seen"
ONE = Batch(Kind.TEXT, [b"one"])


@pytest.fixture(params=[False, True], ids=["plain", "replay"])
def exchange(request: pytest.FixtureRequest, broker: Broker) -> Exchange:
    return Exchange(f"over-{secrets.token_hex(4)}", broker.url, {"replay": request.param})


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the logged errors."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR and record.name.startswith("wsbridge")]


# An address that never works


@asynccontextmanager
async def listening(answer: bytes | None, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that accepts connections, sends `answer` and closes; without an answer, it sends nothing and never closes."""
    stack = ExitStack()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # From Python 3.13 on, a writer that is collected as garbage closes its connection.
        stack.callback(lambda: writer.transport.abort())
        if answer is not None:
            writer.write(answer)
            writer.close()

    # The end of the server waits for its connections.
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        with stack:
            yield server.sockets[0].getsockname()[1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a self-signed certificate of 127.0.0.1 and its key."""
    file = tmp_path_factory.mktemp("certificate") / "both.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run([*NEW_CERTIFICATE, *subject, "-keyout", f"{file}.key", "-out", f"{file}.crt"], check=True, capture_output=True)
    file.write_text(Path(f"{file}.key").read_text() + Path(f"{file}.crt").read_text())
    return file


@asynccontextmanager
async def dead_address(kind: str, broker: Broker, exchange: str, certificate: Path) -> AsyncIterator[str]:
    """An address that cannot serve the channel, for the reason in `kind`."""
    async with AsyncExitStack() as stack:
        match kind:
            case "refuses":
                yield f"amqp://u:{PASSWORD}@127.0.0.1:{free_port()}/"
            case "no such host":
                yield f"amqp://u:{PASSWORD}@nowhere.invalid/"
            case "silent":
                yield f"amqp://u:{PASSWORD}@127.0.0.1:{await stack.enter_async_context(listening(None))}/"
            case "no broker":
                yield f"amqp://u:{PASSWORD}@127.0.0.1:{await stack.enter_async_context(listening(b'HTTP/1.1 400 Bad'))}/"
            case "closes":
                yield f"amqp://u:{PASSWORD}@127.0.0.1:{await stack.enter_async_context(listening(b''))}/"
            case "plain, not TLS":
                yield f"amqps://u:{PASSWORD}@127.0.0.1:{broker.port}/"
            case "TLS, not plain":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate)
                yield f"amqp://u:{PASSWORD}@127.0.0.1:{await stack.enter_async_context(listening(None, context))}/"
            case "untrusted":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate)
                yield f"amqps://u:{PASSWORD}@127.0.0.1:{await stack.enter_async_context(listening(None, context))}/"
            case "another password":
                yield f"amqp://guest:{PASSWORD}@127.0.0.1:{broker.port}/"
            case "another virtual host":
                yield f"amqp://guest:guest@127.0.0.1:{broker.port}/nowhere"
            case "another exchange":
                await asyncio.to_thread(broker.ctl, "add_vhost", exchange)
                await asyncio.to_thread(broker.ctl, "set_permissions", "--vhost", exchange, "guest", ".*", ".*", ".*")
                url = f"amqp://guest:guest@127.0.0.1:{broker.port}/{exchange}"
                connection = await aiormq.connect(url)
                await (await connection.channel()).exchange_declare(exchange, exchange_type="topic")
                await connection.close()
                yield url
                await asyncio.to_thread(broker.ctl, "delete_vhost", exchange)


DEAD = {
    "refuses": "cannot be reached",
    "no such host": "cannot be reached",
    "silent": "does not answer",
    "no broker": "the broker at",
    "closes": "the broker at",
    "plain, not TLS": "failed the TLS handshake",
    "TLS, not plain": "the broker at",
    "untrusted": "certificate that this machine does not trust",
    "another password": "refuses the user guest",
    "another virtual host": "virtual host",
    "another exchange": "its type is topic",
}


@pytest.mark.parametrize("kind", DEAD)
async def test_dead_first_address(broker: Broker, kind: str, certificate: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the first address does not work, the bus soon tries the second; the log gives the reason without the password."""
    name = f"over-{secrets.token_hex(4)}"
    async with dead_address(kind, broker, name, certificate) as dead:
        exchange, receiver = Exchange(name, options={"urls": (dead, broker.url)}), Receiver()
        async with exchange.open(receiver) as bus:
            assert str(bus) == f"amqp://127.0.0.1:{broker.port}/"
            bus.publish(ONE)
            await receiver.has(1)
    (said,) = reasons(caplog)
    assert said.startswith(f"the broker at {dead.partition(':')[0]}://{dead.partition('@')[2].partition('/')[0]}")
    assert DEAD[kind] in said
    assert PASSWORD not in caplog.text


async def test_all_addresses_are_dead(broker: Broker) -> None:
    """If no address works, the start fails; the error names each address in order, with its own reason."""
    port = free_port()
    dead = (f"amqp://u:{PASSWORD}@127.0.0.1:{port}/", f"amqp://guest:{PASSWORD}@127.0.0.1:{broker.port}/")
    bus = Exchange("over", options={"urls": dead}).bus()
    with pytest.raises(BusError) as raised:
        await bus.open(Receiver())
    await bus.close(0)
    one, other = str(raised.value).split("; the broker ")
    assert one.startswith(f"the broker at amqp://127.0.0.1:{port}/ cannot be reached")
    assert other == f"at amqp://127.0.0.1:{broker.port}/ refuses the user guest with this password"


# An address that fails later


async def is_at(node: Node, proxy: Proxy) -> None:
    """Wait until a node uses the address of a proxy."""
    await until(lambda: node.fanout.is_connected and str(node.bus).endswith(f":{proxy.port}/"), f"the node at port {proxy.port}")


@pytest.mark.parametrize("how", ["refuses", "is silent"])
async def test_address_is_lost(exchange: Exchange, broker: Broker, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A node whose address fails moves to the next address, and from the last to the first; with replay, nothing is lost.

    It keeps an address that works, and the log names the address in use.
    """
    caplog.set_level(logging.INFO, logger="wsbridge")
    with Proxy(("127.0.0.1", broker.port)) as a, Proxy(("127.0.0.1", broker.port)) as b:
        urls = tuple(f"amqp://guest:guest@127.0.0.1:{proxy.port}/" for proxy in (a, b))
        async with exchange.node("p", urls=urls) as node, exchange.node("v") as other:
            viewer = other.view()
            for new, old in ((a, b), (b, a), (a, b)):
                await is_at(node, new)
                await publish_until_received([node], [viewer])
                node.publish(50)
                await asyncio.to_thread(old.flow)
                await asyncio.to_thread(old.accept)
                await asyncio.to_thread(new.refuse if how == "refuses" else new.swallow)
                await asyncio.to_thread(new.cut)
                node.publish(50)
                await is_at(node, old)
            await publish_until_received([node], [viewer])
            assert node.metrics.broker_reconnects == 3
            if exchange.replays:
                assert (viewer.total_lost, viewer.renewals, viewer.seen["p"]) == (0, 0, node.published)
    assert [f"reconnected to the broker at amqp://127.0.0.1:{proxy.port}/" in caplog.text for proxy in (a, b)] == [True, True]


async def test_two_brokers(broker: Broker, private_broker: PrivateBroker) -> None:
    """When a broker stops, all nodes move to the other broker, and viewers receive notice of an unknown loss."""
    other = await asyncio.to_thread(private_broker)
    exchange = Exchange(f"over-{secrets.token_hex(4)}", options={"urls": (other.url, broker.url)})
    async with exchange.nodes("p", "v") as (p, v):
        viewer = v.view()
        await publish_until_received([p], [viewer])
        await asyncio.to_thread(other.kill, at_once=True)
        for node in (p, v):
            await until(lambda node=node: node.fanout.is_connected and str(node.bus).endswith(f":{broker.port}/"), "the move")
        await publish_until_received([p], [viewer])
        assert viewer.renewals > 0


# The nodes of a RabbitMQ cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Broker, Broker]]:
    """Two nodes of a RabbitMQ cluster."""
    with Broker() as one, Broker(peer=one) as other:
        yield one, other


async def test_node_without_a_replica(cluster: tuple[Broker, Broker], caplog: pytest.LogCaptureFixture) -> None:
    """The bus leaves a cluster node without a replica of the stream for one with a replica, at the start and later.

    RabbitMQ 4 reports a missing replica; for 3.10, the bus has to ask.
    """
    one, other = cluster
    name = f"over-{secrets.token_hex(4)}"
    at_one, at_other = f"amqp://127.0.0.1:{one.port}/", f"amqp://127.0.0.1:{other.port}/"
    exchange = Exchange(name, options={"urls": (one.url, other.url), "replay": True}, tuning=replace(QUICK, check_interval=1.0))
    async with exchange.node("p", urls=(one.url,)) as p:
        p.publish()
        await p.published_all()
        async with exchange.node("v", urls=(other.url, one.url)) as v:
            viewer = v.view()
            await publish_until_received([p], [viewer])
            assert str(v.bus) == at_other
            words = ("delete_replica", f"wsbridge.{name}", other.node)
            await asyncio.to_thread(other.ctl, *words, script="rabbitmq-streams")
            await until(lambda: v.fanout.is_connected and str(v.bus) == at_one, "the node at the broker that has a replica")
            p.publish(5)
            await publish_until_received([p], [viewer])
            assert (viewer.total_lost, viewer.renewals) == (0, 0)
        caplog.clear()
        async with exchange.node("w", urls=(other.url, one.url)) as w:
            assert str(w.bus) == at_one
            viewer = w.view()
            await publish_until_received([p], [viewer])
        (said,) = reasons(caplog)
        assert said.startswith(f"the broker at {at_other} cannot be used: ")
        assert "replica" in said
        # A publisher without a receiver needs no replica.
        bus = exchange.bus(urls=(other.url, one.url), consumes=False)
        await bus.open(Receiver())
        assert str(bus) == at_other
        before = p.fanout.channel.end
        bus.publish(ONE)
        await bus.close(10)
        await until(lambda: p.fanout.channel.end == before + 1, "the published message")
