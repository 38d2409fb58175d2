"""The upgrade: subprotocols, full servers, headers, and the reports of trusted proxies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.rules.requests import make_request
from tests.support.client import Close, Opcode, encode_frame, open_stream, read_response
from tests.support.proc import nothing_left, same_limits, until
from tests.support.server import Server, children, free_port, wait_until
from tests.support.site import Serve, assert_sound
from wsbridge.endpoints.newsession import BridgeSessionFactory
from wsbridge.http.admission import Admission
from wsbridge.metrics import Metrics
from wsbridge.process.descendants import Descendants
from wsbridge.process.guard import NoGuard
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import Spawner
from wsbridge.process.spawnserver import SpawnServer
from wsbridge.process.termination import make_ladder
from wsbridge.rules.environ import Script
from wsbridge.sessions.registry import Registry
from wsbridge.settings import ProgramSettings

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def environment(server: Server, path: str = "/env", **options: object) -> dict[str, str]:
    """Return the environment of the program `env`."""
    with server.connect(path, **options) as client:
        return dict(line.split("=", 1) for line in client.receive_lines())


# --subprotocol


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["chat"], "chat"),
        (["other", "superchat", "chat"], "superchat"),
        (["CHAT", "chat"], "chat"),
        (["other"], None),
        (["chatter"], None),
        ([], None),
    ],
)
def test_subprotocol(served: Server, offered: list[str], chosen: str | None) -> None:
    """The server selects the first subprotocol of the client that it supports; without one, the connection opens without a subprotocol."""
    with served.connect("/echo", subprotocols=offered) as client:
        assert client.subprotocol == chosen
        client.send_text("hello")
        assert client.receive_text() == "hello"


def test_subprotocols_in_several_headers(served: Server) -> None:
    """The client's list may be in several headers."""
    with served.connect("/echo", headers=[("Sec-WebSocket-Protocol", "other"), ("Sec-WebSocket-Protocol", "chat")]) as client:
        assert client.subprotocol == "chat"


def test_program_knows_the_subprotocols(served: Server) -> None:
    """The program receives the subprotocols that the client offered."""
    assert environment(served, subprotocols=["chat", "x"])["HTTP_SEC_WEBSOCKET_PROTOCOL"] == "chat, x"


def test_forced_subprotocol(serve: Serve) -> None:
    """A subprotocol in --header-ws is sent once, whatever the client offers."""
    server = serve("--subprotocol=chat", "--header-ws=Sec-WebSocket-Protocol: forced", "cat")
    for offered in ([], ["chat"]):
        with server.connect(subprotocols=offered) as client:
            assert client.response.values("Sec-WebSocket-Protocol") == ["forced"]


# Before the program runs


@contextmanager
def slow_start(server: Server) -> Iterator[None]:
    """Within this block, no program starts."""
    (spawner,) = server.spawn_servers()
    os.kill(spawner, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(spawner, signal.SIGCONT)


def test_messages_before_the_program_runs(serve: Serve) -> None:
    """The 101 does not wait for the program; all earlier messages of the client reach the program, in any amount."""
    server = serve("cat")
    lines = [f"{number:05} " + "x" * 1000 for number in range(1000)]
    with ExitStack() as stack, slow_start(server):
        client = stack.enter_context(server.connect())
        with client.sending(b"".join(encode_frame(line.encode()) for line in lines)):
            os.kill(server.spawn_servers()[0], signal.SIGCONT)
            assert [client.receive_text() for _ in lines] == lines


def test_client_that_leaves_before_the_program_runs(serve: Serve, tmp_path: Path) -> None:
    """A client may send a message and leave before its program runs: the program receives the message, and the end of its stdin."""
    for number, leave in enumerate((lambda client: client.send_close(1000), lambda client: client.drop(), lambda client: client.reset())):
        told = tmp_path / f"told-{number}"
        server = serve("--closems=60000", "sh", "-c", f"cat >{told}; mv {told} {told}.whole")
        with slow_start(server):
            client = server.connect()
            client.send_text("last words")
            leave(client)
        server.wait_for_log("DISCONNECT")
        if number < 2:
            wait_until(Path(f"{told}.whole").exists, "the end of stdin")
            assert Path(f"{told}.whole").read_text() == "last words\n"
        client.drop()


def test_program_that_cannot_start(serve: Serve, tmp_path: Path) -> None:
    """If a program cannot start, its session closes with 1011, whatever the client has sent."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    server = serve(str(script))
    with slow_start(server):
        client = server.connect()
        client.send_text("is anybody there?")
    with client:
        assert client.receive_close() == Close(1011, "could not launch process")
    server.wait_for_log("Could not launch process .*interpreter")


def test_simultaneous_upgrades(serve: Serve) -> None:
    """The server serves simultaneous upgrades on many open connections in turn."""
    server = serve("sh", "-c", "echo hello; exec cat")
    with ExitStack() as stack:
        with slow_start(server):
            first = stack.enter_context(server.connect())
            streams = [stack.enter_context(open_stream(port=server.port)) for _ in range(60)]
            for stream in streams:
                stream.send(UPGRADE)
        assert first.receive_text() == "hello"
        for stream in streams:
            assert stream.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            assert stream.read_exactly(7) == b"\x81\x05hello"
    server.stop()
    assert "sessions=61 " in server.log


def test_stop_before_the_program_runs(serve: Serve) -> None:
    """If the server stops while a program starts, the session closes properly when the program runs."""
    server = serve("cat")
    with slow_start(server):
        client = server.connect()
        server.send_signal(signal.SIGTERM)
    with client:
        assert client.receive_close().code == 1001
    assert server.wait() == 0


# --busy


def test_busy_close(serve: Serve) -> None:
    """With --busy=close, a client over --maxforks is upgraded and closed with 1013, which a page can read; no program starts."""
    server = serve("--maxforks=1", "--busy=close", "cat")
    with server.connect() as first:
        first.send_text("it runs")
        assert first.receive_text() == "it runs"
        for _ in range(3):
            with server.connect() as second:
                assert second.receive_close().code == 1013
                second.wait_for_end()
        assert len(server.children()) == 2
        first.send_text("still here")
        assert first.receive_text() == "still here"
        first.send_close(1000)
        assert first.receive_close() == Close(1000)
        first.wait_for_end()
    with server.connect() as client:
        client.send_text("the slot is free again")
        assert client.receive_text() == "the slot is free again"
    server.stop()
    assert "refused_1013=3" in server.log


def test_invalid_request_to_a_full_server(serve: Serve) -> None:
    """An invalid request to a full server is refused for its own fault."""
    server = serve("--maxforks=1", "--busy=close", "--origin=good.com", "cat")
    with server.connect(origin="http://good.com") as client:
        assert server.refusal(origin="http://bad.com").status == 403
        assert server.refusal(origin="http://good.com", headers=[("Sec-WebSocket-Version", "8")]).status == 400
        assert client.is_open()


def test_busy_client_without_a_close_frame(serve: Serve) -> None:
    """The server waits a bounded time for the close frame of a client over --maxforks."""
    server = serve("--maxforks=1", "--busy=close", "cat")
    with server.connect(), server.connect() as second:
        frame = second.receive_frame()
        assert (frame.opcode, frame.payload[:2]) == (8, (1013).to_bytes(2, "big"))
        second.wait_for_end()


# --header…


def test_headers_of_every_response(serve: Serve, tmp_path: Path) -> None:
    """--header applies to every response: files, scripts, redirects, errors and upgrades. --header-http does not apply to upgrades."""
    (tmp_path / "cgi").mkdir()
    (tmp_path / "file").write_text("x")
    script = tmp_path / "cgi" / "script"
    script.write_text("#!/bin/sh\nprintf 'Content-Type: a/b\\nX-Mine: m\\n\\nbody'\n")
    script.chmod(0o755)
    flags = ("--header=X-All: a", "--header-http=X-Http: h", "--header-http=X-Http: i", "--header-ws=X-Ws: w")
    server = serve(*flags, f"--staticdir={tmp_path}", f"--cgidir={tmp_path}/cgi", "--devconsole", "--maxforks=1", "cat")
    answers = {path: server.get(path) for path in ("/file", "/", "/script", "/cgi", "/none", "/cgi/script", "//file", "/%00")}
    expected = {"/file": 200, "/": 200, "/script": 200, "/cgi": 301, "/none": 200, "/cgi/script": 200, "//file": 301, "/%00": 400}
    assert {path: answer.status for path, answer in answers.items()} == expected
    assert {path: answer.values("X-All") for path, answer in answers.items()} == {path: ["a"] for path in expected}
    assert {path: answer.values("X-Http") for path, answer in answers.items()} == {path: ["h", "i"] for path in expected}
    assert [path for path, answer in answers.items() if answer.values("X-Ws")] == []
    assert answers["/script"].value("X-Mine") == "m"
    with server.connect() as client:
        assert [client.response.values(name) for name in ("X-All", "X-Ws", "X-Http")] == [["a"], ["w"], []]
        refused = server.refusal()
        assert (refused.status, refused.value("X-All"), refused.value("X-Http")) == (429, "a", None)
        moved = server.refusal("//file")
        assert (moved.status, moved.value("X-All"), moved.value("X-Http")) == (301, "a", None)


# --trust-proxy

REPORTED = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "example.com")]


@pytest.fixture(scope="module")
def behind_proxy() -> Iterator[Server]:
    with Server("--trust-proxy=127.0.0.0/8,10.0.0.0/8", "env") as server:
        yield server
    assert_sound(server)


def test_trusted_proxy(behind_proxy: Server) -> None:
    """The program and the log have the address, scheme and host that a trusted proxy reports."""
    found = environment(behind_proxy, headers=[("Host", "backend:81"), *REPORTED])
    expected = {
        "REMOTE_ADDR": "203.0.113.7",
        "REMOTE_HOST": "203.0.113.7",
        "REMOTE_PORT": "",
        "HTTPS": "on",
        "SERVER_NAME": "example.com",
        "SERVER_PORT": "443",
    }
    assert {name: found.get(name) for name in expected} == expected
    behind_proxy.wait_for_log(r"url:'https://example\.com/env' .*remote:'203\.0\.113\.7'.*\| CONNECT")


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("1.2.3.4, 203.0.113.7", "203.0.113.7"),
        ("evil, 203.0.113.7, 10.1.1.1", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("nonsense", "127.0.0.1"),
        ("203.0.113.7, nonsense", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_chain_of_proxies(behind_proxy: Server, header: str, address: str) -> None:
    """The last address that is not a trusted proxy counts, since any client can forge the addresses before it."""
    assert environment(behind_proxy, headers=[("X-Forwarded-For", header)])["REMOTE_ADDR"] == address


def test_no_proxy_is_trusted_by_default(served: Server) -> None:
    """Without --trust-proxy, the server ignores all reports."""
    found = environment(served, headers=[("Host", "backend:81"), *REPORTED])
    assert (found["REMOTE_ADDR"], found["SERVER_NAME"], found["SERVER_PORT"]) == ("127.0.0.1", "backend", "81")
    assert "HTTPS" not in found


@pytest.mark.parametrize(("trusted", "address"), [("10.0.0.0/8", "127.0.0.1"), ("unix", "127.0.0.1"), ("127.0.0.1", "203.0.113.7")])
def test_trusted_addresses(serve: Serve, trusted: str, address: str) -> None:
    """The server ignores a report from any other address."""
    assert environment(serve(f"--trust-proxy={trusted}", "env"), headers=REPORTED)["REMOTE_ADDR"] == address


@pytest.mark.parametrize(("trusted", "address"), [("unix", "203.0.113.7"), ("127.0.0.1", "unix-socket")])
def test_proxy_on_the_unix_socket(serve: Serve, tmp_path: Path, trusted: str, address: str) -> None:
    """`unix` trusts every client of the Unix socket, and an address trusts none of them."""
    path = str(tmp_path / "s")
    server = serve(f"--trust-proxy={trusted}", "env", listen=(f"--unixsocket={path}",), unix=path)
    found = environment(server, headers=REPORTED)
    assert found["REMOTE_ADDR"] == address
    assert ("HTTPS" in found) == (trusted == "unix")


def test_scripts_after_a_proxy(serve: Serve, tmp_path: Path) -> None:
    """CGI scripts receive the same reports."""
    script = tmp_path / "env"
    script.write_text('#!/bin/sh\necho "Content-Type: text/plain"; echo; exec env\n')
    script.chmod(0o755)
    server = serve("--trust-proxy=127.0.0.1", f"--cgidir={tmp_path}")
    found = dict(line.split("=", 1) for line in server.get("/env", headers=REPORTED).body.decode().splitlines())
    assert (found["REMOTE_ADDR"], found["HTTPS"], found["SERVER_NAME"]) == ("203.0.113.7", "on", "example.com")
    wait_until(lambda: len(server.children()) == 1, "the end of the script")


def test_sameorigin_and_a_path_that_looks_like_a_host(serve: Serve) -> None:
    """The path and the query of a target never count as a host."""
    server = serve("--sameorigin", "env")
    for path in ("/|?://evil.com/", "/^^?://evil.com/", "/?://evil.com/", "/?http://evil.com/"):
        assert server.refusal(path, origin="http://evil.com").status == 403
    with server.connect("/|?://evil.com/", origin=f"http://127.0.0.1:{server.port}") as client:
        assert "SERVER_NAME=127.0.0.1" in client.receive_lines()


def test_redirport_has_the_headers(serve: Serve) -> None:
    """Responses of --redirport have the headers of other plain responses; a request without a host receives 400."""
    port = free_port()
    server = serve("--header=X-A: 1", "--header-http=X-B: 2", "--header-ws=X-C: 3", f"--redirport={port}", "cat")
    answers = [server.request("GET", "/", port=port)]
    with open_stream(port=port) as stream:
        stream.send(b"GET / HTTP/1.0\r\n\r\n")
        answers.append(read_response(stream))
    assert [answer.status for answer in answers] == [301, 400]
    assert [[answer.value(name) for name in ("X-A", "X-B", "X-C")] for answer in answers] == [["1", "2", None]] * 2


@pytest.mark.parametrize("flags", [("--maxforks=1", "--busy=close"), ("--dir",)], ids=["no slot", "no launch"])
def test_partial_frame_of_a_rejected_client(serve: Serve, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """If the handshake's segment contains a part of a frame, a session that ends at once still reads that frame and the close frame."""
    (tmp_path / "broken").write_text("#!/no/such/interpreter\n")
    (tmp_path / "broken").chmod(0o755)
    words = (f"--dir={tmp_path}",) if flags == ("--dir",) else (*flags, "cat")
    server = serve(*words)
    frame = encode_frame(b"x" * 100)
    first = server.connect() if "cat" in words else None
    with server.connect("/broken", early=frame[:50]) as client:
        client.send_raw(frame[50:])
        assert client.receive_close().code in (1011, 1013)
        client.send_close(1000)
        client.wait_for_end()
    if first is not None:
        first.drop()
    server.stop()
    assert "protocol_errors" not in server.log


async def test_program_of_a_failed_session() -> None:
    """If a session fails to begin, its program is ended and reaped, and its slot is released."""
    loop, metrics = asyncio.get_running_loop(), Metrics()
    registry = Registry(max_sessions=1, metrics=metrics)
    with same_limits(), nothing_left():
        spawner = Spawner()
        server = SpawnServer(spawner, metrics, loop=loop)
        descendants = Descendants(NoGuard(), metrics, loop=loop)
        upgrader = BridgeSessionFactory(
            gate=Mock(),
            handshake=Mock(accept=Mock(side_effect=ConnectionResetError)),
            program=ProgramSettings(command=("/bin/sh",)),
            software="wsbridge",
            passed={},
            registry=registry,
            launcher=Launcher(spawner, descendants, make_ladder(0), loop=loop, server=server),
            metrics=metrics,
            loop=loop,
        )
        assert registry.limiter.acquire()
        admission = Admission(("/bin/sleep", "1000"), Script("/", ""), "", None)
        with pytest.raises(ConnectionResetError):
            upgrader.start(Mock(), make_request(), admission, {"id": "1"}, "")
        await until(lambda: server.pending == 0, "the start")
        await until(lambda: children(server.pid) == [], "the end of the program")
        server.close()
        descendants.close()
        os.close(spawner._home)
    assert registry.limiter.acquire()


@pytest.mark.parametrize(
    ("script", "close"),
    [("exit 0", "1000"), ("exit 3", "1011 exit 3"), ("kill -KILL $$", "1011 signal KILL"), ("cat", "1001"), ("exec sleep 1000", "1001")],
)
def test_log_shows_the_end_of_a_session(serve: Serve, script: str, close: str) -> None:
    """The log shows how each session ended, with the close code that was sent or received."""
    server = serve("sh", "-c", script)
    with server.connect() as client:
        if close == "1001":
            client.send_close(1001)
        server.wait_for_log(rf"close:'{close}' messages:.*\| DISCONNECT")


def test_close_reaches_a_sending_client(listener_server: Server) -> None:
    """A message beyond the limit closes with 1009, and a client that sends the whole message first still receives the code."""
    for _ in range(5):
        with listener_server.connect("/echo") as client:
            client.send_frame(b"x" * (4 << 20), Opcode.TEXT)
            assert client.receive_close().code == 1009
