"""aiohttp's connection and the takeover of its socket: the parts of aiohttp on which wsbridge/http/connection.py relies.

A test that fails after an upgrade of aiohttp shows what has changed; only connection.py has to follow.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from tests.support.client import DEADLINE, Client, connect, encode_frame, open_stream, read_response, request_bytes
from tests.support.deadline import scaled
from tests.support.proc import no_callback_fails, nothing_left, send_until_full, turns, until
from wsbridge.http import connection as module
from wsbridge.http.connection import FOR_EVER, MASK, PRIVATE, Connection, HttpServer, missing_names
from wsbridge.http.handshake import Detached
from wsbridge.http.newconnection import Upgradable
from wsbridge.net.transports import use_fast_transports
from wsbridge.settings import HttpTimings
from wsbridge.wire.acceptkey import accept_value
from wsbridge.wire.reader import unmask

HERE = "used in wsbridge/http/connection.py and gone from aiohttp " + aiohttp.__version__


def names_used() -> list[str]:
    """Return the attributes that Connection uses from aiohttp: those of `self` that it neither defines nor sets."""
    tree = ast.parse(inspect.getsource(module))
    (body,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Connection"]
    used = {
        node.attr
        for node in ast.walk(body)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    own = {node.name for node in body.body if isinstance(node, ast.FunctionDef)} - set(dir(RequestHandler))
    return sorted(used - own - set(Connection.__slots__))


@pytest.fixture(params=["aiofastnet", "asyncio"])
async def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.AbstractEventLoop]:
    """The running loop, with each kind of transports."""
    monkeypatch.setenv("WSBRIDGE_FASTNET", "1" if request.param == "aiofastnet" else "0")
    running = asyncio.get_running_loop()
    if request.param == "aiofastnet":
        pytest.importorskip("aiofastnet")
    use_fast_transports(running)
    with nothing_left(), no_callback_fails():
        yield running


def make_server(handler: Callable[[web.BaseRequest], Any], loop: asyncio.AbstractEventLoop, **options: Any) -> HttpServer:
    return HttpServer(handler, error_page=error_page, loop=loop, **options)


def error_page(status: int, detail: str) -> web.Response:
    return web.Response(status=status, text=f"{status} {detail}")


@pytest.fixture(params=["by a task", "at once"])
async def upgrading(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> tuple[UpgradeHandler, HttpServer]:
    """A server that passes its connections to a RecordingProtocol, and the handler: from its task, or while it reads the request."""
    handler = UpgradeHandler()
    options = {"on_upgrade": handler.at_once} if request.param == "at once" else {}
    return handler, make_server(handler, loop, **options)


async def ok(_: web.BaseRequest) -> web.Response:
    return web.Response(text="ok")


@asynccontextmanager
async def serving(server: HttpServer, loop: asyncio.AbstractEventLoop) -> AsyncIterator[int]:
    """Listen on a free port; close everything at the end."""
    listener = await loop.create_server(server, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        async with asyncio.timeout(scaled(DEADLINE)):
            listener.close()
            await server.shutdown(1)
            await listener.wait_closed()


@pytest.mark.parametrize("name", names_used())
async def test_private_name_of_aiohttp(name: str) -> None:
    """Every private name of aiohttp that our connection uses exists."""
    server = make_server(ok, asyncio.get_running_loop())
    assert hasattr(RequestHandler(server, loop=asyncio.get_running_loop()), name), f"RequestHandler.{name} is {HERE}"


def test_missing_names_are_found_at_the_start() -> None:
    """At its start, the server checks the installed aiohttp for every private name that it uses."""
    replaced = {name for name in vars(Connection).keys() & set(dir(RequestHandler)) if name.startswith("_") and not name.startswith("__")}
    assert {name for name in names_used() if name.startswith("_")} | replaced - set(Connection.__slots__) == set(PRIVATE)
    assert missing_names(RequestHandler) == []
    assert missing_names(object) == list(PRIVATE)


def test_names_are_found() -> None:
    """The test above covers the private names of aiohttp."""
    assert {"_request_count", "_task_handler", "_waiter", "_resume_reading_if_drained", "transport"} <= set(names_used())


async def test_private_names_of_aiohttps_server() -> None:
    """aiohttp's server stores its loop and the options of its connections under the names that we use."""
    server = make_server(ok, asyncio.get_running_loop())
    for name in ("_loop", "_kwargs", "_make_request"):
        assert hasattr(server, name), f"web.Server.{name} is {HERE}"
    assert server._kwargs["max_field_size"] == module.HEAD_BYTES
    assert type(server._connection()) is Connection


def test_mask_is_in_place() -> None:
    """aiohttp's compiled mask works in place, according to RFC 6455, section 5.3."""
    for size in (0, 1, 3, 4, 5, 7, 8, 9, 64, 1000):
        ours, theirs = bytearray(range(256)) * 4, bytearray(range(256)) * 4
        del ours[size:], theirs[size:]
        unmask(b"\x01\x82\x03\xff", ours)
        MASK(b"\x01\x82\x03\xff", theirs)
        assert theirs == ours, f"aiohttp._websocket.helpers.websocket_mask masks {size} bytes differently"


def test_errors_of_aiohttps_parser() -> None:
    """A line that is too long has its own error, a subclass of the parser's error."""
    assert issubclass(LineTooLong, HttpProcessingError)


async def test_counters_of_a_connection(loop: asyncio.AbstractEventLoop) -> None:
    """A connection counts its requests as their header sections arrive, and knows the request that it answers."""
    seen: list[tuple[int, bool, int]] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        protocol: Any = request.protocol
        seen.append((protocol._request_count, protocol._current_request is request, len(protocol._messages)))
        return web.Response(text="ok")

    def ask(port: int) -> list[bytes]:
        head = request_bytes("GET", "/", [("Host", "h")])
        with open_stream(port=port) as stream:
            stream.send(head[:10])
            stream.send(head[10:])
            bodies = [read_response(stream).body]
            stream.send(head + head)
            return bodies + [read_response(stream).body for _ in range(2)]

    server = make_server(handler, loop)
    async with serving(server, loop) as port:
        assert await asyncio.to_thread(ask, port) == [b"ok"] * 3
    assert [count for count, _, _ in seen] in ([1, 2, 3], [1, 3, 3]), f"_request_count is counted differently: {HERE}"
    assert all(current for _, current, _ in seen), f"_current_request is not the request: {HERE}"


def asking(upgrade: str, *, body: bytes = b"", chunked: bool = False) -> bytes:
    """Return a request for an upgrade, and another request after it."""
    headers = [("Host", "h"), ("Upgrade", upgrade), ("Connection", "Upgrade")]
    if chunked:
        headers.append(("Transfer-Encoding", "chunked"))
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    elif body:
        headers.append(("Content-Length", str(len(body))))
    return request_bytes("POST" if body else "GET", "/first", headers, body) + request_bytes("GET", "/second", [("Host", "h")])


PIPELINED = {
    "h2c": asking("h2c"),
    "h2c, body": asking("h2c", body=b"a\r\n\r\nb"),
    "h2c, chunks": asking("h2c", body=b"a\r\n\r\nb", chunked=True),
    "h2c behind a body": request_bytes("POST", "/zero", [("Host", "h"), ("Content-Length", "3")], b"abc") + asking("h2c"),
    "websocket": asking("websocket"),
    "h2c twice": asking("h2c") + asking("h2c", body=b"x"),
}


@pytest.mark.parametrize("stream", PIPELINED.values(), ids=PIPELINED.keys())
async def test_request_after_an_ignored_upgrade(loop: asyncio.AbstractEventLoop, stream: bytes) -> None:
    """A request after an ignored Upgrade is answered, in whatever segments both arrive."""

    async def echo(request: web.BaseRequest) -> web.Response:
        return web.Response(text=f"{request.path} {(await request.read()).decode()}")

    async def answers(port: int, *pieces: bytes) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in pieces:
            writer.write(piece)
            # The server reads each piece before the client sends the next.
            await turns(6)
        try:
            async with asyncio.timeout(scaled(DEADLINE)):
                found = []
                while len(found) < stream.count(b" HTTP/1.1\r\n"):
                    head = await reader.readuntil(b"\r\n\r\n")
                    (length,) = re.findall(rb"Content-Length: (\d+)", head)
                    found.append(await reader.readexactly(int(length)))
                return found
        finally:
            writer.close()
            await writer.wait_closed()

    async with serving(make_server(echo, loop), loop) as port:
        expected = await answers(port, *(bytes([byte]) for byte in stream))
        assert [answer.split()[0] for answer in expected][-2:] == [b"/first", b"/second"]
        for cut in range(len(stream)):
            assert await answers(port, *filter(None, (stream[:cut], stream[cut:]))) == expected, cut


async def test_bytes_after_an_upgrade_are_bounded(loop: asyncio.AbstractEventLoop) -> None:
    """While a request for an upgrade is answered, the server reads later bytes up to a limit, and loses none."""
    answer = asyncio.Event()
    handler = UpgradeHandler()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await answer.wait()
        return await handler(request)

    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = request_bytes("GET", "/", [("Host", "h"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key)])
    more = b"x" * 30_000_000
    server = make_server(slow, loop)
    async with serving(server, loop) as port:
        with open_stream(port=port) as stream:
            sent = await asyncio.to_thread(send_until_full, stream.sock, head + more)
            assert sent < len(more)
            (connection,) = server.connections
            assert len(connection._held) < 2_000_000
            answer.set()
            await until(lambda: handler.protocols and len(handler.protocols[0].data) == sent - len(head), "the sent bytes")


async def test_idle_connection_is_closed(loop: asyncio.AbstractEventLoop) -> None:
    """A connection closes after the keep-alive timeout between requests, and after the header timeout before the first."""

    def ends(port: int, requests: int) -> bool:
        with open_stream(port=port) as stream:
            for _ in range(requests):
                stream.send(request_bytes("GET", "/", [("Host", "h")]))
                assert read_response(stream).status == 200
            return stream.read_to_end() == b""

    timings = HttpTimings(head_seconds=FOR_EVER, keepalive_seconds=0.2)
    async with serving(make_server(ok, loop, timings=timings), loop) as port:
        for requests in (1, 3):
            assert await asyncio.to_thread(ends, port, requests)
    timings = HttpTimings(head_seconds=0.2, keepalive_seconds=0)
    async with serving(make_server(ok, loop, timings=timings), loop) as port:
        assert await asyncio.to_thread(ends, port, 0)


async def test_slow_response_is_not_idle(loop: asyncio.AbstractEventLoop) -> None:
    """While a request is answered, its connection is not idle, whatever the duration."""
    answer = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        loop.call_later(0.3, answer.set)
        await answer.wait()
        return await ok(request)

    def ask(port: int) -> int:
        with open_stream(port=port) as stream:
            stream.send(request_bytes("GET", "/", [("Host", "h")]))
            return read_response(stream).status

    async with serving(make_server(slow, loop, timings=HttpTimings(keepalive_seconds=0.05)), loop) as port:
        assert await asyncio.to_thread(ask, port) == 200


class RecordingProtocol(asyncio.Protocol):
    """A protocol that records its data."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = False
        self.room: list[bool] = []
        """Whether there was room to write, at each notification."""

    def pause_writing(self) -> None:
        self.room.append(False)

    def resume_writing(self) -> None:
        self.room.append(True)

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


class UpgradeHandler:
    """A handler that answers an upgrade and passes the connection to a RecordingProtocol."""

    def __init__(self) -> None:
        self.protocols: list[RecordingProtocol] = []
        self.transports: list[asyncio.Transport] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.accept(request.protocol, request.headers["Sec-WebSocket-Key"])
        return Detached()

    def at_once(self, connection: Upgradable, message: Any) -> bool:
        self.accept(connection, message.headers["Sec-WebSocket-Key"])
        return True

    def accept(self, connection: Any, key: str) -> None:
        protocol = RecordingProtocol()
        transport = connection.transport
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        transport.write(f"{head}Sec-WebSocket-Accept: {accept_value(key)}\r\n\r\n".encode())
        protocol.data_received(connection.detach(protocol))
        self.protocols.append(protocol)
        self.transports.append(transport)


def upgraded(port: int, early: bytes = b"") -> Client:
    return connect("/", port=port, early=early, headers=[("Host", "h")])


def alive() -> list[str]:
    """Return the objects of aiohttp that belong to one connection or request."""
    gc.collect()
    kinds = (
        "RequestHandler",
        "Connection",
        "BaseRequest",
        "Request",
        "HttpRequestParser",
        "StreamReader",
        "StreamWriter",
        "RawRequestMessage",
    )
    return sorted(
        type(thing).__name__
        for thing in gc.get_objects()
        if type(thing).__name__ in kinds and type(thing).__module__.split(".")[0] in ("aiohttp", "wsbridge")
    )


async def test_takeover_leaves_no_objects_of_aiohttp(loop: asyncio.AbstractEventLoop, upgrading: tuple[UpgradeHandler, HttpServer]) -> None:
    """After a takeover, no task, connection, parser or request of aiohttp remains."""
    before_tasks, before = asyncio.all_tasks(), alive()
    handler, server = upgrading
    async with serving(server, loop) as port:
        clients = [await asyncio.to_thread(upgraded, port) for _ in range(5)]
        try:
            await until(lambda: asyncio.all_tasks() == before_tasks, "the end of aiohttp's tasks")
            await until(lambda: server.connections == [], "the server to drop its connections")
            await until(lambda: alive() == before, f"the end of aiohttp's objects; there are {alive()} beside {before}")
            assert not any(transport.is_closing() for transport in handler.transports)
            for client in clients:
                client.send_raw(b"still there")
            await until(
                lambda: [bytes(protocol.data) for protocol in handler.protocols] == [b"still there"] * 5, "the bytes of the clients"
            )
        finally:
            for client in clients:
                client.drop()
        await until(lambda: all(protocol.lost for protocol in handler.protocols), "the ends of the connections")


EARLY = {"none": b"", "a byte": b"\x81", "a frame": encode_frame(b"early"), "many": encode_frame(b"x" * 1000) * 300}


@pytest.mark.parametrize("early", EARLY.values(), ids=EARLY.keys())
async def test_early_bytes_arrive(loop: asyncio.AbstractEventLoop, upgrading: tuple[UpgradeHandler, HttpServer], early: bytes) -> None:
    """Bytes in the segment of the request reach the new protocol, exactly once."""
    handler, server = upgrading
    async with serving(server, loop) as port:
        client = await asyncio.to_thread(upgraded, port, early)
        await asyncio.to_thread(client.send_raw, b"later")
        await until(lambda: len(handler.protocols[0].data) >= len(early) + 5, "all bytes")
        assert bytes(handler.protocols[0].data) == early + b"later"
        client.drop()
        await until(lambda: handler.protocols[0].lost, "the end of the connection")


async def test_disconnect_during_the_upgrade(loop: asyncio.AbstractEventLoop) -> None:
    """If a client disconnects before the takeover, the new protocol is notified."""
    gone = asyncio.Event()
    handler = UpgradeHandler()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await gone.wait()
        return await handler(request)

    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = request_bytes("GET", "/", [("Host", "h"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key)])
    async with serving(make_server(slow, loop), loop) as port:
        stream = open_stream(port=port)
        stream.send(head)
        stream.reset()
        gone.set()
        await until(lambda: not handler.protocols or handler.protocols[0].lost, "the end of the connection")


async def test_requests_before_the_upgrade(loop: asyncio.AbstractEventLoop) -> None:
    """An upgrade may follow other requests on the same connection."""
    handler = UpgradeHandler()

    async def both(request: web.BaseRequest) -> web.StreamResponse:
        return await handler(request) if "Upgrade" in request.headers else await ok(request)

    def ask(port: int) -> bytes:
        with open_stream(port=port) as stream:
            for _ in range(2):
                stream.send(request_bytes("GET", "/", [("Host", "h")]))
                assert read_response(stream).body == b"ok"
            key = "dGhlIHNhbXBsZSBub25jZQ=="
            headers = [("Host", "h"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key)]
            stream.send(request_bytes("GET", "/", headers, b"early"))
            return read_response(stream).status.to_bytes(2, "big")

    async with serving(make_server(both, loop), loop) as port:
        assert await asyncio.to_thread(ask, port) == (101).to_bytes(2, "big")
        await until(lambda: handler.protocols[0].lost, "the end of the connection")
        assert bytes(handler.protocols[0].data) == b"early"


async def test_upgrade_after_unsent_responses(loop: asyncio.AbstractEventLoop) -> None:
    """If unsent responses fill the connection at its takeover, the new protocol is paused, and later resumed."""
    handler, filled = UpgradeHandler(), asyncio.Event()

    async def fill(request: web.BaseRequest) -> web.StreamResponse:
        transport: Any = request.transport
        while not transport.get_write_buffer_size():
            transport.write(b"x" * 65536)
        transport.set_write_buffer_limits(high=1)
        filled.set()
        return await handler(request)

    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = request_bytes("GET", "/", [("Host", "h"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key)])
    async with serving(make_server(fill, loop), loop) as port:
        with open_stream(port=port, receive_buffer=1 << 16) as stream:
            stream.send(head)
            await until(lambda: handler.protocols, "the takeover")
            protocol = handler.protocols[0]
            assert protocol.room == [False]
            while protocol.room == [False]:
                await asyncio.to_thread(stream.sock.recv, 1 << 20)
            assert protocol.room == [False, True]


async def test_server_header(loop: asyncio.AbstractEventLoop) -> None:
    """The Server header names wsbridge, not its libraries and their versions."""

    def ask(port: int) -> str | None:
        with open_stream(port=port) as stream:
            stream.send(request_bytes("GET", "/", [("Host", "h")]))
            return read_response(stream).value("Server")

    async with serving(make_server(ok, loop), loop) as port:
        assert await asyncio.to_thread(ask, port) == "wsbridge"


async def test_upgrade_after_another_request(loop: asyncio.AbstractEventLoop) -> None:
    """An upgrade sent after a request waits for the response to that request; then the handler serves it."""
    handler, answer = UpgradeHandler(), asyncio.Event()

    async def both(request: web.BaseRequest) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            return await handler(request)
        await answer.wait()
        return await ok(request)

    def refuse(connection: Upgradable, message: object) -> bool:
        raise AssertionError("another request is in progress")

    headers = [("Host", "h"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]

    def ask(port: int) -> list[int]:
        with open_stream(port=port) as stream:
            stream.send(request_bytes("GET", "/", [("Host", "h")]) + request_bytes("GET", "/", headers, b"early"))
            loop.call_soon_threadsafe(answer.set)
            return [read_response(stream).status, read_response(stream).status]

    async with serving(make_server(both, loop, on_upgrade=refuse), loop) as port:
        assert await asyncio.to_thread(ask, port) == [200, 101]
        await until(lambda: handler.protocols[0].lost, "the end of the connection")
        assert bytes(handler.protocols[0].data) == b"early"


@pytest.mark.parametrize("kind", ["field", "fields"])
async def test_header_after_another_request_is_bounded(loop: asyncio.AbstractEventLoop, kind: str) -> None:
    """While a request is answered, the limit of a header section also applies to the bytes after it."""
    answer = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await answer.wait()
        return await ok(request)

    def flood(port: int) -> int:
        with open_stream(port=port) as stream:
            stream.send(request_bytes("GET", "/", [("Host", "h")]) + b"GET / HTTP/1.1\r\n")
            sent = 0
            try:
                for number in range(64 * 16):
                    stream.send(b"a" * 65_536 if kind == "field" else b"%08d: %s\r\n" % (number, b"a" * 65_000))
                    sent += 65_536
            except OSError:
                pass
            return sent

    async with serving(make_server(slow, loop), loop) as port:
        assert await asyncio.to_thread(flood, port) < 32 * 1024 * 1024
        answer.set()


@pytest.mark.parametrize("body", [b"", b"x" * 3_000_000], ids=["no body", "a body"])
async def test_body_is_not_a_header(loop: asyncio.AbstractEventLoop, body: bytes) -> None:
    """A body that arrives while its request is answered does not count as a header section, and the next request follows it."""

    async def count(request: web.BaseRequest) -> web.Response:
        return web.Response(text=str(sum([len(chunk) async for chunk in request.content.iter_any()])))

    def ask(port: int) -> list[bytes]:
        with open_stream(port=port) as stream:
            head = request_bytes("POST", "/", [("Host", "h"), ("Content-Length", str(len(body)))])
            stream.send(head)
            stream.send(body)
            first = read_response(stream).body
            stream.send(head + body + request_bytes("GET", "/", [("Host", "h")]))
            return [first, read_response(stream).body, read_response(stream).body]

    async with serving(make_server(count, loop), loop) as port:
        assert await asyncio.to_thread(ask, port) == [str(len(body)).encode()] * 2 + [b"0"]


@pytest.mark.parametrize("cut", [0, 1, 6, 7, 20])
async def test_target_in_utf8(loop: asyncio.AbstractEventLoop, cut: int) -> None:
    """A UTF-8 target is percent-encoded, in whatever parts it arrives; the other headers stay unchanged."""

    async def echo(request: web.BaseRequest) -> web.Response:
        return web.Response(text=f"{request.raw_path} {request.headers['X-Name']}")

    request = "GET /é?q=ü HTTP/1.1\r\nHost: h\r\nX-Name: ö\r\n\r\n".encode()

    def ask(port: int) -> list[str]:
        with open_stream(port=port) as stream:
            answers: list[str] = []
            for _ in range(2):
                stream.send(request[:cut])
                stream.send(request[cut:])
                answers.append(read_response(stream).body.decode())
            return answers

    async with serving(make_server(echo, loop), loop) as port:
        assert await asyncio.to_thread(ask, port) == ["/%C3%A9?q=%C3%BC ö"] * 2
