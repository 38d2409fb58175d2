"""The body of a request for a CGI script: as it comes, or buffered.

- Of known length, it is read as fast as the script takes it. A script that takes nothing for a while makes the rest be
  buffered: the end of the connection lies behind the body, and would not be seen else.
- In chunks, it is buffered whole before the script is started, since RFC 3875 (section 4.1.2) wants its length said.

A body that does not come holds no slot: its script is started when the first bytes are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import HttpVersion11, web

from wsbridge.errors import Refused
from wsbridge.rules.request import has_token
from wsbridge.web.buffering import BodyBuffer, BufferSpace


class BodyLate(Exception):
    """Nothing of the body has come for too long."""


class RequestBody:
    """Read by one task. `seconds` is the longest time between two reads, 0 for any."""

    def __init__(self, raw: web.BaseRequest, *, seconds: float, space: BufferSpace) -> None:
        self._raw = raw
        self._seconds = seconds
        self._space = space
        self._first = b""
        self._buffer: BodyBuffer | None = None
        self._filling: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Wait for the first bytes. Raises BodyLate, and what aiohttp raises for a body that is none."""
        self._ask()
        self._first = await self._receive()

    async def collect(self) -> int:
        """Buffer all of the body; return its length. Raises Refused (413, 503), BodyLate, and what aiohttp raises."""
        self._ask()
        buffer = self._buffer = BodyBuffer(self._space)
        while data := await self._receive():
            await buffer.put(data)
        buffer.end()
        return buffer.size

    async def read(self) -> bytes:
        """Return the next bytes, none at the end. Raises as `begin` does."""
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
        """Buffer what comes from now on, as far as there is space; call `late` when nothing comes for too long."""
        self._buffer = BodyBuffer(self._space)
        self._filling = asyncio.get_running_loop().create_task(self._fill(self._buffer, late), name="CGI body ahead")

    async def close(self) -> None:
        """Drop what is left."""
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
                    # No space: the client waits until the script has taken what is here.
                    await buffer.wait_drained()
                    buffer.squeeze(data)
        except BodyLate:
            late()
            raise
        finally:
            buffer.end()

    async def _receive(self) -> bytes:
        try:
            async with asyncio.timeout(self._seconds or None):
                return await self._raw.content.readany()
        except TimeoutError:
            raise BodyLate from None

    def _ask(self) -> None:
        """Ask a client for the body that it holds back until then (RFC 9110, section 10.1.1)."""
        raw = self._raw
        holds_back = raw.version >= HttpVersion11 and has_token(raw.headers.getall("Expect", ()), "100-continue")
        if holds_back and raw.can_read_body and raw.transport is not None:
            raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
