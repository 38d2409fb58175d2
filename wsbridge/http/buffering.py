"""A buffer for the body of a request that waits for its script: in memory at first, then in an unnamed temporary file.

The file is in TMPDIR (else in /tmp). Other threads write and read it, so that a slow disk delays no other client.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import deque
from collections.abc import Callable
from typing import IO, Any

from wsbridge.errors import Refused
from wsbridge.mentions import written

MEMORY_BYTES = 64 * 1024
"""The most bytes of one body in memory: a form fits, and a thousand bodies use 64 MiB."""
PIECE = 128 * 1024
"""Bytes of one read from the file."""
BODIES = 4
"""The shared disk space, as a number of bodies of the maximum length."""


class BufferSpace:
    """The disk space that all bodies share; `max_body_bytes` is the limit for one body, and 0 means no limit."""

    def __init__(self, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._free = BODIES * max_body_bytes if max_body_bytes else None

    def reserve(self, size: int) -> bool:
        """Reserve `size` bytes of disk space; return whether they were free."""
        if self._free is None:
            return True
        if self._free < size:
            return False
        self._free -= size
        return True

    def release(self, size: int) -> None:
        if self._free is not None:
            self._free += size


class BodyBuffer:
    """A first-in, first-out buffer for one task that calls `put` and one task that calls `get`."""

    def __init__(self, space: BufferSpace) -> None:
        self.size = 0
        """How many bytes were put, in total."""
        self._space = space
        self._memory: deque[bytes] = deque()
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self._written = self._read = 0
        """Bytes written to the file, and bytes read back from it."""
        self._is_ended = False
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._file_lock = asyncio.Lock()
        self._working: asyncio.Future[Any] | None = None

    async def put(self, data: bytes) -> None:
        """Add bytes; on an error, add none.

        Raises Refused (413 if the body exceeds its limit, 503 if there is no disk space) and OSError.
        """
        limit = self._space.max_body_bytes
        if limit and self._in_memory + self._written + len(data) > limit:
            raise Refused(413, written(f"the body is longer than {limit} bytes (<max_body>)"))
        if not self._written and self._in_memory + len(data) <= MEMORY_BYTES:
            self.put_in_memory(data)
            return
        await self._write(data)
        self.size += len(data)
        self._drained.clear()
        self._changed.set()

    def put_in_memory(self, data: bytes) -> None:
        """Add any number of bytes in memory.

        RequestBody uses this for a piece without disk space, after the reader has drained the buffer.
        """
        self._memory.append(data)
        self._in_memory += len(data)
        self.size += len(data)
        self._drained.clear()
        self._changed.set()

    def end(self) -> None:
        """Mark the end of the body."""
        self._is_ended = True
        self._changed.set()

    async def get(self) -> bytes:
        """Wait for the next bytes and return them; return `b""` at the end."""
        while not self._memory and self._read == self._written:
            if self._is_ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        if self._memory:
            data = b"".join(self._memory)
            self._memory.clear()
            self._in_memory = 0
        else:
            data = await self._read_file()
        if self._read == self._written and not self._memory:
            self._drained.set()
        return data

    async def wait_drained(self) -> None:
        """Wait until the reader has drained the buffer: then there is space again."""
        await self._drained.wait()

    def close(self) -> None:
        """Drop the remaining bytes and free their disk space."""
        self._memory.clear()
        file, self._file = self._file, None
        self._space.release(self._written)
        self._written = self._read = 0
        if file is None:
            return
        if self._working is not None and not self._working.done():
            # Another thread still uses the file's descriptor.
            self._working.add_done_callback(lambda _: file.close())
        else:
            file.close()

    async def _write(self, data: bytes) -> None:
        async with self._file_lock:
            if not self._space.reserve(len(data)):
                raise Refused(503, "the buffer space for request bodies is full", headers={"Retry-After": "5"})
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                await self._work(_write_all, self._file.fileno(), data, self._written)
            except BaseException:
                self._space.release(len(data))
                raise
            self._written += len(data)

    async def _read_file(self) -> bytes:
        async with self._file_lock:
            assert self._file is not None
            size = min(PIECE, self._written - self._read)
            data: bytes = await self._work(os.pread, self._file.fileno(), size, self._read)
            if len(data) < size:
                raise OSError("the temporary file was truncated")
            self._read += size
            if self._read == self._written:
                # The file is drained: start at its beginning again.
                self._space.release(self._written)
                self._written = self._read = 0
            return data

    async def _work(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call a function in another thread; the call runs to its end even if this task is cancelled."""
        self._working = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
        self._working.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._working)


def _write_all(descriptor: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, start)
        view, start = view[count:], start + count
