"""Bytes of request bodies that wait for their script: in memory at first, then in a temporary file without a name.

The file lies in TMPDIR (else /tmp), and is written and read in other threads, so that a slow disk delays no other client.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import deque
from collections.abc import Callable
from typing import IO, Any

from wsbridge.errors import Refused

MEMORY_BYTES = 64 * 1024
"""What a body may take in memory: a form fits, and a thousand of them take 64 MiB."""
PIECE = 128 * 1024
"""Bytes of a file that are read at once."""
BODIES = 4
"""How many of the longest bodies the space on the disk holds."""


class BufferSpace:
    """The space on the disk that all bodies share. `max_body_bytes` is the most of one body, 0 for any."""

    def __init__(self, max_body_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self._free = BODIES * max_body_bytes if max_body_bytes else None

    def take(self, size: int) -> bool:
        """Take so many bytes, if they are free."""
        if self._free is None:
            return True
        if self._free < size:
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        if self._free is not None:
            self._free += size


class BodyBuffer:
    """First in, first out, for one task that puts and one that gets."""

    def __init__(self, space: BufferSpace) -> None:
        self.size = 0
        """The bytes that were put, in all."""
        self._space = space
        self._memory: deque[bytes] = deque()
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self._written = self._read = 0
        """How much the file was given, and how much of that was taken out again."""
        self._is_ended = False
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._file_lock = asyncio.Lock()
        self._working: asyncio.Future[Any] | None = None

    async def put(self, data: bytes) -> None:
        """Add bytes. Raises Refused (413 over the most of one body, 503 without space on the disk); then they are not added."""
        limit = self._space.max_body_bytes
        if limit and self._in_memory + self._written + len(data) > limit:
            raise Refused(413, f"the body is longer than {limit} bytes (--maxbody)")
        if not self._written and self._in_memory + len(data) <= MEMORY_BYTES:
            self.squeeze(data)
            return
        await self._write(data)
        self.size += len(data)
        self._drained.clear()
        self._changed.set()

    def squeeze(self, data: bytes) -> None:
        """Add bytes in memory, however many: for the next piece where there is no space, when all before it was taken out."""
        self._memory.append(data)
        self._in_memory += len(data)
        self.size += len(data)
        self._drained.clear()
        self._changed.set()

    def end(self) -> None:
        """No more bytes follow."""
        self._is_ended = True
        self._changed.set()

    async def get(self) -> bytes:
        """Return the next bytes, waiting for them; none at the end."""
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
        """Wait until all that was put was taken out: then there is space again."""
        await self._drained.wait()

    def close(self) -> None:
        """Drop what is left, and give its space back."""
        self._memory.clear()
        file, self._file = self._file, None
        self._space.give(self._written)
        self._written = self._read = 0
        if file is None:
            return
        if self._working is not None and not self._working.done():
            # Another thread still uses its descriptor.
            self._working.add_done_callback(lambda _: file.close())
        else:
            file.close()

    async def _write(self, data: bytes) -> None:
        async with self._file_lock:
            if not self._space.take(len(data)):
                raise Refused(503, "the space for request bodies is taken", headers={"Retry-After": "5"})
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                await self._work(_write_all, self._file.fileno(), data, self._written)
            except BaseException:
                self._space.give(len(data))
                raise
            self._written += len(data)

    async def _read_file(self) -> bytes:
        async with self._file_lock:
            assert self._file is not None
            size = min(PIECE, self._written - self._read)
            data: bytes = await self._work(os.pread, self._file.fileno(), size, self._read)
            if len(data) < size:
                raise OSError("the temporary file was cut off")
            self._read += size
            if self._read == self._written:
                # From its beginning again.
                self._space.give(self._written)
                self._written = self._read = 0
            return data

    async def _work(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call a function in another thread. It is called to its end, even when this is cancelled."""
        self._working = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
        self._working.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._working)


def _write_all(descriptor: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, start)
        view, start = view[count:], start + count
