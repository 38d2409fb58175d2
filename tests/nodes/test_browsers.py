"""Real browsers that lose their node: they come back to it, or to another, and have every message once."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.chromium import Chromium, Page
from tests.support.rabbit import Broker, Proxy
from tests.support.server import Bridge, Server, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

BROADCAST = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "broadcast"), takes_port_zero=True)

COUNTER = """
import itertools, signal, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
for number in itertools.count(1):
    print(number, flush=True)
    time.sleep(0.01)
"""
"""Prints the numbers from 1 on, some hundred a second."""

WATCH_EVENTS = """(() => {
    globalThis.told = { messages: [], lost: [] };
    globalThis.source = new EventSource(%s);
    source.onmessage = (event) => told.messages.push(Number(event.data));
    source.addEventListener('lost', (event) => told.lost.push(event.data));
})()"""

WATCH_CHANNEL = """(() => {
    globalThis.told = { messages: [], lost: [] };
    globalThis.channel = new wsbridge.Channel(%s, {
        minDelay: 0.05,
        maxDelay: 0.5,
        onmessage: (data) => told.messages.push(Number(data)),
        onlost: (count) => told.lost.push(count),
    });
})()"""


class Nodes:
    """Nodes of one channel with replay: one with the program, and gateways that come and go."""

    def __init__(self, url: str, exchange: str, stack: ExitStack) -> None:
        self._flags = (f"--exchange={exchange}", f"--broker={url}", "--replay", "--history=100000", "--history-bytes=100000000")
        self._stack = stack

    def start(self, *words: str, port: int = 0) -> Server:
        listen = ("--address=127.0.0.1", f"--port={port}")
        return self._stack.enter_context(Server(*self._flags, *words, bridge=BROADCAST, listen=listen))


@pytest.fixture
def nodes(broker: Broker, request: pytest.FixtureRequest) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(broker.url, request.node.name, stack)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Chromium]:
    async with Chromium() as browser:
        yield browser


async def more(page: Page, count: int = 50) -> None:
    """Wait until so many messages more have come."""
    now = await page.evaluate("told.messages.length")
    await page.wait_for(f"told.messages.length >= {now + count}", timeout=60)


async def assert_whole(page: Page) -> None:
    """Each message has come once and in order, and nothing was told to be lost."""
    told: dict[str, Any] = await page.evaluate("told")
    first = told["messages"][0]
    assert told["messages"] == list(range(first, first + len(told["messages"])))
    assert told["lost"] == []


async def test_event_source_moves(nodes: Nodes, browser: Chromium, tmp_path: Path) -> None:
    """A browser's own EventSource goes on without a gap or a repeat at another node, and after that one was restarted."""
    nodes.start(sys.executable, "-c", COUNTER)
    first, second = nodes.start(), nodes.start()
    # The pages of wsbridge itself may reach no other server over HTTP: their Content-Security-Policy says so.
    (tmp_path / "index.html").touch()
    with Server(f"--staticdir={tmp_path}") as files, Proxy(("127.0.0.1", first.port)) as proxy:
        page = await browser.open(f"http://127.0.0.1:{files.port}/")
        await page.evaluate(WATCH_EVENTS % json.dumps(f"http://127.0.0.1:{proxy.port}/events"))
        await more(page)
        proxy.target = ("127.0.0.1", second.port)
        proxy.cut()
        await more(page)
        await asyncio.to_thread(second.stop)
        proxy.target = ("127.0.0.1", (await asyncio.to_thread(nodes.start)).port)
        proxy.cut()
        await more(page)
        await assert_whole(page)
        await page.close()


async def test_wsbridge_js_moves(nodes: Nodes, browser: Chromium) -> None:
    """wsbridge.js goes on at the next of its URLs when a node has gone, and at the first when that one is back and the other goes."""
    producing = nodes.start(sys.executable, "-c", COUNTER)
    first, second = nodes.start(port=free_port()), nodes.start(port=free_port())
    page = await browser.open(f"http://127.0.0.1:{producing.port}/")
    urls = [f"ws://127.0.0.1:{node.port}/" for node in (first, second)]
    await page.wait_for("globalThis.wsbridge")
    await page.evaluate(WATCH_CHANNEL % json.dumps(urls))
    await more(page)
    await asyncio.to_thread(first.stop)
    await more(page)
    assert await page.evaluate("channel.url") == urls[1]
    await asyncio.to_thread(nodes.start, port=first.port)
    await asyncio.to_thread(second.stop)
    await more(page)
    assert await page.evaluate("channel.url") == urls[0]
    await assert_whole(page)
    await page.close()


async def test_restarted_node_goes_on(nodes: Nodes, browser: Chromium) -> None:
    """Over a restart of its only server a page misses nothing, where the broker keeps the channel."""
    producing = nodes.start(sys.executable, "-c", COUNTER)
    node = nodes.start(port=free_port())
    page = await browser.open(f"http://127.0.0.1:{producing.port}/")
    await page.wait_for("globalThis.wsbridge")
    await page.evaluate(WATCH_CHANNEL % json.dumps(f"ws://127.0.0.1:{node.port}/"))
    await more(page)
    await asyncio.to_thread(node.stop)
    await asyncio.to_thread(nodes.start, port=node.port)
    await more(page)
    await assert_whole(page)
    await page.close()
