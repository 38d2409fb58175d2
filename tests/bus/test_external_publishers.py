"""Bodies of external publishers at a real broker: a channel decodes them, or drops, counts and reports them."""

from __future__ import annotations

import asyncio
import gzip
import secrets
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from pamqp import commands

from tests.bus.node import Exchange, Receiver, texts
from tests.support import amqp1
from tests.support.rabbit import Broker
from wsbridge.metrics import Metrics

pytestmark = pytest.mark.usefixtures("clean")

LIMIT = 10_000


@pytest.fixture(params=[False, True], ids=["plain", "replay"])
def exchange(request: pytest.FixtureRequest, broker: Broker) -> Exchange:
    return Exchange(f"external-{secrets.token_hex(4)}", broker.url, {"replay": request.param})


@asynccontextmanager
async def external_publisher(broker: Broker) -> AsyncIterator[AbstractChannel]:
    connection = await aiormq.connect(broker.url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def test_content_encodings(exchange: Exchange, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """A channel decodes compressed bodies; it drops, counts and reports the others, and logs each reason once.

    A body that decompresses to more than `--maxline` is too long.
    """
    receiver, metrics = Receiver(), Metrics()
    async with external_publisher(broker) as channel, exchange.open(receiver, metrics=metrics, max_message_bytes=LIMIT):

        async def publish(data: bytes, **properties: str) -> None:
            await channel.basic_publish(data, exchange=exchange.name, properties=commands.Basic.Properties(**properties))

        await publish(gzip.compress("21.5 °C\n22\n".encode()), content_encoding="gzip", content_type="text/plain")
        await publish(zlib.compress(b"deflated"), content_encoding="deflate")
        await publish(gzip.compress(b'{"a": 1}'), content_encoding="gzip:UTF-8", content_type="application/json")
        for _ in range(20):
            await publish(b"\x1b\0\0", content_encoding="br")
            await publish(b"no gzip", content_encoding="gzip")
        for _ in range(3):
            await publish(gzip.compress(b"\0" * 50_000_000), content_encoding="gzip")
        await publish(b"last", content_encoding="utf-8")
        await receiver.has(5)
        assert receiver.messages == texts(["21.5 °C".encode(), b"22", b"deflated", b'{"a": 1}', b"last"])
    assert (receiver.losses, metrics.bus_undecoded, metrics.bus_too_long, metrics.bus_malformed) == (43, 40, 3, 0)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("wsbridge")]
    for reason in (
        "content-encoding is br, which wsbridge does not decode",
        "content-encoding is gzip, but its content is not valid gzip",
        "more than 10000 bytes",
    ):
        assert sum(reason in line for line in said) == 1, said


async def test_amqp_1(exchange: Exchange, broker: Broker) -> None:
    """Text and bytes from an AMQP 1.0 client arrive unchanged; the channel drops and counts its lists and numbers."""
    is_old = (await asyncio.to_thread(broker.ctl, "version")).startswith("3.")
    if is_old:
        # AMQP 1.0 is a plugin before RabbitMQ 4.
        await asyncio.to_thread(broker.ctl, "enable", "rabbitmq_amqp1_0", script="rabbitmq-plugins")
    address = f"/exchange{'' if is_old else 's'}/{exchange.name}"
    receiver, metrics = Receiver(), Metrics()
    async with exchange.open(receiver, metrics=metrics):
        for sections in (
            amqp1.described(amqp1.VALUE, amqp1.string("21.5 °C")),
            amqp1.described(amqp1.VALUE, amqp1.EMPTY_LIST),
            amqp1.described(amqp1.SEQUENCE, amqp1.EMPTY_LIST),
            amqp1.described(amqp1.VALUE, amqp1.binary(b"bytes")),
            amqp1.described(amqp1.DATA, amqp1.binary(b"data")),
        ):
            await amqp1.send(broker.port, address, sections)
        await receiver.has(3)
        assert receiver.messages == texts(["21.5 °C".encode(), b"bytes", b"data"])
    assert (receiver.losses, metrics.bus_undecoded) == (2, 2)
