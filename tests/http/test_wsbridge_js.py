"""The client for pages, wsbridge.js, in a real browser with running servers: its events, and its reconnects."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.chromium import Chromium, Page
from tests.support.client import DEADLINE
from tests.support.deadline import scaled
from tests.support.server import Bridge, Server, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

BROADCAST = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "broadcast"), takes_port_zero=True)

COUNTER = """
import itertools, signal, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
for number in itertools.count(1):
    print(number, flush=True)
    time.sleep(0.001)
"""
"""A program that prints the numbers from 1 on, some hundreds a second."""
COUNTS_AS_TOLD = "while read -r count; do seq 1 $count; done"
NEVER = 1e6
"""A delay in seconds that no test reaches."""

RECORD = """(() => {
    const told = { messages: [], positions: [], lost: [], states: [], ends: [], broker: [] };
    const channel = new wsbridge.Channel(%s, {
        minDelay: 0.05,
        maxDelay: 0.2,
        onmessage(data, position) {
            told.messages.push(typeof data === 'string' ? data : [...new Uint8Array(data)]);
            told.positions.push(position);
        },
        onlost(count, position) { told.lost.push(count); },
        onstate(state, detail) { told.states.push(state); if (detail.code) told.ends.push(detail.code); },
        onbroker(isHere) { told.broker.push(isHere); },
        ...%s,
    });
    Object.assign(globalThis, { channel, told });
})()"""

Broadcast = Callable[..., Server]


class Watcher:
    """A page with a channel, `channel`, and a record of its callbacks, `told`."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def watch(self, urls: str | list[str] = "/", **options: Any) -> None:
        await self.page.evaluate(RECORD % (json.dumps(urls), json.dumps(options)))

    async def told(self, what: str) -> list[Any]:
        return await self.page.evaluate(f"told.{what}")

    async def until(self, condition: str) -> None:
        await self.page.wait_for(condition)

    async def until_state(self, state: str) -> None:
        await self.until(f"channel.state === '{state}'")

    async def until_messages(self, at_least: int) -> None:
        await self.until(f"told.messages.length >= {at_least}")


class Proxy:
    """A TCP proxy whose connections the test can cut, like a lost mobile connection."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._transports: set[asyncio.WriteTransport] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def cut(self) -> None:
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with self._server:
            yield self
            self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._transports |= {writer.transport, their_writer.transport}
        await asyncio.gather(self._pump(reader, their_writer), self._pump(their_reader, writer))

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 12):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Chromium]:
    async with Chromium() as browser:
        yield browser


@pytest.fixture
def broadcast(tmp_path: Path) -> Iterator[Broadcast]:
    """Starts `wsbridge broadcast` with a page at / that contains only the script."""
    (tmp_path / "index.html").write_text('<!doctype html><title>x</title><script src="/wsbridge.js"></script>')
    (tmp_path / "empty.html").write_text("<!doctype html><title>x</title>")
    servers = []
    with ExitStack() as stack:

        def start(*words: str, port: int = 0) -> Server:
            listen = ("--address=127.0.0.1", f"--port={port}")
            flags = ("--exchange=test", f"--staticdir={tmp_path}", "--closems=0")
            servers.append(Server(*flags, *words, bridge=BROADCAST, listen=listen))
            return stack.enter_context(servers[-1])

        yield start
    for server in servers:
        assert "Traceback" not in server.log + server.errors


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Chromium) -> AsyncIterator[Callable[..., Any]]:
    """Opens a page of a server."""
    opened = []

    async def open_it(server: Server, path: str = "/") -> Watcher:
        opened.append(await browser.open(f"http://127.0.0.1:{server.port}{path}"))
        return Watcher(opened[-1])

    yield open_it
    for page in opened:
        # The browser itself logs a failed connection, and a page cannot prevent that.
        assert [error for error in page.errors if not error.startswith("WebSocket connection to")] == []
        await page.close()


def shell(script: str) -> tuple[str, ...]:
    return "sh", "-c", script


def prints(*lines: str) -> tuple[str, ...]:
    return shell(f"printf '%s\\n' {shlex.join(lines)}; exec sleep 1000")


# Loading


async def test_plain_script_sets_a_global(broadcast: Broadcast, open_page: Any) -> None:
    """As a plain script, it defines one global, wsbridge, and no other."""
    page = (await open_page(broadcast(*prints("x")), "/empty.html")).page
    await page.evaluate("void (globalThis.before = new Set(Object.getOwnPropertyNames(globalThis)).add('before'))")
    await page.evaluate("""new Promise((resolve, reject) => {
        const script = Object.assign(document.createElement('script'), { src: '/wsbridge.js', onload: resolve, onerror: reject });
        document.head.append(script);
    }).then(() => null)""")
    assert await page.evaluate("Object.getOwnPropertyNames(globalThis).filter(name => !before.has(name))") == ["wsbridge"]
    assert await page.evaluate("Object.keys(wsbridge)") == ["Channel"]


@pytest.mark.parametrize("module", ["/wsbridge.mjs", "/wsbridge.js"])
async def test_module(broadcast: Broadcast, open_page: Any, module: str) -> None:
    """wsbridge.mjs exports Channel; wsbridge.js can be imported for its side effect."""
    page = (await open_page(broadcast("--join=history", *prints("from a module")), "/empty.html")).page
    await page.evaluate(f"""import('{module}').then(({{ Channel = wsbridge.Channel }}) => new Promise(done => {{
        globalThis.channel = new Channel('/', {{ onmessage: done }});
    }})).then(data => void (globalThis.data = data))""")
    assert await page.evaluate("data") == "from a module"
    assert await page.evaluate("channel instanceof wsbridge.Channel")


async def test_callbacks_can_be_set_later(broadcast: Broadcast, open_page: Any) -> None:
    """No callback runs before the code that created the channel has finished: later assignments are in time."""
    page = (await open_page(broadcast("--join=history", *prints("first")))).page
    await page.evaluate("""(() => {
        globalThis.states = [];
        globalThis.channel = new wsbridge.Channel('/');
        channel.onstate = state => states.push(state);
        channel.onmessage = data => { globalThis.data = data; };
    })()""")
    await page.wait_for("globalThis.data === 'first'")
    assert await page.evaluate("states") == ["connecting", "open"]


@pytest.mark.parametrize(("urls", "url"), [("/a?b=c#d", "ws://{host}/a?b=c"), ("http://x/", "ws://x/"), (["wss://x:1"], "wss://x:1/")])
async def test_urls(broadcast: Broadcast, open_page: Any, urls: Any, url: str) -> None:
    """A URL may be relative to the page, and may use http in place of ws."""
    server = broadcast(*prints("x"))
    page = (await open_page(server)).page
    made = f"(() => {{ const made = new wsbridge.Channel({json.dumps(urls)}); made.close(); return made.url }})()"
    assert await page.evaluate(made) == url.format(host=f"127.0.0.1:{server.port}")


@pytest.mark.parametrize("urls", ["mailto:x", "ws://[", []])
async def test_invalid_url(broadcast: Broadcast, open_page: Any, urls: Any) -> None:
    """The constructor rejects an invalid URL with an exception."""
    page = (await open_page(broadcast(*prints("x")))).page
    thrown = f"(() => {{ try {{ new wsbridge.Channel({json.dumps(urls)}) }} catch (error) {{ return error.name }} }})()"
    assert await page.evaluate(thrown) == "TypeError"


# Messages


async def test_text(broadcast: Broadcast, open_page: Any) -> None:
    """A text message arrives as a string, with any content, and with the position after it."""
    texts = ["plain", "", "!lost x 7", "one\ntwo", "smörgås 🥪"]
    watcher = await open_page(broadcast("--join=history", "--framing=nul", *shell(f"printf '%s\\0' {shlex.join(texts)}; exec sleep 1000")))
    await watcher.watch()
    await watcher.until_messages(5)
    assert await watcher.told("messages") == texts
    assert len(set(await watcher.told("positions"))) == 5
    assert await watcher.page.evaluate("channel.position") == (await watcher.told("positions"))[-1]
    assert await watcher.told("lost") == []


async def test_binary(broadcast: Broadcast, open_page: Any) -> None:
    """A binary message arrives as an ArrayBuffer with only the message, including newlines."""
    script = r"printf '\000\000\000\004\002\n!\000\377\000\000\000\002\001hi\000\000\000\000\002'; exec sleep 1000"
    watcher = await open_page(broadcast("--join=history", "--framing=prefixed", *shell(script)))
    await watcher.watch()
    await watcher.until_messages(3)
    assert await watcher.told("messages") == [[10, 33, 0, 255], "hi", []]
    assert len(set(await watcher.told("positions"))) == 3


async def test_server_without_positions(broadcast: Broadcast, open_page: Any) -> None:
    """Messages of a server without wsbridge.v1 arrive unchanged, without a position."""
    watcher = await open_page(broadcast(*prints("x")))
    with Server(*shell("echo '!at first'; exec cat")) as bridge:
        await watcher.watch(f"ws://127.0.0.1:{bridge.port}/", subprotocols=[])
        await watcher.until_messages(1)
        assert await watcher.page.evaluate("channel.send('and back')")
        await watcher.until_messages(2)
    assert await watcher.told("messages") == ["!at first", "and back"]
    assert await watcher.told("positions") == [None, None]


async def test_obsolete_position(broadcast: Broadcast, open_page: Any) -> None:
    """If messages arrive without positions, the client sends its initial position only once; otherwise it would receive messages twice."""
    server = broadcast("--join=history", "--input=exchange")
    with server.connect(subprotocols=("wsbridge.v1",)) as client:
        client.send_text("before")
        begin = client.receive_text().removeprefix("!at ")
        since = client.receive_text().partition("\n")[0]
        assert begin != since
        client.send_text("first")
        assert client.receive_text().endswith("\nfirst")
    watcher = await open_page(server)
    await watcher.watch(subprotocols=[], since=since)
    await watcher.until_messages(1)
    assert await watcher.page.evaluate("channel.position") is None
    await watcher.page.evaluate("channel.retry()")
    await watcher.until_messages(3)
    assert await watcher.told("messages") == ["first", "before", "first"]


async def test_times(broadcast: Broadcast, open_page: Any) -> None:
    """With `times`, each message has its time of publication; without, the time is null."""
    server = broadcast("--input=exchange", "--join=history")
    page = (await open_page(server)).page
    await page.evaluate("void (globalThis.times = [])")
    listen = "onmessage(data, position, at) { times.push(at) }"
    await page.evaluate(f"void (globalThis.one = new wsbridge.Channel('/', {{ times: true, {listen} }}))")
    await page.wait_for("one.state === 'open' && one.send('x')")
    await page.wait_for("times.length === 1")
    assert await page.evaluate("Math.abs(times[0] - Date.now())") < 3_600_000
    await page.evaluate(f"void (globalThis.other = new wsbridge.Channel('/', {{ {listen} }}))")
    await page.wait_for("times.length === 2")
    assert await page.evaluate("times[1]") is None


async def test_control_records(broadcast: Broadcast, open_page: Any) -> None:
    """The page learns of each change of the broker's state; a new connection assumes a reachable broker; unknown records are ignored."""
    connections = []
    has_gone = asyncio.Event()

    async def speak(request: web.Request) -> web.WebSocketResponse:
        connections.append(request.query.get("since"))
        stream = web.WebSocketResponse(protocols=["wsbridge.v1"])
        await stream.prepare(request)
        for record in ("!at k-0", "!broker here", "!broker away", "!broker away", "!some thing new", f"k-{len(connections)}\nmessage"):
            await stream.send_str(record)
        if len(connections) > 1:
            await stream.send_str("!lost k-9 7")
            await stream.receive()
            has_gone.set()
        return stream

    app = web.Application()
    app.router.add_get("/", speak)
    async with TestServer(app) as server:
        watcher = await open_page(broadcast(*prints("x")))
        await watcher.watch(f"ws://127.0.0.1:{server.port}/?since=mine&room=1")
        await watcher.until("told.lost.length === 1")
        assert await watcher.told("broker") == [False, True, False]
        assert await watcher.told("positions") == ["k-1", "k-2"]
        assert await watcher.told("lost") == [7]
        assert await watcher.page.evaluate("channel.close(), channel.position") == "k-9"
        async with asyncio.timeout(scaled(DEADLINE)):
            # The shutdown of the server waits up to a minute for its connections.
            await has_gone.wait()
    assert connections == ["mine", "k-1"]


async def test_compression(broadcast: Broadcast, open_page: Any) -> None:
    """A browser negotiates compression, and reads shared compressed messages."""
    lines = ["short", *(json.dumps([number] * 200) for number in range(50)), "last"]
    watcher = await open_page(broadcast("--compress", "--join=history", *prints(*lines)))
    await watcher.watch()
    await watcher.until_messages(len(lines))
    assert await watcher.told("messages") == lines
    agreed = "new Promise(done => { const socket = new WebSocket('/'); socket.onopen = () => done(socket.extensions) })"
    assert "permessage-deflate" in await watcher.page.evaluate(agreed.replace("'/'", "location.href.replace('http', 'ws')"))


# Reconnecting


async def test_no_gap_and_no_repeat(broadcast: Broadcast, open_page: Any) -> None:
    """Over repeatedly cut connections, each message arrives once and in order."""
    server = broadcast(sys.executable, "-c", COUNTER)
    async with Proxy(server.port).running() as proxy:
        watcher = await open_page(server)
        await watcher.watch(proxy.url)
        for turn in range(1, 7):
            await watcher.until(f"told.states.filter(state => state === 'open').length === {turn}")
            await watcher.until_messages(len(await watcher.told("messages")) + 50)
            proxy.cut()
        await watcher.until("told.ends.length === 6")
        await watcher.page.evaluate("channel.close()")
    numbers = [int(message) for message in await watcher.told("messages")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert await watcher.told("lost") == []
    assert await watcher.told("ends") == [1006] * 6 + [1000]


async def test_reconnects_before_any_message(broadcast: Broadcast, open_page: Any) -> None:
    """A page that connected before the first message receives all messages sent while it was disconnected."""
    server = broadcast("--input=program", *shell(COUNTS_AS_TOLD))
    watcher = await open_page(server)
    await watcher.watch()
    await watcher.until("channel.position")
    position = await watcher.page.evaluate("(channel.close(), channel.position)")
    with server.connect() as other:
        other.send_text("3")
        assert [other.receive_text() for _ in range(3)] == ["1", "2", "3"]
    await watcher.watch(since=position)
    await watcher.until_messages(3)
    assert await watcher.told("messages") == ["1", "2", "3"]


async def test_counted_loss(broadcast: Broadcast, open_page: Any) -> None:
    """A page that reconnects too late receives the number of lost messages before the remaining ones."""
    server = broadcast("--input=program", "--history=10", "--queue=1", *shell(COUNTS_AS_TOLD))
    watcher = await open_page(server)
    await watcher.watch()
    await watcher.until("channel.position")
    position = await watcher.page.evaluate("(channel.close(), channel.position)")
    other = await open_page(server)
    await other.watch()
    for number, count in enumerate([100, 20, 20]):
        await other.until_state("open")
        await other.page.evaluate(f"channel.send('{count}')")
        await other.until_messages([100, 120, 140][number])
    await watcher.watch(since=position)
    await watcher.until("told.messages.at(-1) === '20' && told.messages.length > 20")
    [lost], messages = await watcher.told("lost"), await watcher.told("messages")
    assert lost > 0
    assert lost + len(messages) == 140
    assert messages == (await other.told("messages"))[lost:]


async def test_uncounted_loss(broadcast: Broadcast, open_page: Any) -> None:
    """After a restart of the server, the number of lost messages is unknown: onlost receives null, once, and the channel continues."""
    port = free_port()
    server = broadcast("--join=history", *prints("before"), port=port)
    watcher = await open_page(server)
    await watcher.watch()
    await watcher.until_messages(1)
    server.stop()
    await watcher.until_state("waiting")
    broadcast("--join=history", *prints("after"), port=port)
    await watcher.until_messages(2)
    assert await watcher.told("messages") == ["before", "after"]
    assert await watcher.told("lost") == [None]
    assert (await watcher.told("ends"))[0] == 1001


async def test_next_url(broadcast: Broadcast, open_page: Any) -> None:
    """If a URL fails, the client tries the next one, and the first again after the last."""
    home = broadcast(*prints("home"))
    ports = [free_port(), home.port, free_port()]
    watcher = await open_page(home)
    first = broadcast("--join=history", *prints("first"), port=ports[0])
    await watcher.watch([f"ws://127.0.0.1:{port}/" for port in ports])
    await watcher.until_messages(1)
    first.stop()
    await watcher.until(f"channel.state === 'open' && channel.url === 'ws://127.0.0.1:{ports[1]}/'")
    last = broadcast("--join=history", *prints("last"), port=ports[2])
    home.stop()
    await watcher.until(f"channel.state === 'open' && channel.url === 'ws://127.0.0.1:{ports[2]}/'")
    await watcher.until("told.messages.at(-1) === 'last'")
    last.stop()
    broadcast("--join=history", *prints("first again"), port=ports[0])
    await watcher.until("told.messages.at(-1) === 'first again'")
    assert await watcher.told("lost") == [None, None, None]


async def test_server_that_does_not_respond(broadcast: Broadcast, open_page: Any) -> None:
    """If a server accepts the connection but does not respond, the client tries the next after openTimeout seconds."""
    server = broadcast("--join=history", *prints("here"))
    watcher = await open_page(server)
    # The test never accepts, so only the kernel establishes the connection.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        await watcher.watch([f"ws://127.0.0.1:{silent.getsockname()[1]}/", "/"], openTimeout=0.5)
        await watcher.until_messages(1)
    states = await watcher.told("states")
    assert (states[:2], states[-1]) == (["connecting", "waiting"], "open")


async def test_backs_off(broadcast: Broadcast, open_page: Any) -> None:
    """Each delay may double the previous one, up to maxDelay; a connection that delivered a message resets it."""
    server = broadcast(sys.executable, "-c", COUNTER)
    watcher = await open_page(server)
    await watcher.page.evaluate("void (Math.random = () => 0.999)")
    await watcher.page.evaluate(
        f"""void (globalThis.delays = [], globalThis.channel = new wsbridge.Channel('ws://127.0.0.1:{free_port()}/', {{
            minDelay: 0.01, maxDelay: 0.05, onstate(state, {{ delay }}) {{ if (state === 'waiting') delays.push(delay) }} }}))"""
    )
    await watcher.until("delays.length === 5")
    delays = await watcher.page.evaluate("channel.close(), delays.slice(0, 5)")
    assert [round(delay, 2) for delay in delays] == [0.01, 0.02, 0.04, 0.05, 0.05]
    async with Proxy(server.port).running() as proxy:
        await watcher.page.evaluate("void (globalThis.delays = [])")
        await watcher.watch(proxy.url)
        await watcher.page.evaluate("channel.onstate = (state, { delay }) => { if (state === 'waiting') delays.push(delay) }, null")
        for turn in range(3):
            await watcher.until_state("open")
            await watcher.until_messages(len(await watcher.told("messages")) + 20)
            proxy.cut()
            await watcher.until(f"delays.length === {turn + 1}")
        assert [round(delay, 2) for delay in await watcher.page.evaluate("delays")] == [0.05, 0.05, 0.05]


@pytest.mark.parametrize("event", ["window.dispatchEvent(new Event('online'))", "document.dispatchEvent(new Event('visibilitychange'))"])
async def test_reconnects_at_once(broadcast: Broadcast, open_page: Any, event: str) -> None:
    """The client reconnects at once when the browser is online again, or when the page becomes visible."""
    port = free_port()
    home = broadcast(*prints("home"))
    watcher = await open_page(home)
    await watcher.page.evaluate("void (Math.random = () => 0.999)")
    await watcher.watch(f"ws://127.0.0.1:{port}/", minDelay=NEVER, maxDelay=NEVER)
    await watcher.until_state("waiting")
    broadcast("--join=history", *prints("there"), port=port)
    await watcher.page.evaluate(f"{event}, null")
    await watcher.until_messages(1)


async def test_online_replaces_an_open_connection(broadcast: Broadcast, open_page: Any) -> None:
    """When the browser is online again, the client replaces an open connection, and no message is lost or repeated."""
    watcher = await open_page(broadcast(sys.executable, "-c", COUNTER))
    await watcher.watch()
    for _ in range(3):
        await watcher.until_state("open")
        await watcher.until_messages(len(await watcher.told("messages")) + 20)
        await watcher.page.evaluate("window.dispatchEvent(new Event('online'))")
    await watcher.until_state("open")
    await watcher.until_messages(len(await watcher.told("messages")) + 20)
    numbers = [int(message) for message in await watcher.told("messages")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert await watcher.told("states") == ["connecting", "open"] * 4


async def test_online_resets_the_delay(broadcast: Broadcast, open_page: Any) -> None:
    """A connection that delivered a message resets the delay, even if it was replaced while it was open."""
    server = broadcast("--input=exchange", "--join=history")
    port = server.port
    watcher = await open_page(server)
    await watcher.page.evaluate("""void (Math.random = () => 0.999, globalThis.waits = [], globalThis.channel = new wsbridge.Channel('/', {
        minDelay: 1, maxDelay: 1000, onstate(state, { delay }) { if (state === 'waiting') waits.push(Math.round(delay)) } }))""")
    is_open = "channel.state === 'open' && channel.position !== null"
    await watcher.until(is_open)
    server.stop()
    for turn in range(1, 4):
        await watcher.until(f"waits.length === {turn}")
        await watcher.page.evaluate("channel.retry(), null")
    await watcher.until("waits.length === 4")
    assert await watcher.page.evaluate("waits") == [1, 2, 4, 8]
    again = broadcast("--input=exchange", "--join=history", port=port)
    await watcher.page.evaluate("channel.retry(), null")
    await watcher.until("channel.state === 'open'")
    with again.connect() as speaker:
        await watcher.page.evaluate("void (channel.onmessage = data => { globalThis.data = data })")
        speaker.send_text("good")
        await watcher.until("globalThis.data === 'good'")
    no_more = "globalThis.WebSocket = function () { throw new Error('no connection') }"
    assert await watcher.page.evaluate(f"{no_more}, window.dispatchEvent(new Event('online')), channel.close(), waits") == [1, 2, 4, 8, 1]


async def test_callback_that_throws(broadcast: Broadcast, open_page: Any) -> None:
    """If onstate throws, the page still receives the state of the broker; an undefined option counts as missing."""

    async def speak(request: web.Request) -> web.WebSocketResponse:
        stream = web.WebSocketResponse(protocols=["wsbridge.v1"])
        await stream.prepare(request)
        await stream.send_str("!at k-0")
        await stream.send_str("!broker away")
        await stream.receive()
        has_gone.set()
        return stream

    has_gone = asyncio.Event()
    app = web.Application()
    app.router.add_get("/", speak)
    async with TestServer(app) as server:
        page = (await open_page(broadcast(*prints("x")))).page
        for fails in (1, 2):
            has_gone.clear()
            await page.evaluate(f"""void (globalThis.heard = [], globalThis.opened = 0,
                addEventListener('error', event => event.preventDefault()),
                globalThis.channel = new wsbridge.Channel('ws://127.0.0.1:{server.port}/', {{
                    minDelay: undefined, onbroker: isHere => heard.push(isHere),
                    onstate(state) {{ if (state === 'open' && ++opened <= {fails}) throw new Error('of the page') }} }}))""")
            await page.wait_for("heard.length === 1")
            assert await page.evaluate("[heard[0], channel.minDelay]") == [False, 0.5]
            await page.evaluate("channel.close(), null")
            async with asyncio.timeout(scaled(DEADLINE)):
                await has_gone.wait()
        page.errors.clear()


# Sending and closing


async def test_sends(broadcast: Broadcast, open_page: Any) -> None:
    """With `--input exchange`, a message of a page reaches all pages, including itself; without a connection, send() returns false."""
    server = broadcast("--input=exchange")
    one, other = await open_page(server), await open_page(server)
    for watcher in (one, other):
        await watcher.watch()
        assert await watcher.page.evaluate("new wsbridge.Channel('/').send('too early')") is False
        await watcher.until("channel.position")
    assert await one.page.evaluate("channel.send('hello')") is True
    for watcher in (one, other):
        await watcher.until_messages(1)
        assert await watcher.told("messages") == ["hello"]


async def test_channel_that_accepts_no_messages(broadcast: Broadcast, open_page: Any) -> None:
    """After a message was sent, 1003 is final: a client that reconnects and sends again would repeat that forever."""
    watcher = await open_page(broadcast(*prints("x")))
    await watcher.watch()
    await watcher.until_state("open")
    await watcher.page.evaluate("channel.send('no')")
    await watcher.until_state("closed")
    assert await watcher.told("states") == ["connecting", "open", "closed"]
    assert await watcher.told("ends") == [1003]
    assert await watcher.page.evaluate("channel.send('again')") is False


async def test_close(broadcast: Broadcast, open_page: Any) -> None:
    """close() is final in any state: the client delivers nothing and does not reconnect."""
    server = broadcast(sys.executable, "-c", COUNTER)
    watcher = await open_page(server)
    await watcher.watch()
    await watcher.until_messages(10)
    before = await watcher.page.evaluate("channel.close(), told.messages.length")
    await watcher.page.evaluate("window.dispatchEvent(new Event('online')), channel.retry(), channel.close(), null")
    server.wait_for_log("DISCONNECT")
    other = await open_page(server)
    await other.watch()
    await other.until_messages(10)
    assert len(await watcher.told("messages")) == before
    assert await watcher.told("states") == ["connecting", "open", "closed"]
    assert server.wait_for_log(r"CONNECT$(?s:.*)^.* \| CONNECT$")
    assert len(re.findall(r"\| CONNECT$", server.log, re.MULTILINE)) == 2


@pytest.mark.parametrize("state", ["connecting", "open", "waiting"])
async def test_close_from_a_callback(broadcast: Broadcast, open_page: Any, state: str) -> None:
    """A callback may close the channel in any state."""
    url = f"ws://127.0.0.1:{free_port()}/" if state == "waiting" else "/"
    page = (await open_page(broadcast(*prints("x")))).page
    await page.evaluate(f"""void (globalThis.states = [], globalThis.channel = new wsbridge.Channel('{url}', {{
        onstate(state) {{ states.push(state); if (state === '{state}') channel.close(); }},
    }}))""")
    await page.wait_for("channel.state === 'closed'")
    assert (await page.evaluate("states"))[-2:] == [state, "closed"]
