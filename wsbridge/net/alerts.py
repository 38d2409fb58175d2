"""TLS transports that send the alert of a failed handshake to the client (RFC 8446, section 6).

asyncio and aiofastnet close the socket of a failed handshake while the alert is still in their own buffer. The client then sees an
end of file without a reason. The classes in this file send that buffer first and keep a duplicate of the socket. The kernel resets
a connection that is closed with unread data, and the reset would overtake the alert. So `connect_tls` reads the remaining data from
the duplicate.

This file depends on the internals of asyncio.sslproto and aiofastnet.ssl_transport; tests/net/test_tls.py fails when they change.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

LINGER_SECONDS = 2.0
"""Seconds to read after an alert: a TLS 1.3 client sends its request before it can learn that its handshake failed."""
READ_BYTES = 64 * 1024

Factory = Callable[[], asyncio.Protocol]


async def connect_tls(
    loop: asyncio.AbstractEventLoop, factory: Factory, sock: socket.socket, context: ssl.SSLContext, *, seconds: float, is_fast: bool
) -> tuple[asyncio.Transport, asyncio.Protocol]:
    """Perform the TLS handshake on an accepted socket; return the transport, which owns the socket, and its protocol.

    Raises ssl.SSLError or another OSError when the handshake fails. By then the server has sent the alert, if there is one.
    """
    waiter: asyncio.Future[None] = loop.create_future()
    protocol = factory()
    secure: Any
    if is_fast and (fast := _fast_transport()) is not None:
        transport = secure = fast(loop, protocol, context, waiter, sock, seconds)
    else:
        secure = _AlertingProtocol(loop, protocol, context, waiter, server_side=True, ssl_handshake_timeout=seconds)  # type: ignore[arg-type]
        await loop.connect_accepted_socket(lambda: secure, sock)
        transport = secure._get_app_transport()
    try:
        await waiter
        return transport, protocol
    except BaseException as error:
        transport.abort()
        if secure.rest is not None and isinstance(error, ssl.SSLError):
            await linger(secure.rest, loop)
        raise
    finally:
        if secure.rest is not None:
            secure.rest.close()


async def linger(sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
    """Shut down the output, read and discard input for at most LINGER_SECONDS, then close the socket."""
    sock.setblocking(False)
    with sock, suppress(OSError, TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            sock.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(sock, READ_BYTES):
                pass


def duplicate(transport: asyncio.BaseTransport) -> socket.socket | None:
    """Return a duplicate of a transport's socket, which outlives the transport, or None if the transport has no open socket."""
    with suppress(OSError):
        duplicate: socket.socket = transport.get_extra_info("socket").dup()
        return duplicate
    return None


class _AlertingProtocol(SSLProtocol):
    """asyncio's TLS protocol; it sends the alert of a failed handshake and then sets `rest` to a duplicate of the socket."""

    rest: socket.socket | None = None

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        if isinstance(handshake_exc, ssl.SSLError) and self._transport is not None:
            self._process_outgoing()  # type: ignore[attr-defined]
            self.rest = duplicate(self._transport)
        super()._on_handshake_complete(handshake_exc)


@cache
def _fast_transport() -> Callable[..., Any] | None:
    """Return the constructor of aiofastnet's TLS transport, or None if aiofastnet cannot use Python's own libssl."""
    from aiofastnet import constants, ssl_transport  # type: ignore[attr-defined]

    if getattr(ssl_transport, "SSLEngineDirect", None) is None:
        return None

    class AlertingTransport(ssl_transport.SSLTransport_Socket):  # type: ignore[misc]
        """aiofastnet's TLS transport; it sends the alert of a failed handshake and then sets `rest` to a duplicate of the socket."""

        __slots__ = ("rest",)

        def __init__(
            self,
            loop: asyncio.AbstractEventLoop,
            protocol: asyncio.Protocol,
            context: ssl.SSLContext,
            waiter: asyncio.Future[None],
            sock: socket.socket,
            seconds: float,
        ) -> None:
            self.rest: socket.socket | None = None
            shutdown = constants.SSL_TIMEOUT_DEFAULTS["ssl_shutdown_timeout"]
            sizes = constants.SSL_BIO_SIZE_DEFAULTS
            incoming, outgoing = sizes["ssl_incoming_bio_size"], sizes["ssl_outgoing_bio_size"]
            super().__init__(loop, protocol, context, True, seconds, shutdown, incoming, outgoing, sock, waiter=waiter)

        def _force_close(self, exc: BaseException | None) -> None:
            if isinstance(exc, ssl.SSLError) and self.rest is None and self.get_extra_info("cipher") is None:
                self._write_ready()
                self.rest = duplicate(self)
            super()._force_close(exc)

    return AlertingTransport
