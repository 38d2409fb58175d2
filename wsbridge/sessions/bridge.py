"""A session of the bridge: one client and one child, joined in both directions.

While both run, batches go directly from one to the other and bypass this object. It acts when one side ends. The
ladder (process/termination.py) ends the program.

    the client disconnects          stdin closes, then the ladder; later output is read and dropped
    the program exits               the client receives all of its output, then a close frame with the exit status
    the program cannot be started   a close frame reports it
    the program breaks its framing  a close frame at once, then the ladder
    the program asks to close       a close frame with its code and reason at once, then the ladder
    the server shuts down           a close frame with 1001 at once, then the ladder

The first of these events decides how the session ends, and later events change nothing. NEXT is the transition table.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from signal import SIGKILL
from typing import Protocol

from wsbridge.closecodes import ABNORMAL, INTERNAL_ERROR, NORMAL, TOO_BIG
from wsbridge.flow import Batch, CallbackSink, End, Sink, Source
from wsbridge.logs import ACCESS, LogFields, extra, logger
from wsbridge.process.child import Child
from wsbridge.process.group import describe
from wsbridge.sessions.drain import Drain
from wsbridge.sessions.registry import SHUTTING_DOWN, Registry

CANNOT_LAUNCH = End(INTERNAL_ERROR, "could not launch process")
FAULTS = (TOO_BIG, INTERNAL_ERROR)
"""Close codes that a broken framing causes, or that a program requests itself: the log reports them as errors."""

log = logger("session")


class State(Enum):
    """The phases of a session."""

    RUNNING = "running"
    DRAINING = "draining"
    """The program has exited, and its stdout is not at its end yet: other processes may hold it open."""
    DISCONNECTED = "disconnected"
    """The client has disconnected: the ladder ends the program, and its output is dropped."""
    DELIVERING = "delivering"
    """The client has all output, and gets the close frame when the program has exited."""
    CLOSING = "closing"
    """The client has the close frame, and the ladder ends the program."""
    ENDED = "ended"


class Event(Enum):
    """Events that change the phase."""

    CLIENT_DISCONNECTED = "client disconnected"
    PROGRAM_EXITED = "program exited"
    """Its stdout is still open."""
    OUTPUT_ENDED = "output ended"
    """All output has been read, or there will be none."""
    MUST_CLOSE = "must close"
    """The program breaks its framing or asks to close, or the server shuts down."""
    STATUS_SENT = "status sent"
    """The client has been sent the close frame with the exit status."""
    LADDER_ENDED = "ladder ended"
    """The ladder has ended the program."""


NEXT: dict[State, dict[Event, State]] = {
    State.RUNNING: {
        Event.CLIENT_DISCONNECTED: State.DISCONNECTED,
        Event.PROGRAM_EXITED: State.DRAINING,
        Event.OUTPUT_ENDED: State.DELIVERING,
        Event.MUST_CLOSE: State.CLOSING,
    },
    State.DRAINING: {
        Event.CLIENT_DISCONNECTED: State.DISCONNECTED,
        Event.OUTPUT_ENDED: State.DELIVERING,
        Event.MUST_CLOSE: State.CLOSING,
    },
    State.DISCONNECTED: {Event.LADDER_ENDED: State.ENDED},
    State.DELIVERING: {Event.STATUS_SENT: State.CLOSING, Event.LADDER_ENDED: State.ENDED},
    State.CLOSING: {Event.LADDER_ENDED: State.ENDED},
    State.ENDED: {},
}
"""The state after each event. An event that a state does not name changes nothing."""


class BridgeClient(Sink, Source, Protocol):
    """The session's view of a connected client.

    `end` sends a close frame and closes. `write` and `end` are safe after the client has disconnected.
    """

    source: Source
    received: int
    """Messages received from the client."""
    sent: int
    """Messages sent to the client."""

    def close(self) -> None:
        """Close the connection without a close frame."""

    def abort(self) -> None:
        """Abort the connection."""

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""


class Bridge:
    """One session; `start` joins its two sides, and the registry lists it until it has ended completely."""

    __slots__ = ("_client", "_discarded", "_drain", "_drain_seconds", "_fields", "_how", "_loop", "_registry", "_state", "child")

    def __init__(
        self,
        client: BridgeClient,
        child: Child,
        *,
        registry: Registry,
        fields: LogFields,
        drain_seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._client = client
        self.child = child
        self._registry = registry
        self._fields = fields
        self._drain_seconds = drain_seconds
        self._loop = loop
        self._state = State.RUNNING
        self._how = End(ABNORMAL)
        """The first event: how the session ended."""
        self._discarded = 0
        self._drain: Drain | None = None

    def start(self) -> Sink:
        """Join the child to the client; return the sink for the client's messages."""
        client, child = self._client, self.child
        client.source = child
        child.source = client
        self._registry.add(self)
        child.start(CallbackSink(client.write, self._output_ended), self._child_exited)
        return CallbackSink(child.write, self._client_disconnected)

    def hung_up(self) -> None:
        """Start the ladder after the client has disconnected; stdin closes after the messages that are still unread."""
        self._discard_output()
        self._handle(Event.CLIENT_DISCONNECTED, End(ABNORMAL))

    def shut_down(self, reason: End = SHUTTING_DOWN) -> None:
        """Close the client's connection and end the program, because the server shuts down or the endpoint ends."""
        self._handle(Event.MUST_CLOSE, reason)

    def force(self) -> None:
        """End the session now: kill the program and abort the connection."""
        self.shut_down()
        self.child.kill()
        self._client.abort()

    # Events that may end the session

    def failed(self) -> None:
        """Close the client's connection, because the program could not be started."""
        self._handle(Event.OUTPUT_ENDED, CANNOT_LAUNCH)

    def _client_disconnected(self, reason: End) -> None:
        self._discard_output()
        self.child.close_input(reason)
        self._handle(Event.CLIENT_DISCONNECTED, reason)

    def _output_ended(self, reason: End) -> None:
        if reason.code == NORMAL and not reason.reason and not self.child.output_open:
            self._handle(Event.OUTPUT_ENDED, reason)
            return
        if reason.code == TOO_BIG:
            self._registry.metrics.messages_too_long += 1
        if self._handle(Event.MUST_CLOSE, reason) and reason.code in FAULTS:
            log.error("%s", reason.reason, extra=extra(self._fields))

    def _child_exited(self) -> None:
        if self._state is State.DELIVERING:
            self._send_end()
        elif self.child.output_open:
            self._handle(Event.PROGRAM_EXITED, End(NORMAL))

    def _drained(self) -> None:
        self.child.finish_output()
        self._handle(Event.OUTPUT_ENDED, End(NORMAL))

    # Handling of the events

    def _handle(self, event: Event, reason: End) -> bool:
        """Go to the state after an event; return whether there is one. `reason` is how the session ends, if this event decides it."""
        if not self._advance(event):
            return False
        if self._state is State.DRAINING:
            # The client receives all output from before the exit, however slow it is. Only later output is dropped.
            self._drain = Drain(self.child, self._drain_seconds, self._drained, fields=self._fields, loop=self._loop)
            return True
        self._how = reason
        if self._drain is not None:
            self._drain.cancel()
        self._registry.run(self._finish(self._state, reason), f"end of session {self._fields.get('id', '')}")
        return True

    def _advance(self, event: Event) -> bool:
        """Go to the state after an event; return whether there is one."""
        state = NEXT[self._state].get(event)
        if state is None:
            return False
        self._state = state
        return True

    async def _finish(self, state: State, reason: End) -> None:
        try:
            match state:
                case State.DISCONNECTED:
                    await self._end_program()
                case State.DELIVERING:
                    await self._deliver_end()
                case _:
                    await self._close_first(reason)
        finally:
            self._advance(Event.LADDER_ENDED)
            self._account()
            self.child.group.call_when_empty(self._registry.limiter.release)
            await self._client.wait_closed()
            self._registry.remove(self)

    async def _end_program(self) -> None:
        await self.child.end()
        self._client.close()

    async def _deliver_end(self) -> None:
        self.child.close_input(End(NORMAL))
        if self.child.group.status is not None:
            self._send_end()
        await self.child.end()
        # The ladder has ended the program, even if its status is not known.
        self._send_end()

    def _send_end(self) -> None:
        """Send the client the close frame, with the exit status if that is no success; further calls do nothing."""
        if not self._advance(Event.STATUS_SENT):
            return
        group = self.child.group
        if group.has_failed:
            self._how = CANNOT_LAUNCH
            self._client.end(self._how)
            return
        # A child that closed its stdout, and that the ladder then ended, has not failed.
        has_failed = group.status and group.signalled is None
        self._how = End(INTERNAL_ERROR, describe(group.status or 0)) if has_failed else End(NORMAL)
        self._client.end(self._how)

    async def _close_first(self, reason: End) -> None:
        self._client.end(reason)
        self._discard_output()
        self.child.close_input(reason)
        await self.child.end()

    def _discard_output(self) -> None:
        self.child.redirect(CallbackSink(self._discard, lambda _: None))
        self.child.resume()

    def _discard(self, batch: Batch) -> None:
        self._discarded += len(batch.messages)

    def _account(self) -> None:
        client, child, metrics = self._client, self.child, self._registry.metrics
        metrics.messages_in += client.received
        metrics.messages_out += client.sent
        if child.group.has_failed:
            # No program ran that could have read the messages.
            child.discarded = client.received
        metrics.discarded_in += child.discarded
        metrics.discarded_out += self._discarded
        metrics.killed += child.group.signalled == SIGKILL and child.group.status == -SIGKILL
        counts = [f"{client.received} in", f"{client.sent} out"]
        if child.discarded:
            counts.append(f"{child.discarded} in discarded")
        if self._discarded:
            counts.append(f"{self._discarded} out discarded")
        close = f"{self._how.code} {self._how.reason}".rstrip()
        pid = {"pid": str(child.group.pid)} if child.group.pid else {}
        fields = {**self._fields, **pid, "close": close, "messages": ", ".join(counts)}
        log.log(ACCESS, "DISCONNECT", extra=extra(fields))
