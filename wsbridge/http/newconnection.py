"""The beginning of a connection: an upgrade request that arrives first, and complete, reaches `on_upgrade` without aiohttp's connection.

Most connections of a bridge begin with such a request. For every other connection, and for a request that `on_upgrade` declines, the
server creates a `Connection`. It gets every byte, so all rules of `Connection` apply. A session then needs no task, and no object
of aiohttp except the parsed head. The event loop needs 12 to 18 % less processor time for it (1,500 sessions, 16 at once).

A client sends its request at once: the request has usually arrived when the server creates the transport. `read_available` reads it
then, which saves a loop iteration. With one client after another, the first line arrives in 1.5x of websocketd's time instead of
1.9x (medians of three runs).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD

from wsbridge.net.listeners import Incoming

HEAD_BYTES = 1024 * 1024
HEAD_LIMITS: dict[str, Any] = {"max_line_size": HEAD_BYTES, "max_field_size": HEAD_BYTES, "max_headers": 1024}
"""The limits of the parser."""

READ_BYTES = 64 * 1024
"""The most bytes that `read_available` reads from a socket."""

END = b"\r\n\r\n"
ASKS = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Upgradable(Protocol):
    """A connection whose client has requested a WebSocket."""

    transport: Any
    """An asyncio.Transport; None after the connection is lost."""

    def detach(self, protocol: asyncio.Protocol) -> bytes:
        """Set another protocol on the transport; return the bytes that followed the request in the same read."""


OnUpgrade = Callable[[Upgradable, RawRequestMessage], bool]
"""Receives an upgrade request; returns whether it has taken the connection over."""


class NewConnection(Incoming):
    """A connection until its first bytes arrive: they make it a session, or a connection of aiohttp."""

    __slots__ = ("_connection", "_early", "_idle", "_loop", "_on_upgrade", "_seconds", "_sock", "_timer", "transport")

    def __init__(
        self,
        *,
        on_upgrade: OnUpgrade,
        connection: Callable[[], asyncio.Protocol],
        idle: set[NewConnection],
        seconds: float,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket | None = None,
    ) -> None:
        """`idle` contains the connection until the client sends bytes, for at most `seconds`. With `sock`, the socket of a transport
        without TLS, the connection waits for `read_available`.
        """
        self.transport: Any = None
        self._on_upgrade = on_upgrade
        self._connection = connection
        self._idle = idle
        self._seconds = seconds
        self._loop = loop
        self._sock = sock
        self._timer: asyncio.TimerHandle | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self._sock is None:
            self._wait()

    def read_available(self) -> None:
        """Read the bytes that have already arrived.

        Call it in the loop iteration in which the transport begins to read, but after that call. Otherwise aiofastnet 1.2 would
        register a socket that has just been closed, and the loop would never read the next socket with the same number.
        """
        sock, self._sock = self._sock, None
        if sock is None or self.transport is None or self.transport.is_closing():
            return
        try:
            data = sock.recv(READ_BYTES)
        except OSError:
            # No byte has arrived, or the connection has ended, which the transport detects.
            data = b""
        if data:
            self._dispatch(data)
        else:
            self._wait()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self._stop_waiting()
        self._dispatch(data)

    def _dispatch(self, data: bytes) -> None:
        message, self._early = self._read(data)
        if message is not None and self._on_upgrade(self, message):
            return
        connection = self._connection()
        self.transport.set_protocol(connection)
        connection.connection_made(self.transport)
        connection.data_received(data)

    def detach(self, protocol: asyncio.Protocol) -> bytes:
        self.transport.set_protocol(protocol)
        return self._early

    def close(self) -> None:
        """Close the connection: its client has sent nothing."""
        self.transport.close()

    def _wait(self) -> None:
        self._idle.add(self)
        self._timer = self._loop.call_later(self._seconds, self.close)

    def _stop_waiting(self) -> None:
        self._idle.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def _read(self, data: bytes) -> tuple[RawRequestMessage | None, bytes]:
        """Return the upgrade request if these bytes begin with a complete head, and the bytes after it. The request has no body."""
        end = data.find(END) + len(END)
        head = data[:end]
        if end < len(END) or not ASKS.search(head) or not head.isascii():
            return None, b""
        parser = HttpRequestParser(BaseProtocol(self._loop), self._loop, 0, **HEAD_LIMITS)
        try:
            [(message, body)], _, _ = parser.feed_data(head)
        except (HttpProcessingError, ValueError):
            return None, b""
        return message if message.upgrade and body is EMPTY_PAYLOAD else None, data[end:]
