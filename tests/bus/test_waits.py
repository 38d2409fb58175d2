"""Every wait for a broker has an end: a missing confirm or answer ends the link, and the bus continues over the next one."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.bus.node import WAIT_SECONDS, Exchange, Node, Receiver, SlowLink, spool, until
from tests.support.amqp import AmqpLink, amqp_link
from tests.support.deadline import scaled
from tests.support.rabbit import Broker, bro_publish
from wsbridge.bus.rabbitmq import link as links
from wsbridge.bus.rabbitmq.link import Link
from wsbridge.bus.rabbitmq.tuning import Tuning
from wsbridge.channel.ring import Join
from wsbridge.errors import BusError

pytestmark = pytest.mark.usefixtures("clean")


def quick() -> dict[str, float]:
    """Return short timeouts that a broker can still meet at the current load of the machine."""
    return {"timeout": scaled(2.0), "confirm_timeout": scaled(1.0)}


TUNING = Tuning(max_pause=0.2, check_interval=0.2)
"""Nothing waits for long before it comes back, and the exchange is looked at all the while."""


@pytest.fixture
async def link(broker: Broker) -> AsyncIterator[AmqpLink]:
    async with amqp_link(broker.port) as link:
        yield link


@pytest.fixture(params=["rabbitmq", "replay"])
def exchange(request: pytest.FixtureRequest, broker: Broker) -> Exchange:
    return Exchange(f"waits-{secrets.token_hex(4)}", broker.url, {"replay": request.param == "replay"}, TUNING)


async def publish_until(node: Node, done: Callable[[], object], what: str) -> None:
    """Publish continuously until a condition holds."""

    def is_done() -> bool:
        node.publish()
        return bool(done())

    # While messages arrive, a link with one missing answer lasts MAX_TIMEOUTS timeouts, and a test loses up to three links. The
    # timeouts of the test depend on the load at its beginning; the load may grow later.
    await until(is_done, what, WAIT_SECONDS + 4 * links.MAX_TIMEOUTS * quick()["timeout"])


async def test_lost_confirms(exchange: Exchange, link: AmqpLink) -> None:
    """If confirms are lost on their way, the bus opens a new link and does not wait for them any longer."""
    async with exchange.node("v") as v, exchange.node("p", url=link.url, **quick()) as p:
        viewer = v.view()
        p.publish()
        await viewer.has_all("p", 1)
        link.drops = lambda frame: True
        p.publish(10)
        await until(lambda: spool(p.bus).under_way, "the body to be sent")
        await until(lambda: link.dropped["basic.ack"], "the loss of the confirm")
        link.drops = lambda frame: False
        await until(lambda: p.metrics.broker_reconnects == 1 and p.fanout.is_connected, "the next link")
        p.publish()
        await viewer.has_all("p", 12)
        assert p.metrics.publish_timeouts == 1
        assert (viewer.seen["p"], viewer.total_lost, viewer.renewals) == (12, 0, 0)


async def test_one_confirm_of_many(exchange: Exchange, link: AmqpLink) -> None:
    """A single missing confirm costs the link, even while other confirms arrive."""
    async with exchange.node("p", url=link.url, timeout=scaled(2.0), confirm_timeout=1.0) as p:
        p.publish()
        await p.published_all()
        link.drops = lambda frame: frame.method == "basic.ack" and not link.dropped["basic.ack"]
        await publish_until(p, lambda: p.metrics.publish_timeouts, "the end of its timeout")
        await until(lambda: p.fanout.is_connected, "the next link")
        await p.published_all()


@pytest.mark.parametrize("method", ["exchange.declare-ok", "queue.bind-ok"])
async def test_no_answer_to_a_check(exchange: Exchange, broker: Broker, link: AmqpLink, method: str) -> None:
    """A missing answer to a check costs the link, even while messages arrive: they are not the answer."""
    async with exchange.node("p") as p, exchange.node("v", url=link.url, timeout=scaled(1.0)) as v:
        link.drops = lambda frame: frame.method == method and link.accepted == 1
        await publish_until(p, lambda: v.metrics.broker_reconnects, "the next link")
        viewer = v.view()
        p.publish()
        await viewer.has_all("p", p.published)


STEPS = [
    "channel.open-ok", "confirm.select-ok", "exchange.declare-ok", "queue.declare-ok", "queue.bind-ok", "basic.qos-ok", "basic.consume-ok",
]  # fmt: skip
WITH_REPLAY = ["channel.close-ok"]


@pytest.mark.parametrize("method", [*STEPS, *WITH_REPLAY])
async def test_no_answer_at_the_start(exchange: Exchange, link: AmqpLink, method: str) -> None:
    """If the broker leaves a step at the start unanswered, the start fails in bounded time."""
    if method in WITH_REPLAY and not exchange.replays:
        return
    link.drops = lambda frame: frame.method == method
    with pytest.raises(BusError, match=r"does not answer|has not answered"):
        async with exchange.open(Receiver(), url=link.url, **quick()):
            pass


@pytest.mark.parametrize("method", [*STEPS, *WITH_REPLAY])
async def test_no_answer_during_a_reconnect(exchange: Exchange, link: AmqpLink, method: str) -> None:
    """If the broker leaves a step of a reconnect unanswered, the bus tries again, and all nodes receive the messages."""
    if method in WITH_REPLAY and not exchange.replays:
        return
    async with exchange.node("p") as p, exchange.node("v", url=link.url, **quick()) as v:
        viewer = v.view()
        p.publish()
        await viewer.has_all("p", 1)
        tries = link.accepted
        link.drops = lambda frame: frame.method == method and link.accepted < tries + 3
        link.cut()
        await publish_until(p, lambda: v.metrics.broker_reconnects and v.fanout.is_connected and link.accepted >= tries + 1, "the link")
        await viewer.has_all("p", p.published)
        if exchange.replays:
            assert (viewer.seen["p"], viewer.total_lost, viewer.renewals) == (p.published, 0, 0)


async def test_lost_deliveries(exchange: Exchange, link: AmqpLink) -> None:
    """If messages of an external publisher are lost between broker and node, the next message shows it, although they have no numbers."""
    async with exchange.node("v", url=link.url) as v, exchange.node("p") as p:
        viewer = v.view()
        p.publish()
        await viewer.has_all("p", 1)
        for text in (b"x 0", b"x 1", b"x 2"):
            link.drops = lambda frame, text=text: frame.method == "basic.deliver" and text == b"x 1"  # type: ignore[misc]
            await bro_publish(exchange.url, exchange.name, text.decode())
            if text == b"x 1":
                await until(lambda: link.dropped["basic.deliver"], "the loss of the delivery")
            elif text == b"x 0":
                await viewer.has_all("x", 1)
        await until(lambda: v.metrics.broker_reconnects == 1 and v.fanout.is_connected, "the next link")
        if exchange.replays:
            await viewer.has_all("x", 3)
            assert (viewer.seen["x"], viewer.total_lost, viewer.renewals) == (3, 0, 0)
        else:
            assert viewer.renewals == 1


async def test_deliveries_that_stop(exchange: Exchange, link: AmqpLink) -> None:
    """If a stream holds more but delivers nothing, a node that only reads continues over another link."""
    if not exchange.replays:
        return
    exchange.tuning = replace(TUNING, stall_interval=0.2)
    channels: list[int] = []
    async with exchange.node("p") as p, exchange.node("v", url=link.url) as v:
        viewer = v.view()
        link.drops = lambda frame: bool(frame.method == "basic.deliver" and channels.append(frame.channel))
        p.publish()
        await viewer.has_all("p", 1)
        # Drop only the reader's deliveries: the checks in between use another channel.
        consumer = channels[-1]
        link.drops = lambda frame: frame.method == "basic.deliver" and frame.channel == consumer and link.accepted == 1
        for _ in range(3):
            p.publish()
        await until(lambda: v.metrics.broker_reconnects == 1, "the next link")
        await viewer.has_all("p", 4)
        assert (viewer.seen["p"], viewer.total_lost, viewer.renewals) == (4, 0, 0)


@pytest.mark.parametrize("begins", ["something", "nothing"])
async def test_idle_stream(exchange: Exchange, link: AmqpLink, monkeypatch: pytest.MonkeyPatch, begins: str) -> None:
    """If a stream holds nothing more, the node keeps its link, however often it checks."""
    if not exchange.replays:
        return
    exchange.tuning = replace(TUNING, stall_interval=0.02)
    looks: list[object] = []
    find = Link.find

    async def counted(link: Link, *arguments: Any) -> int | None:
        looks.append(arguments)
        return await find(link, *arguments)

    monkeypatch.setattr(Link, "find", counted)
    async with exchange.node("p") as p, exchange.node("v", url=link.url) as v:
        viewer = v.view()
        if begins == "something":
            p.publish()
            await viewer.has_all("p", 1)
            await until(lambda: len(looks) > 8, "some checks")
        else:
            await until(lambda: v.fanout.is_connected, "the stream")
        p.publish()
        await viewer.has_all("p", p.published)
        assert (v.metrics.broker_reconnects, viewer.renewals) == (0, 0)


async def test_slow_upload(exchange: Exchange, broker: Broker) -> None:
    """A body that takes longer than its timeout over a slow link is not overdue while the broker accepts its bytes."""
    async with exchange.node("v") as v, SlowLink(("127.0.0.1", broker.port), 1 << 30, up=100_000) as slow:
        viewer = v.view()
        async with exchange.node("p", url=f"amqp://guest:guest@127.0.0.1:{slow.port}/", confirm_timeout=1.5) as p:
            p.publish(1, " " + "x" * 400_000)
            await viewer.has_all("p", 1)
            await p.published_all()
            assert (p.metrics.broker_reconnects, p.metrics.publish_timeouts) == (0, 0)


async def test_alarm_outlasts_every_timeout(private_broker: Callable[..., Broker], caplog: pytest.LogCaptureFixture) -> None:
    """An alarm of the broker has no timeout: the bus logs and counts it, and then publishes again over the same link."""
    caplog.set_level(logging.INFO)
    broker = await asyncio.to_thread(private_broker)
    for replay in (False, True):
        timeouts = quick()
        exchange = Exchange(f"alarm-{replay}", broker.url, {"replay": replay, **timeouts}, TUNING)
        async with exchange.node("p") as p:
            viewer = p.view(Join.HISTORY)
            p.publish()
            await viewer.has_all("p", 1)
            assert p.bus.alarm == ""
            await asyncio.to_thread(broker.alarm, True)
            try:
                # The broker still accepts one message, and only then reports that the connection is blocked.
                await publish_until(p, lambda: p.bus.alarm, "the report of the alarm")
                assert "memory" in p.bus.alarm
                over = time.monotonic() + 4 * timeouts["timeout"] + 1
                await publish_until(p, lambda over=over: time.monotonic() > over, "every timeout to pass")
                assert p.bus.alarm
            finally:
                await asyncio.to_thread(broker.alarm, False)
            await until(lambda: not p.bus.alarm, "the end of the alarm")
            await viewer.has_all("p", p.published)
            assert (viewer.seen["p"], viewer.words, p.metrics.broker_reconnects) == (p.published, [], 0)
            assert (p.metrics.broker_alarms, p.metrics.publish_timeouts) == (1, 0)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("wsbridge")]
    assert len([line for line in said if "is blocking publishers" in line and "memory" in line]) == 2
    assert len([line for line in said if "no longer blocking publishers" in line]) == 2


async def test_answer_after_a_long_body(exchange: Exchange, broker: Broker) -> None:
    """The answer to a request can follow a long body over a slow link: the bus waits for it while the broker accepts bytes."""
    async with SlowLink(("127.0.0.1", broker.port), 1 << 30, up=150_000) as slow:
        url = f"amqp://guest:guest@127.0.0.1:{slow.port}/"
        async with exchange.node("p", url=url, timeout=scaled(2.0), confirm_timeout=30.0) as p:
            viewer = p.view()
            # Publish both before the next check, which has to wait for the second body.
            p.publish(1, " " + "x" * 100_000)
            p.publish(1, " " + "x" * 800_000)
            await viewer.has_all("p", 2)
            assert p.metrics.broker_reconnects == 0
