"""The redirecting port: the targets of redirects, the refused requests, and the headers of both."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from wsbridge.http.answers import NOTHING, POLICY, SNIFF
from wsbridge.http.redirect import Redirect, redirect_server
from wsbridge.settings import HttpTimings

NONE = "-"
"""Represents a request without a Host header."""


@dataclass
class Raw:
    """The parts of aiohttp's request that a redirect reads."""

    raw_path: str = "/"
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)


async def ask(
    target: str = "/",
    host: str = "example.org",
    *,
    method: str = "GET",
    scheme: str = "https",
    port: int = 8443,
    headers: tuple[tuple[str, str], ...] = (),
) -> web.Response:
    """Return the response to a request."""
    raw: Any = Raw(target, method, {} if host == NONE else {"Host": host})
    response = await Redirect(scheme=scheme, port=port, headers=lambda: headers)(raw)
    assert isinstance(response, web.Response)
    return response


async def location(target: str = "/", host: str = "example.org", **options: Any) -> str:
    response = await ask(target, host, **options)
    assert response.status == 301
    return response.headers["Location"]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("example.org", "example.org"),
        ("example.org:80", "example.org"),
        ("example.org:", "example.org"),
        ("Example.ORG:8080", "Example.ORG"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[::1]", "[::1]"),
        ("[2001:db8::7]:8080", "[2001:db8::7]"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
async def test_host(host: str, name: str) -> None:
    """The redirect leads to the host of the request, on the main port in place of the port of the request."""
    assert await location(host=host) == f"https://{name}:8443/"


@pytest.mark.parametrize(
    "target", ["/", "/a/b", "/a%20b/%C3%BC", "/a?x=1&y=%2F", "/?", "/a?b?c", "/a//b/../c", "//other.example/", "/a:b@c", "/a?u=http://b/"]
)
async def test_path_and_query(target: str) -> None:
    """The redirect leads to the same path and query, in the form in which the client sent them."""
    assert await location(target) == f"https://example.org:8443{target}"


@pytest.mark.parametrize(("target", "path"), [('/a"b<c>', "/a%22b%3Cc%3E"), ("/ü", "/%C3%BC"), ("/\udcff", "/%FF"), ("/a\\b", "/a%5Cb")])
async def test_path_with_invalid_characters(target: str, path: str) -> None:
    """The server encodes the characters of a path that a URL must not contain."""
    assert await location(target) == f"https://example.org:8443{path}"


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("http://other.example/a?b", "https://other.example:8443/a?b"),
        ("http://other.example:81", "https://other.example:8443/"),
        ("http://[::1]:81/a", "https://[::1]:8443/a"),
        ("http:///a", "https://example.org:8443/a"),
        ("*", "https://example.org:8443/"),
    ],
)
async def test_absolute_target(target: str, url: str) -> None:
    """The host of an absolute target replaces the Host header (RFC 9112, section 3.2.2)."""
    assert await location(target) == url


@pytest.mark.parametrize(("scheme", "port", "url"), [("https", 443, "https://example.org:443/a"), ("http", 80, "http://example.org:80/a")])
async def test_scheme_and_port(scheme: str, port: int, url: str) -> None:
    """The redirect leads to the scheme of the main port, and always names that port."""
    assert await location("/a", scheme=scheme, port=port) == url


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_methods(method: str) -> None:
    """The server redirects a request with any known method."""
    assert await location("/a", method=method) == "https://example.org:8443/a"


@pytest.mark.parametrize(("method", "status", "allow"), [("CONNECT", 405, "GET, HEAD, OPTIONS"), ("BREW", 501, None), ("get", 501, None)])
async def test_refused_methods(method: str, status: int, allow: str | None) -> None:
    """The server refuses CONNECT with 405 and the allowed methods, and an unknown method with 501."""
    response = await ask("example.org:443", method=method)
    assert (response.status, response.headers.get("Allow"), response.headers.get("Location")) == (status, allow, None)
    assert response.text is not None
    assert response.text.startswith(f"{status} ")
    assert method in response.text


@pytest.mark.parametrize("host", [NONE, "", ":80"])
async def test_no_host(host: str) -> None:
    """The server refuses a request without a host, since it knows no other name of itself."""
    response = await ask(host=host)
    assert (response.status, response.text) == (400, "400 a redirect requires a Host header\n")
    assert "Location" not in response.headers


@pytest.mark.parametrize(
    "host", ["a b", "user@example.org", "example.org/x", "a\r\nSet-Cookie: x", "[::1", "::1", "a:b", "a?b", "a#b", "ü", "[::1]x", "a'b"]
)
async def test_bad_host(host: str) -> None:
    """The server refuses a Host that is not a name or an address. So a client can choose only the host of the Location."""
    response = await ask(host=host)
    assert response.status == 400
    assert "Location" not in response.headers


async def test_bad_host_in_the_target() -> None:
    """The server also checks the host of an absolute target."""
    response = await ask("http://user@other.example/")
    assert response.status == 400
    assert "Location" not in response.headers


async def test_nul() -> None:
    """The server refuses a path that contains a NUL."""
    response = await ask("/a%00b")
    assert (response.status, response.text) == (400, "400 the path contains a NUL\n")


@pytest.mark.parametrize(("host", "status"), [("example.org", 301), (NONE, 400), ("a b", 400)])
async def test_headers(host: str, status: int) -> None:
    """Each response contains the security headers and the user's headers, a redirect and a refusal alike."""
    response = await ask(host=host, headers=(("X-A", "1"), ("X-A", "2"), ("Server", "mine")))
    assert response.status == status
    assert (response.headers[SNIFF], response.headers[POLICY]) == ("nosniff", NOTHING)
    assert (response.headers.getall("X-A"), response.headers["Server"]) == (["1", "2"], "mine")


async def test_policy_of_the_user() -> None:
    """The user's header replaces a security header of the same name, in any case."""
    response = await ask(headers=((POLICY.lower(), "default-src 'self'"),))
    assert response.headers.getall(POLICY) == ["default-src 'self'"]
    assert response.headers[SNIFF] == "nosniff"


def test_error_page() -> None:
    """The text of an error names the status and the reason."""
    response = Redirect(scheme="https", port=443, headers=lambda: (("X-A", "1"),)).error_page(431, "the head is too long")
    assert (response.status, response.text) == (431, "431 the head is too long\n")
    assert response.content_type == "text/plain"
    assert (response.headers["X-A"], response.headers[SNIFF], response.headers[POLICY]) == ("1", "nosniff", NOTHING)


async def test_server() -> None:
    """The server of the port has the given time limits, and its own errors have the current headers of the user."""
    timings, headers = HttpTimings(head_seconds=3), (("X-A", "1"),)
    server = redirect_server("https", 8443, headers=lambda: headers, timings=timings, loop=asyncio.get_running_loop())
    assert server.timings is timings
    assert server.error_page(408, "too late").headers["X-A"] == "1"
    raw: Any = Raw("/a", headers={"Host": "example.org"})
    response = await server.request_handler(raw)
    assert response.headers["Location"] == "https://example.org:8443/a"
    headers = (("X-A", "2"),)
    assert server.error_page(408, "too late").headers["X-A"] == "2"
