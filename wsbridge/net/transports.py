"""Transports: the fastest implementation that is installed, and functions for the gaps and differences of transports."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import ssl
import sys
import termios
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from wsbridge.net.alerts import connect_tls, duplicate, linger

ACKED_AT = 120
"""The offset of the 64-bit field tcpi_bytes_acked in Linux' struct tcp_info (linux/tcp.h, since 4.1)."""

_LINGERING: set[asyncio.Task[None]] = set()
"""References to running tasks: the event loop itself holds none."""

Connect = Callable[..., Coroutine[Any, Any, Any]]
"""Makes a transport for an accepted socket, as `loop.connect_accepted_socket` does; with `ssl`, as `connect_tls` does."""


Open = Callable[[asyncio.Protocol, socket.socket], None]
"""Makes a transport without TLS for an accepted socket. Raises OSError."""


def use_fast_transports(loop: asyncio.AbstractEventLoop) -> Connect:
    """Use aiofastnet's transports if they are installed; return the function that makes transports.

    WSBRIDGE_FASTNET=0 disables aiofastnet.
    """
    aiofastnet = _fastnet()
    if aiofastnet is None:
        return partial(_connect, loop, loop.connect_accepted_socket, False)
    # aiofastnet logs a line for each write between the loss of a connection and connection_lost; such writes are normal.
    logging.getLogger("aiofastnet").setLevel(logging.ERROR)
    aiofastnet.patch_loop(loop)
    # patch_loop does not replace this function.
    return partial(_connect, loop, partial(aiofastnet.connect_accepted_socket, loop), True)


def plain_transports(loop: asyncio.AbstractEventLoop) -> Open:
    """Return a function that makes transports without TLS as `use_fast_transports` does, but at once, without a task."""
    if _fastnet() is not None:
        from aiofastnet import selector_transport  # type: ignore[attr-defined]

        def open_fast(protocol: asyncio.Protocol, sock: socket.socket) -> None:
            selector_transport.SelectorSocketTransport(loop, sock, protocol)

        return open_fast

    def open_plain(protocol: asyncio.Protocol, sock: socket.socket) -> None:
        loop._make_socket_transport(sock, protocol)  # type: ignore[attr-defined]

    return open_plain


def _fastnet() -> Any:
    """Return the module aiofastnet, or None if it is disabled or not installed."""
    if os.environ.get("WSBRIDGE_FASTNET") == "0":
        return None
    try:
        import aiofastnet
    except ImportError:
        return None
    return aiofastnet


async def _connect(
    loop: asyncio.AbstractEventLoop,
    connect: Connect,
    is_fast: bool,
    factory: Callable[[], asyncio.Protocol],
    sock: socket.socket,
    *,
    ssl: ssl.SSLContext | None = None,
    ssl_handshake_timeout: float = 60.0,
) -> Any:
    if ssl is None:
        return await connect(factory, sock)
    return await connect_tls(loop, factory, sock, ssl, seconds=ssl_handshake_timeout, is_fast=is_fast)


def socket_of(transport: asyncio.Transport) -> socket.socket | None:
    """Return a transport's socket while it is open, else None.

    asyncio's TLS transport has no socket after its loss, a loop iteration before it reports the loss.
    """
    try:
        sock: socket.socket | None = transport.get_extra_info("socket")
    except AttributeError:
        return None
    return sock if sock is not None and sock.fileno() >= 0 else None


def waiting_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes wait in the transport; 0 for a closing TLS transport of asyncio, which cannot report it."""
    try:
        return transport.get_write_buffer_size()
    except AttributeError:
        return 0


def outstanding_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes wait in the transport and in the kernel.

    The transport's own count is not enough: the kernel reports room late, when much of its own buffer is free again.
    """
    held = bytes(4)
    if (sock := socket_of(transport)) is not None:
        with suppress(OSError):
            held = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, held)
    return waiting_bytes(transport) + int.from_bytes(held, sys.byteorder)


def acknowledged_bytes(transport: asyncio.Transport, written: int) -> int:
    """Return how many bytes the peer has acknowledged so far; only the growth of this value is meaningful.

    `written` is how many bytes the caller has written. TCP counts all acknowledged bytes, those of other writers included. For
    other sockets, the result is `written` less the bytes that still wait.
    """
    info = b""
    if (sock := socket_of(transport)) is not None:
        with suppress(OSError):
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ACKED_AT + 8)
    if len(info) == ACKED_AT + 8:
        return int.from_bytes(info[ACKED_AT:], sys.byteorder)
    return written - outstanding_bytes(transport)


def limit_unsent(transport: asyncio.Transport, limit: int) -> None:
    """Limit the unsent bytes that the kernel accepts, on TCP only: other data waits in wsbridge, where it can still be dropped."""
    sock = socket_of(transport)
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)


def end_output(transport: asyncio.Transport) -> None:
    """Half-close the connection: end its output.

    After a reset by the peer this fails, and connection_lost reports the loss.
    """
    with suppress(OSError):
        transport.write_eof()


def end_secure(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> bool:
    """End a TLS connection at once: send close_notify and FIN, and read the data that still arrives, as after `end_output` on TCP.

    TLS transports cannot half-close. asyncio's transport resets the connection at the next byte that arrives, and the reset
    overtakes the written data. Returns False, and does nothing, while written data still waits in the transport.
    """
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    if waiting_bytes(transport) or (below is not None and below.get_write_buffer_size()):
        return False
    rest = duplicate(transport)
    if rest is None:
        return False
    transport.close()
    transport.abort()
    task = loop.create_task(linger(rest, loop), name="rest of a TLS connection")
    _LINGERING.add(task)
    task.add_done_callback(_LINGERING.discard)
    return True


def resume_reading(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    """Resume reading a transport.

    aiofastnet 1.2 may hold a close_notify that it received before the pause; without a retry, it would wait for bytes behind it.
    """
    transport.resume_reading()
    if (retry := getattr(transport, "_retry_ssl_read", None)) is not None:
        loop.call_soon(retry)
