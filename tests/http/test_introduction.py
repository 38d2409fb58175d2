"""The introduction for a browser at the address of a program without a console, and the URLs in the log at the start."""

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
    """wsbridge under the name websocketd."""
    called = tmp_path / "websocketd"
    called.write_text(
        f"#!{sys.executable}\nimport os, sys\nfrom wsbridge.cli.main import run\nsys.exit(run('websocketd', sys.argv[1:], os.environ))\n"
    )
    called.chmod(0o755)
    return Bridge("websocketd", (str(called),), takes_port_zero=True)


def test_introduction_page(serve: Serve) -> None:
    """At the root, a browser receives a page with the name of the program, without its path and arguments; other clients receive 404."""
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
    """--no-page removes the page, and files take the place of the page at the root."""
    server = serve(*(flag.format(tmp_path) for flag in flags), "cat")
    assert b"data-program" not in server.get("/", headers=BROWSER).body


def test_no_introduction_without_programs(serve: Serve, tmp_path: Path) -> None:
    """Without a program over WebSockets, there is no introduction."""
    assert serve(f"--cgidir={tmp_path}").get("/", headers=BROWSER).status == 404


def test_icon(serve: Serve, tmp_path: Path) -> None:
    """Browsers receive an icon, unless the files include one or --no-page is given."""
    server = serve(f"--staticdir={tmp_path}", "cat")
    assert server.get("/favicon.ico").value("Content-Type") == "image/svg+xml; charset=utf-8"
    (tmp_path / "favicon.ico").write_bytes(b"mine")
    assert server.get("/favicon.ico").body == b"mine"
    assert serve("--no-page", "cat").get("/favicon.ico").status == 404


def test_called_as_websocketd(websocketd: Bridge) -> None:
    """Called as websocketd, the server has neither page nor icon, and the log starts like that of websocketd."""
    with Server("cat", bridge=websocketd) as server:
        assert server.get("/", headers=BROWSER).status == 404
        assert server.get("/favicon.ico").status == 404
    with Server("cat", bridge=websocketd, listen=EVERYWHERE) as server:
        assert [line.split("| ")[-1].partition(" ")[0] for line in server.log.splitlines()] == ["Serving", "Starting"]


async def test_page_shows_its_address() -> None:
    """The page shows the URL at which it was opened, for a page and for a terminal; both work."""
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


def test_log_shows_urls(serve: Serve) -> None:
    """On all addresses, the log shows the URL for this machine, and warns once that any client may connect."""
    server = serve("cat", listen=EVERYWHERE)
    assert re.findall(r"\| From this machine +: (\S+)$", server.log, re.MULTILINE) == [f"http://localhost:{server.port}/"]
    assert server.log.count("web page in its browsers may connect") == 1


@pytest.mark.parametrize("flags", [("--sameorigin",), ("--origin=example.com",)])
def test_log_without_warning(serve: Serve, flags: tuple[str, ...]) -> None:
    """With a rule for origins, the log contains no such warning."""
    server = serve(*flags, "cat", listen=EVERYWHERE)
    assert "may connect" not in server.log


def test_log_for_one_address(serve: Serve) -> None:
    """On one address, the log shows one URL and no warning."""
    assert not re.search("From this machine|From the network|may connect", serve("cat").log)


def test_log_without_a_page(serve: Serve) -> None:
    """With --no-page, the log shows the URLs of the WebSocket, since a browser would find nothing."""
    server = serve("--no-page", "cat", listen=EVERYWHERE)
    assert f"ws://localhost:{server.port}/" in server.log
