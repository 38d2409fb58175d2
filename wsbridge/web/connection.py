"""An HTTP connection of aiohttp, with the bounds that it lacks, and the way out of it into a WebSocket.

This file is the only one that knows aiohttp's inside; tests/web/test_connection.py fails when that changes.

- A request's head must be complete within 10 s of the connection, and be no longer than 1 MiB.
- A target that was typed in UTF-8 (`curl http://host/é`) gets its percent signs before the strict parser sees it.
- A request for an upgrade that comes when nothing else is under way is offered to `on_upgrade` at once, before any task.
- `take_over` gives the transport to a protocol of ours. What remains of aiohttp's is told that its connection was lost
  and is collected: a session costs no task, no parser and no request object.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web
from aiohttp._websocket.helpers import websocket_mask
from aiohttp.http import SERVER_SOFTWARE, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from wsbridge.wire.frames import Mask

HEAD_SECONDS = 10.0
HEAD_BYTES = 1024 * 1024
FOR_EVER = 365 * 86400.0
"""Seconds: an idle connection is not cut. With 0, aiohttp would cut it at once."""
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 15, 15, 9
"""Seconds and probes after which a peer that vanished is noticed: about 150 s, as with Go's server."""

BEYOND_ASCII = re.compile(rb"[\x80-\xff]")

MASK: Mask = websocket_mask
"""aiohttp's compiled XOR: 5 GB/s where Python has 0.3."""

ErrorPage = Callable[[int, str], web.Response]
OnUpgrade = Callable[["Connection", RawRequestMessage], bool]
"""Is offered a request for an upgrade, and says whether it has taken the connection over."""


class Connection(RequestHandler):
    """One HTTP connection."""

    __slots__ = ("_error_page", "_head_bytes", "_head_timer", "_heads_seen", "_in_request_line", "_is_broken", "_on_upgrade")

    def __init__(self, manager: Server, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(manager, loop=loop, **options)
        self._error_page = manager.error_page
        self._on_upgrade = manager.on_upgrade
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._heads_seen = 0
        self._in_request_line = True
        self._is_broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        set_keepalive(transport.get_extra_info("socket"))
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_has_come()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.force_close()
            return
        is_idle = self._waiter is not None and not self._waiter.done()
        if data and (is_idle or self._body_has_come()):
            if is_idle:
                if self._head_timer is None:
                    self._await_head()
                if self._in_request_line:
                    data = self._escaped(data)
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                # The end of the head may be in here, and all that is too much be a body.
                end = data.find(b"\r\n\r\n")
                if end < 0 or self._head_bytes - len(data) + end > HEAD_BYTES:
                    self._refuse_head(is_idle)
                    return
        super().data_received(data)
        if self._request_count != self._heads_seen:
            self._heads_seen = self._request_count
            self._head_bytes = 0
            self._in_request_line = True
            self._head_has_come()
            if self._messages:
                self._look_at(self._messages[-1][0], may_upgrade=is_idle and self._upgraded and len(self._messages) == 1)

    def _body_has_come(self) -> bool:
        """Whether the request that is being answered is complete: what comes now is the head of another."""
        if self._messages:
            return self._messages[-1][1].is_eof()
        return self._current_request is not None and self._current_request.content.is_eof()

    def _escaped(self, data: bytes) -> bytes:
        line, newline, rest = data.partition(b"\n")
        self._in_request_line = not newline
        return data if line.isascii() else BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line) + newline + rest

    def _look_at(self, message: object, *, may_upgrade: bool) -> None:
        if not isinstance(message, RawRequestMessage):
            # It could not be read, and will be answered so; what follows it has no meaning.
            self._is_broken = True
        elif may_upgrade:
            task = self._task_handler
            if self._on_upgrade(self, message):
                self._messages.clear()
                if task is not None:
                    task.cancel()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what aiohttp could not read, or what failed, in our own form. The connection is closed after it."""
        if isinstance(exc, LineTooLong):
            status, message = 431, f"a header field or the request line is longer than {HEAD_BYTES} bytes"
        elif isinstance(exc, HttpProcessingError) and "many headers" in (message or "").lower():
            status = 431
        if status == 500:
            self.log_exception("Error handling request", exc_info=exc)
        response = self._error_page(status, (message or "").split("\n")[0])
        response.force_close()
        return response

    def take_over(self, protocol: asyncio.Protocol) -> bytes:
        """Give the transport to another protocol; return what came after the request in the same segment.

        The request that asked for it is answered, and its task is left to end by itself.
        """
        transport = self.transport
        assert transport is not None
        early = _Early()
        self.set_parser(cast("Any", early))
        transport.set_protocol(protocol)
        if self._paused:
            # By what is still to be sent of answers before this one; the transport says so once, and it was to us.
            protocol.pause_writing()
        self.transport = None
        self._task_handler = None
        self.connection_lost(None)
        # aiohttp may have held up a client that sends before it was told to.
        if not transport.is_closing():
            transport.resume_reading()
        return bytes(early.data)

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_has_come(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        self.force_close()

    def _refuse_head(self, is_idle: bool) -> None:
        transport = self.transport
        if transport is not None and is_idle:
            transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
                b"Content-Length: 36\r\nConnection: close\r\n\r\n431 Request Header Fields Too Large\n"
            )
        self._head_bytes = 0
        self.force_close()


class Asked(web.BaseRequest):
    """A request whose answer says that it is ours, and not by which libraries of what versions it is made."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        if response.headers.get("Server") == SERVER_SOFTWARE:
            response.headers["Server"] = "wsbridge"


class Server(web.Server):
    """aiohttp's low-level server, with our connections."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Any],
        *,
        error_page: ErrorPage,
        on_upgrade: OnUpgrade = lambda connection, message: False,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.error_page = error_page
        self.on_upgrade = on_upgrade
        super().__init__(
            handler,
            handler_cancellation=True,
            access_log=None,
            max_line_size=HEAD_BYTES,
            max_field_size=HEAD_BYTES,
            max_headers=1024,
            lingering_time=1.0,
            auto_decompress=False,
            keepalive_timeout=FOR_EVER,
            tcp_keepalive=False,
        )

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return Asked(message, payload, protocol, writer, task, self._loop)


class _Early:
    """Stands in for a payload parser and keeps what came with the upgrade."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The connection has been taken over."""


def set_keepalive(sock: socket.socket | None) -> None:
    """Have the kernel notice a peer that vanished, on TCP."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
