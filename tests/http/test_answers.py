"""The security headers of generated responses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.server import Bridge, Server, free_port
from tests.support.site import Serve
from wsbridge.http.answers import add_headers, protect

BROADCAST = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "broadcast"), takes_port_zero=True)


def assert_protected(headers: dict[str, str]) -> None:
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def headers_of(server: Server, path: str, **options: object) -> dict[str, str]:
    return {name.lower(): value for name, value in server.get(path, **options).headers}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "list" / "sub").mkdir(parents=True)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<p>mine")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "status"), [("/console", 200), ("/list/", 200), ("/list", 301), ("/list//sub/", 301), ("/page/index.html", 301), ("/%00", 400)]
)
def test_responses_of_a_bridge(serve: Serve, folder: Path, path: str, status: int) -> None:
    """The console, listings, redirects and errors forbid frames, content sniffing and external scripts."""
    server = serve("--devconsole", f"--staticdir={folder}", "cat")
    assert server.get(path).status == status
    assert_protected(headers_of(server, path))


def test_refusals(serve: Serve) -> None:
    """A 404 and the refusal of an upgrade have the same headers."""
    server = serve("--sameorigin", "cat")
    assert_protected(headers_of(server, "/nothing"))
    upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"), ("Origin", "http://evil.example")]
    assert server.get("/", headers=upgrade).status == 403
    assert_protected(headers_of(server, "/", headers=upgrade))


@pytest.mark.parametrize("path", ["/", "/status", "/wsbridge.js", "/wsbridge.mjs", "/nothing"])
def test_responses_of_a_channel(path: str) -> None:
    """The page, the status and the scripts of a channel have security headers too."""
    with Server("--exchange=temps", "cat", bridge=BROADCAST, listen=("--address=127.0.0.1", "--port=0")) as server:
        assert_protected(headers_of(server, path))


def test_redirects_to_tls(serve: Serve) -> None:
    """The responses of --redirport have security headers."""
    port = free_port()
    server = serve(f"--redirport={port}", "cat")
    server.port = port
    assert server.get("/a").status == 301
    assert_protected(headers_of(server, "/a"))


def test_files_have_no_policy(serve: Serve, folder: Path) -> None:
    """A file in --staticdir has no policy of the server: its author decides what the page may load."""
    server = serve(f"--staticdir={folder}", "cat")
    assert not {"content-security-policy", "x-content-type-options"} & set(headers_of(server, "/page/"))


def test_header_of_the_user_replaces_ours(serve: Serve) -> None:
    """--header replaces a security header of the same name, so that the user can permit frames."""
    server = serve("--devconsole", "--header=Content-Security-Policy: frame-ancestors https://mine.example", "cat")
    values = [value for name, value in server.get("/").headers if name.lower() == "content-security-policy"]
    assert values == ["frame-ancestors https://mine.example"]


def test_dress_adds_all_of_a_name() -> None:
    """Repeated headers of the user are all sent, and replace the security header once."""
    response = web.Response()
    protect(response)
    add_headers(response, (("content-security-policy", "a"), ("Content-Security-Policy", "b"), ("X-One", "1")))
    assert response.headers.getall("Content-Security-Policy") == ["a", "b"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
