"""What lies beneath aiormq: the TCP or TLS connection to the broker. It can be seen when something came, and can be cut off.

aiormq takes note of whole frames only, of which one takes seconds over a slow link; and it closes a TLS connection by waiting
for the broker's word that it does so too, for half a minute, whatever cancels it.
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
"""Where in Linux' struct tcp_info the 64 bits of tcpi_bytes_acked lie (linux/tcp.h, since 4.1)."""
IDLE_BYTES = 1024
"""What goes out between two looks besides what is published: heartbeats and acknowledgements, under TLS too."""
CANCEL_SECONDS = 1.0
"""For what was waited for too long to let go of what it has."""


class Transport:
    """Makes one connection, as a TransportFactory of aiormq, and keeps an eye on it."""

    def __init__(self) -> None:
        self._connection: asyncio.Transport | None = None
        self._heard = 0.0
        self._taken = 0

    async def create(self, url: Any, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, as aiormq's own factories do."""
        loop = asyncio.get_running_loop()
        provider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        reader = asyncio.StreamReader(loop=loop)
        protocol = _Protocol(reader, self._hear)
        try:
            self._connection, _ = await loop.create_connection(lambda: protocol, url.host, url.port, ssl=context, **kwargs)
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(self._connection, protocol, reader, loop)

    def heard(self) -> float:
        """Return when the last bytes came, by the loop's clock; 0 before the first."""
        return self._heard

    def goes_on(self) -> bool:
        """Return whether the broker's machine has taken part of what was published, since this was last asked."""
        before, self._taken = self._taken, self._taken_bytes()
        return self._taken - before > IDLE_BYTES

    def _taken_bytes(self) -> int:
        """Return how many bytes TCP has brought to the other side."""
        with suppress(OSError, AttributeError):
            sock = self._connection.get_extra_info("socket") if self._connection is not None else None
            if sock is not None:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ACKED_AT + 8)
                return int.from_bytes(info[ACKED_AT:], sys.byteorder)
        return 0

    def abort(self) -> None:
        """Cut it off, now; more than once is once."""
        # Python 3.11.2 fails on a TLS transport that is closed after it was aborted, and then aborted again.
        connection, self._connection = self._connection, None
        if connection is not None:
            # asyncio's that was closed, and has sent its rest since, has no loop any more.
            with suppress(AttributeError):
                connection.abort()

    def _hear(self, data: bytes) -> None:
        # That says that the link lives, not that anything comes.
        if data != HEARTBEAT_FRAME:
            self._heard = asyncio.get_running_loop().time()


class _Protocol(asyncio.StreamReaderProtocol):
    def __init__(self, reader: asyncio.StreamReader, hear: Callable[[bytes], None]) -> None:
        super().__init__(reader)
        self._hear = hear

    def data_received(self, data: bytes) -> None:
        self._hear(data)
        super().data_received(data)


async def within(seconds: float, work: Coroutine[Any, Any, object], *, until: Callable[[], float] | None = None) -> bool:
    """Wait for something, for so long, and with `until` up to the time that it returns; return whether it came.

    Not by asyncio.timeout, whose end Python 3.11.2 takes for another cancellation in a task that was cancelled before.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    task = loop.create_task(work, name="bus: within")
    left = seconds
    try:
        while not task.done() and left >= 0:
            await asyncio.wait((task,), timeout=left)
            left = (began + seconds if until is None else until()) - loop.time()
        has_come = task.done()
        if not has_come:
            task.cancel()
            await asyncio.wait((task,), timeout=CANCEL_SECONDS)
    finally:
        task.cancel()
    if has_come:
        task.result()
    return has_come
