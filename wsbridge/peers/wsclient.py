"""A WebSocket client for another wsbridge: the connection of `publish --url` and `subscribe --url`.

aiohttp makes the connection, with or without TLS. It follows redirects, but never from TLS to plain text. After the upgrade,
`WebSocketClient` replaces aiohttp's protocol on the transport. From then on, the messages of one read form one batch for the sink, and a
written batch is one buffer. The client reads frames as strictly as the server does.

    WebSocketClient.pause, resume    stop reading from the server, and start again
    WebSocketClient.source           is paused while the server accepts no data
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import wsbridge.quickstart  # noqa: F401

# isort: split
import aiohttp
from aiohttp._websocket.helpers import websocket_mask

from wsbridge import __version__
from wsbridge.closecodes import ABNORMAL, NO_CODE
from wsbridge.errors import RemoteError, reason_of
from wsbridge.flow import NULL_SOURCE, Batch, End, Sink, Source
from wsbridge.net.keepalive import keep_alive
from wsbridge.rules.heartbeat import Beat, Heartbeat
from wsbridge.rules.urls import shown, without_user
from wsbridge.wire import frames
from wsbridge.wire.acceptkey import accept_value
from wsbridge.wire.frames import FIN, MASKED
from wsbridge.wire.reader import Event, FrameReader, Ping, Side, Violation

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
"""How long `close` waits for the closing handshake before it aborts the connection."""
PING_SECONDS = 25.0
"""Interval between pings to the server; the client disconnects after two intervals of silence. The server uses the same interval."""
WRITE_BYTES = 1024 * 1024
"""Bytes that may wait to be sent before the source is paused."""
HEAD_BYTES = 256
"""Bytes that may precede a message in its frame: its position."""
SHOWN = 200
"""Characters of a refusal's text that an error shows."""

REDIRECTS = 10
SECURE = ("wss", "https")
SCHEMES = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}
"""Schemes that a redirect may lead to, each with its WebSocket scheme."""


class WebSocketClient(asyncio.Protocol):
    """A connection, from the upgrade to its end. Its sink receives batches and one `end`: the server's close code, or 1006.

    `early` holds the bytes that have already arrived. The sink receives them before anything else, from the next turn of the loop
    on. With `pings`, WebSocketClient closes the connection if the server is silent for too long. Do not use `pings` with a server that
    accepts input: under backpressure it may well be silent.
    """

    def __init__(
        self, transport: asyncio.Transport, sink: Sink, *, early: bytes, limit: int, pings: bool, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport = transport
        self._early = early
        self._sink = sink
        self._loop = loop
        self._reader = FrameReader(limit=limit + HEAD_BYTES if limit else 0, side=Side.CLIENT)
        self._close_sent = False
        self._has_ended = False
        self._lost: asyncio.Future[None] = loop.create_future()
        self.source: Source = NULL_SOURCE
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        if (sock := transport.get_extra_info("socket")) is not None:
            keep_alive(sock)
        self._heartbeat = Heartbeat(PING_SECONDS, loop.time()) if pings else None
        self._timer: asyncio.TimerHandle | None = None
        self._beat()
        if early:
            loop.call_soon(self._feed_early)

    # From the server

    def data_received(self, data: bytes) -> None:
        # The transport may read the socket before the loop calls `_feed_early`.
        self._feed_early()
        self._feed(data)

    def _feed_early(self) -> None:
        early, self._early = self._early, b""
        if early:
            self._feed(early)

    def _feed(self, data: bytes) -> None:
        if self._heartbeat is not None:
            self._heartbeat.received_at = self._loop.time()
        self._handle(self._reader.feed(data))
        while self._reader.has_more:
            self._handle(self._reader.feed(b""))

    def connection_lost(self, exc: Exception | None) -> None:
        self._feed_early()
        if self._timer is not None:
            self._timer.cancel()
        self._end(End(ABNORMAL, str(exc or "")))
        if not self._lost.done():
            self._lost.set_result(None)

    def pause(self) -> None:
        """Stop reading; data that was already read still reaches the sink."""
        if not self._close_sent and not self._transport.is_closing():
            self._transport.pause_reading()
            if self._heartbeat is not None:
                self._heartbeat.rest()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            if self._heartbeat is not None:
                self._heartbeat.wake(self._loop.time())

    # To the server

    def write(self, batch: Batch) -> None:
        """Send a batch. If it fills the write buffer, `source` is paused before this returns."""
        if not self._close_sent:
            self._transport.write(encode(batch))

    def end(self, reason: End) -> None:
        """Send a close frame after all written data. The sink receives the server's answer, for which there is no timeout."""
        if not self._close_sent:
            self._control(frames.close(reason))
            self._close_sent = True
            self.resume()

    async def close(self) -> int:
        """End the connection, in bounded time; return how many bytes were still in the write buffer."""
        self.end(End(NO_CODE))
        try:
            # Not asyncio.timeout: in a task that was cancelled before, Python 3.11.2 mistakes its expiry for another cancellation.
            await asyncio.wait((self._lost,), timeout=CLOSE_SECONDS)
        finally:
            unsent = self._transport.get_write_buffer_size()
            self._transport.abort()
        return unsent

    def pause_writing(self) -> None:
        self.source.pause()

    def resume_writing(self) -> None:
        self.source.resume()

    # Inside

    def _handle(self, events: Sequence[Event]) -> None:
        ping: bytes | None = None
        for event in events:
            if self._has_ended:
                return
            match event:
                case Batch():
                    self._sink.write(event)
                case Ping(payload):
                    # Only the last of several pings needs an answer (RFC 6455, section 5.5.3).
                    ping = payload
                case Violation(code, reason):
                    self.end(End(code, reason))
                    self._end(End(code, reason))
                case End(code, reason):
                    self.end(End(code))
                    self._end(End(code, reason))
        if ping is not None:
            self._control(frames.pong(ping))

    def _control(self, frame: bytes) -> None:
        """Send a control frame, converted from the server's form to the masked form of a client."""
        if not self._close_sent and not self._transport.is_closing():
            self._transport.write(_masked(frame[0], frame[2:], os.urandom(4)))

    def _end(self, reason: End) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._sink.end(reason)

    def _beat(self) -> None:
        if self._heartbeat is None:
            return
        due, again = self._heartbeat.beat(self._loop.time())
        if due is Beat.TIMEOUT:
            self._end(End(ABNORMAL, "ping timeout"))
            self._transport.abort()
            return
        if due is Beat.PING:
            self._control(frames.ping())
        self._timer = self._loop.call_at(again, self._beat)


async def connect(
    url: str, sink: Sink, *, subprotocol: str = "", since: str = "", limit: int, pings: bool, loop: asyncio.AbstractEventLoop
) -> WebSocketClient:
    """Open a WebSocket; the sink receives data from the next turn of the loop on. Raises RemoteError.

    With a `subprotocol`, the server must agree to it. `limit` is the maximum length of a message in bytes; 0 means no limit.
    """
    key = base64.b64encode(os.urandom(16)).decode()
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "User-Agent": f"wsbridge/{__version__}",
    }
    if subprotocol:
        headers["Sec-WebSocket-Protocol"] = subprotocol
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)) as session:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                response = await _get(session, _target(url, since), headers)
                await _check(response, key, subprotocol, url)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise RemoteError(_explain(error, shown(url))) from None
        # Before the session closes, which needs a turn of the loop: data that arrives meanwhile must find its protocol.
        transport, early = _detach(response)
        remote = WebSocketClient(transport, sink, early=early, limit=limit, pings=pings, loop=loop)
        transport.set_protocol(remote)
        if transport.is_closing():
            loop.call_soon(remote.connection_lost, None)
        else:
            # aiohttp may have paused reading, if the server sent data before this protocol was in place.
            transport.resume_reading()
    return remote


def encode(batch: Batch) -> bytes:
    """Return the frames of a batch as a client sends them, each masked with its own four bytes (RFC 6455, section 5.3)."""
    kind, messages = batch
    keys = os.urandom(4 * len(messages))
    parts: list[bytes | bytearray] = []
    at = 0
    for message in messages:
        key, payload = keys[at : at + 4], bytearray(message)
        websocket_mask(key, payload)
        parts += (_masked_head(FIN | kind, len(payload)), key, payload)
        at += 4
    return b"".join(parts)


def _masked(first: int, payload: bytes, key: bytes) -> bytes:
    masked = bytearray(payload)
    websocket_mask(key, masked)
    return _masked_head(first, len(payload)) + key + masked


@lru_cache(maxsize=4096)
def _masked_head(first: int, length: int) -> bytes:
    head = frames.head(first, length)
    return bytes((head[0], head[1] | MASKED)) + head[2:]


class _EarlyBytes:
    """Stands in for aiohttp's frame reader, and keeps the bytes that arrived with the upgrade."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Do nothing: another protocol owns the connection."""


def _trust(url: str) -> ssl.SSLContext | bool:
    """Return a context with the machine's certificates for TLS, else True: loading the certificates needs 50 ms."""
    return _certificates() if urlsplit(url).scheme in ("https", "wss") else True


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _get(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
    """Request the upgrade, and follow redirects.

    Raises RemoteError for too many redirects, and for a redirect from TLS to plain text or to a URL that is no WebSocket.
    """
    for _ in range(REDIRECTS):
        response = await session.get(url, headers=headers, read_until_eof=False, allow_redirects=False, ssl=_trust(url))
        location = response.headers.get("Location")
        if response.status not in (301, 302, 303, 307, 308) or location is None:
            return response
        response.close()
        url = redirected(url, location)
    raise RemoteError(f"{shown(url)} redirects again after {REDIRECTS} redirects")


def redirected(url: str, location: str) -> str:
    """Return the target of a redirect. Raises RemoteError if the client must not follow it."""
    target = urljoin(url, location)
    scheme = SCHEMES.get(urlsplit(target).scheme)
    if scheme is None:
        raise RemoteError(f"{shown(url)} redirects to {shown(target)}, which is not a WebSocket URL")
    if urlsplit(url).scheme in SECURE and scheme not in SECURE:
        hint = "to connect without TLS, use that URL"
        raise RemoteError(f"{shown(url)} redirects to {shown(target)}, which does not use TLS; {hint}")
    return urlsplit(target)._replace(scheme=scheme).geturl()


def _detach(response: aiohttp.ClientResponse) -> tuple[asyncio.Transport, bytes]:
    """Detach the transport from aiohttp, which sees a lost connection; return it with the bytes after the response."""
    connection = response.connection
    protocol: Any = connection.protocol if connection is not None else None
    if protocol is None or protocol.transport is None:
        raise RemoteError("the server closed the connection immediately after the upgrade")
    transport, early = protocol.transport, _EarlyBytes()
    protocol.set_parser(early, None)
    protocol.transport = None
    protocol.connection_lost(None)
    response.close()
    return transport, bytes(early.data)


async def _check(response: aiohttp.ClientResponse, key: str, subprotocol: str, url: str) -> None:
    """Check that a response grants the upgrade. Raises RemoteError otherwise."""
    if response.status != 101:
        lines = (await response.content.read(SHOWN)).decode("utf-8", "replace").strip().split("\n")
        # The first lines of an HTML page carry no information. The first two lines of wsbridge's own errors give the status and
        # the reason.
        answer = ": ".join(lines[:2]) if lines[0].startswith(str(response.status)) else f"{response.status} {response.reason}"
        raise RemoteError(f"{shown(url)} {_refusal(response.status, urlsplit(url).scheme)}: {answer}")
    if response.headers.get("Sec-WebSocket-Accept") != accept_value(key) or response.headers.get("Upgrade", "").lower() != "websocket":
        raise RemoteError(f"{shown(url)} sent an invalid response to the WebSocket upgrade")
    if subprotocol and response.headers.get("Sec-WebSocket-Protocol") != subprotocol:
        raise RemoteError(f"{shown(url)} does not support the subprotocol {subprotocol}; is it a `wsbridge broadcast`?")


def _refusal(status: int, scheme: str) -> str:
    if status < 300:
        return "is not a WebSocket server"
    return "refuses the upgrade (use wss:// if the server uses TLS)" if status == 400 and scheme == "ws" else "refuses the upgrade"


def _target(url: str, since: str) -> str:
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if not (since and name == "since")]
    return parts._replace(query=urlencode([*query, ("since", since)] if since else query), fragment="").geturl()


def _explain(error: BaseException, where: str) -> str:
    match error:
        case TimeoutError():
            return f"{where} does not answer"
        case aiohttp.ClientConnectorCertificateError():
            return f"{where} has a certificate that this machine does not trust: {error.certificate_error}"
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError() as reason):
            return f"{where} failed the TLS handshake: {reason.reason or reason}; use ws:// if the server does not use TLS"
        case aiohttp.ClientConnectorError():
            return f"{where} cannot be reached: {reason_of(error.os_error)}; is a server running there?"
        case aiohttp.ServerDisconnectedError():
            return f"{where} closed the connection without a response"
        case aiohttp.ClientResponseError():
            # aiohttp's text contains the whole URL.
            return f"{where} cannot be used: {error.message or type(error).__name__}"
    return f"{where} cannot be used: {without_user(str(error)) or type(error).__name__}"
