"""A running CGI script: a bounded buffer holds its output until the caller reads it, and its input waits for room.

RunningScript is the sink and the source of its child, and independent of HTTP. The output ends when stdout is closed and the script
has exited. It also ends when the script has exited and other processes of its group have held stdout open for the drain time. The
output is complete unless a signal has ended the script before its stdout was closed.

The ladder (process/termination.py) starts at the end of the output, or with a call of `finish`. The caller calls `finish` when it
needs no more output. The registry calls it when the server shuts down.

NEXT is the transition table of the output. It does not contain the ladder, because the ladder can start in any state.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from wsbridge.closecodes import GOING_AWAY, NORMAL
from wsbridge.errors import TruncatedOutput
from wsbridge.flow import Batch, End, Kind
from wsbridge.logs import LogFields, logger
from wsbridge.process.child import Child
from wsbridge.process.group import describe
from wsbridge.sessions.drain import Drain
from wsbridge.sessions.limiter import Limiter
from wsbridge.sessions.registry import SHUTTING_DOWN, Registry

HIGH_WATER = 256 * 1024
"""Bytes of unread output at which RunningScript pauses the child."""
ENDED = "the server ended the script"

log = logger("http")


class State(Enum):
    """The state of the output."""

    RUNNING = "running"
    SILENT = "silent"
    """Stdout is at its end, and the exit status is not known yet. It decides whether the output is complete."""
    DRAINING = "draining"
    """The script has exited, and its stdout is not at its end yet: other processes may hold it open."""
    OVER = "over"
    """No output can follow the buffered bytes."""


class Event(Enum):
    """The events that can end the output."""

    OUTPUT_ENDED = "output ended"
    """Stdout is at its end."""
    OUTPUT_CUT = "output cut"
    """Stdout is at its end because of a signal of the ladder, and the exit status is not known yet."""
    EXITED = "exited"
    DRAINED = "drained"
    """The drain time has passed."""
    LADDER_ENDED = "ladder ended"
    """wsbridge has closed the pipes of the script."""


NEXT: dict[State, dict[Event, State]] = {
    State.RUNNING: {
        Event.OUTPUT_ENDED: State.SILENT,
        Event.OUTPUT_CUT: State.OVER,
        Event.EXITED: State.DRAINING,
        Event.LADDER_ENDED: State.OVER,
    },
    State.SILENT: {
        Event.EXITED: State.OVER,
        Event.LADDER_ENDED: State.OVER,
    },
    State.DRAINING: {
        Event.OUTPUT_ENDED: State.OVER,
        Event.DRAINED: State.OVER,
        Event.LADDER_ENDED: State.OVER,
    },
    State.OVER: {},
}
"""The state after each event. An event that a state does not name changes nothing."""


class RunningScript:
    """One script, from its start to the end of its last process. It holds a slot until then."""

    def __init__(self, child: Child, *, limiter: Limiter, registry: Registry, fields: LogFields, drain_seconds: float) -> None:
        self._child = child
        self._limiter = limiter
        self._registry = registry
        self._fields = fields
        self._waiting: list[bytes | bytearray] = []
        self._size = 0
        self._state = State.RUNNING
        self._fault: str | None = None
        """Why the output is incomplete; None if it is complete."""
        self.crashed = False
        """Whether a signal that wsbridge did not send has ended the script."""
        self.end_reason = ENDED
        """Why the server ended the script, as a sentence for the client."""
        self._drain_seconds = drain_seconds
        self._drain: Drain | None = None
        self._is_ending = False
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        child.source = self
        child.start(self, self._exited)
        registry.add(self)

    # Output

    async def read(self) -> bytes:
        """Wait for output and return it; return `b""` at the end. Raises TruncatedOutput if the output is incomplete."""
        while not self._waiting:
            if self._state is State.OVER:
                if self._fault is not None:
                    raise TruncatedOutput(self._fault)
                return b""
            self._changed.clear()
            await self._changed.wait()
        piece = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._child.resume()
        return piece

    def unread(self, data: bytes) -> None:
        """Put bytes back; the next `read` returns them first."""
        if data:
            self._waiting.insert(0, data)

    def write(self, batch: Batch) -> None:
        """Buffer output, as the sink of the child."""
        if self._state is State.OVER:
            return
        self._waiting += batch.messages
        self._size += sum(map(len, batch.messages))
        if self._size > HIGH_WATER:
            self._child.pause()
        self._changed.set()

    def end(self, reason: End) -> None:
        """Record the end of stdout, as the sink of the child."""
        group = self._child.group
        if group.status is None and group.signalled is not None:
            self._handle(Event.OUTPUT_CUT, ENDED)
        else:
            self._handle(Event.OUTPUT_ENDED, self._fault)

    def _exited(self) -> None:
        status, signalled = self._child.group.status or 0, self._child.group.signalled
        self.crashed = status < 0 and signalled is None
        fault = self._fault
        if self.crashed:
            fault = describe(status)
        elif signalled is not None and self._state is State.RUNNING:
            # The ladder ended the script, which may have had more output.
            fault = ENDED
        self._handle(Event.EXITED, fault)

    def _drained(self) -> None:
        self._handle(Event.DRAINED, self._fault)

    def _handle(self, event: Event, fault: str | None) -> None:
        """Go to the state after an event, if the table has one, and set the fault, which is None for complete output."""
        state = NEXT[self._state].get(event)
        if state is None:
            return
        self._state, self._fault = state, fault
        if state is State.DRAINING:
            self._drain = Drain(self._child, self._drain_seconds, self._drained, fields=self._fields, loop=asyncio.get_running_loop())
            return
        if state is State.OVER:
            if self._drain is not None:
                self._drain.cancel()
            self._changed.set()
        # In SILENT as well: the ladder ends a script that runs on after it has closed stdout.
        self.finish()

    # Input

    @property
    def has_room(self) -> bool:
        return self._room.is_set()

    async def wait_for_room(self) -> None:
        """Wait until the script has read its pending input."""
        await self._room.wait()

    def write_input(self, data: bytes) -> None:
        self._child.write(Batch(Kind.BINARY, [data]))

    def close_input(self) -> None:
        """Close stdin after the script has read its pending input."""
        self._child.close_input(End(NORMAL))

    def pause(self) -> None:
        """Record that the script's stdin has no room, as the source of the child."""
        self._room.clear()

    def resume(self) -> None:
        self._room.set()

    # Termination

    def finish(self) -> None:
        """Start the ladder, and release the slot when no process remains. Further calls do nothing."""
        if not self._is_ending:
            self._is_ending = True
            self._child.close_input(End(GOING_AWAY))
            self._registry.run(self._end(), f"end of CGI script {self._fields['cgiscript']}")

    async def wait_ended(self) -> None:
        """Wait for the end of the ladder, which takes a limited time. Processes that survive KILL still hold the slot."""
        await self._ended.wait()

    def shut_down(self, reason: End = SHUTTING_DOWN) -> None:
        """Start the ladder; the caller can still read the output that the script prints meanwhile."""
        self.end_reason = f"{ENDED}: {reason.reason}"
        self.finish()

    def force(self) -> None:
        self._child.kill()

    async def _end(self) -> None:
        try:
            await self._child.end()
        finally:
            self._handle(Event.LADDER_ENDED, self._fault if self._child.group.status is not None else ENDED)
            self._child.group.call_when_empty(self._limiter.release)
            self._registry.remove(self)
            self._ended.set()
