"""The browser that tests share: each test gets a clean state, and a working browser after a crash."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support import chromium
from tests.support.chromium import Chromium, ChromiumError
from tests.support.server import Server, wait_for_exit

LEAVE = "document.cookie = 'left=1'; localStorage.setItem('left', '1')"
LEFT = "document.cookie + localStorage.getItem('left')"


async def test_profiles_share_nothing() -> None:
    """Cookies and storage end with a `Chromium`, and another `Chromium` does not see them. All of them share one process."""
    with Server("--devconsole", "cat") as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with Chromium() as first, Chromium() as beside:
            page = await first.open(url)
            await page.evaluate(LEAVE)
            assert await page.evaluate(LEFT) == "left=11"
            assert await (await beside.open(url)).evaluate(LEFT) == "null"
            pid = chromium.pid()
        async with Chromium() as later:
            assert await (await later.open(url)).evaluate(LEFT) == "null"
            assert chromium.pid() == pid


async def test_pages_end_with_their_browser() -> None:
    """A page that a test leaves open is closed, and so is its WebSocket."""
    with Server("--devconsole", "cat") as server:
        async with Chromium() as browser:
            page = await browser.open(f"http://127.0.0.1:{server.port}/")
            await page.click("#connect")
            await page.wait_for("document.querySelector('#state').dataset.state === 'open'")
        server.wait_for_log("DISCONNECT")


async def test_crash_in_a_test() -> None:
    """A test in which the browser crashes gets an error, and the next test has a new browser."""
    async with Chromium() as browser:
        page = await browser.open("about:blank")
        os.kill(pid := chromium.pid(), signal.SIGKILL)
        with pytest.raises((ChromiumError, ConnectionError)):
            await page.evaluate("1")
    async with Chromium() as browser:
        assert await (await browser.open("about:blank")).evaluate("1 + 1") == 2
        assert chromium.pid() != pid


async def test_crash_between_tests() -> None:
    """A browser that has crashed between two tests is replaced as well."""
    async with Chromium():
        pid = chromium.pid()
    os.kill(pid, signal.SIGKILL)
    wait_for_exit(pid)
    async with Chromium() as browser:
        assert await (await browser.open("about:blank")).evaluate("1 + 1") == 2
        assert chromium.pid() != pid
