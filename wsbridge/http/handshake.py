"""The response to a WebSocket request: the 101, and the client object of the connection.

This module writes the 101 itself, so that it controls every header, and the answer to an offer of compression. After the 101, a
close code reports a failure.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from wsbridge.closecodes import TRY_LATER
from wsbridge.errors import Busy
from wsbridge.flow import End
from wsbridge.http.connection import MASK
from wsbridge.http.newconnection import Upgradable
from wsbridge.logs import LogFields
from wsbridge.metrics import Metrics
from wsbridge.net.hangup import Hangups
from wsbridge.peers.websocket import WebSocketPeer
from wsbridge.rules.request import Request
from wsbridge.settings import ClientSettings
from wsbridge.wire.deflate import Deflate, Parameters, negotiate

BUSY = End(TRY_LATER, "no slot is free; try again later")
UNSENT_BYTES = 64 * 1024
"""Bytes that may wait in the kernel for one subscriber, on TCP. Data in the channel can still be dropped, and is stored once for
all subscribers."""
SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


class Detached(web.Response):
    """The response that aiohttp receives for a request whose connection it no longer owns; it sends nothing."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


DETACHED = Detached()


class Handshake:
    """Creates clients from connections; `is_shared` is whether one compressed copy of a message serves many clients."""

    def __init__(
        self,
        *,
        is_shared: bool,
        client: ClientSettings,
        headers: tuple[tuple[str, str], ...],
        hangups: Hangups,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._is_shared = is_shared
        self._client = client
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self._frames_subprotocol = any(name.lower() == "sec-websocket-protocol" for name, _ in headers)
        """Whether a header of the operator (`--header`) selects the subprotocol."""
        self._hangups = hangups
        self._metrics = metrics
        self._loop = loop

    def accept(self, connection: Upgradable, request: Request, accept: str, subprotocol: str | None, fields: LogFields) -> WebSocketPeer:
        """Write the 101 and return the client; the caller then takes the connection over."""
        transport = connection.transport
        assert transport is not None
        agreed = None
        if self._client.compress:
            agreed = negotiate(request.header("sec-websocket-extensions") or "", is_shared=self._is_shared)
        transport.write(self._head(accept, subprotocol, agreed))
        return WebSocketPeer(
            transport,
            settings=self._client,
            unsent_bytes=UNSENT_BYTES if self._is_shared else 0,
            mask=MASK,
            deflate=Deflate(agreed) if agreed else None,
            hangups=self._hangups,
            metrics=self._metrics,
            fields=fields,
            loop=self._loop,
        )

    def reject(self, connection: Upgradable, request: Request, busy: Busy, fields: LogFields) -> None:
        """Send the 101 and close with 1013, so that a browser can see the reason."""
        self._metrics.refused[TRY_LATER] += 1
        # Without the subprotocol that it asked for, a browser reports only 1006.
        client = self.accept(connection, request, busy.accept, busy.subprotocol, fields)
        client.end(BUSY)
        client.data_received(connection.detach(client))

    def _head(self, accept: str, subprotocol: str | None, agreed: Parameters | None) -> bytes:
        lines = f"{SWITCHING}{accept}\r\n{self._lines}"
        if subprotocol is not None and not self._frames_subprotocol:
            lines += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
        if agreed is not None:
            lines += f"Sec-WebSocket-Extensions: {agreed.header()}\r\n"
        return f"{lines}\r\n".encode("utf-8", "surrogateescape")
