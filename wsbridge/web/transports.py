"""Transports: the fastest that are there, and what they do not say or do alike."""

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

from wsbridge.web.alerts import connect_tls, duplicate, linger

ACKED_AT = 120
"""Where in Linux' struct tcp_info the 64 bits of tcpi_bytes_acked lie (linux/tcp.h, since 4.1)."""

_LINGERING: set[asyncio.Task[None]] = set()
"""The loop itself holds no task."""

Connect = Callable[..., Coroutine[Any, Any, Any]]
"""Makes a transport for a socket that was accepted, as `loop.connect_accepted_socket` does; with `ssl`, as `connect_tls` does."""


Open = Callable[[asyncio.Protocol, socket.socket], None]
"""Makes a transport without TLS for a socket that was accepted. Raises OSError."""


def use_fast_transports(loop: asyncio.AbstractEventLoop) -> Connect:
    """Use aiofastnet's transports where they are installed; WSBRIDGE_FASTNET=0 does without."""
    aiofastnet = _fastnet()
    if aiofastnet is None:
        return partial(_connect, loop, loop.connect_accepted_socket, False)
    # A line for each write between a connection's loss and the word of it, and every one of them is to be expected.
    logging.getLogger("aiofastnet").setLevel(logging.ERROR)
    aiofastnet.patch_loop(loop)
    # patch_loop leaves this one out.
    return partial(_connect, loop, partial(aiofastnet.connect_accepted_socket, loop), True)


def plain_transports(loop: asyncio.AbstractEventLoop) -> Open:
    """Return what makes transports without TLS as `use_fast_transports` does, but at once, without a task to wait in."""
    if _fastnet() is not None:
        from aiofastnet import selector_transport  # type: ignore[attr-defined]

        def open_fast(protocol: asyncio.Protocol, sock: socket.socket) -> None:
            selector_transport.SelectorSocketTransport(loop, sock, protocol)

        return open_fast

    def open_plain(protocol: asyncio.Protocol, sock: socket.socket) -> None:
        loop._make_socket_transport(sock, protocol)  # type: ignore[attr-defined]

    return open_plain


def _fastnet() -> Any:
    """Return the module aiofastnet, or None where it is not to be used."""
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
    """Return a transport's socket while it is open. asyncio's TLS has none from its loss on, a turn before that is told."""
    try:
        sock: socket.socket | None = transport.get_extra_info("socket")
    except AttributeError:
        return None
    return sock if sock is not None and sock.fileno() >= 0 else None


def waiting_bytes(transport: asyncio.Transport) -> int:
    """Return how much waits in the transport. asyncio's TLS transports cannot be asked any more once they are closing."""
    try:
        return transport.get_write_buffer_size()
    except AttributeError:
        return 0


def outstanding_bytes(transport: asyncio.Transport) -> int:
    """Return how much waits in the transport and in the kernel.

    The kernel is asked because it reports room late, when much of its own buffer is free again.
    """
    held = bytes(4)
    if (sock := socket_of(transport)) is not None:
        with suppress(OSError):
            held = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, held)
    return waiting_bytes(transport) + int.from_bytes(held, sys.byteorder)


def taken_bytes(transport: asyncio.Transport, written: int) -> int:
    """Return how much the other side has taken so far; only its growth means something. `written` is what we know was written.

    TCP counts what was acknowledged, so that what others wrote is in it as well; elsewhere it is what waits no more.
    """
    info = b""
    if (sock := socket_of(transport)) is not None:
        with suppress(OSError):
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ACKED_AT + 8)
    if len(info) == ACKED_AT + 8:
        return int.from_bytes(info[ACKED_AT:], sys.byteorder)
    return written - outstanding_bytes(transport)


def limit_unsent(transport: asyncio.Transport, limit: int) -> None:
    """Have the kernel take no more than it will soon send: what waits, waits where it can still be dropped. TCP alone can."""
    sock = socket_of(transport)
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)


def end_output(transport: asyncio.Transport) -> None:
    """Say that nothing more will be written. To one whose reset has come it cannot be said, and the loss is told by itself."""
    with suppress(OSError):
        transport.write_eof()


def end_secure(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> bool:
    """End a TLS connection at once: close_notify and FIN leave, and what still comes is read, as after `end_output` on TCP.

    TLS transports cannot end their output alone: asyncio's resets the connection at the next byte, and the reset overtakes
    what was written. Returns False, and does nothing, while something of that still waits in the transport.
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
    """Read again. A close_notify that aiofastnet 1.2 had in hand when it was paused would else wait for bytes behind it."""
    transport.resume_reading()
    if (retry := getattr(transport, "_retry_ssl_read", None)) is not None:
        loop.call_soon(retry)
