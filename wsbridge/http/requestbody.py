"""The body of a request for a CGI script, streamed or buffered.

- The server reads a body of known length as fast as the script reads it. If the script reads nothing for a while, the server
  buffers the rest. The end of the connection follows the body, and the server would otherwise not detect it.
- The server buffers a chunked body completely before it starts the script, since RFC 3875 (section 4.1.2) requires its length.

A body that does not arrive holds no slot: the script starts when the first bytes have arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import HttpVersion11, web

from wsbridge.errors import BodyTimeout, Refused
from wsbridge.http.buffering import BodyBuffer, BufferSpace
from wsbridge.rules.request import has_token


class RequestBody:
    """The body of one request, read by one task; `seconds` is the longest time between two reads, and 0 means no limit."""

    def __init__(self, raw: web.BaseRequest, *, seconds: float, space: BufferSpace) -> None:
        self._raw = raw
        self._seconds = seconds
        self._space = space
        self._first = b""
        self._buffer: BodyBuffer | None = None
        self._filling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait for the first bytes. Raises BodyTimeout, and aiohttp's exceptions for a malformed body."""
        self._ask()
        self._first = await self._receive()

    async def collect(self) -> int:
        """Buffer the whole body; return its length. Raises Refused (413, 503), BodyTimeout, and aiohttp's exceptions."""
        self._ask()
        buffer = self._buffer = BodyBuffer(self._space)
        while data := await self._receive():
            await buffer.put(data)
        buffer.end()
        return buffer.size

    async def read(self) -> bytes:
        """Return the next bytes, or `b""` at the end. Raises the same exceptions as `start`."""
        if self._first:
            data, self._first = self._first, b""
            return data
        if self._buffer is None:
            return await self._receive()
        data = await self._buffer.get()
        if not data and self._filling is not None:
            await self._filling
        return data

    @property
    def is_buffered(self) -> bool:
        return self._buffer is not None

    def read_ahead(self, late: Callable[[], None]) -> None:
        """Buffer the bytes that arrive from now on, while there is space; call `late` when none arrive for too long."""
        self._buffer = BodyBuffer(self._space)
        self._filling = asyncio.get_running_loop().create_task(self._fill(self._buffer, late), name="CGI body ahead")

    async def close(self) -> None:
        """Stop buffering, and drop the remaining bytes."""
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.wait((self._filling,))
            if not self._filling.cancelled():
                self._filling.exception()
        if self._buffer is not None:
            self._buffer.close()

    async def _fill(self, buffer: BodyBuffer, late: Callable[[], None]) -> None:
        try:
            while data := await self._receive():
                try:
                    await buffer.put(data)
                except (Refused, OSError):
                    # There is no space: the client waits until the script has read the buffered bytes.
                    await buffer.wait_drained()
                    buffer.put_in_memory(data)
        except BodyTimeout:
            late()
            raise
        finally:
            buffer.end()

    async def _receive(self) -> bytes:
        try:
            async with asyncio.timeout(self._seconds or None):
                return await self._raw.content.readany()
        except TimeoutError:
            raise BodyTimeout from None

    def _ask(self) -> None:
        """Request the body from a client that waits for 100 Continue before it sends the body (RFC 9110, section 10.1.1)."""
        raw = self._raw
        holds_back = raw.version >= HttpVersion11 and has_token(raw.headers.getall("Expect", ()), "100-continue")
        if holds_back and raw.can_read_body and raw.transport is not None:
            raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
