"""The supervisor of one program: it starts the program, passes on its output, and restarts it after an exit.

The program runs whether or not the channel has subscribers. The supervisor is a source of the child's output and a sink for the
child's stdin, whichever child runs at the time. Between two children, the supervisor pauses the writer; batches that arrive all the
same wait for the next child.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import StrEnum

from wsbridge.closecodes import GOING_AWAY, INTERNAL_ERROR, NORMAL, TOO_BIG
from wsbridge.errors import ProgramError
from wsbridge.flow import NULL_SOURCE, Batch, CallbackSink, End, Source
from wsbridge.logs import ERROR, INFO, LogFields, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.group import describe
from wsbridge.rules.restarts import Restarts
from wsbridge.sessions.drain import Drain

CANNOT_LAUNCH = 126
"""The status of a program that cannot be started, as in a shell."""

INPUT_SECONDS = 5.0
"""Seconds that a program has to read its pending input before the ladder begins, as long as it keeps reading."""

EXIT_SECONDS = 1.0
"""Seconds that a program has after the end of its stdout to exit by itself."""

CLOSED_STDOUT = End(INTERNAL_ERROR, "it has closed its stdout")

log = logger("program")


class State(StrEnum):
    """The state of the program."""

    RUNNING = "running"
    WAITING = "waiting"
    """The program has ended, and restarts after a pause."""
    ENDED = "ended"


class Supervisor:
    """Supervises one program.

    `run` keeps the program running until `stop`; `write` and the source work all the while. The supervisor ends a program that has
    closed its stdout, unless `reads` is true: then the program may live on for its input.
    """

    def __init__(
        self,
        launch: Callable[[], Child],
        write: Callable[[Batch], None],
        *,
        reads: bool,
        restarts: Restarts,
        drain_seconds: float,
        fields: LogFields,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._launch = launch
        self._hand_on = write
        self._reads = reads
        self._restarts = restarts
        self._drain_seconds = drain_seconds
        self._fields = fields
        self._metrics = metrics
        self._loop = loop
        self._child: Child | None = None
        self._taker: Child | None = None
        """The child, while it accepts input; otherwise None."""
        self._waiting: list[Batch] = []
        self._fault: End | None = None
        self._paused = False
        self._stopping = False
        self._woken = asyncio.Event()
        self.state = State.RUNNING
        self.restarted = 0
        """How often the program was restarted."""
        self.last_exit: str | None = None
        """How the program last ended, as text; None before its first end."""
        self.source: Source = NULL_SOURCE
        """The source that writes to the program's stdin."""

    # Input

    def write(self, batch: Batch) -> None:
        """Write to the program's stdin; discard and count what no child will ever read."""
        if self._taker is not None:
            self._taker.write(batch)
        elif self.state is State.ENDED:
            self._metrics.discarded_in += len(batch.messages)
        else:
            self._waiting.append(batch)

    def join(self, source: Source, waiting: Iterable[Batch]) -> None:
        """Accept input from a source, after messages that have waited for another program. The source pauses until there is a child."""
        self.source = source
        self.hold()
        for batch in waiting:
            self.write(batch)

    def leave(self, source: Source) -> list[Batch]:
        """Accept no more input, since another program has taken over `source`; return the messages that no child has taken.

        If the other program does not read from this one's source, the messages stay, and are discarded at the end.
        """
        left, self.source = self.source, NULL_SOURCE
        if self._taker is not None:
            self._taker.source = NULL_SOURCE
        if left is not source or left is NULL_SOURCE:
            return []
        waiting, self._waiting = self._waiting, []
        return waiting

    # Output

    def pause(self) -> None:
        self._paused = True
        if self._child is not None:
            self._child.pause()

    def resume(self) -> None:
        self._paused = False
        if self._child is not None:
            self._child.resume()

    # Life cycle

    async def run(self) -> None:
        """Keep the program running until `stop`, or until the restart policy allows no further start."""
        self.hold()
        while not self._stopping:
            began = self._loop.time()
            status = await self._run_once()
            if self._stopping:
                break
            self.last_exit = describe(status)
            level = ERROR if status else INFO
            pause = self._restarts.after(status, self._loop.time() - began)
            if pause is None:
                log.log(level, "%s; not restarting the program", self.last_exit, extra=extra(self._fields))
                break
            self.restarted += 1
            self._metrics.program_restarts += 1
            log.log(level, "%s; restarting the program in %g s", self.last_exit, pause, extra=extra(self._fields))
            self.state = State.WAITING
            self._woken.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pass
        self.state = State.ENDED
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            self.write(batch)
        self.source.resume()

    def stop(self) -> None:
        """End the program by the ladder; `run` returns when the program has ended."""
        self._stopping = True
        self._woken.set()

    def kill(self) -> None:
        """Kill the program at once."""
        self.stop()
        if self._child is not None:
            self._child.kill()

    def hold(self) -> None:
        """Pause the writer until there is a child to write to."""
        if self.state is not State.ENDED:
            self.source.pause()

    async def _run_once(self) -> int:
        """Run one child to its end; return its status."""
        try:
            child = self._launch()
        except ProgramError as error:
            self._metrics.launch_failures += 1
            log.error("%s", error, extra=extra(self._fields))
            return CANNOT_LAUNCH
        self._child = self._taker = child
        self._fault = None
        self.state = State.RUNNING
        self._woken.clear()
        child.on_exit = self._exited
        child.source = self.source
        child.start(CallbackSink(self._hand_on, self._output_ended))
        if self._paused:
            child.pause()
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            child.write(batch)
        if not child.is_full:
            self.source.resume()
        try:
            await self._until_over(child)
        finally:
            self._write_no_more()
            child.close_input(End(GOING_AWAY if self._stopping else NORMAL))
            await child.end(input_seconds=INPUT_SECONDS)
            self._child = None
            self._metrics.discarded_in += child.discarded
        status = child.group.status
        if self._fault is not None:
            # wsbridge ended the program: the fault, not the exit status, decides between success and failure.
            return 0 if self._fault.code == NORMAL else status or 1
        return status if status is not None else CANNOT_LAUNCH

    async def _until_over(self, child: Child) -> None:
        """Return when a child has no more output, or when the supervisor must end it."""
        drain: Drain | None = None
        try:
            while not self._stopping and self._fault is None:
                if child.group.status is not None:
                    if not child.output_open or (drain is not None and drain.is_over):
                        return
                    if drain is None:
                        drain = Drain(child, self._drain_seconds, self._woken.set, fields=self._fields, loop=self._loop)
                    await self._woken_within(None)
                elif not child.output_open and not self._reads:
                    # A program that exits closes its stdout a moment before.
                    if await self._woken_within(EXIT_SECONDS):
                        continue
                    log.error("the program closed its stdout; ending the program", extra=extra(self._fields))
                    self._fault = CLOSED_STDOUT
                    return
                else:
                    await self._woken_within(None)
        finally:
            if drain is not None:
                drain.cancel()

    async def _woken_within(self, seconds: float | None) -> bool:
        """Wait for an event; return whether it came in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    def _exited(self) -> None:
        self._write_no_more()
        self._woken.set()

    def _write_no_more(self) -> None:
        """Stop writing to this child and pause the writer; batches that arrive all the same wait for the next child."""
        if self._taker is not None:
            self._taker.source = NULL_SOURCE
            self._taker = None
            self.hold()

    def _output_ended(self, reason: End) -> None:
        child = self._child
        if reason.code == NORMAL and not reason.reason and child is not None and not child.output_open:
            self._woken.set()
            return
        if self._stopping:
            # The supervisor is ending the program, so an incomplete output is no fault.
            return
        if reason.code == TOO_BIG:
            self._metrics.messages_too_long += 1
        level = INFO if reason.code == NORMAL else ERROR
        log.log(level, "ending the program: %s", f"{reason.code} {reason.reason}".rstrip(), extra=extra(self._fields))
        self._fault = reason
        self._write_no_more()
        self._woken.set()
