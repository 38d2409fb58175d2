"""Writes to a pipe without waiting: data that does not fit into the pipe waits here until the reader has read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class PipeWriter:
    """Owns the write end of a pipe, which is non-blocking.

    It calls `lost` when the reader has closed the pipe. It then closes the pipe and drops the pending data. It calls `drained` when
    no data waits any more, because it is written or dropped.
    """

    __slots__ = ("_drained", "_fd", "_loop", "_lost", "flushed", "pending")

    def __init__(self, fd: int, *, drained: Callable[[], None], lost: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._drained = drained
        self._lost = lost
        self._loop = loop
        self.pending = bytearray()
        """The data that waits for room."""
        self.flushed = 0
        """Bytes written so far that had to wait for room."""

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def write(self, data: bytes) -> bool:
        """Write data, and keep what does not fit; return whether nothing waits. The pipe must be open."""
        if self.pending:
            self.pending += data
            return False
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self._lose()
            return True
        if written == len(data):
            return True
        self.pending += memoryview(data)[written:]
        self._loop.add_writer(self._fd, self._flush)
        return False

    def close(self) -> None:
        """Close the pipe, and drop the data that waits. Further calls do nothing."""
        self.pending.clear()
        if self._fd >= 0:
            # Between exec's wake-up of this process and its closing of descriptors, a child holds a copy of this one: remove it
            # from epoll first.
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _flush(self) -> None:
        try:
            written = os.write(self._fd, self.pending)
        except BlockingIOError:
            return
        except OSError:
            self._lose()
            self._drained()
            return
        self.flushed += written
        del self.pending[:written]
        if not self.pending:
            self._loop.remove_writer(self._fd)
            self._drained()

    def _lose(self) -> None:
        self.close()
        self._lost()
