"""HTTP, the upgrade and the command line (cases 37-55)."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.parity.conftest import Starter
from tests.support.client import NO_STATUS, Client, Close, Frame, Message, Opcode, Refused, Response, close_payload, encode_fragments
from tests.support.server import Server, free_port, is_alive, wait_for_exit, wait_until
from tests.support.tool import command

MIB = 1 << 20

EXTENSIONS = "permessage-deflate; client_max_window_bits"


@pytest.mark.case(37)
def test_maxforks_refuses_one_too_many(bridge: Starter) -> None:
    """The server answers a session beyond --maxforks with 429 before the upgrade. It accepts a new client when a session has ended."""
    server = bridge("--maxforks=2", "cat")
    with server.connect() as first, server.connect():
        refused = server.refusal()
        assert (refused.status, refused.body) == (429, b"429 Too Many Requests\n")
        first.send_close()
        with granted(server) as third:
            third.send_text("welcome")
            assert third.receive_text() == "welcome"


@pytest.mark.case(37)
def test_stubborn_program_keeps_its_slot(bridge: Starter, tmp_path: Path) -> None:
    """A session's slot becomes free when its program has been reaped, not when its client has disconnected."""
    server = bridge("--maxforks=1", "--closems=200", *command("witness", tmp_path / "record", "TERM"))
    with server.connect() as client:
        pid = int(client.receive_text())
        client.drop()
        status = server.refusal().status
        assert is_alive(pid), "the refusal came too late to tell"
        assert status == 429
        wait_for_exit(pid)
    with granted(server) as client:
        assert int(client.receive_text()) != pid


def granted(server: Server) -> Client:
    """Connect again and again until a slot is free: websocketd frees the slot a moment after all visible signs of the end."""

    def maybe_connect() -> Client | None:
        try:
            return server.connect()
        except Refused:
            return None

    client: Client = wait_until(maybe_connect, "a free slot")
    return client


@pytest.mark.case(38)
def test_maxforks_is_checked_first(bridge: Starter, scripts: Path) -> None:
    """The answer 429 precedes 404 and 403."""
    server = bridge("--maxforks=1", f"--dir={scripts}", "--origin=good.com")
    with server.connect("/cat", origin="http://good.com") as client:
        assert server.refusal("/missing", origin="http://good.com").status == 429
        assert server.refusal("/cat", origin="http://bad.com").status == 429
        assert client.is_open()


@pytest.mark.case(39)
def test_no_such_script(bridge: Starter, scripts: Path) -> None:
    """The server answers an unknown script, a directory and / with 404, for an upgrade and for a plain request."""
    server = bridge(f"--dir={scripts}")
    paths = ["/missing", "/folder", "/folder/", "/folder/missing", "/"]
    assert {path: server.refusal(path).status for path in paths} == dict.fromkeys(paths, 404)
    assert {path: server.get(path).status for path in paths} == dict.fromkeys(paths, 404)


def accepted(server: Server, origin: str | None, **options: object) -> bool:
    """Return whether the server accepts an upgrade with this Origin; otherwise, the answer must be 403."""
    try:
        server.connect(origin=origin, **options).drop()
    except Refused as refused:
        status = refused.response.status
    else:
        return True
    assert status == 403
    return False


@pytest.mark.case(40)
@pytest.mark.parametrize("flag", ["--origin=a.com", "--sameorigin"])
def test_foreign_origin_is_refused(bridge: Starter, flag: str) -> None:
    """With --origin or --sameorigin, the server answers an unlisted origin, `null` and a missing origin with 403."""
    server = bridge(flag, "cat")
    assert [origin for origin in ("http://b.com", "null", None) if accepted(server, origin)] == []


@pytest.mark.case(40)
def test_any_origin_passes_unrestricted(bridge: Starter) -> None:
    """Without a restriction, the server accepts every origin, also `null` and a missing one."""
    server = bridge("cat")
    assert [origin for origin in ("http://b.com", "https://b.com:8443", "null", None) if not accepted(server, origin)] == []


@pytest.mark.case(40)
def test_same_origin_is_host_and_port(bridge: Starter) -> None:
    """--sameorigin compares the origin's host and port with those of the Host header."""
    server = bridge("--sameorigin", "cat")
    host = f"127.0.0.1:{server.port}"
    assert accepted(server, f"http://{host}")
    assert not accepted(server, "http://127.0.0.1:1")
    assert not accepted(server, f"http://localhost:{server.port}")
    assert accepted(server, "http://example.com", headers=[("Host", "example.com")])


@pytest.mark.case(41)
@pytest.mark.parametrize(
    ("listed", "good", "bad"),
    [
        ("a.com", ["http://a.com", "https://a.com", "http://a.com:3000", "https://a.com:1"], ["http://b.com", "http://x.a.com"]),
        ("a.com:3000", ["http://a.com:3000", "https://a.com:3000"], ["http://a.com", "http://a.com:3001"]),
        ("https://a.com", ["https://a.com", "https://a.com:8443"], ["http://a.com"]),
        ("a.com,https://b.com:8443", ["http://a.com", "https://b.com:8443"], ["http://b.com:8443", "https://b.com", "http://c.com"]),
    ],
)
def test_listed_origins(bridge: Starter, listed: str, good: list[str], bad: list[str]) -> None:
    """A listed host accepts any port and scheme, unless the entry names them."""
    server = bridge(f"--origin={listed}", "cat")
    assert [origin for origin in [*good, *bad] if accepted(server, origin)] == good


@pytest.mark.case(42)
def test_same_origin_behind_a_tls_proxy(wsbridge: Starter) -> None:
    """--sameorigin takes scheme and host from a trusted proxy only."""
    reported = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "example.com"), ("Host", "example.com")]
    trusting = wsbridge("--sameorigin", "--trust-proxy=127.0.0.1/32", "cat")
    assert accepted(trusting, "https://example.com", headers=reported)
    assert not accepted(trusting, "https://other.com", headers=reported)
    wary = wsbridge("--sameorigin", "--trust-proxy=192.0.2.0/24", "cat")
    assert not accepted(wary, "https://example.com", headers=reported)


@pytest.mark.case(43)
def test_no_compression_by_default(bridge: Starter) -> None:
    """The server does not accept permessage-deflate although the client offers it; no frame has a reserved bit."""
    with bridge("cat").connect(headers=[("Sec-WebSocket-Extensions", EXTENSIONS)]) as client:
        assert client.response.values("Sec-WebSocket-Extensions") == []
        client.send_text("plain")
        assert client.receive_frame() == Frame(Opcode.TEXT, b"plain")


@pytest.mark.case(43)
def test_subprotocols(bridge: Starter) -> None:
    """The server ignores a client's list of subprotocols, and opens the connection; --header-ws can send a subprotocol."""
    with bridge("cat").connect(subprotocols=["chat", "superchat"]) as client:
        assert client.subprotocol is None
        assert client.is_open()
    with bridge("--header-ws", "Sec-WebSocket-Protocol: chat", "cat").connect(subprotocols=["chat"]) as client:
        assert client.subprotocol == "chat"


@pytest.mark.case(44)
def test_spellings_of_the_upgrade(bridge: Starter) -> None:
    """The Upgrade header is case-insensitive; the Connection header may have other tokens."""
    server = bridge("cat")
    for upgrade, connection in (("WebSocket", "Upgrade"), ("WEBSOCKET", "upgrade"), ("websocket", "keep-alive, Upgrade")):
        with server.connect(headers=[("Upgrade", upgrade), ("Connection", connection)]) as client:
            assert client.is_open()


@pytest.mark.case(45)
def test_pings_and_fragments(bridge: Starter) -> None:
    """The server answers a ping with a pong of the same payload, also between fragments, and joins fragments."""
    with bridge("cat").connect() as client:
        client.send_ping(b"hello")
        assert client.receive_frame() == Frame(Opcode.PONG, b"hello")
        client.send_frame(b"one ", Opcode.TEXT, fin=False)
        client.send_ping(b"x" * 125)
        assert client.receive_frame() == Frame(Opcode.PONG, b"x" * 125)
        client.send_frame(b"", Opcode.CONTINUATION, fin=False)
        client.send_frame(b"message", Opcode.CONTINUATION)
        assert client.receive_text() == "one message"


@pytest.mark.case(46)
@pytest.mark.parametrize("fragments", [1, 4])
def test_inbound_message_limit(wsbridge: Starter, fragments: int) -> None:
    """The server accepts a message of 1 MiB. For one byte more, it closes with 1009, also for fragments."""
    part = b"x" * (MIB // fragments)
    with wsbridge("--binary", *command("reads")).connect() as client:
        client.send_fragments([part] * fragments, Opcode.BINARY)
        assert client.is_open()
        with client.sending(encode_fragments([*[part] * (fragments - 1), part + b"+"], Opcode.BINARY)):
            assert client.receive_close().code == 1009


@pytest.mark.case(46)
def test_inbound_message_without_limit(wsbridge: Starter) -> None:
    """--maxframesize=0 sets no limit; another number is the limit."""
    text = "x" * (5 * MIB)
    with wsbridge("--maxframesize=0", "cat").connect() as client:
        client.send_text(text)
        assert client.receive_text() == text
    with wsbridge("--maxframesize=10", "cat").connect() as client:
        client.send_text("0123456789")
        assert client.receive_text() == "0123456789"
        client.send_text("0123456789+")
        assert client.receive_close().code == 1009


@pytest.mark.case(47)
def test_close_code_is_echoed(bridge: Starter) -> None:
    """The server echoes a client's close code, also an empty close. It answers an invalid code with 1002."""
    server = bridge("cat")
    for code in (1000, 1001, 1007, 3000, 4999):
        assert answer_to_close(server, close_payload(code, "bye")).code == code
    assert answer_to_close(server, b"").code == NO_STATUS
    for code in (0, 999, 1004, 1005, 1006, 1014, 1015, 2999, 5000, 65535):
        assert answer_to_close(server, close_payload(code)).code == 1002


def answer_to_close(server: Server, payload: bytes) -> Close:
    with server.connect() as client:
        client.send_frame(payload, Opcode.CLOSE)
        return client.receive_close()


@pytest.mark.case(48)
@pytest.mark.parametrize("reads", [True, False])
def test_silent_client_is_dropped(wsbridge: Starter, reads: bool) -> None:
    """With --pingms=500, the server drops a client that answers no ping for 1 s, also one that has stopped reading."""
    server = wsbridge("--pingms=500", "sh", "-c", "echo $$; exec cat" if reads else 'echo $$; exec "$@"', "sh", *command("flood"))
    start = time.monotonic()
    with server.connect(answers_pings=False, receive_buffer=1 << 16) as client:
        pid = int(client.receive_text())
        if reads:
            client.receive_close()
        assert wait_for_exit(pid) - start >= 1.0
    server.wait_for_log(r"\| DISCONNECT")


@pytest.mark.case(48)
def test_responsive_client_is_kept(wsbridge: Starter) -> None:
    """The server never drops a client that answers pings."""
    with wsbridge("--pingms=500", "cat").connect() as client:
        for _ in range(4):
            ping = client.receive_frame()
            assert ping.opcode == Opcode.PING
            client.send_pong(ping.payload)
        client.send_text("still here")
        assert client.receive_text() == "still here"


@pytest.mark.case(49)
def test_command_serves_every_path(bridge: Starter) -> None:
    """With COMMAND, the server accepts WebSocket upgrades at every path."""
    server = bridge("cat")
    for path in ("/", "/any/path", "/with%20space", "/x?query=1", "/folder/"):
        with server.connect(path) as client:
            client.send_text(path)
            assert client.receive_text() == path


HEADERS = ("--header", "X-Both: 1", "--header=x-both:  2", "--header-ws", "X-Ws: a:b", "--header-http=X-Http: c", "--header-ws=X-Ws: d")


def marks(response: Response) -> dict[str, list[str]]:
    return {name: response.values(name) for name in ("X-Both", "X-Ws", "X-Http") if response.values(name)}


@pytest.mark.case(50)
def test_headers_of_the_upgrade(bridge: Starter) -> None:
    """The 101 response has all headers of --header and --header-ws, and none of --header-http."""
    with bridge(*HEADERS, "cat").connect() as client:
        assert marks(client.response) == {"X-Both": ["1", "2"], "X-Ws": ["a:b", "d"]}


@pytest.mark.case(50)
def test_headers_of_a_plain_answer(bridge: Starter, tmp_path: Path) -> None:
    """Plain responses have the headers of --header-http, and none of --header-ws."""
    (tmp_path / "a.txt").write_text("a")
    server = bridge(*HEADERS[3:], f"--staticdir={tmp_path}", "cat")
    assert marks(server.get("/a.txt")) == {"X-Http": ["c"]}
    assert marks(server.get("/missing")) == {"X-Http": ["c"]}


@pytest.mark.case(50)
def test_header_is_on_every_answer(wsbridge: Starter, tmp_path: Path) -> None:
    """Plain responses and refused upgrades also have the headers of --header."""
    (tmp_path / "a.txt").write_text("a")
    server = wsbridge(*HEADERS, "--origin=a.com", f"--staticdir={tmp_path}", "cat")
    assert marks(server.get("/a.txt")) == {"X-Both": ["1", "2"], "X-Http": ["c"]}
    assert marks(server.refusal(origin="http://b.com"))["X-Both"] == ["1", "2"]


def redirected(server: Server, port: int, path: str, host: str) -> str:
    """Return the target of the redirect server's response."""
    response = server.request("GET", path, port=port, headers=[("Host", host)])
    assert response.status == 301
    location = response.value("Location")
    assert location
    return location


@pytest.mark.case(51)
def test_redirport_answers_301(bridge: Starter) -> None:
    """--redirport answers every request with 301 to the host and port of the server."""
    port = free_port()
    server = bridge(f"--redirport={port}", "cat")
    server.wait_for_log("Starting redirect server")
    assert redirected(server, port, "/", f"example.com:{port}") == f"http://example.com:{server.port}/"
    assert server.request("POST", "/", port=port, headers=[("Host", "a:1")], body=b"x").status == 301
    assert server.refusal("/", port=port).status == 301


@pytest.mark.case(51)
def test_redirport_keeps_the_path(wsbridge: Starter) -> None:
    """The redirect keeps path and query, and accepts a Host without a port or an IPv6 address."""
    port = free_port()
    server = wsbridge(f"--redirport={port}", "cat")
    assert redirected(server, port, "/a/b?c=d", "example.com") == f"http://example.com:{server.port}/a/b?c=d"
    assert redirected(server, port, "/", "[::1]:5") == f"http://[::1]:{server.port}/"
    assert redirected(server, port, "/", "[::1]") == f"http://[::1]:{server.port}/"
    assert redirected(server, port, "http://a.com:81/b?c", "b.com") == f"http://a.com:{server.port}/b?c"


@pytest.mark.case(52)
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["no-such-command-at-all"], 1),
        ([], 1),
        (["--dir=/no/such/directory"], 1),
        (["--ssl", "cat"], 1),
        (["--loglevel=loud", "cat"], 1),
        (["--no-such-flag", "cat"], 2),
        (["--maxforks=many", "cat"], 2),
        (["---port=1", "cat"], 2),
        (["--port=65536", "cat"], 3),
    ],
)
def test_exit_status_of_wrong_usage(bridge: Starter, words: Sequence[str], status: int) -> None:
    """The exit status is 1 for a configuration that cannot work, 2 for a parse error, 3 if the server cannot listen."""
    assert bridge.run(*words).returncode == status


@pytest.mark.case(52)
def test_exit_status_of_a_port_in_use(bridge: Starter) -> None:
    """For a port in use, the server exits with 3, and logs the words that scripts search for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = bridge.run("--address=127.0.0.1", f"--port={port}", "cat")
    assert (ended.returncode, "address already in use" in ended.stdout) == (3, True)


@pytest.mark.case(53)
def test_flags_after_the_command_belong_to_it(bridge: Starter) -> None:
    """Parsing stops at COMMAND: words after it that look like flags belong to the command."""
    with bridge("printf", r"%s\n", "--devconsole", "--port=1", "-x", "--").connect() as client:
        assert client.receive_lines() == ["--devconsole", "--port=1", "-x", "--"]


@pytest.mark.case(54)
@pytest.mark.parametrize("listen", [["-port", "{port}"], ["--port={port}"], ["--port", "{port}"], ["-port={port}"]], ids=" ".join)
def test_spellings_of_a_flag(bridge: Starter, listen: list[str]) -> None:
    """A flag has one or two dashes; its value follows = or is the next word."""
    with bridge("cat", listen=["-address", "127.0.0.1", *listen, "--binary=false"]).connect() as client:
        client.send_text("x")
        assert client.receive_text() == "x"


@pytest.mark.case(54)
def test_spellings_of_a_boolean(bridge: Starter) -> None:
    """A boolean flag takes its value after = only: the next word is the COMMAND."""
    with bridge("-binary=false", "cat").connect() as client:
        client.send_text("x")
        assert client.receive() == Message(Opcode.TEXT, b"x")
    with bridge("-binary", "echo", "true").connect() as client:
        assert client.receive_until_close()[0] == [Message(Opcode.BINARY, b"true\n")]


@pytest.mark.case(55)
def test_stale_unix_socket_is_replaced(wsbridge: Starter, tmp_path: Path) -> None:
    """The server leaves a live Unix socket alone (exit status 3), replaces a stale one, and never removes a regular file (3)."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = wsbridge(f"--unixsocket={path}", "cat", listen=(), unix=path)
    server.wait_for_log(f"unix socket at {path}$")
    busy = wsbridge.run(f"--unixsocket={path}", "cat")
    assert (busy.returncode, "address already in use" in busy.stdout) == (3, True)
    with server.connect() as client:
        assert client.is_open()
    regular = tmp_path / "regular"
    regular.write_text("precious")
    assert wsbridge.run(f"--unixsocket={regular}", "cat").returncode == 3
    assert regular.read_text() == "precious"


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A directory with one script, `cat`, and one directory, `folder`."""
    (tmp_path / "folder").mkdir()
    script = tmp_path / "cat"
    script.write_text("#!/bin/sh\nexec cat\n")
    script.chmod(0o755)
    return tmp_path
