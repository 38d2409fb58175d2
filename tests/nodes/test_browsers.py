"""Real browsers that lose their node: they reconnect to this or another node, and receive every message exactly once."""

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
"""Prints consecutive numbers from 1, about a hundred per second."""

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
    """Nodes of one channel with replay: one node runs the program, and tests start and stop gateways."""

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
    """Wait until `count` more messages have arrived."""
    now = await page.evaluate("told.messages.length")
    await page.wait_for(f"told.messages.length >= {now + count}", timeout=60)


async def assert_whole(page: Page) -> None:
    """Check that each message arrived once and in order, and that the page got no notice of lost messages."""
    told: dict[str, Any] = await page.evaluate("told")
    first = told["messages"][0]
    assert told["messages"] == list(range(first, first + len(told["messages"])))
    assert told["lost"] == []


async def test_event_source_reconnects(nodes: Nodes, browser: Chromium, tmp_path: Path) -> None:
    """A browser's EventSource continues at another node without a gap or a repeat, and also at a restarted node."""
    nodes.start(sys.executable, "-c", COUNTER)
    first, second = nodes.start(), nodes.start()
    # The Content-Security-Policy of wsbridge's own pages forbids HTTP requests to other servers.
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


async def test_wsbridge_js_reconnects(nodes: Nodes, browser: Chromium) -> None:
    """When a node stops, wsbridge.js continues at the next of its URLs. It returns to the first when that node is back and the other
    stops."""
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


async def test_restart_of_the_only_node(nodes: Nodes, browser: Chromium) -> None:
    """With replay at the broker, a page misses no message during a restart of its only node."""
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
