"""The examples with one program and many browsers: sensor.py, sensor.sh, plot.html, chat.html, and the shell commands in README."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.deadline import scaled
from tests.examples.conftest import BROADCAST
from tests.support.chromium import Chromium, Page
from tests.support.client import DEADLINE, Client
from tests.support.server import ROOT, Server, free_port

EXAMPLES = ROOT / "examples"
FOLDER = EXAMPLES / "broadcast"
README = (EXAMPLES / "README.md").read_text()
SENSORS = ("sensor.py", "sensor.sh")
FOREVER = "while :; do sleep 1000; done"


def command_with(part: str) -> list[str]:
    """Return the words of the only command in README that contains a text, with the port of the test."""
    (found,) = [line for line in re.findall(r"^wsbridge broadcast --port 8080 (.*)$", README, re.MULTILINE) if part in line]
    return shlex.split(found)


def reading(client: Client) -> Any:
    return json.loads(client.receive_text())


# sensor.py and sensor.sh


@pytest.mark.parametrize("sensor", SENSORS)
def test_one_sensor_for_all_browsers(sensor: str, tmp_path: Path) -> None:
    """Two browsers receive the same readings from one program: the time, and thousandths of a degree as degrees."""
    (tmp_path / "temp").write_text("48312\n")
    with (
        Server("--exchange=temps", str(FOLDER / sensor), "0.02", str(tmp_path / "temp"), bridge=BROADCAST) as server,
        server.connect() as one,
        server.connect() as other,
    ):
        line = other.receive_text()
        while one.receive_text() != line:
            pass
        said = json.loads(line)
        assert said.keys() == {"time", "celsius"}
        assert abs(said["time"] - time.time()) < DEADLINE
        assert round(said["celsius"], 1) == 48.3
        (tmp_path / "temp").write_text("-5260\n")
        while (celsius := reading(one)["celsius"]) > 0:
            pass
        assert round(celsius, 1) == -5.3


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("content", [None, "", "much\n"])
def test_load_average_without_a_sensor(sensor: str, content: str | None, tmp_path: Path) -> None:
    """Without a sensor, or with an invalid reading, the program reports the load average."""
    if content is not None:
        (tmp_path / "temp").write_text(content)
    words = ("--exchange=temps", str(FOLDER / sensor), "0.02", str(tmp_path / "temp"))
    with Server(*words, bridge=BROADCAST) as server, server.connect() as client:
        assert reading(client)["load"] >= 0


@pytest.mark.parametrize("sensor", SENSORS)
def test_sensor_ends_without_output(sensor: str) -> None:
    """When wsbridge ends, INT ends the sensor without output on stderr."""
    with Server("--exchange=temps", "--join=history", str(FOLDER / sensor), bridge=BROADCAST) as server:
        with server.connect() as client:
            reading(client)
        assert server.stop() == 0
        assert "ERROR" not in server.log


@pytest.mark.parametrize("sensor", SENSORS)
def test_source_is_not_served(sensor: str) -> None:
    """The command in README serves the page with the program, but not the source of the program."""
    words = command_with(f"--join history --staticdir examples/broadcast examples/broadcast/{sensor}")
    with Server(*words, bridge=BROADCAST, cwd=ROOT) as server:
        assert server.get("/plot.html").status == 200
        assert server.get("/wsbridge.js").status == 200
        assert server.get(f"/{sensor}").status == 404
        assert sensor not in server.get("/").body.decode()


# plot.html


def plotted(port: int = 0) -> Server:
    """Yield a server of plot.html, and a function that publishes on its channel."""
    flags = ("--exchange=temps", "--join=history", "--input=exchange", f"--staticdir={FOLDER}")
    return Server(*flags, bridge=BROADCAST, listen=("--address=127.0.0.1", f"--port={port}"))


async def plot(browser: Chromium, server: Server, *lines: object) -> Page:
    """Open plot.html and let it show these lines."""
    with server.connect() as client:
        for line in lines:
            client.send_text(json.dumps(line))
        for _ in lines:
            client.receive_text()
    page = await browser.open(f"http://127.0.0.1:{server.port}/plot.html")
    await page.wait_for("channel.state === 'open'")
    return page


async def test_page_plots(browser: Chromium) -> None:
    """plot.html shows the last, the lowest and the highest reading, the name and the unit, and draws one line."""
    with plotted() as server:
        readings = [{"time": 1000 + number, "celsius": 40 + number} for number in range(5)]
        page = await plot(browser, server, *readings, "no number", {"time": 1004, "none": "x"})
        await page.wait_for("points.length === 5 && document.querySelector('#figure').textContent === '44.0 °C'")
        assert await page.evaluate("[...document.querySelectorAll('h1, #lowest, #highest, #lost dd')].map(it => it.textContent)") == [
            "Temperature",
            "40.0",
            "44.0",
            "0",
        ]
        assert await page.evaluate("curve.getAttribute('d').match(/M/g).length") == 1
        assert await page.evaluate("document.title + ', ' + document.querySelector('#state').innerText") == "Temperature, Live"
        skipped = '2 lines were no reading: neither a number, nor JSON with one. The last: “{"time": 1004, "none": "x"}”'
        assert await page.evaluate("document.querySelector('#skipped').textContent") == skipped
        await page.evaluate("void channel.onbroker(false)")
        assert await page.evaluate("document.querySelector('#state').innerText") == "Broker away"
        await page.evaluate("void channel.onbroker(true)")
        assert await page.evaluate("document.querySelector('#state').innerText") == "Live"
        assert page.errors == []


async def test_page_shows_two_minutes(browser: Chromium) -> None:
    """Readings older than two minutes leave the plot; another number of values starts a new plot."""
    with plotted() as server:
        page = await plot(browser, server, {"time": 1000, "load": 1}, {"time": 1001, "load": 2}, {"time": 1121, "load": 3})
        await page.wait_for("points.length === 2 && document.querySelector('#lowest').textContent === '2.00'")
        with server.connect() as client:
            client.send_text("17")
            await page.wait_for("points.length === 1 && document.querySelector('#figure').textContent.trim() === '17.0'")
        assert page.errors == []


async def test_page_shows_losses(browser: Chromium) -> None:
    """The page counts lost messages and draws a gap; it reports an unknown loss, and reconnects automatically."""
    with plotted(free_port()) as server:
        page = await plot(browser, server, {"time": 1000, "celsius": 40})
        await page.wait_for("points.length === 1")
        await page.evaluate("channel.onlost(3)")
        with server.connect() as client:
            client.send_text('{"time": 1010, "celsius": 41}')
            await page.wait_for("gaps.getAttribute('d') && curve.getAttribute('d').match(/M/g).length === 2")
        assert await page.evaluate("document.querySelector('#lost').textContent") == "lost3"
        await waits(page, server)
        with plotted(server.port):
            await page.click("#state button")
            await page.wait_for("document.querySelector('#lost').textContent === 'lost3 and more'")
            assert await page.evaluate("document.querySelector('#state').innerText") == "Live"


async def test_page_greys_old_readings(browser: Chromium) -> None:
    """While the broker is unreachable, the number and the line are grey, because they are old."""
    opacity = "getComputedStyle(document.querySelector('#figure')).opacity"
    with plotted() as server:
        page = await plot(browser, server, {"time": 1000, "celsius": 40})
        await page.wait_for("points.length === 1")
        assert await page.evaluate(opacity) == "1"
        await page.evaluate("channel.onbroker(false)")
        assert await page.evaluate(opacity) == "0.55"
        await page.evaluate("channel.onbroker(true)")
        assert await page.evaluate(opacity) == "1"


async def waits(page: Page, server: Server) -> None:
    """Stop the server, and wait until the page counts down to its next attempt."""
    await page.evaluate("void (Math.random = () => .999)")
    server.stop()
    for seconds in (3, 2):
        await page.wait_for(
            f"document.querySelector('#state').innerText.match(/^No connection\\.\\s+Trying again in {seconds} s\\s+Try now$/)"
        )


async def test_page_without_readings(browser: Chromium) -> None:
    """If no line is a reading, plot.html explains why it shows none."""
    with plotted() as server:
        page = await plot(browser, server, "no number")
        await page.wait_for("document.querySelector('#skipped').textContent.startsWith('1 line was no reading')")
        assert await page.evaluate("document.querySelector('#figure').textContent") == "–"
        await page.evaluate("channel.onlost(null)")
        assert await page.evaluate("document.querySelector('#lost dd').textContent") == "some"


async def test_pages_below_a_prefix(browser: Chromium) -> None:
    """The pages load and connect by relative addresses, so that a proxy may serve them below a prefix."""
    with plotted() as server:
        for name in ("plot.html", "chat.html"):
            page = await browser.open(f"http://127.0.0.1:{server.port}/{name}")
            assert await page.evaluate("document.querySelector('script[src]').getAttribute('src')") == "wsbridge.js"
            await page.wait_for("channel.state === 'open'")
            await page.evaluate("void history.replaceState(null, '', '/prefix/page')")
            assert await page.evaluate("new wsbridge.Channel('./').url") == f"ws://127.0.0.1:{server.port}/prefix/"
            assert 'Channel("/"' not in (FOLDER / name).read_text()


async def test_page_fills_its_window(browser: Chromium) -> None:
    """The card of plot.html fills its window, and the small figures share the baseline of the large one."""
    with plotted() as server:
        page = await plot(browser, server, 17)
        for width, height in ((1280, 800), (390, 844)):
            await page.viewport(width, height)
            below = "innerHeight - document.querySelector('main').getBoundingClientRect().bottom"
            assert await page.evaluate(f"{below} === parseFloat(getComputedStyle(document.body).paddingBottom)")


async def test_reading_at_the_pointer(browser: Chromium) -> None:
    """The pointer over the plot shows the reading at its position, and the time."""
    with plotted() as server:
        page = await plot(browser, server, {"time": 1000, "celsius": 40}, {"time": 1119, "celsius": 41})
        await page.wait_for("document.querySelector('#figure').textContent === '41.0 °C'")
        spot = await page.evaluate("(({x, y, height}) => ({x: x + 60, y: y + height / 2}))(svg.getBoundingClientRect())")
        await page.call("Input.dispatchMouseEvent", type="mouseMoved", **spot)
        await page.wait_for("document.querySelector('#figure').textContent === '40.0 °C'")
        assert await page.evaluate("document.querySelector('#when').textContent === clock(1000)")


async def test_pages_fit_in_either_scheme(browser: Chromium) -> None:
    """plot.html and chat.html fit a phone, and have other colours in the dark scheme."""
    with plotted() as server:
        for name in ("plot.html", "chat.html"):
            page = await browser.open(f"http://127.0.0.1:{server.port}/{name}")
            colors = set()
            for dark in (False, True):
                await page.viewport(390, 844, mobile=True, dark=dark)
                colors.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert len(colors) == 2


# chat.html


async def write(page: Page, text: str) -> None:
    await page.click("input[name=text]")
    await page.type(f"{text}\n")


async def lines(page: Page, count: int) -> list[str]:
    """Wait for `count` messages on a page; return the class and text of each."""
    await page.wait_for(f"log.childElementCount === {count}")
    return await page.evaluate("[...log.children].map(line => (line.className + ' ' + line.lastChild.textContent).trim())")


async def test_chat(browser: Chromium) -> None:
    """chat.html shows all users the same, as text; a later user receives the history; a line without a name is valid."""
    with Server(*command_with("--exchange talk"), bridge=BROADCAST, cwd=ROOT) as server:
        url = f"http://127.0.0.1:{server.port}/chat.html"
        ada = await browser.open(url)
        await ada.wait_for("channel.state === 'open'")
        await ada.click("input[name=who]")
        await ada.type("Ada")
        await write(ada, "<b>Hi</b>")
        assert await lines(ada, 1) == ["mine <b>Hi</b>"]
        with server.connect() as client:
            for line in ("from a script", '{"text": 7}', '{"name": "Zoë", "text": "Hello!", "time": "never"}', "null"):
                client.send_text(line)
            said = ["from a script", "7", "Hello!", "null"]
            # A client that disconnects with unread messages resets its connection, and the server may lose its last messages.
            assert await lines(ada, 5) == ["mine <b>Hi</b>", *said]
        assert (await ada.evaluate("log.children[3].textContent")) == "Zoë Hello!"

        await ada.load(url)
        assert await lines(ada, 5) == ["mine <b>Hi</b>", *said]
        assert await ada.evaluate("who.value") == "Ada"
        zoe = await browser.open(url)
        await zoe.wait_for("channel.state === 'open'")
        assert await zoe.evaluate("who.value") == ""
        await zoe.evaluate("who.value = 'Zoë'")
        await write(zoe, "I am here")
        assert (await lines(zoe, 6))[-1] == "mine I am here"
        assert (await lines(ada, 6))[-1] == "I am here"
        await ada.evaluate("channel.onlost(2)")
        assert (await lines(ada, 7))[-1] == "lost 2 messages are lost here"
        assert ada.errors == zoe.errors == []


async def test_chat_marks_own_messages(browser: Chromium) -> None:
    """A window marks its own messages, even without a name; the same name in another window is another user."""
    with Server(*command_with("--exchange talk"), bridge=BROADCAST, cwd=ROOT) as server:
        url = f"http://127.0.0.1:{server.port}/chat.html"
        one, other = await browser.open(url), await browser.open(url)
        for page in (one, other):
            await page.wait_for("channel.state === 'open'")
            assert await page.evaluate("blank.checkVisibility()")
        await write(one, "Nameless")
        assert await lines(one, 1) == ["mine Nameless"]
        assert await lines(other, 1) == ["Nameless"]
        assert not await one.evaluate("blank.checkVisibility()")
        for page, text in ((one, "This is Ada"), (other, "I am Ada, too")):
            await page.evaluate("void (who.value = 'Ada')")
            await write(page, text)
            await lines(one, 2 if page is one else 3)
        assert await lines(one, 3) == ["mine Nameless", "mine This is Ada", "I am Ada, too"]
        assert await lines(other, 3) == ["Nameless", "This is Ada", "mine I am Ada, too"]
        await one.evaluate("channel.onlost(1)")
        assert (await lines(one, 4))[-1] == "lost 1 message is lost here"


async def test_chat_on_a_phone(browser: Chromium) -> None:
    """On a phone, the message field and the button fill the width of the screen, and no number of messages causes horizontal scrolling."""
    with plotted() as server:
        page = await browser.open(f"http://127.0.0.1:{server.port}/chat.html")
        await page.viewport(320, 640, mobile=True)
        await page.wait_for("channel.state === 'open'")
        assert await page.evaluate("text.getBoundingClientRect().width / innerWidth") > 0.6
        await page.viewport(800, 400)
        await write(page, "first")
        await lines(page, 1)
        place = "log.firstChild.getBoundingClientRect().right"
        before = await page.evaluate(place)
        for number in range(12):
            await page.evaluate(f"channel.send('{number}')")
        await lines(page, 13)
        assert await page.evaluate("log.scrollHeight > log.clientHeight")
        assert await page.evaluate(place) == before


async def test_chat_keeps_unsent_messages(browser: Chromium) -> None:
    """Without a connection, chat.html says so and keeps the typed text; it also says if the channel accepts no messages."""
    with Server("--exchange=talk", f"--staticdir={FOLDER}", "sh", "-c", FOREVER, bridge=BROADCAST) as server:
        page = await browser.open(f"http://127.0.0.1:{server.port}/chat.html")
        await page.wait_for("channel.state === 'open'")
        await write(page, "Hi")
        await page.wait_for("document.querySelector('#state').innerText === 'This channel accepts no messages'")
        assert await page.evaluate("document.querySelector('form button').disabled")
        await page.load(f"http://127.0.0.1:{server.port}/chat.html")
        await page.wait_for("channel.state === 'open'")
        await waits(page, server)
    assert not await page.evaluate("blank.checkVisibility()")
    await write(page, "Still there?")
    assert await page.evaluate("text.value") == "Still there?"


# The shell commands of README


def test_log_is_followed_over_its_rotation(tmp_path: Path) -> None:
    """The command that follows a log sends its last lines, new lines, and the lines of the next file after a rotation."""
    log = tmp_path / "syslog"
    log.write_text("".join(f"line {number}\n" for number in range(1, 121)))
    words = [word.replace("/var/log/syslog", str(log)) for word in command_with("--exchange log")]
    assert str(log) in words
    with Server(*words, bridge=BROADCAST) as server, server.connect() as client:
        assert [client.receive_text() for _ in range(100)] == [f"line {number}" for number in range(21, 121)]
        with log.open("a") as file:
            file.write("the last of this file\n")
        assert client.receive_text() == "the last of this file"
        log.rename(tmp_path / "syslog.1")
        log.write_text("the first of the next\n")
        assert client.receive_text() == "the first of the next"
        with server.connect() as late:
            assert [late.receive_text() for _ in range(100)][-1] == "the first of the next"


def test_log_is_filtered(tmp_path: Path) -> None:
    """The command with grep sends the lines with an error as soon as they arrive."""
    log = tmp_path / "syslog"
    log.write_text("An error of before\n")
    words = [word.replace("/var/log/syslog", str(log)) for word in command_with("--exchange errors")]
    with Server("--join=history", *words, bridge=BROADCAST) as server, server.connect() as client:
        assert client.receive_text() == "An error of before"
        for number in (1, 2):
            with log.open("a") as file:
                file.write(f"all is well\nERROR {number}\n")
            assert client.receive_text() == f"ERROR {number}"


def test_shell_subscribes_and_publishes() -> None:
    """The commands of README that read a channel and publish on it work as printed."""
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "subscribe" in block]
    watch, speak, curl = block.splitlines()
    with plotted() as server:
        with server.connect() as client:
            shell(speak, server.port)
            assert client.receive_text() == "The kettle is on."
            for number in range(2, 11):
                client.send_text(f"line {number}")
                client.receive_text()
        assert shell(watch, server.port).splitlines() == ["The kettle is on.", *(f"line {number}" for number in range(2, 11))]
        words = ["bash", "-c", f"exec {curl}".replace("8080", str(server.port))]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert any(line == b"data: The kettle is on.\n" for line in process.stdout)
            process.kill()


def shell(line: str, port: int) -> str:
    """Run a command of README with this port and `wsbridge` in PATH; return its output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("8080", str(port))],
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(DEADLINE * 3),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
