"""The shared parts of the plugins: the page with their links, plugin.js, which reconnects, and plugin.css."""

from __future__ import annotations

import os
import signal

import pytest

from tests.examples.machine import PLUGINS, Machine
from tests.support.chromium import Chromium
from tests.support.server import Server, command_line, descendants, free_port

IS_FILLED = {
    "cpu": "celsius.textContent !== '–'",
    "logs": "lines.childElementCount > 0",
    "services": "document.querySelector('#services').childElementCount > 0",
}
"""A JavaScript expression for each plugin: whether its page is complete."""

KEEP_STATES = """states = [], new MutationObserver(() => states.push(state.textContent))
    .observe(state, {childList: true, subtree: true, characterData: true})"""
"""JavaScript that records every text of the state, since a state may end before a test reads it."""

FOLDERS = sorted(path.parent.name for path in PLUGINS.glob("*/index.html"))


async def test_index_links_every_plugin(plugins: Server, browser: Chromium) -> None:
    """index.html links every folder that has a page, and each link leads to it."""
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/")
    links = await page.evaluate("[...document.querySelectorAll('main a')].map(link => link.getAttribute('href'))")
    assert sorted(links) == [f"{folder}/" for folder in FOLDERS]
    for folder in FOLDERS:
        await page.click(f'a[href="{folder}/"]')
        title = await page.wait_for("location.pathname !== '/' && document.querySelector('h1').textContent")
        assert title in await page.evaluate("document.title")
        await page.load(f"http://127.0.0.1:{plugins.port}/")
    assert page.errors == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_script_and_page_paths(folder: str, plugins: Server) -> None:
    """The page is at /FOLDER/, and the script of its WebSocket at /FOLDER/FOLDER.sh."""
    page = plugins.get(f"/{folder}/")
    assert page.status == 200
    assert f'plugin("{folder}.sh"' in page.body.decode()
    with plugins.connect(f"/{folder}/{folder}.sh") as client:
        assert client.receive_text().startswith('{"type":')


@pytest.mark.parametrize("folder", FOLDERS)
async def test_page_fits_a_phone(folder: str, machine: Machine, plugins: Server, browser: Chromium) -> None:
    """No page is wider than a phone, in light or dark, and the two schemes differ."""
    machine.systemd(cron="active running " + "Regular jobs " * 20)
    machine.log("var/log/dpkg.log", "x" * 1000)
    machine.sensor(0, "cpu-thermal", 48312)
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/{folder}/")
    await page.wait_for(IS_FILLED[folder])
    backgrounds = set()
    for dark in (False, True):
        await page.viewport(360, 740, mobile=True, dark=dark)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        backgrounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2


async def test_page_reconnects_after_a_failure(plugins: Server, browser: Chromium) -> None:
    """When the script fails, the page shows its status, and reconnects after a pause."""
    page = await browser.open(f"http://127.0.0.1:{plugins.port}/cpu/")
    await page.wait_for("document.body.dataset.state === 'open' && busyPlot.points.length")
    first = script_of(plugins)
    await page.evaluate(KEEP_STATES)
    os.kill(first, signal.SIGKILL)
    await page.wait_for("states.some(words => words.startsWith('The script failed: signal KILL. Trying again in 1 s.'))")
    await page.evaluate("busyPlot.points.length = 0")
    await page.wait_for("document.body.dataset.state === 'open' && busyPlot.points.length")
    assert script_of(plugins) != first


async def test_page_reconnects_to_the_server(machine: Machine, browser: Chromium) -> None:
    """While the server is unreachable, the page shows that it waits; it reconnects after a time or at the press of its button."""
    listen = ("--address=127.0.0.1", f"--port={free_port()}")
    with machine.serve(listen=listen) as server:
        page = await browser.open(f"http://127.0.0.1:{server.port}/cpu/")
        await page.wait_for("document.body.dataset.state === 'open'")
        await page.evaluate(KEEP_STATES)
    await page.wait_for("states.some(words => words.startsWith('The server is shutting down.'))")
    await page.wait_for("states.some(words => words.startsWith('The connection is lost'))")
    with machine.serve(listen=listen):
        await page.evaluate("document.querySelector('#state button').click()")
        await page.wait_for("document.body.dataset.state === 'open'")
        assert await page.evaluate("state.textContent") == "Connected"


def script_of(server: Server) -> int:
    """Return the pid of the only cpu.sh that runs."""
    (pid,) = [pid for pid in descendants(server.pid) if command_line(pid).endswith("cpu.sh")]
    return pid
