"""An HTTP connection of aiohttp, with the limits that aiohttp lacks, and the handover of its transport to a WebSocket.

This file and newconnection.py depend on the internals of aiohttp's server. tests/http/test_connection.py fails when those that this file
uses change.

- The head of a request must be complete within 10 s of its first byte, and be no longer than 1 MiB. The server closes a connection
  that waits for its next request after `keepalive_seconds`.
- The server percent-encodes a target that was typed in UTF-8 (`curl http://host/é`) before the strict parser sees it.
- The parser receives each head separately, so the response to a request does not depend on its TCP segments. The bytes that follow
  an upgrade request wait until the server has answered that request.
- If an upgrade request arrives while no other request is in progress, the connection offers it to `on_upgrade` at once, before any
  task handles it. newconnection.py offers the first request of a connection.
- `hangups` detects a client that disconnects while the server does not read its connection.
- `detach` passes the transport to another protocol. aiohttp's objects get `connection_lost` and are garbage-collected: a session
  needs no task, no parser and no request object.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp._websocket.helpers import websocket_mask
from aiohttp.http import SERVER_SOFTWARE, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE, RequestHandler

from wsbridge.errors import ConfigurationError
from wsbridge.http.newconnection import HEAD_BYTES, HEAD_LIMITS, NewConnection, OnUpgrade
from wsbridge.net.hangup import Hangups
from wsbridge.net.transports import socket_of
from wsbridge.settings import HttpTimings
from wsbridge.wire.reader import Mask
from wsbridge.wire.requestcutter import Part, RequestCutter

HELD_BYTES = 64 * 1024
"""The most bytes to hold after an upgrade request; beyond that, the server stops reading the connection."""
FOR_EVER = 365 * 86400.0
"""Seconds that an idle connection stays open with `keepalive_seconds` 0. aiohttp would close it at once."""
DEFAULT_TIMINGS = HttpTimings()

PRIVATE = (
    "_buffer_paused",
    "_close",
    "_force_close",
    "_loop",
    "_messages",
    "_pause_reading_for_buffer",
    "_pause_transport_reading",
    "_paused",
    "_reading_paused",
    "_request_count",
    "_resume_reading_if_drained",
    "_resume_transport_reading",
    "_task_handler",
    "_waiter",
)
"""The private names of aiohttp's RequestHandler that `Connection` uses; tests/http/test_connection.py compares the list with the code."""

METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
"""The first character of a method (RFC 9110, section 9.1): the parser reads no further into a method that it does not know."""
BEYOND_ASCII = re.compile(rb"[\x80-\xff]")

MASK: Mask = websocket_mask
"""aiohttp's compiled XOR: 5 GB/s, against 0.3 GB/s in Python."""

ErrorPage = Callable[[int, str], web.Response]


class Connection(RequestHandler):
    """One HTTP connection."""

    __slots__ = (
        "_asks_upgrade",
        "_at",
        "_chunks",
        "_cutter",
        "_error_page",
        "_first_byte",
        "_hangups",
        "_head_bytes",
        "_head_seconds",
        "_head_timer",
        "_heads_seen",
        "_held",
        "_in_request_line",
        "_is_broken",
        "_on_upgrade",
        "_watched",
    )

    def __init__(self, manager: HttpServer, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(manager, loop=loop, **options)
        self._error_page = manager.error_page
        self._on_upgrade = manager.on_upgrade
        self._hangups = manager.hangups
        self._head_seconds = manager.timings.head_seconds
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._heads_seen = 0
        self._in_request_line = True
        self._first_byte = b""
        """The first byte of the head that is arriving."""
        self._is_broken = False
        self._cutter = RequestCutter()
        self._chunks: StreamReader | None = None
        """The chunked body that is arriving."""
        self._held, self._at = b"", 0
        """Received bytes, and how many of them went to the parser."""
        self._asks_upgrade = False
        """Whether the last parsed request is for an upgrade: the bytes after it wait for its response."""
        self._watched = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_has_come()
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass received bytes to the parser piece by piece; without data, continue, as aiohttp requests when it has room again."""
        if not data:
            super().data_received(data)
        if self._at < len(self._held):
            self._held, self._at = self._held[self._at :] + data, 0
        else:
            self._held, self._at = data, 0
        while self._at < len(self._held) and self._may_go_on():
            part, start = self._cutter.part, self._at
            self._at = self._cutter.cut(self._held, start)
            piece = self._held if start == 0 and self._at == len(self._held) else self._held[start : self._at]
            if part is Part.HEAD:
                self._read_head(piece)
            else:
                self._read_body(piece)
        if len(self._held) - self._at > HELD_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _read_body(self, piece: bytes) -> None:
        """Pass a part of a body to the parser."""
        super().data_received(piece)
        if self._request_count == self._heads_seen:
            return
        # The chunks are malformed. aiohttp queues its error response behind the request that owns this body, and that request waits
        # for the body. So this code drops the error response and ends the body with an exception.
        self._heads_seen = self._request_count
        self._messages.pop()
        self._is_broken = True
        self.close()
        if self._chunks is not None:
            self._chunks.set_exception(web.RequestPayloadError("the chunked coding is malformed"))
            self._chunks.feed_eof()

    def _may_go_on(self) -> bool:
        if self._is_broken or self._force_close or self._close:
            # The bytes that follow have no meaning.
            self._head_bytes += len(self._held) - self._at
            self._held, self._at = b"", 0
            if self._is_broken and self._head_bytes > HEAD_BYTES:
                self.force_close()
            return False
        if self._cutter.part is Part.CHUNKS:
            self._check_end_of_chunks()
        if self._asks_upgrade and self._cutter.part is Part.HEAD:
            return False
        return not self._reading_paused and len(self._messages) < MAX_MSG_QUEUE_SIZE

    def _check_end_of_chunks(self) -> None:
        if self._chunks is None or self._chunks.is_eof():
            self._chunks = None
            self._cutter.end_chunks()

    def _read_head(self, piece: bytes) -> None:
        """Pass a head, or a part of it, to the parser."""
        is_idle = self._waiter is not None and not self._waiter.done()
        if is_idle and self._head_timer is None:
            self._await_head()
        if self._head_bytes == 0 or not self._first_byte:
            self._first_byte = piece.lstrip(b"\r\n")[:1]
        if self._in_request_line:
            piece = self._escaped(piece)
        self._head_bytes += len(piece)
        if self._head_bytes > HEAD_BYTES:
            self._refuse_head(is_idle)
            return
        super().data_received(piece)
        if self._request_count != self._heads_seen:
            self._heads_seen = self._request_count
            self._head_bytes = 0
            self._in_request_line = True
            self._head_has_come()
            self._inspect(*self._messages[-1], may_upgrade=is_idle and len(self._messages) == 1)

    def _escaped(self, data: bytes) -> bytes:
        line, newline, rest = data.partition(b"\n")
        self._in_request_line = not newline
        return data if line.isascii() else BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line) + newline + rest

    def _inspect(self, message: object, content: StreamReader, *, may_upgrade: bool) -> None:
        if not isinstance(message, RawRequestMessage):
            # aiohttp could not parse the request and will answer it with an error. The bytes that follow have no meaning.
            self._is_broken = True
            return
        self._asks_upgrade = bool(message.upgrade)
        if message.chunked and not content.is_eof():
            self._cutter.expect_chunks()
            self._chunks = content
        elif message.method != "CONNECT" and (length := message.headers.get("Content-Length")) is not None:
            self._cutter.expect_body(int(length))
        if self._asks_upgrade and may_upgrade:
            task = self._task_handler
            if self._on_upgrade(self, message):
                self._messages.clear()
                if task is not None:
                    task.cancel()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response, then continue with the bytes that waited for it."""
        finished = await super().finish_response(request, resp, start_time)
        if self._asks_upgrade and not self._messages and self.transport is not None:
            self._asks_upgrade = False
            if self._buffer_paused:
                self._resume_reading_if_drained()
            else:
                self.data_received(b"")
        return finished

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer a request that aiohttp could not parse, or that failed, with wsbridge's error page; then close the connection."""
        if isinstance(exc, LineTooLong):
            status, message = 431, f"a header field or the request line is longer than {HEAD_BYTES} bytes"
        elif isinstance(exc, HttpProcessingError) and "many headers" in (message or "").lower():
            status = 431
        elif isinstance(exc, BadHttpMethod) and METHOD.match(self._first_byte):
            status, message = 501, "unknown method"
        if status == 500:
            self.log_exception("Error handling request", exc_info=exc)
        response = self._error_page(status, (message or "").split("\n")[0])
        response.force_close()
        return response

    def detach(self, protocol: asyncio.Protocol) -> bytes:
        """Hand the transport to another protocol; return the bytes that arrived after the request.

        The caller has answered the request, and the task of the request ends by itself.
        """
        transport = self.transport
        assert transport is not None
        early = self._held[self._at :]
        self._held, self._at = b"", 0
        transport.set_protocol(protocol)
        if self._paused:
            # Unsent data of earlier responses has paused writing. The transport calls pause_writing only once, and it called this
            # object.
            protocol.pause_writing()
        self.transport = None
        self._task_handler = None
        self.connection_lost(None)
        # Reading may be paused because the client sent data before the server accepted the upgrade.
        if not transport.is_closing():
            transport.resume_reading()
        return early

    # Detecting a disconnect while reading is paused

    def _pause_transport_reading(self) -> None:
        super()._pause_transport_reading()
        sock = socket_of(self.transport) if self.transport is not None else None
        if self._hangups is not None and sock is not None and self._watched < 0:
            self._watched = sock.fileno()
            self._hangups.watch(self._watched, self._hung_up)

    def _resume_transport_reading(self) -> None:
        self._unwatch()
        super()._resume_transport_reading()

    def _unwatch(self) -> None:
        if self._hangups is not None and self._watched >= 0:
            self._hangups.unwatch(self._watched, self._hung_up)
            self._watched = -1

    def _hung_up(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # The timeout of a head

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self._head_seconds, self._head_is_late)

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


def missing_names(handler: type) -> list[str]:
    """Return the names of PRIVATE that a class of aiohttp lacks."""
    return [name for name in PRIVATE if not hasattr(handler, name)]


class NamedRequest(web.BaseRequest):
    """A request whose response names wsbridge in its Server header, instead of libraries and their versions."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        if response.headers.get("Server") == SERVER_SOFTWARE:
            response.headers["Server"] = "wsbridge"


class HttpServer(web.Server):
    """aiohttp's low-level server, with wsbridge's connections."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Any],
        *,
        error_page: ErrorPage,
        on_upgrade: OnUpgrade | None = None,
        hangups: Hangups | None = None,
        timings: HttpTimings = DEFAULT_TIMINGS,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.error_page = error_page
        self.on_upgrade = on_upgrade or (lambda connection, message: False)
        self._idle: set[NewConnection] = set()
        self.hangups = hangups
        self.timings = timings
        if missing := missing_names(RequestHandler):
            # Found here, at startup, and not in a session.
            raise ConfigurationError(
                f"wsbridge cannot run with aiohttp {aiohttp.__version__}, which lacks {', '.join(missing)};"
                f" run: {shlex.quote(sys.executable)} -m pip install 'aiohttp>=3.14,<3.15'"
            )
        super().__init__(
            handler,
            handler_cancellation=True,
            access_log=None,
            **HEAD_LIMITS,
            lingering_time=1.0,
            auto_decompress=False,
            keepalive_timeout=timings.keepalive_seconds or FOR_EVER,
            tcp_keepalive=False,
        )

    def __call__(self, sock: socket.socket | None = None) -> NewConnection:  # type: ignore[override]
        """Return the protocol of a connection.

        `sock` is given for a connection without TLS: the protocol reads the bytes that have already arrived on it.
        """
        return NewConnection(
            on_upgrade=self.on_upgrade,
            connection=self._connection,
            idle=self._idle,
            seconds=min(self.timings.head_seconds, self.timings.keepalive_seconds or FOR_EVER),
            loop=self._loop,
            sock=sock,
        )

    def pre_shutdown(self) -> None:
        """Close idle connections; a connection with a response in progress closes after that response."""
        self._close_idle()
        super().pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (aiohttp's)
        """Close every connection; responses in progress may continue for `timeout` seconds."""
        self._close_idle()
        await super().shutdown(timeout)

    def _close_idle(self) -> None:
        for connection in self._idle:
            connection.close()

    def _connection(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return NamedRequest(message, payload, protocol, writer, task, self._loop)
