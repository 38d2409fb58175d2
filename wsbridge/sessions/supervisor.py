"""The supervisor of one program: it starts the program, passes on its output, and restarts it after an exit.

The program runs whether or not the channel has subscribers. The supervisor is a source of output and a sink for input, for each
child of the program in turn. Between two children, the supervisor pauses its source. Batches that still arrive wait for the next
child.

NEXT is the transition table. Events come from callbacks, and change the state at once; `run` waits for the next state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import Enum

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
"""The exit status of a program that cannot be started, as in a shell."""

INPUT_SECONDS = 5.0
"""Seconds that a program has to read its pending input before the ladder starts, as long as it continues to read."""

EXIT_SECONDS = 1.0
"""Seconds that a program has to exit by itself after the end of its stdout."""

CLOSED_STDOUT = End(INTERNAL_ERROR, "it has closed its stdout")

log = logger("program")


class State(Enum):
    """The state of the program."""

    READY = "ready"
    """The supervisor has not tried to start the program yet."""
    RUNNING = "running"
    SILENT = "silent"
    """The program has closed its stdout. It exits, or continues to read its input."""
    DRAINING = "draining"
    """The program has exited, and its stdout is not at its end yet: other processes may hold it open."""
    ENDING = "ending"
    """The ladder ends the remaining processes of the program; then the restart policy decides."""
    WAITING = "waiting"
    """The program has ended, and the supervisor restarts it after a pause."""
    STOPPING = "stopping"
    """The supervisor does not start the program again; the ladder ends the program if it runs."""
    ENDED = "ended"


class Event(Enum):
    """The events that change the state."""

    LAUNCHED = "launched"
    OUTPUT_ENDED = "output ended"
    """All output of the program has been read."""
    EXITED = "exited"
    DRAINED = "drained"
    """The drain time has passed."""
    EXIT_TIMEOUT = "exit timeout"
    """The program has not exited within EXIT_SECONDS."""
    FAULTED = "faulted"
    """The program breaks its framing or asks for its end."""
    WILL_RESTART = "will restart"
    """The program has ended or could not be started, and the restart policy restarts it."""
    STOPPED = "stopped"
    """`stop` was called."""
    FINISHED = "finished"
    """No process of the program remains, and the supervisor does not start it again."""


NEXT: dict[State, dict[Event, State]] = {
    State.READY: {
        Event.LAUNCHED: State.RUNNING,
        Event.WILL_RESTART: State.WAITING,
        Event.STOPPED: State.STOPPING,
        Event.FINISHED: State.ENDED,
    },
    State.RUNNING: {
        Event.OUTPUT_ENDED: State.SILENT,
        Event.EXITED: State.DRAINING,
        Event.FAULTED: State.ENDING,
        Event.STOPPED: State.STOPPING,
    },
    State.SILENT: {
        Event.EXITED: State.ENDING,
        Event.EXIT_TIMEOUT: State.ENDING,
        Event.STOPPED: State.STOPPING,
    },
    State.DRAINING: {
        Event.OUTPUT_ENDED: State.ENDING,
        Event.DRAINED: State.ENDING,
        Event.FAULTED: State.ENDING,
        Event.STOPPED: State.STOPPING,
    },
    State.ENDING: {
        Event.WILL_RESTART: State.WAITING,
        Event.STOPPED: State.STOPPING,
        Event.FINISHED: State.ENDED,
    },
    State.WAITING: {
        Event.LAUNCHED: State.RUNNING,
        Event.WILL_RESTART: State.WAITING,
        Event.STOPPED: State.STOPPING,
        Event.FINISHED: State.ENDED,
    },
    State.STOPPING: {
        Event.FINISHED: State.ENDED,
    },
    State.ENDED: {},
}
"""The state after each event. An event that a state does not name changes nothing."""

ACTIVE = (State.RUNNING, State.SILENT, State.DRAINING)
"""The states in which the program runs and the ladder has not started."""


class Supervisor:
    """Supervises one program.

    `run` keeps the program running until `stop`; meanwhile `write`, `pause` and `resume` can be called at any time. The supervisor
    ends a program that has closed its stdout, unless `reads` is true. Then the program may continue to read its input.
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
        self._write_output = write
        self._reads = reads
        self._restarts = restarts
        self._drain_seconds = drain_seconds
        self._fields = fields
        self._metrics = metrics
        self._loop = loop
        self._child: Child | None = None
        self._writable_child: Child | None = None
        """The child, while it accepts input; otherwise None."""
        self._waiting: list[Batch] = []
        self._fault: End | None = None
        self._drain: Drain | None = None
        self._paused = False
        self._changed = asyncio.Event()
        """Set by each change of the state."""
        self._state = State.READY
        self.restarted = 0
        """Number of restarts of the program."""
        self.last_exit: str | None = None
        """A description of the last exit of the program; None before its first exit."""
        self.source: Source = NULL_SOURCE
        """The source that writes to the program's stdin."""

    @property
    def shown_state(self) -> str:
        """The state of the program for users: `running`, `waiting` for its restart, or `ended`."""
        return self._state.value if self._state in (State.WAITING, State.ENDED) else State.RUNNING.value

    # Input

    def write(self, batch: Batch) -> None:
        """Write to the program's stdin; discard and count messages if no further child follows."""
        if self._writable_child is not None:
            self._writable_child.write(batch)
        elif self._state is State.ENDED:
            self._metrics.discarded_in += len(batch.messages)
        else:
            self._waiting.append(batch)

    def join(self, source: Source, waiting: Iterable[Batch]) -> None:
        """Accept input from a source, after messages that another program did not read. The source pauses until a child accepts input."""
        self.source = source
        self.pause_source()
        for batch in waiting:
            self.write(batch)

    def leave(self, source: Source) -> list[Batch]:
        """Detach from the source, because another program now reads from `source`; return the waiting messages.

        If the other program reads from a different source, the messages stay here, and the supervisor discards them at its end.
        """
        old_source, self.source = self.source, NULL_SOURCE
        if self._writable_child is not None:
            self._writable_child.source = NULL_SOURCE
        if old_source is not source or old_source is NULL_SOURCE:
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
        self.pause_source()
        while not self._is_stopping:
            started_at = self._loop.time()
            status = await self._run_once()
            if self._is_stopping:
                break
            self.last_exit = describe(status)
            level = ERROR if status else INFO
            pause = self._restarts.after(status, self._loop.time() - started_at)
            if pause is None:
                log.log(level, "%s; not restarting the program", self.last_exit, extra=extra(self._fields))
                break
            self.restarted += 1
            self._metrics.program_restarts += 1
            log.log(level, "%s; restarting the program in %g s", self.last_exit, pause, extra=extra(self._fields))
            self._handle(Event.WILL_RESTART)
            await self._changed_within(pause)
        self._handle(Event.FINISHED)
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            self.write(batch)
        self.source.resume()

    def stop(self) -> None:
        """End the program by the ladder; `run` returns after the end of the program."""
        self._handle(Event.STOPPED)

    def kill(self) -> None:
        """Kill the program at once."""
        self.stop()
        if self._child is not None:
            self._child.kill()

    def pause_source(self) -> None:
        """Pause the source until a child accepts input."""
        if self._state is not State.ENDED:
            self.source.pause()

    async def _run_once(self) -> int:
        """Run one child to its end; return its status."""
        try:
            child = self._launch()
        except ProgramError as error:
            self._metrics.launch_failures += 1
            log.error("%s", error, extra=extra(self._fields))
            return CANNOT_LAUNCH
        self._child = self._writable_child = child
        self._fault = None
        self._handle(Event.LAUNCHED)
        child.source = self.source
        child.start(CallbackSink(self._write_output, self._output_ended), self._exited)
        if self._paused:
            child.pause()
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            child.write(batch)
        if not child.is_full:
            self.source.resume()
        try:
            await self._until_ending()
        finally:
            self._stop_input()
            child.close_input(End(GOING_AWAY if self._is_stopping else NORMAL))
            await child.end(input_seconds=INPUT_SECONDS)
            self._child = None
            self._metrics.discarded_in += child.discarded
        status = child.group.status
        if self._fault is not None:
            # wsbridge ended the program: the fault, not the exit status, decides between success and failure.
            return 0 if self._fault.code == NORMAL else status or 1
        return status if status is not None else CANNOT_LAUNCH

    async def _until_ending(self) -> None:
        """Return when the ladder must end the program, or its remaining processes."""
        while self._state in ACTIVE:
            # A program that exits closes its stdout shortly before the exit.
            must_exit = self._state is State.SILENT and not self._reads
            if not await self._changed_within(EXIT_SECONDS if must_exit else None) and self._handle(Event.EXIT_TIMEOUT):
                log.error("the program closed its stdout; ending the program", extra=extra(self._fields))
                self._fault = CLOSED_STDOUT

    async def _changed_within(self, seconds: float | None) -> bool:
        """Wait for the next change of the state; return whether the state changed in time."""
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    # Events

    @property
    def _is_stopping(self) -> bool:
        return self._state is State.STOPPING

    def _handle(self, event: Event) -> bool:
        """Go to the state after an event; return whether the table has such a state."""
        state = NEXT[self._state].get(event)
        if state is None:
            return False
        self._state = state
        self._changed.set()
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None
        if state is State.DRAINING:
            assert self._child is not None
            self._drain = Drain(self._child, self._drain_seconds, self._drained, fields=self._fields, loop=self._loop)
        return True

    def _exited(self) -> None:
        self._stop_input()
        self._handle(Event.EXITED)

    def _drained(self) -> None:
        self._handle(Event.DRAINED)

    def _stop_input(self) -> None:
        """Stop writing to this child and pause the source; batches that still arrive wait for the next child."""
        if self._writable_child is not None:
            self._writable_child.source = NULL_SOURCE
            self._writable_child = None
            self.pause_source()

    def _output_ended(self, reason: End) -> None:
        child = self._child
        if reason.code == NORMAL and not reason.reason and child is not None and not child.output_open:
            self._handle(Event.OUTPUT_ENDED)
            return
        if self._is_stopping:
            # The supervisor ends the program, so an incomplete output is no fault.
            return
        if reason.code == TOO_BIG:
            self._metrics.messages_too_long += 1
        level = INFO if reason.code == NORMAL else ERROR
        log.log(level, "ending the program: %s", f"{reason.code} {reason.reason}".rstrip(), extra=extra(self._fields))
        self._fault = reason
        self._stop_input()
        self._handle(Event.FAULTED)
