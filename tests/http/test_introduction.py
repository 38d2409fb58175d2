"""What a browser sees that opens the address of a program without a console, and what the start says of the addresses."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.chromium import Chromium
from tests.support.server import Bridge, Server
from tests.support.site import Serve

BROWSER = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")]
EVERYWHERE = ("--port=0",)


@pytest.fixture
def websocketd(tmp_path: Path) -> Bridge:
    """wsbridge, called as websocketd."""
    called = tmp_path / "websocketd"
    called.write_text(
        f"#!{sys.executable}\nimport os, sys\nfrom wsbridge.cli.main import run\nsys.exit(run('websocketd', sys.argv[1:], os.environ))\n"
    )
    called.chmod(0o755)
    return Bridge("websocketd", (str(called),), takes_port_zero=True)


def test_a_browser_is_told_what_is_served(serve: Serve) -> None:
    """At the root a browser gets a page that names the program, without its path and its arguments; other clients get 404."""
    server = serve("sh", "-c", "secret=1; cat")
    answer = server.get("/", headers=BROWSER)
    assert (answer.status, answer.value("Content-Type")) == (200, "text/html; charset=utf-8")
    assert b'data-program="sh"' in answer.body
    assert not any(part in answer.body for part in (b"secret", b"/bin/"))
    assert server.get("/").status == 404
    assert server.get("/", headers=[("Accept", "application/json, */*")]).status == 404
    assert server.get("/other", headers=BROWSER).status == 404
    assert server.request("POST", "/", headers=BROWSER).status != 200


@pytest.mark.parametrize("flags", [("--no-page",), ("--staticdir={}",)])
def test_no_introduction(serve: Serve, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """--no-page switches the page off, and files have the root where there are some."""
    server = serve(*(flag.format(tmp_path) for flag in flags), "cat")
    assert b"data-program" not in server.get("/", headers=BROWSER).body


def test_no_introduction_without_programs(serve: Serve, tmp_path: Path) -> None:
    """Where no program is served over WebSockets there is nothing to introduce."""
    assert serve(f"--cgidir={tmp_path}").get("/", headers=BROWSER).status == 404


def test_icon(serve: Serve, tmp_path: Path) -> None:
    """Browsers get an icon, unless there is one among the files or --no-page is given."""
    server = serve(f"--staticdir={tmp_path}", "cat")
    assert server.get("/favicon.ico").value("Content-Type") == "image/svg+xml; charset=utf-8"
    (tmp_path / "favicon.ico").write_bytes(b"mine")
    assert server.get("/favicon.ico").body == b"mine"
    assert serve("--no-page", "cat").get("/favicon.ico").status == 404


def test_called_as_websocketd(websocketd: Bridge) -> None:
    """Called as websocketd it has neither page nor icon, and the start says what websocketd says."""
    with Server("cat", bridge=websocketd) as server:
        assert server.get("/", headers=BROWSER).status == 404
        assert server.get("/favicon.ico").status == 404
    with Server("cat", bridge=websocketd, listen=EVERYWHERE) as server:
        assert [line.split("| ")[-1].partition(" ")[0] for line in server.log.splitlines()] == ["Serving", "Starting"]


async def test_the_page_names_its_address() -> None:
    """The page shows the URL under which it was opened, for a page and for a terminal; what it shows works."""
    with Server("sh", "-c", "echo it works; cat") as server:
        async with Chromium() as browser:
            page = await browser.open(f"http://localhost:{server.port}/")
            url = f"ws://localhost:{server.port}/"
            assert await page.evaluate("document.querySelector('#url').textContent") == url
            assert await page.evaluate("document.querySelector('#command').textContent") == f"npx wscat -c {url}"
            assert await page.evaluate("document.title") == f"sh on localhost:{server.port} · wsbridge"
            await page.evaluate("void (console.log = text => { globalThis.logged = text })")
            await page.evaluate("(0, eval)(document.querySelector('#snippet').textContent); 0")
            await page.wait_for("globalThis.logged === 'it works' || globalThis.logged === 'hello'")
            assert page.errors == []


def test_the_start_names_urls(serve: Serve) -> None:
    """On every address the start names the URL for this machine, and says once that anybody may connect."""
    server = serve("cat", listen=EVERYWHERE)
    assert re.findall(r"\| From this machine +: (\S+)$", server.log, re.MULTILINE) == [f"http://localhost:{server.port}/"]
    assert server.log.count("web page in its browsers may connect") == 1


@pytest.mark.parametrize("flags", [("--sameorigin",), ("--origin=example.com",)])
def test_the_start_does_not_warn(serve: Serve, flags: tuple[str, ...]) -> None:
    """With a rule for origins the start does not say that anybody may connect."""
    server = serve(*flags, "cat", listen=EVERYWHERE)
    assert "may connect" not in server.log


def test_the_start_on_one_address(serve: Serve) -> None:
    """On one address there is one URL, and no warning."""
    assert not re.search("From this machine|From the network|may connect", serve("cat").log)


def test_without_a_page_the_urls_are_of_websockets(serve: Serve) -> None:
    """With --no-page a browser finds nothing there: the URLs are those of the WebSocket."""
    server = serve("--no-page", "cat", listen=EVERYWHERE)
    assert f"ws://localhost:{server.port}/" in server.log
