"""One running child: a source of its output, a sink for its input, and the steps of its termination.

Each read of its stdout returns up to a full pipe of data, which is decoded to batches. Batches for its stdin are encoded and
written at once; data that the pipe does not accept waits, and the source is paused. The spawn server, or a pidfd, reports the
exit of the leader. Processes of the leader's session may outlive the leader. The child ends only when none of them remains.
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
from wsbridge.flow import NULL_SOURCE, Batch, End, Sink, Source
from wsbridge.framing import Decoder, Encoder
from wsbridge.logs import LogFields
from wsbridge.process.descendants import Descendants
from wsbridge.process.group import Group
from wsbridge.process.pipewriter import PipeWriter
from wsbridge.process.spawn import Started, Stdio
from wsbridge.process.termination import LAST_WAIT, Step

READ_SIZE = 120 * 1024
"""Bytes of one read: a pipe holds 64 KiB unless its program has enlarged it. For a buffer of 128 KiB or more, the kernel would
supply fresh pages for each read, which doubles the cost of reading."""
ERROR_READ_SIZE = 4 * 1024
"""Bytes of one read of stderr, each line of which is logged. Between two reads of a flood of short lines, the loop does other work."""
LAST_ERRORS = 16
"""Maximum reads of stderr at the end: the content of a pipe. A process that has left the group and continues to write cannot
delay the end."""


class Child:
    """A child, from before its start until none of its processes is left.

    Its pipes exist before it runs, so a session can join it and write to it at once. `attach` or `fail` reports the result of its
    start. Its output is read only after `attach`: by then the guard has its session ID, and ends the program if wsbridge is killed.

    Call `start` once a session has joined it. `write` and `close_input` act on its stdin; `pause` and `resume` control the
    reading of its output. `end` terminates it by the ladder. After `end` no descriptor is left, and no process except those that
    KILL did not end.

    Its sink gets `end` with code 1000 and no reason when all output has been read. An `end` with another code, or while
    `output_open`, means that the program requests the end or has broken its framing. stderr goes to `errors`. With an
    `error_decoder` it also goes to the sink, and the output ends when both streams have ended.
    """

    __slots__ = (
        "_closing_input",
        "_decoder",
        "_encoder",
        "_error_decoder",
        "_errors",
        "_exited",
        "_input",
        "_is_killed",
        "_ladder",
        "_loop",
        "_reading",
        "_sink",
        "_starting",
        "_stderr",
        "_stdout",
        "_unread_errors",
        "_unread_output",
        "_unsure",
        "discarded",
        "group",
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
        fields: LogFields,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.group = Group(exited=self._leader_exited, descendants=descendants, fields=fields, loop=loop)
        self._stdout, self._stderr = stdio.stdout, stdio.stderr
        self._input = PipeWriter(stdio.stdin, drained=self._input_drained, lost=self._input_lost, loop=loop)
        self._starting: asyncio.Future[Started] | None = None
        self._is_killed = False
        self._decoder = decoder
        self._encoder = encoder
        self._errors = errors
        self._error_decoder = error_decoder
        self._ladder = ladder
        self._loop = loop
        self._unsure = 0
        """Messages that have not been written to stdin in full."""
        self._closing_input = False
        self._reading = False
        self._unread_output = self._unread_errors = 0
        """Bytes that were unread in stdout, and in stderr if that goes to the sink, when the leader exited."""
        self.source: Source = NULL_SOURCE
        self._sink: Sink | None = None
        self._exited: Callable[[], None] | None = None
        self.discarded = 0
        """Messages that were not written to stdin in full, for example because the program had closed it."""

    @property
    def output_open(self) -> bool:
        """Whether more output for the sink may still arrive."""
        return self._stdout >= 0 or (self._error_decoder is not None and self._stderr >= 0)

    @property
    def has_unread_output(self) -> bool:
        """Whether output from before the leader's exit is still unread, or the unread output is all that remains: stdout has no
        writer any more."""
        return self._unread_output > 0 or self._unread_errors > 0 or _has_no_writer(self._stdout)

    @property
    def is_full(self) -> bool:
        """Whether data waits for its stdin, and so its source is paused."""
        return bool(self._input.pending)

    def start(self, sink: Sink, exited: Callable[[], None] | None = None) -> None:
        """Push the program's output into `sink`, and its end when all output has been read; call `exited` when the leader has exited.

        An exit is reported until `end` or `abandon` has released the child.
        """
        self._sink = sink
        self._exited = exited
        self.resume()
        self._maybe_read_stderr()

    def attach(self, started: Started) -> None:
        """Record that the program runs."""
        self.group.attach(started.pid, started.watch, self._ladder)
        if self._is_killed:
            self.group.signal(signal.SIGKILL)
        self._maybe_read()
        self._maybe_read_stderr()

    def fail(self) -> None:
        """Record that the program could not be started; data written to its stdin is lost."""
        self.group.fail()

    def follow(self, starting: asyncio.Future[Started]) -> None:
        """Call `attach` when the future returns a program, or `fail` when it does not; `kill` cancels the future."""
        self._starting = starting
        starting.add_done_callback(self._start_has_ended)

    def _start_has_ended(self, starting: asyncio.Future[Started]) -> None:
        if starting.cancelled() or starting.exception() is not None:
            self.fail()
        else:
            self.attach(starting.result())

    def _maybe_read_stderr(self) -> None:
        """Read the stderr that is only logged, once its log lines can contain the pid."""
        if self._error_decoder is None and self._sink is not None and self.group.pid and self._stderr >= 0:
            self._loop.add_reader(self._stderr, self._read_stderr)

    # Output

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
        """Push an unfinished message: no more output is expected, although other processes may still hold stdout open."""
        if self._stdout >= 0 and self._sink is not None:
            self._decode(self._decoder, b"")

    def _read_stdout(self) -> bool:
        try:
            data = os.read(self._stdout, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: no process holds the other end of the terminal open any more
        self._unread_output -= len(data)
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
            self._unread_errors -= len(data)
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
            # After a framing fault the remaining data has no meaning, and a decoder must not buffer it.
            self._decoder = NULL_DECODER
            if self._error_decoder is not None:
                self._error_decoder = NULL_DECODER
            self._push([*error.before, End(error.code, error.reason)])
        else:
            self._push(items)

    def _push(self, items: Sequence[Batch | End]) -> None:
        if self._sink is None:
            # The child was abandoned before its start.
            return
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
            self._unread_output = 0

    def _close_stderr(self) -> None:
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1
            self._unread_errors = 0

    # Input

    def send(self, data: bytes) -> None:
        """Write bytes that are already framed."""
        if data and self._input.is_open and not self._closing_input:
            self._send(data)

    def write(self, batch: Batch) -> None:
        if not self._input.is_open or self._closing_input:
            self.discarded += len(batch.messages)
            return
        self._unsure += len(batch.messages)
        self._send(self._encoder.encode(batch))

    def close_input(self, reason: End) -> None:
        """Close stdin when all written data has been flushed. First send the program the reason, if its framing can express one."""
        if not self._input.is_open or self._closing_input:
            return
        if closing := self._encoder.closing(reason):
            self._send(closing)
        self._closing_input = True
        if not self._input.pending:
            self._input.close()

    def _send(self, data: bytes) -> None:
        if self._input.write(data):
            self._unsure = 0
        else:
            self.source.pause()

    def _input_drained(self) -> None:
        self._unsure = 0
        if self._closing_input:
            self._input.close()
        self.source.resume()

    def _input_lost(self) -> None:
        """Count the messages that the program has not read, because it has closed its stdin."""
        self.discarded += self._unsure
        self._unsure = 0

    # Termination

    def _leader_exited(self) -> None:
        self._unread_output = _unread(self._stdout)
        if self._error_decoder is not None:
            self._unread_errors = _unread(self._stderr)
        if self._exited is not None:
            self._exited()

    async def end(self, *, input_seconds: float = math.inf) -> None:
        """Terminate the program's processes by the ladder, which begins with the close of stdin; then release all resources.

        The caller has called `close_input`, or calls it while this method waits. The program has `input_seconds` to read the data
        left for its stdin, as long as it continues to read.
        """
        group = self.group
        try:
            if not await group.wait_start():
                return
            first, *_ = self._ladder
            has_waited = await self._wait_input(first.grace, input_seconds)
            for step in self._ladder:
                if await group.wait_empty(0 if has_waited and step is first else step.grace):
                    return
                group.signal(step.signal)
            if not await group.wait_empty(LAST_WAIT):
                group.report_survivors()
        finally:
            self._release()

    async def _wait_input(self, grace: float, seconds: float) -> bool:
        """Wait while the program still reads the data left for its stdin, so that the client's last messages are not lost.

        Return whether the program read nothing for a whole grace period. The grace period of a closed stdin begins only after
        this wait, which lasts at most `seconds`.
        """
        until = self._loop.time() + seconds
        while self._input.is_open and self.group.status is None and self._loop.time() < until:
            flushed = self._input.flushed
            await self.group.wait_empty(grace)
            if self._input.is_open and self._input.flushed == flushed:
                return True
        return False

    def kill(self) -> None:
        """Send KILL to every process at once, or cancel the start: the server must shut down quickly. `end` is still needed."""
        self._is_killed = True
        if self._starting is not None:
            # The program may already have been started, in this turn of the loop.
            self._starting.cancel()
        self.group.signal(signal.SIGKILL)

    def abandon(self) -> None:
        """Kill the program and close its pipes. Its processes are watched until the last of them has exited."""
        self.kill()
        self._release()

    def _release(self) -> None:
        self.group.stop_reporting()
        self.discarded += self._unsure
        self._unsure = 0
        self._input.close()
        # The exit may be reported before the last output has been read.
        while self._unread_output > 0 and self._read_stdout():
            pass
        # The end of stdout may not have been read yet.
        self.finish_output()
        self._close_stdout()
        for _ in range(LAST_ERRORS):
            if self._stderr < 0 or not self._read_stderr():
                break
        if self._stderr >= 0:
            self._errors(b"")
            self._close_stderr()


class NullDecoder:
    """A decoder that discards all data."""

    def feed(self, data: bytes) -> Sequence[Batch | End]:
        return ()

    def eof(self) -> Sequence[Batch | End]:
        return ()


NULL_DECODER = NullDecoder()


def _unread(fd: int) -> int:
    """Return the number of unread bytes in a pipe or terminal."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder) if fd >= 0 else 0


def _has_no_writer(fd: int) -> bool:
    """Whether the unread data in a pipe or terminal is all that remains.

    No process then holds the other end open, so the end of the data will be read, too.
    """
    if fd < 0:
        return False
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))
