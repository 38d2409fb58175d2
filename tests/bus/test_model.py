"""Random operation of a channel: nodes publish, viewers stall, leave and return, and links break.

The channel never hides a gap or a repeat from a viewer: each Viewer checks that with every message.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import AsyncExitStack

import pytest

from tests.bus.node import EVERYTHING, Exchange, Node, Viewer, publish_until_received, until
from tests.support.rabbit import Broker, Proxy
from wsbridge.channel.ring import Join, Slow

pytestmark = pytest.mark.usefixtures("clean")

STEPS = 300


class Day:
    """Random events on the channel."""

    def __init__(self, dice: random.Random, nodes: list[Node], proxies: list[Proxy]) -> None:
        self.dice = dice
        self.nodes = nodes
        self.proxies = proxies
        self.viewers: list[Viewer] = [node.view() for node in nodes]
        """The first viewers joined before the first message."""
        self.cuts = 0

    async def step(self) -> None:
        dice = self.dice
        viewer = dice.choice(self.viewers)
        match dice.choices(("publish", "stall", "go on", "leave", "come", "another", "cut", "turns"), (30, 8, 10, 6, 12, 1, 2, 20))[0]:
            case "publish":
                dice.choice(self.nodes).publish(dice.randint(1, 20), " " + "x" * dice.choice((0, 10, 2000)))
            case "stall":
                viewer.stall(dice.randint(1, 5))
            case "go on":
                viewer.go_on()
            case "leave":
                viewer.leave()
            case "come":
                self.comes(viewer)
            case "another" if len(self.viewers) < 8:
                self.viewers.append(dice.choice(self.nodes).view(dice.choice(list(Join))))
            case "cut" if self.proxies:
                self.cuts += 1
                dice.choice(self.proxies).cut()
            case _:
                # This gives the broker time and waits for no event: chance also decides what arrives meanwhile.
                await asyncio.sleep(dice.choice((0, 0, 0.002, 0.02)))

    def comes(self, viewer: Viewer) -> None:
        if viewer.fanout is None:
            viewer.room = max(viewer.room, 1)
            viewer.join(self.dice.choice(self.nodes).fanout)

    async def ends(self) -> None:
        """Let all viewers return and read, keep the links up, and publish a last message of each producer."""
        for viewer in self.viewers:
            self.comes(viewer)
            viewer.go_on()
        for node in self.nodes:
            await until(lambda node=node: node.fanout.is_connected, "the broker")
            if self.proxies:
                await node.published_all()
        await publish_until_received(self.nodes, self.viewers)


@pytest.mark.parametrize("queue_bytes", [EVERYTHING, 3000], ids=["patient", "strict"])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["memory", "rabbitmq", "replay"])
async def test_random_operation(kind: str, seed: int, queue_bytes: int, broker: Broker) -> None:
    """No viewer has an unreported gap or repeat.

    With replay, each viewer receives every message once, or notice of a loss. With unlimited queues (`patient`), a viewer that was there
    from the start receives every message.
    """
    dice = random.Random(seed)
    async with AsyncExitStack() as stack:
        proxies: list[Proxy] = []
        if kind == "memory":
            node = await stack.enter_async_context(Exchange("day").node(queue_bytes=queue_bytes))
            nodes = [Node(name, node.bus, node.fanout, node.metrics) for name in "abc"]
        else:
            nodes = []
            exchange = Exchange(f"day-{secrets.token_hex(4)}", broker.url, {"replay": kind == "replay"})
            for name in "abc":
                proxies.append(stack.enter_context(Proxy(("127.0.0.1", broker.port))))
                url = f"amqp://guest:guest@127.0.0.1:{proxies[-1].port}/"
                slow = dice.choice((Slow.DROP_OLDEST, Slow.LATEST))
                nodes.append(await stack.enter_async_context(exchange.node(name, queue_bytes=queue_bytes, slow=slow, url=url)))
        day = Day(dice, nodes, proxies)
        for _ in range(STEPS):
            await day.step()
        await day.ends()
        for viewer in day.viewers:
            assert viewer.missing <= viewer.lost
        if kind == "rabbitmq":
            return
        for node in nodes:
            assert (node.metrics.bus_renewals, node.metrics.bus_lost, node.metrics.bus_unconfirmed) == (0, 0, 0)
        for viewer in day.viewers:
            assert viewer.renewals == viewer.restarts
            if queue_bytes == EVERYTHING:
                assert viewer.total_lost == 0
        for viewer in day.viewers[: len(nodes)]:
            if viewer.renewals == 0:
                assert sum(viewer.seen.values()) + viewer.lost == sum(node.published for node in nodes)
