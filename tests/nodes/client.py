"""A lightweight client of wsbridge.v1 on asyncio's streams, of which one process runs hundreds.

Each producer numbers its messages consecutively. A client reconnects to any node with its last position. It fails at once if a number
is repeated, or missing without a notice of lost messages.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket

from tests.support.client import DEADLINE
from tests.support.deadline import scaled

PING, CLOSE = 9, 8


class Fan:
    """One client. `last` is the number of its last message, `count` the number of messages."""

    def __init__(self) -> None:
        self.position: str | None = None
        self.last: int | None = None
        self.first: int | None = None
        self.count = 0
        self.lost = 0
        self.renewals = 0
        self.words: list[str] = []
        self.arrived = asyncio.Event()
        """Set when a message arrives; the task that waits for it clears it."""
        self.pause = asyncio.Event()
        """While this event is cleared, the client does not read."""
        self.pause.set()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"{self.count} messages from {self.first} to {self.last}, {self.lost} lost, ? {self.renewals} times, {self.words}"

    async def come(self, port: int, *, receive_buffer: int | None = None) -> None:
        """Connect to a node, with the position if the client has one, and start reading."""
        await self.leave()
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        async with asyncio.timeout(scaled(DEADLINE * 3)):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            reader, self._writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
            since = f"?since={self.position}" if self.position else ""
            key = base64.b64encode(os.urandom(16)).decode()
            self._writer.write(
                f"GET /{since} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: wsbridge.v1\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self._reading = asyncio.create_task(self._read(reader, self._writer), name="fan")

    async def leave(self) -> None:
        """Disconnect without a close frame; raise the error of the reading task, if any."""
        reading, self._reading = self._reading, None
        if reading is None:
            return
        if not reading.done():
            reading.cancel()
        try:
            await reading
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            assert self._writer is not None
            self._writer.transport.abort()

    async def ended(self) -> None:
        """Wait until the node has closed the connection."""
        assert self._reading is not None
        async with asyncio.timeout(scaled(DEADLINE * 3)):
            await asyncio.wait((self._reading,))
        await self.leave()

    @property
    def is_broken(self) -> bool:
        return self._reading is not None and self._reading.done()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self.pause.wait()
            head = await reader.readexactly(2)
            size = head[1]
            if size >= 126:
                size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
            payload = await reader.readexactly(size)
            match head[0] & 15:
                case 1 | 2:
                    self._handle_message(payload)
                case 9:
                    writer.write(bytes((0x8A, 0x80 | size)) + b"\0\0\0\0" + payload)
                case 8:
                    return

    def _handle_message(self, payload: bytes) -> None:
        if payload.startswith(b"!"):
            self._record(payload.decode().split(" "))
            return
        line, _, message = payload.partition(b"\n")
        self.position = line.decode()
        number = int(message.split(b" ", 1)[0])
        if self.last is None:
            self.first = number
        else:
            missing = number - self.last - 1
            assert missing >= 0, f"{number} is repeated: {self}"
            assert missing <= self._may_miss, f"a gap without a notice before {number}: {self}"
        self._may_miss = 0
        self.last = number
        self.count += 1
        self.arrived.set()

    _may_miss: float = 0

    def _record(self, words: list[str]) -> None:
        match words:
            case ["!at", position]:
                self.position = position
            case ["!lost", position, "?"]:
                self.position = position
                self.renewals += 1
                self._may_miss = float("inf")
            case ["!lost", position, count]:
                self.position = position
                self.lost += int(count)
                self._may_miss += int(count)
            case ["!broker", word]:
                self.words.append(word)
