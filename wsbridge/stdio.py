"""Our own stdin and stdout, as a source of batches and a sink of bytes, whatever they are.

The descriptors are shared with whoever started us, so they are never made non-blocking: a pipe or a terminal to write to is
opened once more, and what cannot be is written in pieces that do not block. Regular files and /dev/null, which epoll does
not take, are read a piece a turn: they are always ready.
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
from wsbridge.flow import STILL, Batch, End, Source
from wsbridge.framing import Decoder

READ_BYTES = 256 * 1024
"""What one read takes, and so what a turn of the loop takes of a file."""
ATOMIC_BYTES = select.PIPE_BUF
"""What polls writable takes this much without blocking."""

Over = Callable[[End | ProgramError | OSError], None]


class Input:
    """A descriptor that is read, as a source. `write` gets its batches, and `over` is called once, after the last.

    It is called with an `End` at the end of the input, or where a record of it asks for one; with ProgramError when it does
    not keep to the framing; with OSError when it cannot be read.
    """

    def __init__(
        self, fd: int, decoder: Decoder, *, write: Callable[[Batch], None], over: Over, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._fd = fd
        self._decoder = decoder
        self._write = write
        self._over = over
        self._loop = loop
        self._is_paused = False
        self._is_over = False
        self._is_watched = False
        self._due: asyncio.Handle | None = None
        """The next read of what is always ready."""

    def start(self) -> None:
        """Begin to read; `over` may be called before this returns."""
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
        self._let_go()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self.start()

    def stop(self) -> None:
        """Read no more, and call nothing any more."""
        self._is_over = True
        self._let_go()

    def _let_go(self) -> None:
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
                self._hand_on(item)
            self._finish(error)
            return
        for item in items:
            self._hand_on(item)
        if not data:
            self._finish(End(NORMAL))

    def _hand_on(self, item: Batch | End) -> None:
        if isinstance(item, End):
            self._finish(item)
        elif not self._is_over:
            self._write(item)

    def _finish(self, how: End | ProgramError | OSError) -> None:
        if not self._is_over:
            self.stop()
            self._over(how)


class Output:
    """A descriptor that is written to. `failed` is called once, when nothing can be written any more.

    BrokenPipeError means that the reader has gone; of a pipe it is noticed also while there is nothing to write.
    """

    def __init__(self, fd: int, *, failed: Callable[[OSError], None], loop: asyncio.AbstractEventLoop) -> None:
        self._failed = failed
        self._loop = loop
        self._pending = bytearray()
        self._drained = asyncio.Event()
        self._drained.set()
        self._has_failed = False
        self.source: Source = STILL
        """Whoever writes: it is told to go on when all that was pending is written."""
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
        """Write, and keep what finds no room; return whether there is room for more. What comes after a failure is dropped."""
        if self._has_failed:
            return True
        if self._pending:
            self._pending += data
            return False
        taken = self._write(data)
        if taken == len(data) or self._has_failed:
            return True
        self._pending += memoryview(data)[taken:]
        self._drained.clear()
        self._loop.add_writer(self._fd, self._flush)
        return False

    @property
    def has_room(self) -> bool:
        """Whether nothing is pending."""
        return not self._pending

    async def drain(self) -> None:
        """Wait until everything is written, or cannot be."""
        await self._drained.wait()

    def close(self) -> None:
        """Let go of the descriptor; what is pending is dropped."""
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
            taken = self._write(pending)
        if self._has_failed:
            return
        del self._pending[:taken]
        if not self._pending:
            self._forget()
            self.source.resume()

    def _forget(self) -> None:
        if not self._drained.is_set():
            self._loop.remove_writer(self._fd)
            self._pending.clear()
            self._drained.set()

    def _write(self, data: bytes | memoryview) -> int:
        """Write what can be written without waiting; return how many bytes that is."""
        taken = 0
        try:
            with memoryview(data) as view:
                while taken < len(view):
                    if self._own is not None or self._is_file:
                        taken += os.write(self._fd, view[taken:])
                    elif self._poll.poll(0):
                        taken += os.write(self._fd, view[taken : taken + ATOMIC_BYTES])
                    else:
                        break
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)
        return taken

    def _hung_up(self) -> None:
        self._fail(BrokenPipeError("the reader has gone"))

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
    """Return a non-blocking descriptor of our own for the same pipe or terminal, or None where there is none to be had."""
    with suppress(OSError):
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return None
