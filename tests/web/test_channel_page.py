"""The page of a channel in a real browser, against a running broadcast: what a person sees, and what he need not do."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.chromium import Chromium, Page
from tests.support.server import Bridge, Server, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

BROADCAST = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "broadcast"), takes_port_zero=True)
PAGE = Path(__file__).parents[2] / "wsbridge" / "web" / "assets" / "channel.html"
KEPT = 2000
FLOOD_TIMEOUT = 90
"""Seconds: a browser takes some twenty-five thousand messages a second on two slow cores, and what it cannot take is lost to it."""
COUNTS_AS_TOLD = "while read -r count; do seq 1 $count; done"


class Channel:
    """The page, in a test's words."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server

    async def until(self, state: str) -> None:
        await self.page.wait_for(f"document.querySelector('#state').dataset.state === '{state}'")

    async def counted(self, at_least: int, **options: Any) -> None:
        await self.page.wait_for(f"document.querySelector('#count').dataset.count >= {at_least}", **options)

    async def until_text(self, selector: str, text: str) -> None:
        await self.page.wait_for(f"document.querySelector({json.dumps(selector)})?.textContent === {json.dumps(text)}")

    async def text(self, selector: str) -> str:
        return await self.page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")

    async def shown(self, selector: str) -> bool:
        return await self.page.evaluate(f"document.querySelector({json.dumps(selector)}).checkVisibility()")

    async def count(self, name: str) -> int:
        return int(await self.page.evaluate(f"document.querySelector('#{name}').dataset.count"))

    async def rows(self, kind: str = "text") -> list[str]:
        """What the rows of a kind say, oldest first."""
        return await self.page.evaluate(f"[...document.querySelectorAll('#log .{kind} p')].map(row => row.textContent)")

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
    """Serve a channel, and open its page. It must not have complained by the end, but of a server that was not there."""

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


# How it stands


async def test_says_what_it_is(channel: Open) -> None:
    """The page names the exchange, who watches, how many messages came, and the position; of a broker it speaks where there is one."""
    async with channel(*prints("one", "two")) as page:
        await page.counted(2)
        await page.until("open")
        assert await page.text("#state") == "Live"
        await page.until_text("#exchange", "temps")
        await page.until_text("#viewers", "1")
        with page.server.connect():
            await page.until_text("#viewers", "2")
        await page.until_text("#viewers", "1")
        assert await page.text("#count") == "2"
        status = json.loads(page.server.get("/status").body)
        assert await page.text("#position") == status["position"]
        assert await page.page.evaluate("document.title") == "temps · live channel"
        assert not await page.shown("#has-broker")


async def test_shows_messages(channel: Open) -> None:
    """Each message is a row with its time, the newest in sight."""
    async with channel(*shell("seq -f 'line %g' 1 100; exec sleep 1000")) as page:
        await page.counted(100)
        assert await page.rows() == [f"line {number}" for number in range(1, 101)]
        assert await page.page.evaluate("/^\\d\\d:\\d\\d:\\d\\d\\.\\d{3}$/.test(document.querySelector('.text time').textContent)")
        end = "(box => box.scrollTop + box.clientHeight >= box.scrollHeight - 1)(document.querySelector('#log'))"
        await page.page.wait_for(end)
        await page.page.viewport(390, 700, mobile=True)
        await page.page.wait_for(end)
        assert await page.text("#kept") == "100 messages"
        assert not await page.shown("#blank")


async def test_hostile_text_is_only_text(channel: Open) -> None:
    """Markup is shown as it is, control characters as pictures, and what looks like a control record is a message."""
    async with channel(*shell("printf '<img src=x onerror=alert(1)> \\033[31m\\n!lost x 3\\n\\n'; exec sleep 1000")) as page:
        await page.counted(3)
        await page.page.wait_for("document.querySelectorAll('.text').length === 3")
        assert await page.rows() == ["<img src=x onerror=alert(1)> ␛[31m", "!lost x 3", "empty"]
        assert await page.rows("lost") == []


async def test_binary_is_shown_as_hex(channel: Open) -> None:
    """Binary is shown as hex, a long message cut, and so is a long text."""
    short, long, text = r"\000\000\000\003\002\n\000\377", r"\000\000\003\350\002", r"\000\000\116\040\001"
    script = f"printf '{short}{long}'; head -c 1000 /dev/zero; printf '{text}'; printf %020000d 0"
    async with channel("--framing=prefixed", *shell(f"{script}; exec sleep 1000")) as page:
        await page.counted(3)
        await page.page.wait_for("document.querySelectorAll('.binary').length === 2")
        short, long = await page.rows("binary")
        assert short == "0a 00 ff 3 bytes"
        assert long == "00 " * 256 + "… 744 more bytes"
        [text] = await page.rows()
        assert text == "0" * 2000 + " … 18,000 more characters"


# Coming back


async def test_server_restarted(channel: Open) -> None:
    """When the server is restarted before one's eyes the page comes back by itself, and says that something was lost."""
    port = free_port()
    async with channel(*prints("before"), port=port) as page:
        await page.counted(1)
        page.server.stop()
        await page.until("waiting")
        assert await page.text("#viewers") == "–"
        with broadcast("--join=history", *prints("after"), port=port):
            await page.counted(2)
            await page.until("open")
            await page.page.wait_for("document.querySelectorAll('.text').length === 2")
            assert await page.rows() == ["before", "after"]
            assert await page.rows("lost") == ["Some messages were lost"]
            assert await page.rows("note") == ["Connected", "Disconnected: server is shutting down", "Connected"]
            assert await page.text("#kept b") == "some lost"
            await page.until_text("#viewers", "1")


async def test_waiting_can_be_cut_short(channel: Open) -> None:
    """While it waits it counts down, and a button tries at once."""
    port = free_port()
    async with channel(*prints("x"), port=port) as page:
        await page.counted(1)
        await page.page.evaluate("void (Math.random = () => 0.999)")
        page.server.stop()
        await page.page.wait_for(
            "document.querySelector('#retry').checkVisibility() && parseInt(document.querySelector('#countdown').textContent) >= 4"
        )
        await page.until_text("#countdown", "3 s…")
        with broadcast(*prints("x"), port=port):
            await page.page.click("#retry")
            await page.until("open")
            assert not await page.shown("#retry")
            assert not await page.shown("#countdown")


async def test_losses_are_counted(channel: Open) -> None:
    """Of messages that this page alone has lost it says how many."""
    flags = ("--input=program", "--history=10", "--queue=1")
    async with channel(*flags, *shell(COUNTS_AS_TOLD)) as page:
        await page.until("open")
        beginning = await page.page.wait_for("document.querySelector('#position').title")
        with page.server.connect() as other:
            for number in (100, 20, 20):
                other.send_text(str(number))
                assert [other.receive_text() for _ in range(number)][-1] == str(number)
        # As if its connection had been cut at the beginning, and was there again only now.
        since = f"Object.assign(new URL(url), {{ search: '?since={beginning}' }})"
        await page.page.before_scripts(
            f"globalThis.WebSocket = class extends WebSocket {{ constructor(url, protocols) {{ super({since}, protocols) }} }}"
        )
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.page.wait_for("document.querySelector('.lost')")
        [lost] = await page.rows("lost")
        await page.counted(140 - int(lost.split()[0]))
        assert lost == f"{140 - await page.count('count')} messages were lost"
        assert await page.text("#kept b") == f"{lost.split()[0]} lost"


async def test_position_that_comes_late(channel: Open) -> None:
    """Where a channel stands is shown also when that comes after the page was drawn, and nothing after it."""
    late = "set onmessage(take) { super.onmessage = event => setTimeout(take, 500, event) }"
    async with channel("cat") as page:
        await page.page.before_scripts(f"globalThis.WebSocket = class extends WebSocket {{ {late} }}")
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.until_text("#position", json.loads(page.server.get("/status").body)["position"])


# The log


async def test_pause_and_resume(channel: Open) -> None:
    """Pause holds log and plot, and counts what comes meanwhile; Resume shows it. Escape does the same."""
    async with channel("--input=exchange") as page:
        await page.until("open")
        await page.send("before")
        await page.counted(1)
        await page.page.click("#pause")
        await page.send("meanwhile")
        await page.until_text("#latest", "↓ 1 newer message")
        assert await page.rows() == ["before"]
        await page.page.click("#pause")
        assert await page.rows() == ["before", "meanwhile"]
        assert not await page.shown("#latest")
        await page.page.press("Escape")
        assert await page.page.evaluate("document.querySelector('#pause').dataset.paused") == "true"
        await page.page.click("#clear")
        assert await page.rows() == []
        await page.send("later")
        await page.until_text("#latest", "↓ 1 newer message")
        await page.page.click("#latest")
        assert await page.rows() == ["later"]


async def test_scrolling_back_holds(channel: Open) -> None:
    """Who scrolls back reads in peace: all that is kept is there, and stays; at the end the log follows again."""
    async with channel("--input=program", "--history=5000", *shell(COUNTS_AS_TOLD)) as page:
        await page.until("open")
        await page.send("3000")
        await page.counted(3000)
        await page.page.wait_for("document.querySelector('.text:last-child p').textContent === '3000'")
        assert await page.text("#kept") == "last 2,000 of 3,000 messages"
        await page.page.wheel("#log", -200)
        await page.page.wait_for(f"document.querySelectorAll('.text').length === {KEPT}")
        middle = "document.elementFromPoint(400, 400).closest('.row').textContent"
        seen = await page.page.evaluate(middle)
        await page.send("7")
        await page.until_text("#latest", "↓ 7 newer messages")
        assert await page.page.evaluate(middle) == seen
        assert (await page.rows())[-1] == "3000"
        await page.page.click("#latest")
        assert (await page.rows())[-8:] == ["3000", *"1234567"]


async def test_survives_a_flood(channel: Open) -> None:
    """Lines as fast as a program can print them: the page stays awake, draws little, and tells kept, lost and all apart."""
    async with channel("--input=program", *shell(COUNTS_AS_TOLD)) as page:
        await page.until("open")
        await page.send("500000")
        await page.counted(20_000, timeout=FLOOD_TIMEOUT)
        await page.page.click("#pause")
        await page.page.wait_for("document.querySelector('#pause').dataset.paused === 'true'")
        assert len(await page.rows()) <= KEPT
        await page.page.click("#pause")
        await page.page.wait_for("[...document.querySelectorAll('.text p')].at(-1)?.textContent === '500000'", timeout=FLOOD_TIMEOUT)
        assert await page.page.evaluate("document.querySelectorAll('*').length") < 2000
        assert await page.count("kept") == KEPT
        lost = await page.page.evaluate("parseInt((document.querySelector('#kept b')?.textContent ?? '0').replaceAll(',', ''))")
        assert await page.count("count") + lost == 500_000


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
    """Messages that are numbers, several numbers, or JSON with numbers in it make a plot with a series for each."""
    async with channel(*prints(*lines)) as page:
        await page.page.wait_for("document.querySelector('#plot').dataset.count === '3'")
        names = "[...document.querySelectorAll('#legend button')].map(button => button.childNodes[1].data)"
        assert await page.page.evaluate(names) == series
        drawn = "new Set(new Uint32Array(document.querySelector('canvas').getContext('2d').getImageData(0, 0, 1000, 100).data.buffer)).size"
        assert await page.page.evaluate(drawn) > 2


async def test_plot_can_be_read(channel: Open) -> None:
    """The legend shows the last values, and those under the pointer; a series can be switched off."""
    async with channel(*prints("1 10", "2 20", "3 30")) as page:
        await page.page.wait_for("document.querySelector('canvas').ariaLabel === 'Plot of column 1, now 3; column 2, now 30'")
        left = "document.querySelector('canvas').dispatchEvent(new PointerEvent('pointermove', { clientX: 60 }))"
        await page.page.evaluate(left)
        await page.until_text("#legend button:nth-of-type(2) b", "10")
        assert (await page.text("#at")).count(":") == 2
        await page.page.click("#legend button:nth-of-type(2)")
        await page.page.evaluate("document.querySelector('canvas').dispatchEvent(new PointerEvent('pointerleave'))")
        await page.page.wait_for("document.querySelector('canvas').ariaLabel === 'Plot of column 1, now 3'")
        await page.page.click("#clear")
        assert not await page.shown("#plot")


async def test_prose_is_not_plotted(channel: Open) -> None:
    """Messages without numbers make no plot."""
    async with channel(*shell('for i in $(seq 1 50); do echo line $i; echo \'{"a": "b"}\'; done; exec sleep 1000')) as page:
        await page.counted(100)
        await page.page.wait_for("document.querySelectorAll('.text').length === 100")
        assert not await page.shown("#plot")


# Sending


async def test_sends(channel: Open) -> None:
    """Where the channel takes messages, what is sent from the page goes to all."""
    async with channel("--input=exchange") as page:
        await page.until("open")
        with page.server.connect() as other:
            await page.send("héllo")
            assert other.receive_text() == "héllo"
        await page.counted(1)
        assert await page.rows() == ["héllo"]
        assert await page.page.evaluate("document.querySelector('#message').value") == ""


async def test_channel_that_takes_no_messages(channel: Open) -> None:
    """Where browsers' messages go nowhere, there is nothing to send one with."""
    async with channel(*prints("hello")) as page:
        await page.page.wait_for("!document.querySelector('form').checkVisibility()")


async def test_sending_without_a_connection(channel: Open) -> None:
    """What is sent without a connection is kept in its field, and this is said."""
    async with channel("--input=exchange") as page:
        await page.until("open")
        page.server.stop()
        await page.until("waiting")
        await page.send("early")
        await page.until_text("#advice", "Not connected: nothing was sent.")
        assert await page.page.evaluate("document.querySelector('#message').value") == "early"


# Everyone


async def test_everything_has_a_name(channel: Open) -> None:
    """Each control has a name for who does not see it, and each id exists once."""
    async with channel("--input=exchange", *prints("1 2", "3 4", "5 6")) as page:
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        tree = await page.page.call("Accessibility.getFullAXTree")
        roles = {"button", "textbox", "log", "image", "heading"}
        controls = [node for node in tree["nodes"] if not node["ignored"] and node["role"]["value"] in roles]
        assert len(controls) >= 8
        assert [node for node in controls if node["role"]["value"] != "log" and not node["name"]["value"]] == []
        ids = await page.page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
        assert sorted(ids) == sorted(set(ids))


async def test_keyboard_alone(channel: Open) -> None:
    """Every control is reached by Tab, in the order in which it is seen."""
    async with channel("--input=exchange", *prints("1", "2", "3")) as page:
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        reached = []
        for _ in range(6):
            await page.page.press("Tab")
            reached.append(await page.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert reached == ["BUTTON", "pause", "clear", "log", "message", "send"]


@pytest.mark.parametrize("width", [320, 390, 768])
async def test_fits_a_telephone(channel: Open, width: int) -> None:
    """At 320 pixels and more nothing scrolls sideways, and what is touched is at least 36 pixels high."""
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
    """The page is dark where dark is wanted."""
    async with channel(*prints("x")) as page:
        grounds = []
        for dark in (False, True):
            await page.page.viewport(1280, 800, dark=dark)
            grounds.append(await page.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert grounds == ["rgb(244, 246, 246)", "rgb(15, 20, 22)"]


async def test_loads_nothing_from_elsewhere() -> None:
    """The page loads wsbridge.js from where it came from itself, and nothing from anywhere else."""
    source = PAGE.read_text()
    assert source.replace("http://www.w3.org/2000/svg", "").count("http://") == 0
    assert not any(word in source for word in ("https://", "@import", "url(", "innerHTML"))
    assert source.count("src=") == 1
