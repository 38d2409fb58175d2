"""Methods, hosts and upgrades: valid and invalid requests (RFC 9110, RFC 9112, RFC 6455)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Headers, encode_frame, open_stream, read_response, request_bytes
from tests.support.server import Server, free_port
from tests.support.site import write_script

HOST = [("Host", "h")]
KEY = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
UPGRADE = [*HOST, ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"), KEY]
UNSAFE = ("POST", "PUT", "DELETE", "PATCH", "TRACE")
ALLOW = "GET, HEAD, OPTIONS"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a program, files, a CGI script and the console."""
    folder = tmp_path_factory.mktemp("methods")
    (folder / "files" / "sub").mkdir(parents=True)
    (folder / "cgi").mkdir()
    (folder / "files" / "a.txt").write_text("file\n")
    write_script(folder / "cgi" / "method", 'printf "Content-Type: text/plain\\nX-Method: $REQUEST_METHOD\\n\\n"; cat')
    program = write_script(folder / "program", f"echo started >> {folder}/started\nexec cat")
    with Server(f"--staticdir={folder / 'files'}", f"--cgidir={folder / 'cgi'}", "--devconsole", str(program), cwd=folder) as running:
        yield running


PATHS = {"file": "/a.txt", "folder": "/sub/", "redirect": "/sub", "page": "/console"}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_methods_of_files(server: Server, path: str) -> None:
    """Files, folders and pages support GET and HEAD, as OPTIONS and the 405 for another method show."""
    expected = 301 if path == "/sub" else 200
    for method in ("GET", "HEAD"):
        assert server.request(method, path).status == expected
    options = server.request("OPTIONS", path)
    assert (options.status, options.value("Allow"), options.body) == (204, ALLOW, b"")
    for method in UNSAFE:
        answer = server.request(method, path, body=b"x" if method != "TRACE" else b"")
        assert (answer.status, answer.value("Allow")) == (405, ALLOW), method
    assert server.request("PROPFIND", path).status == 501


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "MKCOL"])
def test_methods_of_scripts(server: Server, method: str) -> None:
    """A script handles every method itself."""
    answer = server.request(method, "/method")
    assert (answer.status, answer.value("X-Method")) == (200, method)


@pytest.mark.parametrize("target", ["h:80", "h:443"])
def test_connect(server: Server, target: str) -> None:
    """CONNECT is for proxies: the server answers 405, and reads no request after it."""
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("CONNECT", target, HOST) + request_bytes("GET", "/a.txt", HOST))
        answer = read_response(stream)
        assert (answer.status, answer.value("Allow")) == (405, ALLOW)


@pytest.mark.parametrize("cut", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("method", "status"), [("FOO", 501), ("get", 501), ("GETT", 501), ("B\x01D", 501), ("\x16\x03", 400), ("(x)", 400)]
)
def test_unknown_methods(server: Server, method: str, status: int, cut: int) -> None:
    """An unknown method receives 501, and an invalid method 400, in any cut; the connection closes."""
    data = request_bytes(method, "/a.txt", HOST)
    with open_stream(port=server.port) as stream:
        stream.send(data[:cut])
        stream.send(data[cut:])
        assert read_response(stream).status == status
        stream.wait_for_end()


def test_options_of_the_server(server: Server) -> None:
    """`OPTIONS *` asks for the methods of the server; no other method has that target."""
    answer = server.request("OPTIONS", "*")
    assert answer.status == 204
    assert "POST" in (answer.value("Allow") or "")
    assert server.request("GET", "*").status == 400


def test_missing_path(server: Server, tmp_path: Path) -> None:
    """At a missing path, a known method receives 404 and an unknown method 501."""
    with Server(f"--staticdir={tmp_path}") as bare:
        assert [bare.request(method, "/none").status for method in ("GET", "DELETE", "OPTIONS")] == [404] * 3
        assert bare.request("PROPFIND", "/none").status == 501


# Hosts


@pytest.mark.parametrize(
    "host", ["a b", 'a"b', "a'b", "a<b>", "user@h", "h:port", "h/path", "h\\x", "[::1", "::1", "h:1:2", "h\tx", "h\xe9", "a,b c", "{h}"]
)
@pytest.mark.parametrize("upgrade", [False, True])
def test_invalid_host(server: Server, host: str, upgrade: bool) -> None:
    """An invalid Host is refused with 400 before any program starts (RFC 9112, section 3.2)."""
    headers = [("Upgrade", "websocket"), *UPGRADE] if upgrade else []
    answer = server.get("/a.txt", headers=[*(pair for pair in headers if pair[0] != "Host"), ("Host", host)])
    assert answer.status == 400


@pytest.mark.parametrize(
    "host", ["h", "h:80", "192.0.2.1:8080", "[::1]:80", "[fe80::1%25eth0]", "a_b.example", "xn--bcher-kva.example", ""]
)
def test_host(server: Server, host: str) -> None:
    """A Host is a name or an address, with or without a port, or empty."""
    assert server.get("/a.txt", headers=[("Host", host)]).status == 200


def test_hosts(server: Server) -> None:
    """A request has exactly one Host, even with an absolute target."""
    assert server.get("/a.txt", headers=[("Host", "h"), ("Host", "h")]).status == 400
    assert server.get("http://a'b/a.txt").status == 400


# Upgrades


def starts(server: Server) -> int:
    file = Path(server._cwd or "") / "started"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.parametrize("value", ["h2c, websocket", "websocket, h2c", "WebSocket", "foo/1, websocket"])
def test_upgrade_among_other_protocols(server: Server, value: str) -> None:
    """A client that offers WebSocket among other protocols gets it, and the server processes frames sent with the request."""
    with open_stream(port=server.port) as stream:
        stream.send(request_bytes("GET", "/", [*UPGRADE, ("Upgrade", value)], encode_frame(b"early")))
        assert read_response(stream).status == 101
        assert stream.read_exactly(7) == b"\x81\x05early"


def test_other_upgrades(server: Server) -> None:
    """The server ignores an upgrade to another protocol (RFC 9110, section 7.8)."""
    assert server.get("/a.txt", headers=[*UPGRADE, ("Upgrade", "h2c")]).body == b"file\n"


def test_upgrade_of_an_old_client(server: Server) -> None:
    """An upgrade needs HTTP/1.1 (RFC 6455, section 4.1): for HTTP/1.0, the server answers 400 with that reason."""
    before = starts(server)
    answer = server.refusal("/", version="HTTP/1.0")
    assert answer.status == 400
    assert b"HTTP/1.1" in answer.body
    assert starts(server) == before


BODIES: dict[str, tuple[Headers, bytes]] = {
    "length": ([("Content-Length", "4")], b"body"),
    "chunks": ([("Transfer-Encoding", "chunked")], b"4\r\nbody\r\n0\r\n\r\n"),
    "no chunks": ([("Transfer-Encoding", "chunked")], b"0\r\n\r\n"),
    "length, not come": ([("Content-Length", "4")], b""),
}


@pytest.mark.parametrize("body", BODIES)
def test_upgrade_with_a_body(server: Server, body: str) -> None:
    """A WebSocket request with a body is refused with 400, in any segments, and its connection closes."""
    headers, content = BODIES[body]
    data = request_bytes("GET", "/", [("Upgrade", "websocket"), *UPGRADE, *headers], content + encode_frame(b"frame"))
    head = data.index(b"\r\n\r\n") + 4
    before = starts(server)
    for cut in (0, 1, head - 3, head - 1, *range(head, len(data))):
        with open_stream(port=server.port) as stream:
            if cut:
                stream.send(data[:cut])
            stream.send(data[cut:])
            answer = read_response(stream)
            assert (answer.status, answer.value("Connection")) == (400, "close"), cut
            stream.wait_for_end()
    assert starts(server) == before


def test_upgrade_with_an_empty_body(server: Server) -> None:
    """A Content-Length of 0 means no body."""
    with server.connect("/", headers=[("Content-Length", "0")], early=encode_frame(b"x")) as client:
        assert client.receive_text() == "x"


# The redirecting listener


def test_redirecting_port(tmp_path: Path) -> None:
    """The redirecting port redirects any method, except CONNECT, unknown methods and requests with an invalid Host."""
    with Server(f"--staticdir={tmp_path}", f"--redirport={(port := free_port())}") as server:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            assert server.request(method, "/x", port=port).status == 301
        assert server.request("CONNECT", "h:80", port=port).status == 405
        assert server.request("PROPFIND", "/", port=port).status == 501
        assert server.get("/", port=port, headers=[("Host", "a b")]).status == 400
