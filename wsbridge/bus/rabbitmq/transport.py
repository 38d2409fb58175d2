"""The TCP or TLS connection beneath aiormq: it shows when bytes arrive and how many the broker accepts, and can be aborted.

aiormq reports whole frames only, and one frame takes seconds over a slow link. When aiormq closes a TLS connection, it waits half
a minute for the broker to close it too. A cancellation does not end that wait.

Many links write to one connection, so each has to know whether the broker accepts the bytes that it waits for. `written` and
`accepted` are positions in the stream of all bytes.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from aio_pika.exceptions import AMQPConnectionError

HEARTBEAT_FRAME = b"\x08\0\0\0\0\0\0\xce"
ACKED_AT = 120
"""The offset of the 64-bit field tcpi_bytes_acked in Linux's struct tcp_info (linux/tcp.h, since 4.1)."""
RECORD_DATA_BYTES, RECORD_BYTES = 16 * 1024, 29
"""Maximum data of a TLS record, and the most that a record adds to it (TLS 1.2 with AES-GCM; TLS 1.3 adds 22)."""
CANCEL_SECONDS = 1.0
"""Seconds for cancelled work to release its resources."""


class Transport:
    """Opens one connection, as a TransportFactory of aiormq, and observes it."""

    def __init__(self) -> None:
        self._connection: asyncio.Transport | None = None
        self._received_at = 0.0
        self.written = 0
        """How many bytes were sent so far; with TLS at least as many as the records have."""
        self._handshake = 0
        self._is_tls = False

    async def create(self, url: Any, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, as aiormq's own factories do."""
        loop = asyncio.get_running_loop()
        provider = kwargs.pop("ssl_context_provider")
        self._is_tls = url.scheme == "amqps"
        context = await provider.get_context() if self._is_tls else None
        reader = asyncio.StreamReader(loop=loop)
        protocol = _Protocol(reader, self._on_data)
        try:
            self._connection, _ = await loop.create_connection(lambda: protocol, url.host, url.port, ssl=context, **kwargs)
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self._handshake = self._acknowledged()
        return reader, _Writer(self._connection, protocol, reader, loop, count=self._count)

    def received_at(self) -> float:
        """Return the loop time at which the last bytes arrived; 0 before the first. Heartbeats do not count."""
        return self._received_at

    def write(self, data: bytes) -> None:
        """Send bytes, behind all earlier bytes. At the end of the connection this drops them."""
        if self._connection is not None and not self._connection.is_closing():
            self._count(len(data))
            self._connection.write(data)

    def accepted(self) -> int:
        """Return the position up to which the broker's machine has acknowledged the bytes; 0 if that is not known."""
        return max(self._acknowledged() - self._handshake, 0)

    def _count(self, size: int) -> None:
        self.written += size
        if self._is_tls:
            self.written += RECORD_BYTES * (size // RECORD_DATA_BYTES + 1)

    def _acknowledged(self) -> int:
        """Return how many bytes the peer's TCP has acknowledged; 0 if that is not known."""
        with suppress(OSError, AttributeError):
            sock = self._connection.get_extra_info("socket") if self._connection is not None else None
            if sock is not None:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ACKED_AT + 8)
                return int.from_bytes(info[ACKED_AT:], sys.byteorder)
        return 0

    def abort(self) -> None:
        """Abort the connection at once; further calls do nothing."""
        # Python 3.11.2 raises an exception if a TLS transport is aborted, closed, and aborted again.
        connection, self._connection = self._connection, None
        if connection is not None:
            # An asyncio transport that was closed, and has sent its remaining data since, has no loop any more.
            with suppress(AttributeError):
                connection.abort()

    def _on_data(self, data: bytes) -> None:
        # A heartbeat shows that the link is alive, not that data arrives.
        if data != HEARTBEAT_FRAME:
            self._received_at = asyncio.get_running_loop().time()


class _Protocol(asyncio.StreamReaderProtocol):
    def __init__(self, reader: asyncio.StreamReader, on_data: Callable[[bytes], None]) -> None:
        super().__init__(reader)
        self._on_data = on_data

    def data_received(self, data: bytes) -> None:
        self._on_data(data)
        super().data_received(data)


class _Writer(asyncio.StreamWriter):
    """The writer of aiormq, which sends heartbeats and the frames of the connection itself."""

    def __init__(self, *arguments: Any, count: Callable[[int], None]) -> None:
        super().__init__(*arguments)
        self._count = count

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._count(len(data))
        super().write(data)


async def within(seconds: float, work: Coroutine[Any, Any, object], *, until: Callable[[], float] | None = None) -> bool:
    """Wait at most `seconds` for `work`, or with `until` up to the time that it returns; return whether the work finished.

    Work that has not finished is cancelled. This does not use asyncio.timeout: in a task that was cancelled before, Python 3.11.2
    mistakes the timeout for another cancellation.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    task = loop.create_task(work, name="bus: within")
    # aio-pika may end a cancelled call with an error of its own, and nothing awaits that error.
    task.add_done_callback(retrieve)
    remaining = seconds
    try:
        while not task.done() and remaining >= 0:
            await asyncio.wait((task,), timeout=remaining)
            remaining = (start + seconds if until is None else until()) - loop.time()
        is_done = task.done()
        if not is_done:
            task.cancel()
            await asyncio.wait((task,), timeout=CANCEL_SECONDS)
    finally:
        task.cancel()
    if is_done:
        task.result()
    return is_done


def retrieve(task: asyncio.Task[Any]) -> None:
    """Mark a task's error as seen: asyncio logs an error that nothing has retrieved."""
    if not task.cancelled():
        task.exception()
