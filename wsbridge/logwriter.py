"""The destination of the log: a descriptor that wsbridge writes without waiting for its reader.

While the reader of a pipe is slow, lines wait in a bounded buffer. Lines that do not fit are dropped and counted. If the reader
is gone, the log ends but wsbridge continues.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import stat

from wsbridge.logs import count_lines
from wsbridge.metrics import Metrics

BUFFER_BYTES = 2 * 1024 * 1024
"""The handler drops new records once half of it is full; the other half is room for the lines of one record."""
ATOMIC = select.PIPE_BUF
"""A pipe that polls writable accepts this many bytes without blocking."""
LAST_WAIT_MS = 1000
"""How long `finish` waits for the reader before each write."""


class LogHandler(logging.Handler):
    """A logging handler that never blocks while it is attached to a loop."""

    def __init__(self, fd: int, formatter: logging.Formatter, metrics: Metrics) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._fd = fd
        self._metrics = metrics
        self._buffer = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._is_watched = False
        """Whether the loop reports when the reader has room."""
        self._is_in_line = False
        """Whether the last write ended within a line."""
        self._has_failed = False
        """Whether the last attempt to write failed: a full disk may have stored half a line."""

    def attach(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Write once per turn of this loop from now on; with None, write at once and wait for the reader."""
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._buffer) >= BUFFER_BYTES // 2 and self._loop is not None:
            # Drop the record before formatting it: a slow reader must not cost processor time.
            self._metrics.log_lines_dropped += count_lines(record)
            return
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:
            self.handleError(record)
            return
        if self._has_failed and self._is_in_line and not self._buffer:
            line = b"\n" + line
        self._buffer += line
        if self._loop is None:
            self.finish()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def finish(self) -> None:
        """Write the rest of the buffer, and wait a bounded time for the reader."""
        while self._buffer and self._poll.poll(LAST_WAIT_MS):
            if not self._write():
                return

    def _flush(self) -> None:
        self._scheduled = False
        while self._buffer and (self._is_file or self._poll.poll(0)):
            if not self._write():
                break
        if self._loop is None or self._is_file:
            return
        if self._buffer and not self._is_watched:
            self._is_watched = True
            self._loop.add_writer(self._fd, self._flush)
        elif not self._buffer and self._is_watched:
            self._is_watched = False
            self._loop.remove_writer(self._fd)

    def _write(self) -> bool:
        try:
            written = os.write(self._fd, self._buffer if self._is_file else self._buffer[:ATOMIC])
        except BlockingIOError:
            return False
        except OSError:
            # The reader has closed the pipe, or the disk is full, so no output is left for a report.
            self._metrics.log_lines_dropped += self._buffer.count(b"\n") - self._buffer.startswith(b"\n")
            self._buffer.clear()
            self._has_failed = True
            return False
        self._has_failed = False
        self._is_in_line = self._buffer[written - 1] != ord("\n")
        del self._buffer[:written]
        return True
