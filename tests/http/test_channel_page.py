"""The page of a channel in a real browser, with a running broadcast: everything that a user sees and does."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.chromium import Chromium, Page
from tests.support.rabbit import Broker
from tests.support.server import Bridge, Server, free_port, listens, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BROADCAST = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "broadcast"), takes_port_zero=True)
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proxy.md"
KEPT = 5000
FLOOD_TIMEOUT = 90
"""Timeout in seconds: a browser handles some 25,000 messages a second on two slow cores, and loses the others."""
KINDS = {
    "text": "entry => entry.way === 'in'",
    "note": "entry => entry.way === 'note' && entry.tone !== 'lost'",
    "lost": "entry => entry.tone === 'lost'",
}
TOTAL = "document.querySelector('#kept').dataset.total"
IN_SIGHT = "document.querySelectorAll('#rows .row.in').length"
COUNTS_AS_TOLD = "while read -r count; do seq 1 $count; done"


class Channel:
    """The page, with methods for tests."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server

    async def until(self, state: str) -> None:
        await self.page.wait_for(f"document.querySelector('#state').dataset.state === '{state}'")

    async def joined(self) -> None:
        """Wait until the page knows the position of the channel: later messages are live."""
        await self.until("open")
        await self.page.wait_for("parseInt(document.querySelector('#viewers').textContent)")

    async def counted(self, at_least: int, **options: Any) -> None:
        await self.page.wait_for(f"document.querySelector('#kept').dataset.total >= {at_least}", **options)

    async def until_text(self, selector: str, text: str) -> None:
        await self.page.wait_for(f"document.querySelector({json.dumps(selector)})?.textContent === {json.dumps(text)}")

    async def text(self, selector: str) -> str:
        return await self.page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")

    async def shown(self, selector: str) -> bool:
        return await self.page.evaluate(f"document.querySelector({json.dumps(selector)}).checkVisibility()")

    async def count(self, name: str) -> int:
        return int(await self.page.evaluate(f"document.querySelector('#{name}').dataset.count"))

    async def rows(self, kind: str = "text") -> list[str]:
        """Return the rows of a kind in the log, also outside the viewport: messages, notes or losses; oldest first."""
        await self.page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        return await self.page.evaluate(f"page.view.log.list.filter({KINDS[kind]}).map(entry => entry.data)")

    async def send(self, text: str) -> None:
        await self.page.click("#message")
        await self.page.type(text + "\n")


Open = Callable[..., AbstractAsyncContextManager[Channel]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Chromium]:
    async with Chromium() as browser:
        yield browser


def broadcast(*words: str, port: int = 0) -> Server:
    listen = ("--address=127.0.0.1", f"--port={port}")
    return Server("--exchange=temps", "--closems=0", *words, bridge=BROADCAST, listen=listen)


@pytest.fixture
def channel(browser: Chromium) -> Open:
    """Serve a channel, and open its page. The page must not report errors, except for an unreachable server."""

    @asynccontextmanager
    async def opened(*words: str, port: int = 0) -> AsyncIterator[Channel]:
        with broadcast("--join=history", *words, port=port) as server:
            page = await browser.open(f"http://127.0.0.1:{server.port}/")
            await page.viewport(1280, 800)
            yield Channel(page, server)
            assert [error for error in page.errors if "ERR_CONNECTION_REFUSED" not in error] == []
            await page.close()
        assert "Traceback" not in server.log + server.errors

    return opened


def shell(script: str) -> tuple[str, ...]:
    return "sh", "-c", script


def prints(*lines: str) -> tuple[str, ...]:
    return shell(f"printf '%s\\n' {shlex.join(lines)}; exec sleep 1000")


async def test_own_event_source(channel: Open) -> None:
    """With --sameorigin, a page can also read the channel as an event stream, over plain HTTP and under another name than localhost."""
    async with channel("--sameorigin", *prints("one")) as page:
        await page.page.load(f"http://raspberrypi:{page.server.port}/")
        await page.counted(1)
        assert not await page.page.evaluate("isSecureContext")
        await page.page.evaluate("void (new EventSource('events').onmessage = event => { globalThis.came = event.data })")
        await page.page.wait_for("globalThis.came === 'one'")


# The state


async def test_shows_the_channel(channel: Open) -> None:
    """The page shows the exchange, the number of clients and messages, and the position, each once."""
    async with channel(*prints("one", "two")) as page:
        await page.counted(2)
        await page.until("open")
        assert await page.text("#state") == "Live"
        await page.until_text("#exchange", "temps")
        await page.until_text("#viewers", "1")
        with page.server.connect():
            await page.until_text("#viewers", "2")
        await page.until_text("#viewers", "1")
        assert await page.text("#kept") == "2 messages"
        status = json.loads(page.server.get("/status").body)
        assert await page.text("#position") == status["position"]
        assert await page.page.evaluate("document.title") == f"temps on 127.0.0.1:{page.server.port} · live channel"
        figures = "[...document.querySelectorAll('dt')].filter(name => name.checkVisibility()).map(name => name.textContent)"
        assert await page.page.evaluate(figures) == ["Viewers", "Rate", "Position"]
        assert (await page.page.evaluate("document.body.innerText")).count("message") == 1
        assert not await page.shown("#program")


async def test_shows_messages(channel: Open) -> None:
    """Each message is a row with its time, and the newest row is visible."""
    async with channel("--input=program", *shell(COUNTS_AS_TOLD.replace("seq", "seq -f 'line %g'"))) as page:
        await page.joined()
        await page.send("100")
        await page.counted(100)
        assert await page.rows() == [f"line {number}" for number in range(1, 101)]
        assert await page.page.evaluate("/^\\d\\d:\\d\\d:\\d\\d\\.\\d{3}$/.test(document.querySelector('.row.in .time').textContent)")
        end = "(box => box.scrollTop + box.clientHeight >= box.scrollHeight - 1)(document.querySelector('#log'))"
        await page.page.wait_for(end)
        await page.page.viewport(390, 700, mobile=True)
        await page.page.wait_for(end)
        assert await page.text("#kept") == "100 messages"
        assert not await page.shown("#blank")


TIMES = "page.view.tail.entries().filter(entry => entry.way === 'in').map(entry => entry.at)"


async def test_history_has_times(channel: Open) -> None:
    """A message published before the page joined has its time of publication, the same on each later page."""
    async with channel("--input=exchange", "--history=3") as page:
        await page.joined()
        for text in ("before", "too"):
            await page.send(text)
        await page.counted(2)
        times = await page.page.evaluate(TIMES)
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.counted(2)
        assert await page.page.evaluate(TIMES) == times
        assert await page.page.evaluate("performance.timeOrigin") >= times[-1] >= times[0]
        await page.joined()
        await page.send("after")
        await page.counted(3)
        assert await page.rows() == ["before", "too", "after"]
        shown = "[...document.querySelectorAll('.row.in .time')].every(time => /^\\d\\d:\\d\\d:\\d\\d\\.\\d{3}$/.test(time.textContent))"
        assert await page.page.evaluate(shown)


async def test_unknown_time(channel: Open) -> None:
    """A message of unknown time is marked as earlier, also in a download, and appears in the plot."""
    async with channel(*prints("1")) as page:
        # The first message is from the program.
        await page.counted(1)
        await page.page.evaluate("for (const number of ['1', '2', '3']) page.received(number, 'x-' + number, null)")
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        # The page adds rows in its next frame.
        await page.page.wait_for("document.querySelector('.row.in:last-child .time')?.textContent === 'earlier'")
        assert (await page.page.evaluate("asJsonLines(page.view.log.list).at(-1)")).startswith('{"time":null,')


async def test_join_of_a_stream(channel: Open, broker: Broker) -> None:
    """With a stream at a broker, the page also shows a time for each message, and its current offset."""
    counts = shell("i=0; while read -r _; do echo $((i += 1)); done")
    exchange = f"page-{secrets.token_hex(4)}"
    async with channel(f"--exchange={exchange}", f"--broker={broker.url}", "--replay", "--input=program", *counts) as page:
        await page.joined()
        for number in (1, 2):
            await page.send("next")
            await page.counted(number)
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.counted(2)
        await page.joined()
        await page.send("next")
        await page.counted(3)
        assert await page.rows() == ["1", "2", "3"]
        assert all(await page.page.evaluate(TIMES))
        offset = (await page.page.evaluate("document.querySelector('#position').title")).partition(".")[0]
        assert await page.page.evaluate("document.querySelector('#position').firstChild.data") == f"{offset}."


async def test_hostile_text_is_only_text(channel: Open) -> None:
    """The page shows markup as text and control characters as symbols, and a text like a control record as a message."""
    async with channel(*shell("printf '<img src=x onerror=alert(1)> \\033[31m\\n!lost x 3\\n\\n'; exec sleep 1000")) as page:
        await page.counted(3)
        await page.page.wait_for(f"{IN_SIGHT} === 3")
        shown = "[...document.querySelectorAll('.row.in')].map(row => row.querySelector('.text, .empty').textContent)"
        assert await page.page.evaluate(shown) == ["<img src=x onerror=alert(1)> ␛[31m", "!lost x 3", "empty"]
        assert await page.rows("lost") == []


async def test_binary_is_shown_as_hex(channel: Open) -> None:
    """The page shows binary messages as hex, and truncates long messages and texts."""
    short, long, text = r"\000\000\000\003\002\n\000\377", r"\000\000\003\350\002", r"\000\000\116\040\001"
    script = f"printf '{short}{long}'; head -c 1000 /dev/zero; printf '{text}'; printf %020000d 0"
    async with channel("--framing=prefixed", *shell(f"{script}; exec sleep 1000")) as page:
        await page.counted(3)
        await page.page.wait_for(f"{IN_SIGHT} === 3")
        first, second = await page.page.evaluate("[...document.querySelectorAll('.hex')].map(dump => dump.textContent)")
        assert first.startswith("0000  0a 00 ff")
        assert second.startswith("0000  00 00 00 00")
        more = await page.page.evaluate("[...document.querySelectorAll('.more')].map(more => more.textContent)")
        assert more[0] == "Show 936 more bytes"
        assert re.fullmatch(r"Show \d\d,\d{3} more characters", more[1])


# Reconnecting


async def test_server_restarted(channel: Open) -> None:
    """When the server restarts, the page reconnects automatically, and reports that messages were lost."""
    port = free_port()
    async with channel(*prints("before"), port=port) as page:
        await page.counted(1)
        page.server.stop()
        await page.until("waiting")
        assert await page.text("#viewers") == "–"
        with broadcast("--join=history", *prints("after"), port=port):
            await page.counted(2)
            await page.until("open")
            await page.page.wait_for(f"{IN_SIGHT} === 2")
            assert await page.rows() == ["before", "after"]
            assert await page.rows("lost") == ["Some messages were lost"]
            assert await page.rows("note") == ["Connected", "Disconnected: server is shutting down", "Connected"]
            assert await page.text("#lost") == "some lost"
            await page.until_text("#viewers", "1")


async def test_button_reconnects_at_once(channel: Open) -> None:
    """While the page waits, it shows a countdown, and a button reconnects at once."""
    port = free_port()
    async with channel(*prints("x"), port=port) as page:
        await page.counted(1)
        await page.page.evaluate("void (Math.random = () => 0.999)")
        page.server.stop()
        await page.page.wait_for(
            "document.querySelector('#retry').checkVisibility() && document.querySelector('#countdown').textContent.match(/\\d+/) >= 4"
        )
        assert await page.text("#state") == "No connection"
        await page.until_text("#countdown", "Trying again in 3 s")
        assert await page.text("#retry") == "Try now"
        assert not await page.shown("#program")
        with broadcast(*prints("x"), port=port):
            await page.page.click("#retry")
            await page.until("open")
            assert not await page.shown("#retry")
            assert not await page.shown("#countdown")


async def test_losses_are_counted(channel: Open) -> None:
    """The page shows the number of messages that it has missed."""
    flags = ("--input=program", "--history=10", "--queue=1")
    async with channel(*flags, *shell(COUNTS_AS_TOLD)) as page:
        await page.until("open")
        beginning = await page.page.wait_for("document.querySelector('#position').title")
        with page.server.connect() as other:
            # The page keeps fewer messages than it can show, so the row of the loss is visible.
            for number in (100, 5, 5):
                other.send_text(str(number))
                assert [other.receive_text() for _ in range(number)][-1] == str(number)
        # This simulates a connection that broke at the beginning and reconnects now.
        since = f"Object.assign(new URL(url), {{ search: '?since={beginning}' }})"
        await page.page.before_scripts(
            f"globalThis.WebSocket = class extends WebSocket {{ constructor(url, protocols) {{ super({since}, protocols) }} }}"
        )
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.page.wait_for("document.querySelector('.row.lost')")
        [lost] = await page.rows("lost")
        await page.counted(110 - int(lost.split()[0]))
        assert lost == f"{110 - int(await page.page.evaluate(TOTAL))} messages were lost"
        assert await page.text("#lost") == f"{lost.split()[0]} lost"


async def test_late_position(channel: Open) -> None:
    """The page shows a position that arrives after its first rendering, without a further message."""
    late = "set onmessage(take) { super.onmessage = event => setTimeout(take, 500, event) }"
    async with channel("cat") as page:
        await page.page.before_scripts(f"globalThis.WebSocket = class extends WebSocket {{ {late} }}")
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.until_text("#position", json.loads(page.server.get("/status").body)["position"])


@pytest.mark.parametrize(
    ("position", "shown", "cut"),
    [("4f1c9a0b-17", "4f1c9a0b-17", "4f1c9a0b"), ("120742.9f3ac01b-1", "120742.9f3ac01b-1", "9f3ac01b"), ("k3-5", "k3-5", "k3")],
)
async def test_position_is_shortened(channel: Open, position: str, shown: str, cut: str) -> None:
    """The page shortens only the name in a position; the numbers, and the offset of a stream, appear in full."""
    async with channel("cat") as page:
        await page.page.wait_for("document.querySelector('#position').title")
        found = f"""(() => {{
            Page.prototype.place('{position}');
            const all = document.querySelector('#position'), part = all.querySelector('span');
            return [all.title, all.textContent, part.textContent, part.clientWidth < 60];
        }})()"""
        assert await page.page.evaluate(found) == [position, shown, cut, True]


SAYS = """globalThis.fetch = (real => async (...asked) => {
    const answer = await real(...asked), status = await answer.json();
    return new Response(JSON.stringify({ ...status, ...%s }), { headers: { 'Content-Type': 'application/json' } });
})(fetch)"""
"""JavaScript that runs before the scripts of the page: it adds to /status. The page uses fetch for nothing else."""


@pytest.mark.parametrize(
    ("program", "exit", "words", "tone"),
    [
        ("ended", "exit 3", "Program ended: exit 3", "bad"),
        ("ended", "exit 0", "Program ended", ""),
        ("waiting", "signal SIGKILL", "Program: signal SIGKILL, starting again", "wait"),
        ("waiting", None, "Program ended, starting again", ""),
        ("running", "exit 3", None, None),
        (None, None, None, None),
    ],
)
async def test_ended_program(channel: Open, program: str | None, exit: str | None, words: str | None, tone: str | None) -> None:
    """The page shows beside the state how the program has ended, and nothing while it runs."""
    async with channel(*prints("one")) as page:
        await page.page.before_scripts(SAYS % json.dumps({"program": program, "program_exit": exit}))
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.until_text("#viewers", "1")
        assert await page.shown("#program") is (words is not None)
        if words is not None:
            assert await page.text("#program") == words
            assert await page.page.evaluate("document.querySelector('#program').dataset.tone") == tone
        await page.until_text("#state", "Connected" if program == "ended" else "Live")


@pytest.mark.parametrize(("others", "label"), [({"broker": "here"}, "Live"), ({"input": "exchange"}, "Live"), ({}, "Connected")])
async def test_live_without_a_program(channel: Open, others: dict[str, str], label: str) -> None:
    """After the end of the program, the channel is live as long as it accepts other messages."""
    async with channel(*prints("one")) as page:
        await page.page.before_scripts(SAYS % json.dumps({"program": "ended", "program_exit": "exit 0", **others}))
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.until_text("#program", "Program ended")
        await page.until_text("#state", label)


async def test_broker_away(channel: Open) -> None:
    """While the broker is unreachable, the page shows that in place of live."""
    async with channel(*prints("one")) as page:
        await page.until("open")
        socket = "class extends WebSocket { constructor(...words) { super(...words); globalThis.socket = this } }"
        await page.page.before_scripts(f"globalThis.WebSocket = {socket}")
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.until("open")
        await page.page.evaluate("void socket.onmessage({ data: '!broker away' })")
        assert await page.text("#state") == "Broker away"
        await page.until("away")
        await page.page.evaluate("void socket.onmessage({ data: '!broker here' })")
        assert await page.text("#state") == "Live"
        await page.page.wait_for("document.querySelectorAll('.row.note').length === 3")
        assert (await page.rows("note"))[1:] == ["The broker is away: no messages arrive until it is back", "The broker is back"]


async def test_broker_address(channel: Open) -> None:
    """The page shows the address of the broker in use, once for each change."""
    async with channel(*prints("one")) as page:
        await page.page.before_scripts(SAYS % json.dumps({"broker": "here", "broker_address": "amqp://b:5672/"}))
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.until("open")
        asked = "performance.getEntriesByType('resource').filter(entry => entry.name.endsWith('/status')).length"
        await page.page.wait_for(f"{asked} >= 4 && document.querySelectorAll('.row.note').length >= 2")
        assert await page.page.evaluate("document.querySelector('#state').title") == "Broker: amqp://b:5672/"
        assert [row for row in await page.rows("note") if "amqp" in row] == ["Broker: amqp://b:5672/"]


async def test_broker_blocked(channel: Open) -> None:
    """While the broker blocks publishers, the page shows that in place of live."""
    async with channel(*prints("one")) as page:
        await page.page.before_scripts(SAYS % json.dumps({"broker": "blocked", "broker_alarm": "low on memory"}))
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.until_text("#state", "Broker blocked")


async def test_blank_page(channel: Open) -> None:
    """Without messages, the page says so while it is connected; after some seconds, it explains why output may be missing."""
    blank = "document.querySelector('#blank').innerText"
    async with channel(*shell("exec sleep 1000")) as page:
        await page.page.before_scripts(SAYS % json.dumps({"program": "running", "program_exit": None}))
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        assert "No messages yet" in await page.page.wait_for(blank)
        await page.page.wait_for(f"{blank}.includes('--pty, or a flush')")
        page.server.stop()
        await page.page.wait_for(f"{blank}.startsWith('No connection')")


async def test_before_the_status_is_known(channel: Open) -> None:
    """Before the page knows the status, it has no input field and claims nothing; for a channel without input, the field stays absent."""
    async with channel(*prints()) as page:
        await page.page.before_scripts("globalThis.fetch = () => new Promise(answer => { globalThis.answer = answer })")
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        assert not await page.shown("form")
        assert not await page.shown("#blank")
        bottom = "(card => card.getBoundingClientRect().bottom - card.clientTop)(document.querySelector('main'))"
        assert await page.page.evaluate(f"{bottom} === document.querySelector('#stage').getBoundingClientRect().bottom")


@pytest.mark.parametrize("flags", [("--no-status",), ("--no-status", "--devconsole")])
async def test_without_status(channel: Open, flags: tuple[str, ...]) -> None:
    """With --no-status, the page shows the channel without the details of the status."""
    async with channel(*flags, *prints("one", "two")) as page:
        await page.counted(2)
        await page.until("open")
        assert await page.text("#exchange") == "temps"
        assert await page.text("#state") == "Live"
        assert not await page.shown("#figures div:has(#viewers)")
        # The browser logs the 404 in its console.
        page.page.errors[:] = [error for error in page.page.errors if "404" not in error]


# The address of the page


@asynccontextmanager
async def proxy(port: int, folder: Path) -> AsyncIterator[str]:
    """Serve a port below a prefix with nginx, as in docs/proxy.md, which removes the prefix; yield the URL."""
    own = free_port()
    location, mapping, *_ = re.findall(r"^```nginx\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    location = location.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    paths = mapping + " ".join(f"{name}_temp_path {folder};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    server = f"server {{ listen 127.0.0.1:{own}; {location} }}"
    config = folder / "nginx.conf"
    config.write_text(f"daemon off; master_process off; pid {folder}/pid; events {{}} http {{ access_log off; {paths} {server} }}")
    words = ("nginx", "-c", str(config), "-e", str(folder / "errors"))
    process = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL)
    try:
        await asyncio.to_thread(wait_until, lambda: process.returncode is not None or listens(process.pid, own), "nginx")
        yield f"http://127.0.0.1:{own}/temps/"
    finally:
        process.terminate()
        await process.wait()


async def test_below_a_prefix(channel: Open, tmp_path: Path) -> None:
    """Behind a proxy that removes a prefix, the page finds its script, channel and status."""
    async with channel("--sameorigin", "--trust-proxy=127.0.0.1", *prints("one")) as page, proxy(page.server.port, tmp_path) as url:
        await page.page.load(url)
        await page.counted(1)
        await page.joined()
        assert await page.page.evaluate("performance.getEntriesByType('resource').every(({ name }) => name.startsWith(location.href))")
        # The proxy ends before the server does, so navigate away from the page.
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")


@pytest.mark.parametrize("path", ["/console", "/a/b", "/a/b/c/"])
async def test_page_at_any_path(channel: Open, path: str) -> None:
    """With --devconsole, the page answers at every path, and finds its channel at a path above it."""
    async with channel("--devconsole", *prints("one")) as page:
        await page.page.load(f"http://127.0.0.1:{page.server.port}{path}")
        await page.counted(1)
        await page.joined()


# The log


async def test_pause_and_resume(channel: Open) -> None:
    """Pause freezes log and plot and counts new messages; Resume shows them. Escape does the same."""
    async with channel("--input=exchange") as page:
        await page.until("open")
        await page.send("before")
        await page.counted(1)
        await page.page.click("#pause")
        await page.send("meanwhile")
        await page.until_text("#missed", "+1")
        assert await page.rows() == ["before"]
        await page.page.click("#pause")
        assert await page.rows() == ["before", "meanwhile"]
        assert not await page.shown("#latest")
        await page.page.press("Escape")
        assert await page.page.evaluate("document.querySelector('#pause').dataset.paused") == "true"
        await page.page.click("#clear")
        assert await page.rows() == []
        await page.send("later")
        await page.until_text("#missed", "+1")
        await page.page.click("#pause")
        assert await page.rows() == ["later"]


async def test_scrolling_back_keeps_the_place(channel: Open) -> None:
    """A log that is scrolled back keeps its place and its messages; at the end, it follows again."""
    async with channel("--input=program", "--history=5000", *shell(COUNTS_AS_TOLD)) as page:
        await page.until("open")
        await page.send("3000")
        await page.counted(3000)
        await page.until_text("#kept", "3,000 messages")
        await page.page.wheel("#log", -200)
        await page.page.wait_for("document.querySelector('#latest').checkVisibility()")
        middle = "document.elementFromPoint(400, 400).closest('.row').textContent"
        seen = await page.page.evaluate(middle)
        await page.send("7")
        await page.until_text("#latest", "↓ 7 newer messages")
        assert await page.page.evaluate(middle) == seen
        assert (await page.rows())[-1] == "3000"
        await page.page.click("#latest")
        assert (await page.rows())[-8:] == ["3000", *"1234567"]


async def test_filter_and_download(channel: Open, browser: Chromium) -> None:
    """The filter shows the matching messages, and a download contains them with their times."""
    async with channel(*prints("apple 1", "pear 2", "apple 3")) as page:
        await page.counted(3)
        await page.page.press("/")
        await page.page.type("APPLE")
        await page.until_text("#matches", "2 of 3")
        assert await page.rows() == ["apple 1", "apple 3"]
        await page.page.click("#download")
        await page.page.click("#download-jsonl")
        saved = [json.loads(line) for line in (await browser.saved()).read_text().splitlines()]
        assert [line["text"] for line in saved] == ["apple 1", "apple 3"]
        assert all(line["time"].startswith("20") for line in saved)


async def test_survives_a_flood(channel: Open) -> None:
    """With lines at the highest speed of a program, the page stays responsive and counts kept, lost and all messages."""
    async with channel("--input=program", *shell(COUNTS_AS_TOLD)) as page:
        await page.until("open")
        await page.send("500000")
        await page.counted(20_000, timeout=FLOOD_TIMEOUT)
        await page.page.click("#pause")
        await page.page.wait_for("document.querySelector('#pause').dataset.paused === 'true'")
        assert len(await page.rows()) <= KEPT
        await page.page.click("#pause")
        await page.page.wait_for("page.view.tail.at(page.view.tail.next - 1)?.data === '500000'", timeout=FLOOD_TIMEOUT)
        assert await page.page.evaluate("document.querySelectorAll('*').length") < 2000
        assert await page.count("kept") == KEPT
        lost = await page.page.evaluate("parseInt('0' + document.querySelector('#lost').textContent.replaceAll(',', ''))")
        assert int(await page.page.evaluate(TOTAL)) + lost == 500_000


# The plot


@pytest.mark.parametrize(
    ("lines", "series"),
    [
        (["1", "2.5", "-3e2"], ["value"]),
        (["1 2", "3,4", "5, 6"], ["column 1", "column 2"]),
        (['{"a": 1, "b": {"c": 2, "d": [3]}, "e": "x"}'] * 3, ["a", "b.c", "b.d[0]"]),
    ],
)
async def test_plots_numbers(channel: Open, lines: list[str], series: list[str]) -> None:
    """Messages that are numbers, several numbers or JSON with numbers produce a plot with one series for each."""
    async with channel(*prints(*lines)) as page:
        await page.page.wait_for("document.querySelector('#plot').dataset.count === '3'")
        names = "[...document.querySelectorAll('#legend button')].map(button => button.childNodes[1].data)"
        assert await page.page.evaluate(names) == series
        drawn = "new Set(new Uint32Array(document.querySelector('canvas').getContext('2d').getImageData(0, 0, 1000, 100).data.buffer)).size"
        assert await page.page.evaluate(drawn) > 2


async def test_legend_of_the_plot(channel: Open) -> None:
    """The legend shows the last values, and the values at the pointer; a series can be switched off."""
    async with channel(*prints("1 10", "2 20", "3 30")) as page:
        await page.page.wait_for("document.querySelector('canvas').ariaLabel === 'Plot of column 1, now 3; column 2, now 30'")
        left = "document.querySelector('canvas').dispatchEvent(new PointerEvent('pointermove', { clientX: 60 }))"
        await page.page.evaluate(left)
        await page.until_text("#legend button:nth-of-type(2) b", "10")
        await page.page.click("#legend button:nth-of-type(2)")
        await page.page.evaluate("document.querySelector('canvas').dispatchEvent(new PointerEvent('pointerleave'))")
        await page.page.wait_for("document.querySelector('canvas').ariaLabel === 'Plot of column 1, now 3'")
        await page.page.click("#clear")
        assert not await page.shown("#plot")


@pytest.mark.parametrize("size", [(1366, 650), (390, 844), (844, 390), (320, 400)])
async def test_plots_a_constant(channel: Open, size: tuple[int, int]) -> None:
    """Even in a low window, the plot shows a constant on its own scale with more than one figure."""
    async with channel(*prints(*["40.5"] * 5)) as page:
        await page.page.viewport(*size)
        await page.page.wait_for("document.querySelector('canvas').ariaLabel === 'Plot of value, now 40.5'")
        await page.until_text("#kept", "5 messages")


@pytest.mark.parametrize(
    ("low", "high"), [(36.45, 44.55), (0, 1), (-1, 1), (19810932, 19810933), (5e-324, 1e-320), (-1e300, 1e300), (1e17, 1.1e17), (0.1, 0.3)]
)
async def test_every_scale_has_figures(channel: Open, low: float, high: float) -> None:
    """However low the plot is, each scale has several labelled figures within its range."""
    async with channel("cat") as page:
        scales = await page.page.evaluate(f"""[2, 3, 5, 7].map(most => {{
            const rows = ticks({low}, {high}, most), step = rows.step;
            return {{ rows: [...rows], step, labels: rows.map(value => numberLabel(value, step)) }};
        }})""")
        for scale in scales:
            assert 1 <= len(scale["rows"]) <= 40
            assert scale["step"] > 0
            slack = scale["step"] / 1e6
            assert all(low - slack <= value <= high + slack for value in scale["rows"])
            assert all(scale["labels"])


async def test_plot_that_fails(channel: Open) -> None:
    """If the plot fails, the page hides it, and everything else continues."""
    async with channel("--input=exchange") as page:
        await page.until("open")
        await page.page.evaluate("void (Plot.prototype.paint = () => { throw 'no ink' }, console.error = () => {})")
        for number in range(1, 5):
            await page.send(str(number))
        await page.until_text("#kept", "4 messages")
        await page.page.wait_for(f"{IN_SIGHT} === 4")
        await page.page.wait_for("!document.querySelector('#plot').checkVisibility()")


@pytest.mark.parametrize(
    ("columns", "groups"),
    [
        ([[43.1, 43.9], [1012, 1014]], [[0], [1]]),
        ([[20, 30], [25, 40], [1012, 1014]], [[0, 1], [2]]),
        ([[0, 100], [1, 2]], [[0], [1]]),
        ([[0, 100], [40, 70]], [[0, 1]]),
        ([[0, 0], [5, 9]], [[0, 1]]),
        ([[1013, 1013], [5, 9]], [[0], [1]]),
        ([[43, 43], [1013, 1013], [40, 40]], [[0, 2], [1]]),
        ([[0, 0], [0, 0]], [[0, 1]]),
        ([[-5, 5], [-1e9, 1e9]], [[0], [1]]),
    ],
)
async def test_series_have_scales(channel: Open, columns: list[list[float]], groups: list[list[int]]) -> None:
    """Series share a scale while the variation of each stays visible: a pressure does not flatten a temperature."""
    async with channel("cat") as page:
        lines = f"{json.dumps(columns)}.map(([low, high], order) => ({{ series: {{ order }}, low, high }}))"
        scales = f"scalesOf({lines}).map(({{ members }}) => members.map(({{ series }}) => series.order))"
        assert await page.page.evaluate(scales) == groups


async def test_one_scale_for_all(channel: Open) -> None:
    """If there are several scales, the user can select one scale for all series."""
    async with channel(*prints("43.1 1012", "43.9 1014", "43.5 1013")) as page:
        await page.page.wait_for("document.querySelector('#plot-scale').checkVisibility()")
        drawn = "document.querySelector('canvas').toDataURL()"
        before = await page.page.evaluate(drawn)
        choose = "(choice => { choice.value = 'one'; choice.dispatchEvent(new Event('change')) })(document.querySelector('#plot-scale'))"
        await page.page.evaluate(choose)
        await page.page.wait_for(f"{drawn} !== {json.dumps(before)}")


async def test_no_empty_plot(channel: Open) -> None:
    """If every series is switched off, there is no canvas, and the legend gives the reason; a time alone produces no plot."""
    async with channel(*prints("1", "2", "3")) as page:
        await page.page.wait_for("document.querySelector('canvas').checkVisibility()")
        await page.page.click("#legend button")
        await page.until_text("#legend p", "no series is switched on")
        assert not await page.shown("canvas")
        await page.page.click("#legend button")
        await page.page.wait_for("document.querySelector('canvas').checkVisibility()")
    async with channel(*prints(*['{"time": 1795227069}'] * 5)) as page:
        await page.counted(5)
        assert not await page.shown("#plot")


async def test_controls_of_the_plot_on_a_phone(channel: Open) -> None:
    """On a phone, the controls of the plot and the button that hides it are visible, for any number of series."""
    async with channel(*prints(*[json.dumps({f"series {n}": n * i for n in range(12)}) for i in range(5)])) as page:
        await page.page.viewport(390, 800, mobile=True)
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        outside = """[...document.querySelectorAll('#plot select, #plot-hide')].filter(control => control.checkVisibility())
            .map(control => [control.id, control.getBoundingClientRect()])
            .filter(([, { left, right }]) => left < 0 || right > innerWidth).map(([id]) => id)"""
        assert await page.page.evaluate(outside) == []


async def test_program_restarts_and_stderr(channel: Open) -> None:
    """The page counts restarts; with --devconsole it shows the last line of stderr, shortened, and other clients do not receive it."""
    script = shell("echo one; echo first >&2; printf 'it \\033[31mfailed %0600d' 0 >&2; exit 3")
    async with channel("--devconsole", *script) as page:
        await page.page.wait_for("document.querySelector('#restarts').checkVisibility()")
        await page.page.wait_for("document.querySelector('#stderr').innerText.includes('it ␛[31mfailed 0000')")
        assert len(json.loads(page.server.get("/status").body)["program_stderr"]) == 500
    async with channel(*script) as page:
        await page.page.wait_for("document.querySelector('#restarts').checkVisibility()")
        assert "program_stderr" not in json.loads(page.server.get("/status").body)
        assert not await page.shown("#stderr")


async def test_prose_is_not_plotted(channel: Open) -> None:
    """Messages without numbers produce no plot."""
    async with channel(*shell('for i in $(seq 1 50); do echo line $i; echo \'{"a": "b"}\'; done; exec sleep 1000')) as page:
        await page.counted(100)
        await page.until_text("#kept", "100 messages")
        assert not await page.shown("#plot")


# Sending messages


async def test_sends(channel: Open) -> None:
    """If the channel accepts messages, a message sent from the page reaches all clients."""
    async with channel("--input=exchange") as page:
        await page.until("open")
        with page.server.connect() as other:
            await page.send("héllo")
            assert other.receive_text() == "héllo"
        await page.counted(1)
        assert await page.rows() == ["héllo"]
        assert await page.page.evaluate("document.querySelector('#message').value") == ""


async def test_channel_that_accepts_no_messages(channel: Open) -> None:
    """If the channel accepts no messages from browsers, the page has no input field."""
    async with channel(*prints("hello")) as page:
        await page.page.wait_for("!document.querySelector('form').checkVisibility()")


async def test_sending_without_a_connection(channel: Open) -> None:
    """A message sent without a connection stays in its field, and the page says so."""
    async with channel("--input=exchange") as page:
        await page.until("open")
        page.server.stop()
        await page.until("waiting")
        await page.send("early")
        await page.until_text("#advice", "Not connected: the message was not sent.")
        assert await page.page.evaluate("document.querySelector('#message').value") == "early"


# Accessibility


async def test_every_control_has_a_name(channel: Open) -> None:
    """Each control has an accessible name, and each id is unique."""
    async with channel("--input=exchange", *prints("1 2", "3 4", "5 6")) as page:
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        tree = await page.page.call("Accessibility.getFullAXTree")
        roles = {"button", "textbox", "log", "image", "heading"}
        controls = [node for node in tree["nodes"] if not node["ignored"] and node["role"]["value"] in roles]
        assert len(controls) >= 8
        assert [node for node in controls if node["role"]["value"] != "log" and not node["name"]["value"]] == []
        ids = await page.page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
        assert sorted(ids) == sorted(set(ids))


async def test_tab_order(channel: Open) -> None:
    """Tab reaches every control, in the visual order."""
    async with channel("--input=exchange", *prints("1", "2", "3")) as page:
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        reached = []
        for _ in range(11):
            await page.page.press("Tab")
            reached.append(await page.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        plot = ["BUTTON", "plot-range", "plot-axis", "plot-hide", "plot-canvas"]
        assert reached == [*plot, "filter", "pause", "clear", "download", "log", "message"]


@pytest.mark.parametrize("width", [320, 390, 768])
async def test_fits_a_phone(channel: Open, width: int) -> None:
    """At widths from 320 pixels, the page does not scroll sideways, and each touch target is at least 36 pixels high."""
    lines = [json.dumps({"a_long_name": {"user": i, "system": i * i}, "another": 7, "text": "x" * 100}) for i in range(50)]
    async with channel(*prints(*lines)) as page:
        await page.page.viewport(width, 700, mobile=True, scale=2)
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        assert await page.page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        small = """[...document.querySelectorAll('button, input')]
            .filter(element => element.checkVisibility())
            .map(element => [element.id || element.textContent, element.getBoundingClientRect().height])
            .filter(([name, height]) => height < 36)"""
        assert await page.page.evaluate(small) == []
        assert await page.page.evaluate("document.querySelector('#log').clientHeight") > 150


async def test_dark_and_light(channel: Open) -> None:
    """The page is dark in the dark scheme."""
    async with channel(*prints("x")) as page:
        grounds = []
        for dark in (False, True):
            await page.page.viewport(1280, 800, dark=dark)
            grounds.append(await page.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert grounds == ["rgb(244, 246, 246)", "rgb(15, 20, 22)"]


async def test_loads_nothing_from_elsewhere(channel: Open) -> None:
    """The page requests only its status, and nothing from another server."""
    async with channel(*prints("one")) as page:
        await page.until_text("#viewers", "1")
        source = page.server.get("/").body.decode()
        assert not any(word in source for word in ("https://", "@import", ": url(", "innerHTML", "src="))
        loaded = await page.page.evaluate("[...new Set(performance.getEntriesByType('resource').map(({ name }) => name))]")
        assert sorted(loaded) == [f"http://127.0.0.1:{page.server.port}/{name}" for name in ("status",)]
