"""The first bytes of a connection: a complete WebSocket request is offered at once, all others go to aiohttp's connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from tests.support.proc import until
from wsbridge.http.newconnection import NewConnection, Upgradable
from wsbridge.net.transports import plain_transports

UPGRADE = b"GET /a?b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class Heard(asyncio.Protocol):
    """Records its data, in place of a session and of aiohttp's connection."""

    def __init__(self) -> None:
        self.data = b""
        self.is_connected = self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_connected = True

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self.is_lost = True


class Desk:
    """Accepts or refuses each offer, and records it."""

    def __init__(self, *, takes: bool = True, seconds: float = 3600) -> None:
        self.takes = takes
        self.seconds = seconds
        self.offered: list[Any] = []
        self.session = Heard()
        self.connection = Heard()
        self.silent: set[NewConnection] = set()

    def greeting(self, sock: socket.socket | None = None) -> NewConnection:
        return NewConnection(
            on_upgrade=self.offer,
            connection=lambda: self.connection,
            idle=self.silent,
            seconds=self.seconds,
            loop=asyncio.get_running_loop(),
            sock=sock,
        )

    def offer(self, connection: Upgradable, message: Any) -> bool:
        self.offered.append(message)
        if self.takes:
            self.session.data += connection.detach(self.session)
        return self.takes


@pytest.fixture(params=["aiofastnet", "asyncio"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of transports."""
    if request.param == "aiofastnet":
        pytest.importorskip("aiofastnet")
    monkeypatch.setenv("WSBRIDGE_FASTNET", "1" if request.param == "aiofastnet" else "0")


@asynccontextmanager
async def connected(desk: Desk) -> AsyncIterator[socket.socket]:
    """Yield the client of a connection that was just accepted."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    greeting = desk.greeting()
    plain_transports(loop)(greeting, theirs)
    with ours:
        ours.setblocking(False)
        await until(lambda: bool(desk.silent), "the connection")
        yield ours
    await until(lambda: greeting.transport is None or desk.session.is_lost or desk.connection.is_lost, "the end of the connection")


def accept(desk: Desk, sock: socket.socket) -> NewConnection:
    """Create a connection from a socket, as a listener without TLS does."""
    loop, greeting = asyncio.get_running_loop(), desk.greeting(sock)
    plain_transports(loop)(greeting, sock)
    loop.call_soon(greeting.read_available)
    return greeting


@contextmanager
def all_to_aiohttp(desk: Desk, stream: bytes) -> Iterator[None]:
    """Check that aiohttp's connection gets every byte, and the session none."""
    yield
    assert desk.connection.is_connected
    assert desk.connection.data == stream
    assert not desk.session.data


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("early", [b"", b"\x81\x80\x00\x00\x00\x00", b"\r\n\r\nGET"])
async def test_whole_request_is_offered(early: bytes) -> None:
    """The session receives all bytes after the request, in the same segment and later; aiohttp receives none."""
    desk = Desk()
    async with connected(desk) as client:
        client.sendall(UPGRADE + early)
        await until(lambda: bool(desk.offered), "the offer")
        client.sendall(b"later")
        await until(lambda: desk.session.data == early + b"later", "the later bytes")
        assert not desk.silent
    [message] = desk.offered
    assert (message.method, message.path, message.headers["Host"]) == ("GET", "/a?b", "h")
    assert not desk.connection.is_connected


@pytest.mark.usefixtures("kind")
async def test_request_that_is_refused() -> None:
    """If the offer is refused, aiohttp's connection receives every byte, including those after the request."""
    desk = Desk(takes=False)
    async with connected(desk) as client:
        with all_to_aiohttp(desk, UPGRADE + b"early"):
            client.sendall(UPGRADE + b"early")
            await until(lambda: bool(desk.connection.data), "the bytes")
    assert len(desk.offered) == 1


OTHERS = {
    "no upgrade": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a part of a head": UPGRADE[:-1],
    "an upgrade behind another request": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" + UPGRADE,
    "a body": UPGRADE[:-2] + b"Content-Length: 3\r\n\r\nabc",
    "an empty body": UPGRADE[:-2] + b"Content-Length: 0\r\n\r\n",
    "chunks": UPGRADE[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "CONNECT": UPGRADE.replace(b"GET /a?b", b"CONNECT h:1"),
    "no Connection: Upgrade": UPGRADE.replace(b"Connection: Upgrade", b"Connection: close"),
    "a target that is no ASCII": UPGRADE.replace(b"/a?b", "/é".encode()),
    "a header that is no ASCII": UPGRADE.replace(b"Host: h", b"Host: h\r\nX: \xe9"),
    "a malformed head": UPGRADE.replace(b"Host: h", b"Host h"),
    "no HTTP": b"\x16\x03\x01\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("stream", OTHERS.values(), ids=OTHERS)
async def test_other_requests_go_to_aiohttp(stream: bytes) -> None:
    """With any other beginning, aiohttp's connection receives every byte from the first one on."""
    desk = Desk(takes=False)
    async with connected(desk) as client:
        with all_to_aiohttp(desk, stream):
            client.sendall(stream)
            await until(lambda: bool(desk.connection.data), "the bytes")
    assert len(desk.offered) == (stream == OTHERS["an empty body"])


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("takes", [True, False])
@pytest.mark.parametrize("early", [b"", b"early"])
async def test_request_that_arrived_before(early: bytes, takes: bool) -> None:
    """Bytes that arrived before the transport reads precede the later bytes, and no byte is lost or repeated."""
    desk = Desk(takes=takes)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours:
        ours.sendall(UPGRADE + early)
        accept(desk, theirs)
        await until(lambda: bool(desk.offered), "the offer")
        ours.sendall(b"later")
        heard, data = (desk.session, b"") if takes else (desk.connection, UPGRADE)
        await until(lambda: heard.data == data + early + b"later", "the later bytes")
        assert not desk.silent
    await until(lambda: heard.is_lost, "the end of the connection")


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("resets", [True, False])
async def test_client_that_has_disconnected(resets: bool) -> None:
    """If a client closes or resets its connection before the transport reads, the greeting ends and offers nothing."""
    desk = Desk()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.setblocking(False)
        if resets:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ours.close()
        greeting = accept(desk, theirs)
        await until(lambda: theirs.fileno() == -1, "the end of the connection")
    assert (greeting.transport, desk.silent, desk.offered, desk.connection.is_connected) == (None, set(), [], False)


@pytest.mark.usefixtures("kind")
async def test_silent_client() -> None:
    """A connection without any bytes closes at its timeout, and is forgotten."""
    desk = Desk(seconds=0.05)
    async with connected(desk) as client:
        await until(lambda: not desk.silent, "the timeout")
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    assert not desk.connection.is_connected


@pytest.mark.usefixtures("kind")
async def test_client_that_disconnects_silently() -> None:
    """A connection that a client closes without sending any bytes is forgotten."""
    desk = Desk()
    async with connected(desk) as client:
        client.close()
        await until(lambda: not desk.silent, "the end of the connection")
    assert not desk.connection.is_connected
    assert not desk.offered


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("ends", ["write", "close", "abort"])
async def test_connection_that_ends_as_it_begins(ends: str) -> None:
    """If a connection ends as it begins, the server still reads the next connection with the same descriptor."""
    loop = asyncio.get_running_loop()
    desk = Desk()

    def end(connection: Upgradable, message: Any) -> bool:
        connection.transport.write(b"101")
        if ends != "write":
            getattr(connection.transport, ends)()
        connection.detach(desk.session)
        return True

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    number = theirs.fileno()
    ours.sendall(UPGRADE)
    if ends == "write":
        ours.close()
    with ours:
        greeting = NewConnection(on_upgrade=end, connection=Heard, idle=desk.silent, seconds=3600, loop=loop, sock=theirs)
        plain_transports(loop)(greeting, theirs)
        loop.call_soon(greeting.read_available)
        await until(lambda: theirs.fileno() == -1 and desk.session.is_lost, "the end of the connection")
    ours, theirs = socket.socketpair()
    if theirs.fileno() != number:
        ours, theirs = theirs, ours
    assert theirs.fileno() == number
    theirs.setblocking(False)
    desk = Desk()
    greeting = accept(desk, theirs)
    with ours:
        await until(lambda: bool(desk.silent), "the connection")
        ours.sendall(UPGRADE)
        await until(lambda: bool(desk.offered), "the offer")
    await until(lambda: desk.session.is_lost, "the end of the connection")
