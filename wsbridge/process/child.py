"""One running child: a source of what it prints, a sink for what it is told, and its way down the ladder.

Its stdout is read a pipe at a time and decoded to batches; batches are encoded and written to its stdin at once, and
what the pipe does not take holds up the source. The spawn server, or a pidfd, reports the exit. The leader's session may outlive it,
and the child is gone only when nothing of it is left.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Sequence

from wsbridge.closecodes import NORMAL
from wsbridge.errors import ProgramError
from wsbridge.flow import STILL, Batch, End, Sink, Source
from wsbridge.framing import Decoder, Encoder
from wsbridge.logs import Pairs
from wsbridge.process.descendants import Descendants
from wsbridge.process.group import Group
from wsbridge.process.ladder import LAST_WAIT, Step
from wsbridge.process.spawn import Started, Stdio

READ_SIZE = 120 * 1024
"""Bytes of one read: a pipe holds 64 KiB unless its program has made it larger. A buffer of 128 KiB and more would be fresh
pages from the kernel for each read, which doubles what reading costs."""
ERROR_READ_SIZE = 4 * 1024
"""Bytes of one read of stderr, each line of which is logged: a flood of short lines is to take its turn."""
DRAIN_POLL = 0.05
"""Seconds between two looks at `owes_output`, for whoever waits until it is False."""
LAST_ERRORS = 16
"""Reads of stderr at the end: what a pipe holds. Whoever has left the group and goes on writing is not heard for ever."""


class Child:
    """A child from before its start until nothing is left of it.

    Its pipes exist before it runs, so a session can join it and write to it at once. `begin` or `fail` reports the result of its start.
    Its output is read after `begin` only: the guard, which ends the program if wsbridge is killed, knows of it by then.

    Call `start` once joined. `write` and `close_input` serve as its stdin; `pause` and `resume` hold what it prints. `end`
    leads it down the ladder; after it no descriptor and no process is left.

    Its sink gets `end` with code 1000 and no reason when all output was read; with another code, or while
    `output_open`, it is the program that asks for the end, or the fault of its framing. stderr goes to `errors`; with an
    `error_decoder` it goes to the sink as well, and the output ends when both streams have.
    """

    __slots__ = (
        "_closing_input",
        "_decoder",
        "_encoder",
        "_error_decoder",
        "_errors",
        "_is_killed",
        "_ladder",
        "_loop",
        "_owed",
        "_owed_errors",
        "_pending",
        "_reading",
        "_sink",
        "_starting",
        "_stderr",
        "_stdin",
        "_stdout",
        "_taken",
        "_unsure",
        "discarded",
        "group",
        "on_exit",
        "source",
    )

    def __init__(
        self,
        stdio: Stdio,
        *,
        decoder: Decoder,
        encoder: Encoder,
        errors: Callable[[bytes], None],
        error_decoder: Decoder | None = None,
        ladder: Sequence[Step],
        descendants: Descendants,
        pairs: Pairs,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.group = Group(descendants=descendants, pairs=pairs, loop=loop)
        self.group.on_exit = self._leader_exited
        self._stdin, self._stdout, self._stderr = stdio.stdin, stdio.stdout, stdio.stderr
        self._starting: asyncio.Future[Started] | None = None
        self._is_killed = False
        self._decoder = decoder
        self._encoder = encoder
        self._errors = errors
        self._error_decoder = error_decoder
        self._ladder = ladder
        self._loop = loop
        self._pending = bytearray()
        self._taken = 0
        """Bytes that the program took late, from what was pending."""
        self._unsure = 0
        """Messages of which the program has not taken every byte."""
        self._closing_input = False
        self._reading = False
        self._owed = self._owed_errors = 0
        """Bytes that lay unread in stdout, and in stderr where that goes to the sink, when the leader exited."""
        self.source: Source = STILL
        self._sink: Sink | None = None
        self.on_exit: Callable[[], None] = _nothing
        self.discarded = 0
        """Messages for a program that had closed its stdin."""

    @property
    def output_open(self) -> bool:
        """Whether something can still come that goes to the sink."""
        return self._stdout >= 0 or (self._error_decoder is not None and self._stderr >= 0)

    @property
    def owes_output(self) -> bool:
        """Whether something that was printed before the leader exited is still to be read, or all that is left to read."""
        return self._owed > 0 or self._owed_errors > 0 or _has_no_writer(self._stdout)

    @property
    def is_full(self) -> bool:
        """Whether something waits for its stdin, and so its source is held up."""
        return bool(self._pending)

    def start(self, sink: Sink) -> None:
        """Push what the program prints into `sink`, and its end when all of its output is read."""
        self._sink = sink
        self.resume()
        self._maybe_read_stderr()

    def begin(self, started: Started) -> None:
        """Take note that the program runs."""
        self.group.begin(started.pid, started.watch)
        if self._is_killed:
            self.group.signal(signal.SIGKILL)
        self._maybe_read()
        self._maybe_read_stderr()

    def fail(self) -> None:
        """Take note that the program could not be started: what was written to its stdin is lost."""
        self.group.fail()

    def follow(self, starting: asyncio.Future[Started]) -> None:
        """Begin when this brings a program, or fail; `kill` cancels it."""
        self._starting = starting
        starting.add_done_callback(self._start_has_ended)

    def _start_has_ended(self, starting: asyncio.Future[Started]) -> None:
        if starting.cancelled() or starting.exception() is not None:
            self.fail()
        else:
            self.begin(starting.result())

    def _maybe_read_stderr(self) -> None:
        """Read what is logged, once the lines can say which process has printed them."""
        if self._error_decoder is None and self._sink is not None and self.group.pid and self._stderr >= 0:
            self._loop.add_reader(self._stderr, self._read_stderr)

    # What it prints

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            if self._stdout >= 0:
                self._loop.remove_reader(self._stdout)
            if self._error_decoder is not None and self._stderr >= 0:
                self._loop.remove_reader(self._stderr)

    def resume(self) -> None:
        if not self._reading and self.output_open:
            self._reading = True
            self._maybe_read()

    def _maybe_read(self) -> None:
        if not self._reading or not self.group.pid:
            return
        if self._stdout >= 0:
            self._loop.add_reader(self._stdout, self._read_stdout)
        if self._error_decoder is not None and self._stderr >= 0:
            self._loop.add_reader(self._stderr, self._read_stderr)

    def redirect(self, sink: Sink) -> None:
        """Push into another sink from now on."""
        self._sink = sink

    def finish_output(self) -> None:
        """Push what was begun: nothing more is expected, though others may still hold stdout open."""
        if self._stdout >= 0 and self._sink is not None:
            self._decode(self._decoder, b"")

    def _read_stdout(self) -> bool:
        try:
            data = os.read(self._stdout, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: a terminal whose other end nobody holds open any more
        self._owed -= len(data)
        self._decode(self._decoder, data)
        if not data:
            self._close_stdout()
            self._maybe_end_output()
        return bool(data)

    def _read_stderr(self) -> bool:
        try:
            data = os.read(self._stderr, ERROR_READ_SIZE)
        except BlockingIOError:
            return False
        self._errors(data)
        if self._error_decoder is not None:
            self._owed_errors -= len(data)
            self._decode(self._error_decoder, data)
        if not data:
            self._close_stderr()
            if self._error_decoder is not None:
                self._maybe_end_output()
        return bool(data)

    def _decode(self, decoder: Decoder, data: bytes) -> None:
        try:
            items = decoder.feed(data) if data else decoder.eof()
        except ProgramError as error:
            # What follows a fault has no meaning any more, and must not be kept until it gets one.
            self._decoder = DEAF
            if self._error_decoder is not None:
                self._error_decoder = DEAF
            self._push([*error.before, End(error.code, error.reason)])
        else:
            self._push(items)

    def _push(self, items: Sequence[Batch | End]) -> None:
        assert self._sink is not None
        for item in items:
            if type(item) is Batch:
                self._sink.write(item)
            elif type(item) is End:
                self._sink.end(item)

    def _maybe_end_output(self) -> None:
        if not self.output_open:
            self._push([End(NORMAL)])

    def _close_stdout(self) -> None:
        if self._stdout >= 0:
            self._loop.remove_reader(self._stdout)
            os.close(self._stdout)
            self._stdout = -1
            self._owed = 0

    def _close_stderr(self) -> None:
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1
            self._owed_errors = 0

    # Its stdin

    def send(self, data: bytes) -> None:
        """Write bytes that are framed already."""
        if data and self._stdin >= 0 and not self._closing_input:
            self._send(data)

    def write(self, batch: Batch) -> None:
        if self._stdin < 0 or self._closing_input:
            self.discarded += len(batch.messages)
        else:
            self._unsure += len(batch.messages)
            self._send(self._encoder.encode(batch))
            if not self._pending:
                self._unsure = 0

    def close_input(self, reason: End) -> None:
        """Close stdin when all that was written is taken; tell the program why, if its framing has words for it."""
        if self._stdin < 0 or self._closing_input:
            return
        if closing := self._encoder.closing(reason):
            self._send(closing)
        self._closing_input = True
        if not self._pending:
            self._close_stdin()

    def _send(self, data: bytes) -> None:
        if self._pending:
            self._pending += data
            self.source.pause()
            return
        try:
            written = os.write(self._stdin, data)
        except BlockingIOError:
            written = 0
        except OSError:
            self._lose_stdin()
            return
        if written < len(data):
            self._pending += memoryview(data)[written:]
            self.source.pause()
            self._loop.add_writer(self._stdin, self._flush)

    def _flush(self) -> None:
        try:
            taken = os.write(self._stdin, self._pending)
            self._taken += taken
            del self._pending[:taken]
        except BlockingIOError:
            return
        except OSError:
            self._lose_stdin()
            self.source.resume()
            return
        if not self._pending:
            self._unsure = 0
            self._loop.remove_writer(self._stdin)
            if self._closing_input:
                self._close_stdin()
            self.source.resume()

    def _lose_stdin(self) -> None:
        """The program has closed its stdin: what it did not take is discarded, and so is all that follows."""
        self.discarded += self._unsure
        self._unsure = 0
        self._pending.clear()
        self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    # Its end

    def _leader_exited(self) -> None:
        self._owed = _unread(self._stdout)
        if self._error_decoder is not None:
            self._owed_errors = _unread(self._stderr)
        self.on_exit()

    async def end(self, *, input_seconds: float = math.inf) -> None:
        """Lead the program's processes down the ladder, whose first step is that stdin closes; then let go of everything.

        The caller has called `close_input`, or does so while this waits. The program has `input_seconds` to take what is left for
        its stdin, as long as it takes.
        """
        group = self.group
        try:
            if not await group.begun():
                return
            first, *_ = self._ladder
            has_waited = await self._input_taken(first.grace, input_seconds)
            for step in self._ladder:
                if await group.gone_within(0 if has_waited and step is first else step.grace):
                    return
                group.signal(step.signal)
            if not await group.gone_within(LAST_WAIT):
                group.report_survivors()
        finally:
            self._let_go()

    async def _input_taken(self, grace: float, seconds: float) -> bool:
        """Wait while the program still takes what is left for its stdin: what the client said before it left is not lost.

        Return whether it took nothing for a whole grace. The grace of a stdin that has closed begins only then, or after `seconds`.
        """
        until = self._loop.time() + seconds
        while self._stdin >= 0 and self.group.status is None and self._loop.time() < until:
            taken = self._taken
            await self.group.gone_within(grace)
            if self._stdin >= 0 and self._taken == taken:
                return True
        return False

    def kill(self) -> None:
        """Send KILL to every process at once, or start none: the bridge is told to hurry. `end` is still needed."""
        self._is_killed = True
        if self._starting is not None:
            # It may have been started already, in this very turn.
            self._starting.cancel()
        self.group.signal(signal.SIGKILL)

    def abandon(self) -> None:
        """Kill the program and close its pipes. Its processes stay under observation until the last one has ended."""
        self.kill()
        self._let_go()

    def _let_go(self) -> None:
        self.group.let_go()
        self._lose_stdin()
        # The exit may have been seen before the last words.
        while self._owed > 0 and self._read_stdout():
            pass
        # Its end may not have been read yet.
        self.finish_output()
        self._close_stdout()
        for _ in range(LAST_ERRORS):
            if self._stderr < 0 or not self._read_stderr():
                break
        if self._stderr >= 0:
            self._errors(b"")
            self._close_stderr()


class Deaf:
    """A decoder that hears nothing."""

    def feed(self, data: bytes) -> Sequence[Batch | End]:
        return ()

    def eof(self) -> Sequence[Batch | End]:
        return ()


DEAF = Deaf()


def _unread(fd: int) -> int:
    """Return how many bytes lie in a pipe or terminal."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder) if fd >= 0 else 0


def _has_no_writer(fd: int) -> bool:
    """Whether what lies in a pipe or terminal is all that there will be: its end will be read, too."""
    if fd < 0:
        return False
    look = select.poll()
    look.register(fd, 0)
    return bool(look.poll(0))


def _nothing() -> None:
    """Nobody waits for the exit."""
