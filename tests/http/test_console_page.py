"""The developer console in a real browser, with the running server: everything that a user sees, clicks and types."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.chromium import Chromium, Page
from tests.support.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

FLOOD = 300_000
FLOOD_TIMEOUT = 400
"""Timeout in seconds: a browser handles some 25,000 messages a second on two slow cores."""

ROWS = """[...document.querySelectorAll('#rows .row:not(.note)')].map(row => ({
    way: row.classList.contains('in') ? 'in' : 'out',
    stderr: row.classList.contains('stderr'),
    kind: row.querySelector('.kind').textContent,
    size: row.querySelector('.size').textContent,
    text: row.querySelector('.text, .hex, .empty').textContent,
}))"""


class Console:
    """The console, with methods for tests."""

    def __init__(self, page: Page, server: Server, browser: Chromium) -> None:
        self.page = page
        self.server = server
        self.browser = browser

    async def connect(self) -> None:
        await self.page.click("#connect")
        await self.page.wait_for(
            "document.querySelector('#state').dataset.state === 'open' || document.querySelector('#close-info').dataset.code"
        )

    async def until(self, state: str) -> None:
        await self.page.wait_for(f"document.querySelector('#state').dataset.state === '{state}'")

    async def send(self, text: str) -> None:
        await self.page.click("#message")
        await self.page.type(text + "\n")

    async def count(self, name: str) -> int:
        return int(await self.page.evaluate(f"document.querySelector('#{name}').dataset.count"))

    async def counted(self, name: str, at_least: int, **options: Any) -> None:
        await self.page.wait_for(f"document.querySelector('#{name}').dataset.count >= {at_least}", **options)

    async def text(self, selector: str) -> str:
        return await self.page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")

    async def value(self, selector: str) -> str:
        return await self.page.evaluate(f"document.querySelector({json.dumps(selector)}).value")

    async def shown(self, selector: str) -> bool:
        return await self.page.evaluate(f"document.querySelector({json.dumps(selector)}).checkVisibility()")

    async def focused(self) -> str:
        return await self.page.evaluate("document.activeElement.id")

    async def rows(self) -> list[dict[str, Any]]:
        """Return the visible messages, oldest first."""
        await self.page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        return await self.page.evaluate(ROWS)

    async def texts(self) -> list[str]:
        return [row["text"] for row in await self.rows()]


Open = Callable[..., AbstractAsyncContextManager[Console]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Chromium]:
    async with Chromium() as browser:
        yield browser


@pytest.fixture
def console(browser: Chromium) -> Open:
    """Serve a program with `--devconsole`, and open its console. The page must not report errors by the end."""

    @asynccontextmanager
    async def opened(*words: str, path: str = "/") -> AsyncIterator[Console]:
        with Server("--devconsole", *words) as server:
            page = await browser.open(f"http://127.0.0.1:{server.port}{path}")
            await page.viewport(1280, 800)
            yield Console(page, server, browser)
            assert page.errors == []
            await page.close()

    return opened


def shell(script: str) -> tuple[str, ...]:
    return "sh", "-c", script


# Connecting


async def test_initial_address(console: Open) -> None:
    """The console fills in the address of its own page: host, port, path and query."""
    async with console("cat", path="/some/path?a=b&c") as page:
        assert await page.value("#url") == f"ws://127.0.0.1:{page.server.port}/some/path?a=b&c"
        assert await page.text("#state") == "Not connected"


async def test_connects_sends_and_shows(console: Open) -> None:
    """The console sends the input as a line, and shows the answer of the program with direction, kind and size."""
    async with console("cat") as page:
        await page.connect()
        await page.send("héllo")
        await page.counted("count-in", 1)
        row = {"stderr": False, "kind": "text", "size": "6 B", "text": "héllo"}
        assert await page.rows() == [{"way": "out", **row}, {"way": "in", **row}]
        assert [await page.count(f"bytes-{way}") for way in ("in", "out")] == [6, 6]
        assert await page.text("#state") == "Open"


async def test_disconnects(console: Open) -> None:
    """Disconnect closes the session with 1000, and Connect opens a new one with new totals."""
    async with console("cat") as page:
        await page.connect()
        await page.send("one")
        await page.counted("count-in", 1)
        await page.page.click("#disconnect")
        await page.until("closed")
        assert await page.text("#close-info") == "1000, you disconnected"
        await page.connect()
        assert await page.text("#close-info") == ""
        assert await page.count("count-in") == 0


async def test_subprotocol(console: Open) -> None:
    """The log names the negotiated subprotocol."""
    async with console("--subprotocol=chat,other", "cat") as page:
        await page.page.click("#subprotocol")
        await page.page.type("other")
        await page.connect()
        await page.page.wait_for("document.querySelector('.note')?.textContent.endsWith('subprotocol other')")


async def test_invalid_address(console: Open) -> None:
    """For an invalid address, the console shows a message, and reports no exception."""
    async with console("cat") as page:
        await page.page.evaluate("document.querySelector('#url').value = 'ws://['")
        await page.page.click("#connect")
        assert "This address cannot be used" in await page.text("#close-info")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "1000, the program ended"),
        ("exit 3", "1011, the program failed: exit 3"),
        ("kill -TERM $$", "1011, the program failed: signal TERM"),
    ],
)
async def test_close_description(console: Open, script: str, words: str) -> None:
    """The console describes how the program ended."""
    async with console(*shell(script)) as page:
        await page.connect()
        await page.until("closed")
        assert await page.text("#close-info") == words
        await page.page.wait_for(f"document.querySelector('.note:last-child').textContent.includes('Closed: {words}, after ')")


async def test_close_for_too_long_a_message(console: Open) -> None:
    """A message over the limit results in 1009, which the console describes."""
    async with console("--maxframesize=10", "cat") as page:
        await page.connect()
        await page.send("longer than ten")
        await page.until("closed")
        assert (await page.text("#close-info")).startswith("1009, message too long")


async def test_close_for_shutdown(console: Open) -> None:
    """The console reports that the server shuts down."""
    async with console("cat") as page:
        await page.connect()
        page.server.stop()
        await page.until("closed")
        assert (await page.text("#close-info")).startswith("1001, the server is shutting down")


async def test_close_for_too_many(console: Open) -> None:
    """With `--busy=close`, the console reports that there are too many sessions."""
    async with console("--maxforks=1", "--busy=close", "cat") as page:
        first = page.server.connect()
        await page.connect()
        await page.until("closed")
        assert (await page.text("#close-info")).startswith("1013, the server is busy")
        first.drop()


async def test_refused_before_the_upgrade(console: Open) -> None:
    """If the server refuses the upgrade, a page sees only 1006 without an open event, and the console says so."""
    async with console("--maxforks=1", "cat") as page:
        first = page.server.connect()
        await page.connect()
        await page.until("closed")
        shown = await page.text("#close-info")
        reason = "the server refused the upgrade (its log shows the reason), or no server listens there"
        assert shown == f"1006, no close frame: {reason}"
        first.drop()
        assert [error for error in page.page.errors if "429" not in error] == []
        page.page.errors.clear()


# The log


async def test_stderr_is_marked(console: Open) -> None:
    """With `--passstderr`, the console shows lines without their envelope, and marks those of stderr."""
    async with console("--passstderr", *shell("""echo '{"plain": "json"}'; sleep 0.1; echo trouble >&2; cat""")) as page:
        await page.connect()
        await page.counted("count-in", 2)
        rows = {row["text"]: row["stderr"] for row in await page.rows()}
        assert rows == {'{"plain": "json"}': False, "trouble": True}
        assert await page.text(".row.stderr .tag") == "stderr"


async def test_binary_is_shown_as_hex(console: Open) -> None:
    """The console shows a binary message as offset, hex and ASCII: a preview, and the rest on request."""
    async with console("--binary", *shell("printf 'A line.\\n\\000\\377'; cat")) as page:
        await page.connect()
        await page.counted("count-in", 1)
        [row] = await page.rows()
        assert (row["kind"], row["size"]) == ("binary", "10 B")
        assert row["text"].split("  ") == ["0000", "41 20 6c 69 6e 65 2e 0a", "00 ff", "A line.···"]


async def test_large_binary_opens_by_steps(console: Open) -> None:
    """The console shows a large binary message in steps, as requested."""
    async with console("--framing=prefixed", *shell("printf '\\000\\000\\047\\020\\002'; head -c 10000 /dev/zero; cat")) as page:
        await page.connect()
        await page.counted("count-in", 1)
        lines = "document.querySelector('.hex').textContent.split('\\n').length"
        await page.page.wait_for(f"{lines} === 4")
        for expected in (4096 // 16, 8192 // 16, 10000 // 16):
            await page.page.click(".more button")
            await page.page.wait_for(f"{lines} === {expected}")
        assert "0001870" not in await page.text(".hex")
        assert "2700" in (await page.text(".hex")).splitlines()[-1]


async def test_long_text_opens(console: Open) -> None:
    """The console shows the beginning of a long text; a click shows the rest, and another click the beginning again."""
    async with console(*shell("seq -s ' ' 1 2000; cat")) as page:
        await page.connect()
        await page.page.wait_for("document.querySelector('.text')")
        assert "2000" not in await page.text(".text")
        await page.page.click(".row.in .time")
        await page.page.wait_for("document.querySelector('.text').textContent.endsWith(' 2000')")
        await page.page.click(".row.in .time")
        await page.page.wait_for("!document.querySelector('.text').textContent.endsWith(' 2000')")


async def test_json_opens_indented(console: Open) -> None:
    """The console indents an opened JSON message, and keeps the digits of its numbers."""
    async with console(*shell("""echo '{"id":12345678901234567890,"list":[1.50,{}]}'; cat""")) as page:
        await page.connect()
        await page.page.wait_for("document.querySelector('.text')")
        await page.page.click(".row.in .time")
        await page.page.wait_for("document.querySelector('.more')")
        assert await page.text(".text") == '{\n  "id": 12345678901234567890,\n  "list": [\n    1.50,\n    {}\n  ]\n}'


async def test_hostile_text_is_only_text(console: Open) -> None:
    """The console shows markup as text, and control characters as symbols."""
    async with console(*shell("printf '<img src=x onerror=alert(1)> \\033[31m\\n'; cat")) as page:
        await page.connect()
        await page.counted("count-in", 1)
        assert await page.texts() == ["<img src=x onerror=alert(1)> ␛[31m"]


async def test_filter(console: Open) -> None:
    """The filter accepts text without regard to case or a /regex/, shows the number of matches, and reports an invalid regex."""
    async with console(*shell("for i in $(seq 1 100); do echo Line $i; done; cat")) as page:
        await page.connect()
        await page.counted("count-in", 100)
        await page.page.click("#filter")
        await page.page.type("line 1")
        await page.page.wait_for("document.querySelector('#matches').textContent === '12 of 100'")
        assert (await page.texts())[0] == "Line 1"
        await page.page.evaluate("document.querySelector('#filter').select()")
        await page.page.type("/[02468]5$/")
        await page.page.wait_for("document.querySelector('#matches').textContent === '4 of 100'")
        assert await page.texts() == ["Line 25", "Line 45", "Line 65", "Line 85"]
        await page.page.evaluate("document.querySelector('#filter').select()")
        await page.page.type("/(/")
        await page.page.wait_for("document.querySelector('#filter').getAttribute('aria-invalid') === 'true'")
        assert await page.text("#matches") == "Unterminated group"


async def test_pause_and_resume(console: Open) -> None:
    """Pause freezes the log and counts new messages; Resume shows them."""
    async with console("cat") as page:
        await page.connect()
        await page.send("before")
        await page.counted("count-in", 1)
        await page.page.click("#pause")
        await page.send("meanwhile")
        await page.counted("count-in", 2)
        assert await page.texts() == ["before", "before"]
        assert await page.text("#missed") == "+2"
        await page.page.click("#pause")
        assert await page.texts() == ["before", "before", "meanwhile", "meanwhile"]
        assert await page.text("#missed") == ""


async def test_clear(console: Open) -> None:
    """Clear empties log and plot; the connection and its totals stay."""
    async with console(*shell("seq 1 10; cat")) as page:
        await page.connect()
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        await page.page.click("#clear")
        assert await page.rows() == []
        assert not await page.shown("#plot")
        assert (await page.count("count-in"), await page.count("kept")) == (10, 0)


async def test_scrolling_back_keeps_the_log(console: Open) -> None:
    """A log that is scrolled back stays in place; a button shows the number of newer messages, and leads to the end."""
    async with console(*shell("seq 1 1000; read line; seq 1001 2000; cat")) as page:
        await page.connect()
        await page.counted("count-in", 1000)
        await page.page.wheel("#log", -600)
        await page.page.wait_for("document.querySelector('#latest').checkVisibility()")
        before = (await page.texts())[:5]
        await page.page.click("#pause")
        await page.page.click("#message")
        await page.page.type("go\n")
        await page.counted("count-in", 2000)
        assert (await page.texts())[:5] == before
        await page.page.click("#pause")
        assert (await page.texts())[-1] == "2000"


async def test_download(console: Open) -> None:
    """The user can save the tail as text or as JSON lines, without the messages that the filter hides."""
    async with console("--binary", "cat") as page:
        await page.connect()
        await page.send("one")
        await page.counted("count-in", 1)
        await page.page.click("label:has(#mode-hex)")
        await page.send("00 ff")
        await page.counted("count-in", 2)
        await page.page.click("#download")
        await page.page.wait_for("document.querySelector('#download-what').textContent === '4 messages'")
        await page.page.click("#download-jsonl")
        lines = [json.loads(line) for line in (await page.browser.saved()).read_text().splitlines()]
        assert [(line["direction"], line["kind"], line.get("text", line.get("base64"))) for line in lines] == [
            ("out", "text", "one"),
            ("in", "binary", "b25l"),
            ("out", "binary", "AP8="),
            ("in", "binary", "AP8="),
        ]
        assert all(line["time"].endswith("Z") for line in lines)
        await page.page.click("#filter")
        await page.page.type("one")
        await page.page.wait_for("document.querySelector('#matches').textContent === '2 of 4'")
        await page.page.click("#download")
        await page.page.click("#download-text")
        text = (await page.browser.saved()).read_text().splitlines()
        assert [line.split(maxsplit=1)[1] for line in text] == ["out one", "in  binary, 3 bytes", "6f 6e 65  one"]


# Sending


async def test_shift_enter_starts_a_line(console: Open) -> None:
    """Enter sends the message, and Shift+Enter starts a new line."""
    async with console("cat") as page:
        await page.connect()
        await page.page.click("#message")
        await page.page.type("two")
        await page.page.press("Shift+Enter")
        await page.send("lines")
        await page.counted("count-in", 2)
        assert await page.texts() == ["two\nlines", "two", "lines"]


async def test_history(console: Open) -> None:
    """The arrow keys select earlier messages and the draft, and the history survives a reload of the page."""
    async with console("cat") as page:
        await page.connect()
        await page.send("first")
        await page.send("second")
        await page.page.type("draft")
        seen = []
        for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowDown"):
            await page.page.press(key)
            seen.append(await page.value("#message"))
        assert seen == ["second", "first", "first", "second", "draft"]
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.page.click("#message")
        await page.page.press("ArrowUp")
        assert await page.value("#message") == "second"


async def test_without_local_storage(console: Open) -> None:
    """Without localStorage, the history lasts as long as the page."""
    async with console("cat") as page:
        await page.page.before_scripts("Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no') } })")
        await page.page.load(f"http://127.0.0.1:{page.server.port}/")
        await page.connect()
        await page.send("kept")
        await page.page.press("ArrowUp")
        assert await page.value("#message") == "kept"


async def test_sends_hex(console: Open) -> None:
    """The console sends bytes in hex; it rejects invalid hex with a message."""
    async with console("--binary", "cat") as page:
        await page.connect()
        await page.page.click("label:has(#mode-hex)")
        await page.send("68 69 0")
        assert "two hex digits" in await page.text("#advice")
        await page.send("a")
        await page.counted("count-in", 1)
        assert [row["text"].split("  ") for row in await page.rows()] == [["0000", "68 69 0a", "hi·"]] * 2


async def test_sends_a_file(console: Open, tmp_path: Path) -> None:
    """The console sends a selected file as one binary message when the user clicks Send."""
    file = tmp_path / "data.bin"
    file.write_bytes(bytes(range(256)) * 100)
    async with console(*shell("exec wc -c")) as page:
        await page.connect()
        await page.page.upload("#file", file)
        await page.page.wait_for("document.querySelector('#chosen').checkVisibility()")
        assert await page.text("#chosen-name") == "Send sends the file data.bin, 26 kB, as one binary message."
        await page.page.click("#send")
        await page.counted("count-out", 1)
        assert await page.count("bytes-out") == 25600


async def test_sending_without_a_connection(console: Open) -> None:
    """Enter without a connection shows a hint, and keeps the input."""
    async with console("cat") as page:
        await page.send("early")
        assert await page.text("#advice") == "Not connected: connect first."
        assert await page.value("#message") == "early"


# The plot


@pytest.mark.parametrize(
    ("lines", "series"),
    [
        (["1", "2.5", "-3e2"], ["value"]),
        (["1 2", "3,4", "5, 6"], ["column 1", "column 2"]),
        (["[1, 2]", "[3, 4]", "[5, 6]"], ["[0]", "[1]"]),
        (['{"a": 1, "b": {"c": 2, "d": [3]}, "e": "x"}'] * 3, ["a", "b.c", "b.d[0]"]),
    ],
)
async def test_plots_numbers(console: Open, lines: list[str], series: list[str]) -> None:
    """Lines that are numbers, several numbers or JSON with numbers produce a plot with one series for each."""
    async with console(*shell(f"printf '%s\\n' {shlex.join(lines)}; cat")) as page:
        await page.connect()
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        await page.page.wait_for("document.querySelector('#plot').dataset.count === '3'")
        names = "[...document.querySelectorAll('#legend button')].map(button => button.childNodes[1].data)"
        assert await page.page.evaluate(names) == series
        drawn = "new Set(new Uint32Array(document.querySelector('canvas').getContext('2d').getImageData(0, 0, 1000, 100).data.buffer)).size"
        assert await page.page.evaluate(drawn) > 2


async def test_prose_is_not_plotted(console: Open) -> None:
    """Lines without numbers produce no plot."""
    async with console(*shell('for i in $(seq 1 50); do echo line $i; echo \'{"a": "b"}\'; done; cat')) as page:
        await page.connect()
        await page.counted("count-in", 100)
        assert len(await page.rows()) > 0
        assert not await page.shown("#plot")


async def test_plot_hides_and_toggles(console: Open) -> None:
    """The user can hide and show the plot, and switch each series off."""
    async with console(*shell("for i in $(seq 1 9); do echo $i $((i * i)); done; cat")) as page:
        await page.connect()
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        await page.page.click("#legend button:nth-child(2)")
        await page.page.wait_for("document.querySelector('#legend button:nth-child(2)').getAttribute('aria-pressed') === 'false'")
        await page.page.wait_for("document.querySelector('canvas').getAttribute('aria-label') === 'Plot of column 1, now 9'")
        await page.page.click("#plot-hide")
        assert not await page.shown("#plot")
        await page.page.click("#plot-show")
        assert await page.shown("#plot")


# The flood


async def test_survives_a_flood(console: Open) -> None:
    """The console counts every line of a flood; Pause works during the flood while the count continues."""
    async with console("seq", "1", str(FLOOD)) as page:
        await page.connect()
        await page.counted("count-in", 50_000, timeout=FLOOD_TIMEOUT)
        await page.page.click("#pause")
        await page.page.wait_for("document.querySelector('#pause').dataset.paused === 'true'")
        paused_at, held = await page.count("count-in"), await page.texts()
        assert paused_at < FLOOD
        await page.counted("count-in", paused_at + 50_000, timeout=FLOOD_TIMEOUT)
        assert await page.texts() == held
        assert await page.count("missed") >= 50_000
        await page.page.click("#pause")
        await page.page.wait_for("document.querySelector('#pause').dataset.paused === 'false'")
        await page.page.wait_for("document.querySelector('#state').dataset.state === 'closed'", timeout=FLOOD_TIMEOUT)
        assert await page.count("count-in") == FLOOD
        assert await page.count("bytes-in") == sum(len(str(number)) for number in range(1, FLOOD + 1))
        assert (await page.texts())[-1] == str(FLOOD)
        assert await page.count("kept") <= 5000
        assert await page.page.evaluate("document.querySelectorAll('*').length") < 1000
        assert await page.text("#close-info") == "1000, the program ended"


async def test_rate(console: Open) -> None:
    """The console shows the messages per second in each direction; the rate falls to 0 without messages."""
    async with console(*shell("for i in $(seq 1 30); do echo $i; sleep 0.02; done; cat")) as page:
        await page.connect()
        await page.counted("rate-in", 1)
        await page.page.wait_for("document.querySelector('#rate-in').dataset.count === '0'")
        assert await page.count("rate-out") == 0


# Accessibility


async def test_keyboard_alone(console: Open) -> None:
    """The keyboard alone can connect, send, pause, filter, open a message and disconnect."""
    async with console("cat") as page:
        await page.page.wait_for("document.activeElement.id === 'connect'")
        await page.page.press("Enter")
        await page.until("open")
        await page.page.wait_for("document.activeElement.id === 'message'")
        await page.page.type("by hand")
        await page.page.press("Control+Enter")
        await page.counted("count-in", 1)
        await page.page.press("Escape")
        assert await page.page.evaluate("document.querySelector('#pause').dataset.paused") == "true"
        await page.page.press("Escape")
        assert await page.page.evaluate("document.querySelector('#pause').dataset.paused") == "false"
        for name in ("log", "download", "clear", "pause"):
            while (focused := await page.focused()) != name:
                assert focused != "connect", f"#{name} is not reached by Tab"
                await page.page.press("Shift+Tab")
        await page.page.press("/")
        assert await page.focused() == "filter"
        await page.page.press("?")
        assert await page.value("#filter") == "?"
        await page.page.press("Backspace")
        await page.page.evaluate("document.querySelector('#log').focus()")
        await page.page.press("ArrowUp")
        await page.page.wait_for("document.querySelector('.row.current')")
        await page.page.press("Enter")
        await page.page.wait_for("document.querySelector('.row.current').getAttribute('aria-expanded') === 'true'")
        active = await page.page.evaluate("document.querySelector('#log').getAttribute('aria-activedescendant')")
        assert active == await page.page.evaluate("document.querySelector('.row.current').id")
        await page.page.press("?")
        assert await page.shown("#help")
        await page.page.press("Escape")
        assert not await page.shown("#help")
        await page.page.evaluate("document.querySelector('#disconnect').focus()")
        await page.page.press("Enter")
        await page.until("closed")
        assert await page.focused() == "connect"


async def test_every_control_has_a_name(console: Open) -> None:
    """Each control has an accessible name, and each id is unique."""
    async with console("cat") as page:
        for mobile in (False, True):
            await page.page.viewport(320 if mobile else 1280, 700, mobile=mobile)
            tree = await page.page.call("Accessibility.getFullAXTree")
            roles = {"button", "textbox", "radio", "combobox", "grid", "DisclosureTriangle"}
            controls = [node for node in tree["nodes"] if not node["ignored"] and node["role"]["value"] in roles]
            assert len(controls) >= 12
            assert [node for node in controls if not node["name"]["value"]] == []
        ids = await page.page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
        assert sorted(ids) == sorted(set(ids))


@pytest.mark.parametrize("width", [320, 375, 768])
async def test_fits_a_phone(console: Open, width: int) -> None:
    """At widths from 320 pixels, the page does not scroll sideways, and each touch target is at least 40 pixels high."""
    lines = [json.dumps({"a_long_name": {"user": i, "system": i * i}, "another": 7}) for i in range(50)]
    async with console(*shell(f"printf '%s\\n' {shlex.join(lines)}; cat")) as page:
        await page.page.viewport(width, 700, mobile=True, scale=2)
        await page.connect()
        await page.send("x" * 300)
        await page.page.wait_for("document.querySelector('#plot').checkVisibility()")
        assert await page.page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        small = """[...document.querySelectorAll('button, input[type=text], textarea, select, summary, label:not(.unseen)')]
            .filter(element => element.checkVisibility())
            .map(element => [element.id || element.textContent, element.getBoundingClientRect().height])
            .filter(([name, height]) => height < 36)"""
        assert await page.page.evaluate(small) == []
        assert await page.page.evaluate("document.querySelector('#log').clientHeight") > 150


async def test_dark_and_light(console: Open) -> None:
    """The page is dark in the dark scheme, and its text contrasts with the background in both schemes."""
    async with console("cat") as page:
        grounds = []
        for dark in (False, True):
            await page.page.viewport(1280, 800, dark=dark)
            ground, ink = await page.page.evaluate("(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))")
            grounds.append(_luminance(ground))
            light, deep = sorted((_luminance(ground), _luminance(ink)), reverse=True)
            assert (light + 0.05) / (deep + 0.05) > 7
        assert grounds[0] > 0.8
        assert grounds[1] < 0.05


async def test_loads_nothing_from_elsewhere(console: Open) -> None:
    """The page is one file without references to others."""
    async with console("cat") as page:
        source = page.server.get("/").body.decode()
        assert not any(word in source for word in ("https://", "@import", ": url(", "innerHTML", "src=", "style="))
        assert await page.page.evaluate("performance.getEntriesByType('resource').length") == 0


FRAME = "document.body.innerHTML = '<iframe></iframe>'; const frame = document.querySelector('iframe'); frame.src = '%s'"


async def test_cannot_be_framed(console: Open, tmp_path: Path) -> None:
    """A page that frames the console shows none of it, even from the same origin, and a click there has no effect."""
    (tmp_path / "index.html").write_text("<!doctype html><link rel=icon href='data:,'><title>a page of the same origin</title>")
    async with console(f"--staticdir={tmp_path}", "cat") as page:
        await page.page.evaluate(f"new Promise(loaded => {{ {FRAME % '/console'}; frame.onload = loaded }}).then(() => true)")
        read = "(() => { try { return frames[0].document.querySelector('#connect').id } catch (error) { return error.name } })()"
        assert await page.page.evaluate(read) == "SecurityError"
        assert "frame-ancestors 'none'" in page.page.errors.pop()
        assert page.page.errors == []


def _luminance(colour: str) -> float:
    """Return the relative luminance of `rgb(r, g, b)` (WCAG 2, section 1.4.3)."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
