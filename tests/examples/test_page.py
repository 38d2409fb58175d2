"""The examples over HTTP: page.html in a browser, and cgi/greeter.sh."""

from __future__ import annotations

import pytest

from tests.support.chromium import Chromium
from tests.support.server import ROOT, Server

EXAMPLES = ROOT / "examples"


async def test_page_and_program(browser: Chromium) -> None:
    """page.html connects to its program, sends the typed text, and shows the answer as text."""
    with Server(f"--staticdir={EXAMPLES}", str(EXAMPLES / "greeter.sh")) as server:
        page = await browser.open(f"http://127.0.0.1:{server.port}/page.html")
        # A browser sets the autofocus late, and a key pressed before that has no effect.
        await page.wait_for("state.textContent === 'Connected.' && document.activeElement.name === 'message'")
        for name in ("Ada", "<b>Zoë</b>"):
            await page.type(f"{name}\n")
        await page.wait_for("document.querySelectorAll('#log .received').length === 2")
        lines = await page.evaluate("[...document.querySelectorAll('#log li')].map(line => line.className + ' ' + line.textContent).sort()")
        assert lines == [
            "received Hello, <b>Zoë</b>! You are number 2.",
            "received Hello, Ada! You are number 1.",
            "sent <b>Zoë</b>",
            "sent Ada",
        ]
        assert page.errors == []


async def test_page_shows_the_end_of_the_program(browser: Chromium) -> None:
    """page.html distinguishes the regular end of a program from a failure."""
    for program, words in (("exit 0", "The program has ended."), ("exit 3", "Disconnected: 1011 exit 3")):
        with Server(f"--staticdir={EXAMPLES}", "/bin/sh", "-c", program) as server:
            page = await browser.open(f"http://127.0.0.1:{server.port}/page.html")
            await page.wait_for("button.disabled && state.textContent !== 'Connecting …' && state.textContent !== 'Connected.'")
            assert await page.evaluate("state.textContent") == words


def test_cgi_script_greets() -> None:
    """cgi/greeter.sh answers GET with a form, and POST with a greeting in which the visitor's text is escaped."""
    with Server(f"--cgidir={EXAMPLES / 'cgi'}") as server:
        asked = server.get("/greeter.sh")
        assert asked.status == 200
        assert asked.value("Content-Type") == "text/html; charset=utf-8"
        assert "Who are you?" in asked.body.decode()

        form = b"name=Ada+%3Cb%3E%26%22%C3%B6%22+%5Cx41+%24%28reboot%29+%25"
        greeted = server.request("POST", "/greeter.sh", body=form, headers=[("Content-Type", "application/x-www-form-urlencoded")])
        assert greeted.status == 200
        assert r"<h1>Hello, Ada &lt;b&gt;&amp;&quot;ö&quot; \x41 $(reboot) %!</h1>" in greeted.body.decode()


@pytest.mark.parametrize(("method", "body", "status"), [("PUT", b"name=Ada", 405), ("POST", b"name=" + b"x" * 10_000, 413)])
def test_cgi_script_sets_a_status(method: str, body: bytes, status: int) -> None:
    """cgi/greeter.sh rejects invalid requests with a status."""
    with Server(f"--cgidir={EXAMPLES / 'cgi'}") as server:
        assert server.request(method, "/greeter.sh", body=body).status == status
