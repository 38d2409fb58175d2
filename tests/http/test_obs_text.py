"""Header values with bytes above 0x7F (obs-text, RFC 9110, section 5.5): opaque data, in each header that the server reads."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.server.conftest import BROADCAST
from tests.support.client import Headers, Stream, open_stream, read_response, replaced, request_bytes
from tests.support.server import Server, wait_until
from tests.support.site import Site, assert_sound, shell_path

VALUES = ("\x80", "\xff", "caf\xe9", "\xc3\xa9", "\xed\xa0\x80")
"""Bytes as characters: invalid UTF-8, a letter in UTF-8, and half of a surrogate pair."""
BESIDE = ("X-Anything", "Cookie", "User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Referer", "Origin", "Sec-Fetch-Site")
FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded")
CONDITIONS = ("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
CHANNEL = ("Last-Event-ID", "Cache-Control", "Expect", "Content-Type", "Authorization")
RANGES: tuple[Headers, ...] = ((), (("Range", "bytes=0-1"),), (("Range", "bytes=0-1"), ("If-Range", '"a"')))


def requests() -> Iterator[tuple[str, Headers]]:
    """Yield the headers of each request, with the name of the header that contains the bytes."""
    for value in VALUES:
        for name in (*BESIDE, *FORWARDED, *CHANNEL):
            for beside in RANGES:
                yield name, [*beside, (name, value)]
        for name in ("Origin", "Referer"):
            yield name, [(name, f"http://h{value}:80/{value}")]
        for name in CONDITIONS:
            for text in (value, f'"{value}"', f"bytes=0-1{value}"):
                yield name, [(name, text)]
                if name not in ("Range", "If-Range"):
                    yield name, [("Range", "bytes=0-1"), ("If-Range", f'"{value}"'), (name, text)]


def ask(server: Server, stream: Stream, method: str, path: str, headers: Headers) -> int:
    stream.send(request_bytes(method, path, replaced([("Host", f"127.0.0.1:{server.port}")], headers)))
    return read_response(stream, method=method).status


@pytest.fixture(scope="module")
def trusting(site: Site) -> Iterator[Server]:
    """The server of the site, which trusts the reports of proxies."""
    with Server(*site.flags, "--trust-proxy=127.0.0.1") as server:
        yield server
    assert_sound(server)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/small.txt", "/list/", "/page/", "/page", "/nothing", "/scripts/echo"])
def test_files(trusting: Server, method: str, path: str) -> None:
    """Such bytes do not change a response; a condition that contains them never matches, and nothing leaks."""
    ask_once = [("Connection", "close")]
    with open_stream(port=trusting.port) as stream:
        plain = ask(trusting, stream, method, path, ask_once)
    before = trusting.descriptors()
    with open_stream(port=trusting.port) as stream:
        seen = [(headers, ask(trusting, stream, method, path, headers)) for _, headers in requests()]
    allowed = {plain, 206, 412} if plain == 200 else {plain}
    assert [pair for pair in seen if pair[1] not in allowed] == []
    assert len(seen) > 400
    wait_until(lambda: trusting.descriptors() <= before, f"the descriptors to be as many as before: {before}")


def test_condition(trusting: Server) -> None:
    """An entity tag with such bytes matches no file: If-Match fails, and If-None-Match and If-Range do not match."""
    for condition, status in (("If-Match", 412), ("If-None-Match", 200), ("If-Range", 200)):
        response = trusting.get("/small.txt", headers=[("Range", "bytes=0-1"), (condition, '"\xff"')])
        assert response.status == (206 if condition == "If-None-Match" else status), condition


@pytest.mark.parametrize("name", [*BESIDE, *FORWARDED, *CONDITIONS])
def test_cgi(trusting: Server, name: str) -> None:
    """A CGI script receives the bytes unchanged."""
    variable = "HTTP_" + name.upper().replace("-", "_")
    path = shell_path(f'echo "Content-Type: text/plain"; echo; printf %s "${variable}"')
    response = trusting.get(path, headers=[(name, "caf\xe9")])
    assert (response.status, response.body) == (200, b"caf\xe9")


@pytest.mark.parametrize("name", [*BESIDE, *FORWARDED, *CONDITIONS, "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"])
def test_session(trusting: Server, name: str) -> None:
    """A session's program receives the bytes unchanged; an Origin that is not a URI is refused with 403."""
    variable = "HTTP_" + name.upper().replace("-", "_")
    path = shell_path(f'printf %s "${variable}" | od -An -tx1')
    if name == "Origin":
        assert trusting.refusal(path, headers=[(name, "caf\xe9")]).status == 403
        return
    with trusting.connect(path, headers=[(name, "caf\xe9")]) as client:
        assert client.receive_text().split() == ["63", "61", "66", "e9"]


@pytest.mark.parametrize("name", ["Sec-WebSocket-Key", "Sec-WebSocket-Version", "Upgrade", "Connection", "Host"])
def test_handshake(trusting: Server, name: str) -> None:
    """A handshake with such bytes in a required header is refused, or is a plain request; the Host is not interpreted."""
    for value in VALUES:
        for _ in range(3):
            with open_stream(port=trusting.port) as stream:
                headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
                headers += [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Host", "h")]
                stream.send(request_bytes("GET", "/echo", replaced(headers, [(name, value)])))
                status = read_response(stream).status
            assert status in ({400, 101} if name == "Host" else {400, 200}), (name, value)


@pytest.mark.parametrize("path", ["/status", "/wsbridge.js", "/"])
def test_channel(path: str) -> None:
    """Such bytes do not change the responses with the page, the script and the status of a channel; no slot and no descriptor leaks."""
    with Server("--exchange=temps", "--input=exchange", "--maxclients=3", "--trust-proxy=127.0.0.1", bridge=BROADCAST) as server:
        with open_stream(port=server.port) as stream:
            plain = ask(server, stream, "GET", path, [("Connection", "close")])
        before = server.descriptors()
        with open_stream(port=server.port) as stream:
            seen = [(name, ask(server, stream, "GET", path, headers)) for name, headers in requests()]
        # /status admits the origins that the channel admits, and no Origin that is not a URI.
        own = [pair for pair in seen if path != "/status" or pair[0] not in ("Origin", "Referer")]
        assert [pair for pair in own if pair[1] != plain] == []
        wait_until(lambda: server.descriptors() <= before, "the descriptors to be as many as before")
    assert_sound(server)


def test_event_stream() -> None:
    """An event stream starts with such bytes in any header, except for an Origin that is not a URI; no slot and no descriptor leaks."""
    with Server("--exchange=temps", "--input=exchange", "--maxclients=3", "--trust-proxy=127.0.0.1", bridge=BROADCAST) as server:
        before = server.descriptors()
        for name, headers in requests():
            if any(other in CONDITIONS for other, _ in headers):
                continue
            with open_stream(port=server.port) as stream:
                stream.send(request_bytes("GET", "/events", replaced([("Host", "h")], headers)))
                status = int(stream.read_until(b"\r\n\r\n").split()[1])
            assert status == 200 or (status == 403 and name in ("Origin", "Referer")), headers
            wait_until(lambda: server.descriptors() <= before, "the end of the event stream")
    assert_sound(server)


@pytest.mark.parametrize("name", ["Origin", "Referer", "Accept"])
def test_full_channel(name: str) -> None:
    """The response to an event stream without a free slot is the same as without such bytes."""
    with Server("--exchange=temps", "--input=exchange", "--maxclients=1", bridge=BROADCAST) as server, server.connect():
        for value in VALUES:
            for text in (value, f"http://h{value}", f"text/event-stream, {value}"):
                response = server.get("/events", headers=replaced([("Accept", "text/event-stream")], [(name, text)]))
                assert response.status in (200, 403, 503), text
    assert_sound(server)


def test_name_that_is_not_utf8_is_redirected(trusting: Server, site: Site) -> None:
    """The server redirects a directory whose name is not UTF-8 to its slash, and lists it, with percent-encoded bytes."""
    os.makedirs(os.fsencode(site.public) + b"/caf\xe9", exist_ok=True)
    assert trusting.get("/caf%E9").value("Location") == "./caf%E9/"
    assert trusting.get("/caf%E9/").status == 200
