"""A server on loopback answers only to its own names, so that a page with a rebound name cannot reach it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import BROADCAST
from tests.support.chromium import Chromium
from tests.support.client import Refused
from tests.support.server import Server, run
from tests.support.site import Certificates, Serve, Site, assert_sound

OWN: dict[str, str | None] = {"WSBRIDGE_HOST": None}
"""The environment of a server that checks its host names."""
EVIL = [("Host", "evil.example")]


@pytest.fixture(scope="module")
def checking_server(transports: dict[str, str], site: Site) -> Iterator[Server]:
    with Server(*site.flags, "--devconsole", env={**transports, **OWN}) as server:
        yield server
    assert_sound(server)


@pytest.fixture
def checking(checking_server: Server) -> Iterator[Server]:
    """The site on loopback, with both kinds of transports."""
    yield checking_server
    assert_sound(checking_server)


@pytest.mark.parametrize("path", ["/small.txt", "/list/", "/cgi-program", "/env", "/console", "/none/", "//small.txt", "/echo"])
def test_plain_requests(checking: Server, path: str) -> None:
    """For a foreign host, files, listings, CGI, the console and redirects answer 403, and the response gives the remedy."""
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        response = checking.request(method, path, headers=EVIL)
        assert response.status == 403
        if method == "GET":
            assert b"evil.example" in response.body
            assert b"--host" in response.body
            assert b"--trust-proxy" in response.body


def test_websocket(checking: Server) -> None:
    """A WebSocket with a foreign host is refused before any program starts, with any Origin; own names are admitted."""
    before = checking.log.count("| CONNECT")
    for origin in ("http://evil.example", None):
        with pytest.raises(Refused) as caught:
            checking.connect("/echo", headers=EVIL, origin=origin)
        assert caught.value.response.status == 403
    assert checking.log.count("| CONNECT") == before
    for host in (f"localhost:{checking.port}", "127.0.0.1", f"[::1]:{checking.port}", f"{socket.gethostname()}.local", "x.localhost"):
        checking.connect("/echo", headers=[("Host", host)]).drop()


def test_absolute_target(checking: Server) -> None:
    """The host of an absolute target replaces the Host header (RFC 9112, section 3.2.2), and is checked in its place."""
    assert checking.get("http://evil.example/small.txt", headers=[("Host", "localhost")]).status == 403
    assert checking.get("http://localhost/small.txt", headers=EVIL).status == 200


def test_log_and_counts(transports: dict[str, str]) -> None:
    """Each refusal is counted; the log has up to ten a minute, with host and address."""
    with Server("--devconsole", "cat", env={**transports, **OWN}) as server:
        for number in range(30):
            assert server.get("/", headers=[("Host", f"evil{number}.example")]).status == 403
        server.stop()
    assert "remote:'127.0.0.1' | refused (403): this server does not accept the host 'evil0.example'" in server.log
    assert server.log.count("refused (403)") == 10
    assert "refused_403=30" in server.log


@pytest.mark.parametrize("path", ["/", "/status", "/events", "/wsbridge.js", "/small.txt"])
def test_broadcast(serve: Serve, site: Site, path: str) -> None:
    """The page, status, events, script and files of a channel have the same check."""
    server = serve("--exchange=e", "--input=exchange", f"--staticdir={site.public}", bridge=BROADCAST, env=OWN)
    assert server.get(path, headers=EVIL).status == 403
    with pytest.raises(Refused):
        server.connect(headers=EVIL)
    server.connect().drop()


def test_tls(serve: Serve, certificates: Certificates, transports: dict[str, str]) -> None:
    """The check also applies over TLS."""
    server = serve("--devconsole", *certificates.server_flags, "cat", env={**transports, **OWN}, tls=certificates.context())
    assert server.get("/", headers=EVIL).status == 403
    assert server.get("/").status == 200


def test_all_addresses(serve: Serve) -> None:
    """A server on all addresses checks requests to its loopback address, and with `--sameorigin` all requests."""
    server = serve("--devconsole", "cat", listen=("--port={port}",), env=OWN)
    assert server.get("/", headers=EVIL).status == 403


def test_unix_socket(serve: Serve, tmp_path: Path) -> None:
    """Only local programs can reach a Unix socket, so it checks Host only with `--sameorigin` or `--host`."""
    path = str(tmp_path / "s")
    for flags, status in (((), 200), (("--sameorigin",), 403), (("--host=good.example",), 403)):
        server = serve("--devconsole", *flags, "cat", listen=(f"--unixsocket={path}",), unix=path, env=OWN)
        assert server.get("/", headers=EVIL).status == status
        server.stop()
    server = serve("--devconsole", "--sameorigin", "--trust-proxy=unix", "cat", listen=(f"--unixsocket={path}",), unix=path, env=OWN)
    assert server.get("/", headers=[("Host", "good.example"), ("X-Forwarded-For", "203.0.113.7")]).status == 200


def test_given_host(serve: Serve) -> None:
    """`--host` may be repeated; `--sameorigin` admits a page of such a name."""
    server = serve("--devconsole", "--sameorigin", "--host=good.example", "--host=*.lan", "cat", env=OWN)
    for host in ("good.example", "pi.lan:81"):
        server.connect(headers=[("Host", host)], origin=f"http://{host}").drop()
    assert server.get("/", headers=EVIL).status == 403
    with pytest.raises(Refused):
        server.connect(headers=EVIL, origin="http://evil.example")


def test_flag_with_an_address() -> None:
    """`--host` does not accept an address to listen on."""
    ended = run("--host=0.0.0.0", "--port=0", "cat", env=OWN)
    assert ended.returncode == 1
    assert "write --address=0.0.0.0" in ended.stderr


async def test_page_of_a_rebound_name(tmp_path: Path) -> None:
    """In a browser, a page with a foreign name that resolves to the server receives only the refusal."""
    (tmp_path / "index.html").touch()
    with Server("--devconsole", "cat", env=OWN) as server, Server(f"--staticdir={tmp_path}") as files:
        async with Chromium() as browser:
            page = await browser.open(f"http://raspberrypi:{server.port}/")
            assert "does not accept the host 'raspberrypi:" in await page.evaluate("document.body.innerText")
            # The page has no policy of its own, which would stop the socket before the server does.
            page = await browser.open(f"http://127.0.0.1:{files.port}/")
            for host, opens in (("raspberrypi", False), ("127.0.0.1", True)):
                opened = await page.evaluate(
                    f"new Promise((done) => {{ const socket = new WebSocket('ws://{host}:{server.port}/');"
                    " socket.onopen = () => done(true); socket.onclose = () => done(false); })"
                )
                assert opened is opens, host
