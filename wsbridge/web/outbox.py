"""What was written to a client and has not reached it: the measure of whether it takes anything."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios


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
    try:
        sock = transport.get_extra_info("socket")
        held = int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        held = 0
    return waiting_bytes(transport) + held


def resume_reading(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    """Read again. A close_notify that aiofastnet 1.2 had in hand when it was paused would else wait for bytes behind it."""
    transport.resume_reading()
    if (retry := getattr(transport, "_retry_ssl_read", None)) is not None:
        loop.call_soon(retry)
