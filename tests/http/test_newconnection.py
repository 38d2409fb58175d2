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


class RecordingProtocol(asyncio.Protocol):
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


class UpgradeRecorder:
    """Accepts or refuses each offer, and records it."""

    def __init__(self, *, accepts: bool = True, seconds: float = 3600) -> None:
        self.accepts = accepts
        self.seconds = seconds
        self.offered: list[Any] = []
        self.session = RecordingProtocol()
        self.connection = RecordingProtocol()
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
        if self.accepts:
            self.session.data += connection.detach(self.session)
        return self.accepts


@pytest.fixture(params=["aiofastnet", "asyncio"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of transports."""
    if request.param == "aiofastnet":
        pytest.importorskip("aiofastnet")
    monkeypatch.setenv("WSBRIDGE_FASTNET", "1" if request.param == "aiofastnet" else "0")


@asynccontextmanager
async def connected(recorder: UpgradeRecorder) -> AsyncIterator[socket.socket]:
    """Yield the client of a connection that was just accepted."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    greeting = recorder.greeting()
    plain_transports(loop)(greeting, theirs)
    with ours:
        ours.setblocking(False)
        await until(lambda: bool(recorder.silent), "the connection")
        yield ours
    await until(lambda: greeting.transport is None or recorder.session.is_lost or recorder.connection.is_lost, "the end of the connection")


def accept(recorder: UpgradeRecorder, sock: socket.socket) -> NewConnection:
    """Create a connection from a socket, as a listener without TLS does."""
    loop, greeting = asyncio.get_running_loop(), recorder.greeting(sock)
    plain_transports(loop)(greeting, sock)
    loop.call_soon(greeting.read_available)
    return greeting


@contextmanager
def all_to_aiohttp(recorder: UpgradeRecorder, stream: bytes) -> Iterator[None]:
    """Check that aiohttp's connection gets every byte, and the session none."""
    yield
    assert recorder.connection.is_connected
    assert recorder.connection.data == stream
    assert not recorder.session.data


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("early", [b"", b"\x81\x80\x00\x00\x00\x00", b"\r\n\r\nGET"])
async def test_whole_request_is_offered(early: bytes) -> None:
    """The session receives all bytes after the request, in the same segment and later; aiohttp receives none."""
    recorder = UpgradeRecorder()
    async with connected(recorder) as client:
        client.sendall(UPGRADE + early)
        await until(lambda: bool(recorder.offered), "the offer")
        client.sendall(b"later")
        await until(lambda: recorder.session.data == early + b"later", "the later bytes")
        assert not recorder.silent
    [message] = recorder.offered
    assert (message.method, message.path, message.headers["Host"]) == ("GET", "/a?b", "h")
    assert not recorder.connection.is_connected


@pytest.mark.usefixtures("kind")
async def test_request_that_is_refused() -> None:
    """If the offer is refused, aiohttp's connection receives every byte, including those after the request."""
    recorder = UpgradeRecorder(accepts=False)
    async with connected(recorder) as client:
        with all_to_aiohttp(recorder, UPGRADE + b"early"):
            client.sendall(UPGRADE + b"early")
            await until(lambda: bool(recorder.connection.data), "the bytes")
    assert len(recorder.offered) == 1


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
    recorder = UpgradeRecorder(accepts=False)
    async with connected(recorder) as client:
        with all_to_aiohttp(recorder, stream):
            client.sendall(stream)
            await until(lambda: bool(recorder.connection.data), "the bytes")
    assert len(recorder.offered) == (stream == OTHERS["an empty body"])


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("early", [b"", b"early"])
async def test_request_that_arrived_before(early: bytes, accepts: bool) -> None:
    """Bytes that arrived before the transport reads precede the later bytes, and no byte is lost or repeated."""
    recorder = UpgradeRecorder(accepts=accepts)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours:
        ours.sendall(UPGRADE + early)
        accept(recorder, theirs)
        await until(lambda: bool(recorder.offered), "the offer")
        ours.sendall(b"later")
        receiver, data = (recorder.session, b"") if accepts else (recorder.connection, UPGRADE)
        await until(lambda: receiver.data == data + early + b"later", "the later bytes")
        assert not recorder.silent
    await until(lambda: receiver.is_lost, "the end of the connection")


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("resets", [True, False])
async def test_client_that_has_disconnected(resets: bool) -> None:
    """If a client closes or resets its connection before the transport reads, the greeting ends and offers nothing."""
    recorder = UpgradeRecorder()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.setblocking(False)
        if resets:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ours.close()
        greeting = accept(recorder, theirs)
        await until(lambda: theirs.fileno() == -1, "the end of the connection")
    assert (greeting.transport, recorder.silent, recorder.offered, recorder.connection.is_connected) == (None, set(), [], False)


@pytest.mark.usefixtures("kind")
async def test_silent_client() -> None:
    """A connection without any bytes closes at its timeout, and is forgotten."""
    recorder = UpgradeRecorder(seconds=0.05)
    async with connected(recorder) as client:
        await until(lambda: not recorder.silent, "the timeout")
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    assert not recorder.connection.is_connected


@pytest.mark.usefixtures("kind")
async def test_client_that_disconnects_silently() -> None:
    """A connection that a client closes without sending any bytes is forgotten."""
    recorder = UpgradeRecorder()
    async with connected(recorder) as client:
        client.close()
        await until(lambda: not recorder.silent, "the end of the connection")
    assert not recorder.connection.is_connected
    assert not recorder.offered


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("ends", ["write", "close", "abort"])
async def test_connection_that_ends_as_it_begins(ends: str) -> None:
    """If a connection ends as it begins, the server still reads the next connection with the same descriptor."""
    loop = asyncio.get_running_loop()
    recorder = UpgradeRecorder()

    def end(connection: Upgradable, message: Any) -> bool:
        connection.transport.write(b"101")
        if ends != "write":
            getattr(connection.transport, ends)()
        connection.detach(recorder.session)
        return True

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    number = theirs.fileno()
    ours.sendall(UPGRADE)
    if ends == "write":
        ours.close()
    with ours:
        greeting = NewConnection(on_upgrade=end, connection=RecordingProtocol, idle=recorder.silent, seconds=3600, loop=loop, sock=theirs)
        plain_transports(loop)(greeting, theirs)
        loop.call_soon(greeting.read_available)
        await until(lambda: theirs.fileno() == -1 and recorder.session.is_lost, "the end of the connection")
    ours, theirs = socket.socketpair()
    if theirs.fileno() != number:
        ours, theirs = theirs, ours
    assert theirs.fileno() == number
    theirs.setblocking(False)
    recorder = UpgradeRecorder()
    greeting = accept(recorder, theirs)
    with ours:
        await until(lambda: bool(recorder.silent), "the connection")
        ours.sendall(UPGRADE)
        await until(lambda: bool(recorder.offered), "the offer")
    await until(lambda: recorder.session.is_lost, "the end of the connection")
