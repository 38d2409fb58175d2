"""The beginning of a connection: an upgrade request that arrives first, and whole, reaches `on_upgrade` without aiohttp's connection.

Most connections of a bridge begin with such a request. For every other connection, and for a request that `on_upgrade` refuses, the
server makes a `Connection` and hands it every byte, so all of its rules apply. A session then needs no task, and no object of aiohttp's
but the parsed head. The event loop spends 12 to 18 % less processor time on it (1,500 sessions, 16 at once).

A client sends its request at once: it has mostly come when the transport is made. `look` reads it then, which saves a turn of the
loop: one client after the other gets its first line in 1.5x of websocketd's time instead of 1.9x (medians of three runs).
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

HEAD_BYTES = 1024 * 1024
HEAD_LIMITS: dict[str, Any] = {"max_line_size": HEAD_BYTES, "max_field_size": HEAD_BYTES, "max_headers": 1024}
"""What the parser takes."""

READ_BYTES = 64 * 1024
"""What `look` reads of a socket."""

END = b"\r\n\r\n"
ASKS = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Upgradable(Protocol):
    """A connection whose client has asked for a WebSocket."""

    transport: Any
    """An asyncio.Transport, None once the connection is lost."""

    def take_over(self, protocol: asyncio.Protocol) -> bytes:
        """Give the transport to a protocol of ours; return what came behind the request in the same segment."""


OnUpgrade = Callable[[Upgradable, RawRequestMessage], bool]
"""Is offered a request for an upgrade, and says whether it has taken the connection over."""


class Greeting(asyncio.Protocol):
    """A connection until its first bytes come: they make it a session, or a connection of aiohttp's."""

    __slots__ = ("_connection", "_early", "_loop", "_on_upgrade", "_seconds", "_silent", "_sock", "_timer", "transport")

    def __init__(
        self,
        *,
        on_upgrade: OnUpgrade,
        connection: Callable[[], asyncio.Protocol],
        silent: set[Greeting],
        seconds: float,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket | None = None,
    ) -> None:
        """`silent` holds it until the client speaks, for at most so many seconds. With `sock`, the socket below a transport without
        TLS, it waits for `look`.
        """
        self.transport: Any = None
        self._on_upgrade = on_upgrade
        self._connection = connection
        self._silent = silent
        self._seconds = seconds
        self._loop = loop
        self._sock = sock
        self._timer: asyncio.TimerHandle | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self._sock is None:
            self._wait()

    def look(self) -> None:
        """Read what has come already.

        Call it in the turn in which the transport begins to read, but after that: aiofastnet 1.2 would else begin to read a socket
        that has just been closed, and nothing would be read of the next one with its number.
        """
        sock, self._sock = self._sock, None
        if sock is None or self.transport is None or self.transport.is_closing():
            return
        try:
            data = sock.recv(READ_BYTES)
        except OSError:
            # There is nothing yet, or the connection has ended, which its transport finds.
            data = b""
        if data:
            self._begin(data)
        else:
            self._wait()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._has_spoken()
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self._has_spoken()
        self._begin(data)

    def _begin(self, data: bytes) -> None:
        message, self._early = self._read(data)
        if message is not None and self._on_upgrade(self, message):
            return
        connection = self._connection()
        self.transport.set_protocol(connection)
        connection.connection_made(self.transport)
        connection.data_received(data)

    def take_over(self, protocol: asyncio.Protocol) -> bytes:
        self.transport.set_protocol(protocol)
        return self._early

    def close(self) -> None:
        """Close the connection, whose client has said nothing."""
        self.transport.close()

    def _wait(self) -> None:
        self._silent.add(self)
        self._timer = self._loop.call_later(self._seconds, self.close)

    def _has_spoken(self) -> None:
        self._silent.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def _read(self, data: bytes) -> tuple[RawRequestMessage | None, bytes]:
        """Return the request for an upgrade that is a whole head of these bytes, and what follows it. It has no body."""
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
