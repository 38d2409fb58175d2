"""The headers that protect what wsbridge generates."""

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
def test_what_a_bridge_generates(serve: Serve, folder: Path, path: str, status: int) -> None:
    """The console, listings, redirects and errors cannot be framed, are taken for what they say to be, and run no foreign script."""
    server = serve("--devconsole", f"--staticdir={folder}", "cat")
    assert server.get(path).status == status
    assert_protected(headers_of(server, path))


def test_what_is_not_found(serve: Serve) -> None:
    """So is a 404, and the refusal of an upgrade."""
    server = serve("--sameorigin", "cat")
    assert_protected(headers_of(server, "/nothing"))
    upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"), ("Origin", "http://evil.example")]
    assert server.get("/", headers=upgrade).status == 403
    assert_protected(headers_of(server, "/", headers=upgrade))


@pytest.mark.parametrize("path", ["/", "/status", "/wsbridge.js", "/wsbridge.mjs", "/nothing"])
def test_what_a_channel_generates(path: str) -> None:
    """The channel's page, its status and its scripts are protected as well."""
    with Server("--exchange=temps", "cat", bridge=BROADCAST, listen=("--address=127.0.0.1", "--port=0")) as server:
        assert_protected(headers_of(server, path))


def test_redirects_to_tls(serve: Serve) -> None:
    """The answers of --redirport are protected."""
    port = free_port()
    server = serve(f"--redirport={port}", "cat")
    server.port = port
    assert server.get("/a").status == 301
    assert_protected(headers_of(server, "/a"))


def test_files_are_the_users(serve: Serve, folder: Path) -> None:
    """A file of --staticdir has no policy of ours: what its page may load is for its author to say."""
    server = serve(f"--staticdir={folder}", "cat")
    assert not {"content-security-policy", "x-content-type-options"} & set(headers_of(server, "/page/"))


def test_a_header_of_the_users_replaces_ours(serve: Serve) -> None:
    """--header with one of these names replaces ours, so that a page may be framed where its owner wants it."""
    server = serve("--devconsole", "--header=Content-Security-Policy: frame-ancestors https://mine.example", "cat")
    values = [value for name, value in server.get("/").headers if name.lower() == "content-security-policy"]
    assert values == ["frame-ancestors https://mine.example"]


def test_dress_adds_all_of_a_name() -> None:
    """Headers of the user's that repeat are all sent, and replace ours of that name once."""
    response = web.Response()
    protect(response)
    add_headers(response, (("content-security-policy", "a"), ("Content-Security-Policy", "b"), ("X-One", "1")))
    assert response.headers.getall("Content-Security-Policy") == ["a", "b"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
