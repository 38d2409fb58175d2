"""The stdin and stdout of this process, of any file type: a source of batches and a sink of bytes.

The process that started wsbridge shares these descriptors, so wsbridge never makes them non-blocking. It opens a pipe or terminal
for output again. If that fails, it writes in pieces that do not block. epoll rejects regular files and /dev/null; they are always
ready, so wsbridge reads one piece of them per turn of the loop.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
from collections.abc import Callable
from contextlib import suppress

from wsbridge.closecodes import NORMAL
from wsbridge.errors import ProgramError
from wsbridge.flow import NULL_SOURCE, Batch, End, Source
from wsbridge.framing import Decoder

READ_BYTES = 256 * 1024
"""Bytes of one read, and thus of a file in one turn of the loop."""
ATOMIC_BYTES = select.PIPE_BUF
"""A descriptor that polls writable accepts this many bytes without blocking."""

Over = Callable[[End | ProgramError | OSError], None]


class StdinReader:
    """A source that reads a descriptor. `write` receives its batches; `over` is called once, after the last batch.

    The argument of `over` is an `End` at the end of the input, or if a record requests one. It is a ProgramError if the input
    violates the framing, and an OSError if it cannot be read.
    """

    def __init__(self, fd: int, decoder: Decoder, *, write: Callable[[Batch], None], over: Over, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._decoder = decoder
        self._write = write
        self._over = over
        self._loop = loop
        self._is_paused = False
        self._is_over = False
        self._is_watched = False
        self._due: asyncio.Handle | None = None
        """The next read of a descriptor that is always ready."""

    def start(self) -> None:
        """Start reading; `over` may be called before this returns."""
        if self._is_over or self._is_paused or self._is_watched or self._due is not None:
            return
        try:
            self._loop.add_reader(self._fd, self._read)
            self._is_watched = True
        except PermissionError:
            self._due = self._loop.call_soon(self._read_on)
        except OSError as error:
            self._finish(error)

    def pause(self) -> None:
        self._is_paused = True
        self._release()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self.start()

    def stop(self) -> None:
        """Stop reading, and call neither `write` nor `over` from now on."""
        self._is_over = True
        self._release()

    def _release(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._fd)
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _read_on(self) -> None:
        self._due = None
        self._read()
        self.start()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._finish(error)
            return
        try:
            items = self._decoder.feed(data) if data else self._decoder.eof()
        except ProgramError as error:
            for item in error.before:
                self._pass_on(item)
            self._finish(error)
            return
        for item in items:
            self._pass_on(item)
        if not data:
            self._finish(End(NORMAL))

    def _pass_on(self, item: Batch | End) -> None:
        if isinstance(item, End):
            self._finish(item)
        elif not self._is_over:
            self._write(item)

    def _finish(self, how: End | ProgramError | OSError) -> None:
        if not self._is_over:
            self.stop()
            self._over(how)


class StdoutWriter:
    """A descriptor to write. `failed` is called once, when nothing more can be written.

    BrokenPipeError means that the reader has closed the pipe. On a pipe, it is also detected while there is nothing to write.
    """

    def __init__(self, fd: int, *, failed: Callable[[OSError], None], loop: asyncio.AbstractEventLoop) -> None:
        self._failed = failed
        self._loop = loop
        self._pending = bytearray()
        self._drained = asyncio.Event()
        self._drained.set()
        self._has_failed = False
        self.source: Source = NULL_SOURCE
        """The source of the data: it is resumed after all pending data is written."""
        mode = os.fstat(fd).st_mode
        self._is_file = stat.S_ISREG(mode) or stat.S_ISBLK(mode)
        self._own = _reopened(fd) if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) else None
        self._fd = fd if self._own is None else self._own
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._is_watched = False
        if stat.S_ISFIFO(mode):
            self._is_watched = True
            self._loop.add_reader(self._fd, self._hung_up)

    def write(self, data: bytes) -> bool:
        """Write data and keep what does not fit; return whether there is room for more. Data after a failure is dropped."""
        if self._has_failed:
            return True
        if self._pending:
            self._pending += data
            return False
        written = self._write(data)
        if written == len(data) or self._has_failed:
            return True
        self._pending += memoryview(data)[written:]
        self._drained.clear()
        self._loop.add_writer(self._fd, self._flush)
        return False

    @property
    def has_room(self) -> bool:
        """Whether nothing is pending."""
        return not self._pending

    async def drain(self) -> None:
        """Wait until all data is written, or cannot be written."""
        await self._drained.wait()

    def close(self) -> None:
        """Stop using the descriptor; pending data is dropped."""
        self._has_failed = True
        self._forget()
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._fd)
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def _flush(self) -> None:
        with memoryview(self._pending) as pending:
            written = self._write(pending)
        if self._has_failed:
            return
        del self._pending[:written]
        if not self._pending:
            self._forget()
            self.source.resume()

    def _forget(self) -> None:
        if not self._drained.is_set():
            self._loop.remove_writer(self._fd)
            self._pending.clear()
            self._drained.set()

    def _write(self, data: bytes | memoryview) -> int:
        """Write as much as possible without waiting; return the number of bytes written."""
        written = 0
        try:
            with memoryview(data) as view:
                while written < len(view):
                    if self._own is not None or self._is_file:
                        written += os.write(self._fd, view[written:])
                    elif self._poll.poll(0):
                        written += os.write(self._fd, view[written : written + ATOMIC_BYTES])
                    else:
                        break
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)
        return written

    def _hung_up(self) -> None:
        self._fail(BrokenPipeError("the reader closed the pipe"))

    def _fail(self, error: OSError) -> None:
        if self._has_failed:
            return
        self._has_failed = True
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._fd)
        if not self._drained.is_set():
            self._loop.remove_writer(self._fd)
            self._drained.set()
        self._failed(error)


def _reopened(fd: int) -> int | None:
    """Return a new non-blocking descriptor for the same pipe or terminal, or None if it cannot be opened."""
    with suppress(OSError):
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return None
