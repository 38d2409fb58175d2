"""`wsbridge.peers.wsclient`: the sink receives all messages in the order in which the server sent them, whenever they arrive."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.wire.peer import TEXT, frame
from wsbridge.errors import RemoteError
from wsbridge.flow import Batch, End, Kind
from wsbridge.peers.wsclient import WebSocketClient, connect, redirected
from wsbridge.wire import frames


class RecordingSink:
    """A sink that records what it receives."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.reason: End | None = None

    def write(self, batch: Batch) -> None:
        self.messages += map(bytes, batch.messages)

    def end(self, reason: End) -> None:
        self.reason = reason


def text(message: bytes) -> bytes:
    return frames.head(0x80 | Kind.TEXT, len(message)) + message


@pytest.mark.parametrize("cut", range(len(text(b"one") + text(b"two")) + 1))
@pytest.mark.parametrize("then", ["data", "end", "turn"])
async def test_data_with_the_upgrade_comes_first(cut: int, then: str) -> None:
    """The sink receives the data of the upgrade's segment before all later data, and before the end, even in the same turn."""
    loop, sink = asyncio.get_running_loop(), RecordingSink()
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    data = text(b"one") + text(b"two")
    early, late = (data[:cut], data[cut:]) if then == "data" else (data, b"")
    remote = WebSocketClient(transport, sink, early=early, limit=0, pings=False, loop=loop)
    assert sink.messages == []
    match then:
        case "data":
            remote.data_received(late)
        case "end":
            remote.connection_lost(None)
        case _:
            await asyncio.sleep(0)
    assert sink.messages == [b"one", b"two"]
    await asyncio.sleep(0)
    assert sink.messages == [b"one", b"two"]
    remote.connection_lost(None)
    transport.abort()
    theirs.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"masked"), 1002),
        (frame(b"\xff", mask=None), 1007),
        (frame(b"caf\xe9", mask=None), 1007),
        (bytes((0x80 | TEXT, 126, 0, 5)) + b"Hello", 1002),
        (bytes((0x80 | TEXT, 127, *bytes(7), 5)) + b"Hello", 1002),
        (frame(b"x", rsv=4, mask=None), 1002),
        (frame(b"x" * 2000, mask=None), 1009),
    ],
)
async def test_server_that_violates_the_protocol(sent: bytes, code: int) -> None:
    """The client closes on a masked frame, invalid UTF-8, a non-minimal length or a reserved bit. The sink receives the messages before
    it."""
    loop, sink = asyncio.get_running_loop(), RecordingSink()
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    remote = WebSocketClient(transport, sink, early=b"", limit=1000, pings=False, loop=loop)
    remote.data_received(text(b"before") + sent + text(b"after"))
    assert sink.messages == [b"before"]
    assert sink.reason is not None
    assert sink.reason.code == code
    answer = await loop.run_in_executor(None, theirs.recv, 1000)
    assert answer[0] == 0x88
    unmasked = bytes(byte ^ answer[2 + index % 4] for index, byte in enumerate(answer[6:]))
    assert int.from_bytes(unmasked[:2], "big") == code
    remote.connection_lost(None)
    transport.abort()
    theirs.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("ws://h/a?x", "/b", "ws://h/b"),
        ("ws://h/a", "http://other/b", "ws://other/b"),
        ("ws://h/a", "https://h/a?y", "wss://h/a?y"),
        ("ws://h/a", "wss://h/a", "wss://h/a"),
        ("wss://h/a/b", "c", "wss://h/a/c"),
        ("wss://h/a", "https://other:8443/b", "wss://other:8443/b"),
        ("wss://h/a", "//other/b", "wss://other/b"),
    ],
)
def test_redirect(url: str, location: str, target: str) -> None:
    """The client follows a redirect, relative or absolute, to the WebSocket at its target."""
    assert redirected(url, location) == target


@pytest.mark.parametrize("location", ["http://h/a", "ws://h/a", "HTTP://h/a"])
def test_redirect_from_tls_to_plain_text(location: str) -> None:
    """The client refuses a redirect from TLS to plain text. The error names the target without a password."""
    with pytest.raises(RemoteError, match="does not use TLS"):
        redirected("wss://h/a", location)
    with pytest.raises(RemoteError) as refused:
        redirected("wss://user:secret@h/a", "ws://user:secret@other/")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("location", ["ftp://h/a", "file:///etc/passwd", "javascript:alert(1)"])
def test_redirect_to_another_scheme(location: str) -> None:
    """The client refuses a redirect to a URL that is not a WebSocket's."""
    with pytest.raises(RemoteError, match="not a WebSocket URL"):
        redirected("ws://h/a", location)


async def test_endless_redirects() -> None:
    """The client gives up after too many redirects, and after an answer that is not an upgrade."""
    asked: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % len(asked))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RemoteError, match="redirects"):
            await connect(f"ws://127.0.0.1:{port}/", RecordingSink(), limit=0, pings=False, loop=asyncio.get_running_loop())
    assert asked == [b"/", *(b"/%d" % number for number in range(1, 10))]
