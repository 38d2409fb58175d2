"""A binding that an administrator removes while the broker confirms messages, because another queue is bound to the exchange."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import aiormq
import pytest
from aiormq.abc import AbstractChannel

from tests.bus.node import Exchange, until
from tests.support.rabbit import Broker, bro_publish
from wsbridge.bus.rabbitmq import link as links
from wsbridge.bus.rabbitmq.topology import KEYS
from wsbridge.bus.rabbitmq.tuning import Tuning

pytestmark = pytest.mark.usefixtures("clean")

TUNING = Tuning(max_pause=0.2)


@pytest.fixture
def exchange(broker: Broker) -> Exchange:
    return Exchange(f"binding-{secrets.token_hex(4)}", broker.url, {"replay": True}, TUNING)


@pytest.fixture
async def other(exchange: Exchange) -> AsyncIterator[AbstractChannel]:
    """The AMQP channel of another program, whose queue is bound to the exchange; tests change bindings over it."""
    connection = await aiormq.connect(exchange.url)
    try:
        channel = await connection.channel()
        await channel.exchange_declare(exchange.name, exchange_type="fanout")
        declared = await channel.queue_declare(exclusive=True)
        await channel.queue_bind(str(declared.queue), exchange.name)
        yield channel
    finally:
        await connection.close()


async def unbind(channel: AbstractChannel, exchange: Exchange, *keys: str) -> None:
    for key in keys:
        await channel.queue_unbind(f"wsbridge.{exchange.name}", exchange.name, routing_key=key)


async def test_one_binding_is_removed(exchange: Exchange, other: AbstractChannel) -> None:
    """The stream has two bindings: while one of them remains, no message is lost, not even of an external publisher."""
    exchange.tuning = replace(TUNING, check_interval=3600.0)
    async with exchange.node("p") as p:
        viewer = p.view()
        for number, key in enumerate(KEYS):
            await unbind(other, exchange, key)
            p.publish()
            await bro_publish(exchange.url, exchange.name, f"x {number}")
            await viewer.has_all("p", p.published)
            await viewer.has_all("x", number + 1)
            async with exchange.node("other"):
                """A node that starts declares both bindings again."""
        assert (viewer.total_lost, viewer.renewals) == (0, 0)


async def test_no_binding_is_left(exchange: Exchange, other: AbstractChannel) -> None:
    """A node publishes messages again that reached no stream, although the broker confirmed them."""
    exchange.tuning = replace(TUNING, check_interval=3600.0, return_timeout=0.3)
    async with exchange.nodes("p", "v") as (p, v):
        viewers = [p.view(), v.view()]
        p.publish()
        for viewer in viewers:
            await viewer.has_all("p", 1)
        await unbind(other, exchange, *KEYS)
        for _ in range(20):
            p.publish(1, "\n")
        await p.published_all()
        for viewer in viewers:
            await viewer.has_all("p", 21)
            assert (viewer.seen["p"], viewer.total_lost, viewer.renewals) == (21, 0, 0)
        assert p.metrics.broker_reconnects == 1


async def test_paused_node_loses_nothing(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """A paused node does not count unread messages as lost."""
    exchange.tuning = replace(TUNING, return_timeout=0.2)
    async with exchange.node("p") as p:
        viewer = p.view()
        p.bus.pause()
        for _ in range(400):
            p.publish(1, "\n")
        await p.published_all()
        asked = 0
        has_all = p.bus._reader.has_all  # type: ignore[attr-defined]

        async def count(link: links.Link) -> bool:
            nonlocal asked
            asked += 1
            return bool(await has_all(link))

        monkeypatch.setattr(p.bus._reader, "has_all", count)  # type: ignore[attr-defined]
        await until(lambda: asked >= 4, "four checks")
        p.bus.resume()
        await viewer.has_all("p", 400)
        assert (viewer.seen["p"], p.metrics.broker_reconnects, p.metrics.bus_repeats) == (400, 0, 0)


async def test_bindings_are_restored(exchange: Exchange, other: AbstractChannel) -> None:
    """A node that only receives restores the bindings soon; after that, messages of external publishers arrive."""
    exchange.tuning = replace(TUNING, check_interval=0.1)
    async with exchange.node("v") as v:
        viewer = v.view()
        await unbind(other, exchange, *KEYS)
        number = 0
        while not viewer.seen["x"]:
            await bro_publish(exchange.url, exchange.name, f"x {number}")
            number += 1
