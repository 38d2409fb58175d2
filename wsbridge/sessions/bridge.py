"""The bridge's session: one client, one child, joined in both directions.

While both live, batches go straight from one to the other and this object is not on their way. It decides what happens
when one of them ends:

    the client leaves             stdin closes, then the ladder; what the program still prints is read and dropped
    the program ends              all that it printed is delivered, then a close frame says how it ended
    it cannot be started          a close frame says so
    the program breaks framing    a close frame at once, then the ladder
    the program asks to close     its code and reason at once, then the ladder
    the bridge shuts down         1001 at once, then the ladder

Whatever comes first decides; the rest is the end of what has been decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from signal import SIGKILL
from typing import Any, Protocol

from wsbridge.closecodes import ABNORMAL, GOING_AWAY, INTERNAL_ERROR, NORMAL, TOO_BIG
from wsbridge.flow import Batch, End, Joint, Sink, Source
from wsbridge.logs import ACCESS, Pairs, extra, logger
from wsbridge.process.child import DRAIN_POLL, Child
from wsbridge.process.group import describe
from wsbridge.sessions.registry import Registry

CANNOT_LAUNCH = End(INTERNAL_ERROR, "could not launch process")
SHUTTING_DOWN = End(GOING_AWAY, "server is shutting down")
FAULTS = (TOO_BIG, INTERNAL_ERROR)
"""Close codes that come from a broken framing, or from a program that says so itself: worth a line in the log."""

log = logger("session")


class Client(Sink, Source, Protocol):
    """The session's view of a connected client. `end` sends a close frame and closes; both are safe after it has gone."""

    source: Source
    received: int
    """Messages that came from the client."""
    sent: int
    """Messages that went to it."""

    def close(self) -> None:
        """Close the connection without another word."""

    def abort(self) -> None:
        """Cut the connection."""

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""


class Bridge:
    """One session. `start` joins both sides; the registry knows it until nothing is left of it."""

    __slots__ = ("_begun", "_client", "_discarded", "_drain", "_drain_seconds", "_how", "_loop", "_pairs", "_registry", "child")

    def __init__(
        self,
        client: Client,
        child: Child,
        *,
        registry: Registry,
        pairs: Pairs,
        drain_seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._client = client
        self.child = child
        self._registry = registry
        self._pairs = pairs
        self._drain_seconds = drain_seconds
        self._loop = loop
        self._begun = False
        self._how = End(ABNORMAL)
        """What came first: how the session ended."""
        self._discarded = 0
        self._drain: asyncio.TimerHandle | None = None

    def start(self) -> Sink:
        """Let the child speak to the client; return the sink for what the client says."""
        client, child = self._client, self.child
        client.source = child
        child.source = client
        child.on_exit = self._child_exited
        self._registry.add(self)
        child.start(Joint(client.write, self._output_ended))
        return Joint(child.write, self._client_left)

    def hung_up(self) -> None:
        """The client has gone, and what it said before may still be read: the ladder begins, stdin closes after that."""
        self._discard_output()
        self._begin(self._leave, End(ABNORMAL))

    def shut_down(self) -> None:
        """The bridge shuts down."""
        self._begin(partial(self._close_first, SHUTTING_DOWN), SHUTTING_DOWN)

    def hurry(self) -> None:
        """The bridge must end now."""
        self.shut_down()
        self.child.kill()
        self._client.abort()

    # What may come first

    def failed(self) -> None:
        """The program could not be started."""
        self._begin(self._deliver_end, CANNOT_LAUNCH)

    def _client_left(self, reason: End) -> None:
        self._discard_output()
        self.child.close_input(reason)
        self._begin(self._leave, reason)

    def _output_ended(self, reason: End) -> None:
        if reason.code == NORMAL and not reason.reason and not self.child.output_open:
            self._begin(self._deliver_end, reason)
            return
        if reason.code == TOO_BIG:
            self._registry.metrics.messages_too_long += 1
        if reason.code in FAULTS and not self._begun:
            log.error("%s", reason.reason, extra=extra(self._pairs))
        self._begin(partial(self._close_first, reason), reason)

    def _child_exited(self) -> None:
        if self.child.output_open and not self._begun:
            self._drain = self._loop.call_later(self._drain_seconds, self._drained)

    def _drained(self) -> None:
        if not self.child.owes_output:
            log.debug("stdout is still held open by a process of the group", extra=extra(self._pairs))
            self.child.finish_output()
            self._begin(self._deliver_end, End(NORMAL))
        elif not self._begun:
            # What was printed before the exit is delivered however slow the client is; only what comes after it is not.
            self._drain = self._loop.call_later(max(self._drain_seconds, DRAIN_POLL), self._drained)

    # What is done about it

    def _begin(self, how: Callable[[], Coroutine[Any, Any, None]], reason: End) -> None:
        if self._begun:
            return
        self._begun = True
        self._how = reason
        if self._drain is not None:
            self._drain.cancel()
        self._registry.run(self._finish(how), f"end of session {self._pairs.get('id', '')}")

    async def _finish(self, how: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await how()
        finally:
            self._account()
            self.child.group.when_gone(self._registry.slots.give)
            await self._client.wait_closed()
            self._registry.remove(self)

    async def _leave(self) -> None:
        await self.child.end()
        self._client.close()

    async def _deliver_end(self) -> None:
        self.child.close_input(End(NORMAL))
        if self.child.group.status is None:
            self.child.on_exit = self._tell_end
        else:
            self._tell_end()
        await self.child.end()
        if self.child.group.status is None:
            self._tell_end()

    def _tell_end(self) -> None:
        group = self.child.group
        if group.has_failed:
            self._how = CANNOT_LAUNCH
            self._client.end(self._how)
            return
        # A child that had closed its stdout and was ended by our own ladder has not failed.
        has_failed = group.status and group.signalled is None
        self._how = End(INTERNAL_ERROR, describe(group.status or 0)) if has_failed else End(NORMAL)
        self._client.end(self._how)

    async def _close_first(self, reason: End) -> None:
        self._client.end(reason)
        self._discard_output()
        self.child.close_input(reason)
        await self.child.end()

    def _discard_output(self) -> None:
        self.child.redirect(Joint(self._discard, lambda _: None))
        self.child.resume()

    def _discard(self, batch: Batch) -> None:
        self._discarded += len(batch.messages)

    def _account(self) -> None:
        client, child, metrics = self._client, self.child, self._registry.metrics
        metrics.messages_in += client.received
        metrics.messages_out += client.sent
        if child.group.has_failed:
            # Nobody was there to take it.
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
        pairs = {**self._pairs, **pid, "close": close, "messages": ", ".join(counts)}
        log.log(ACCESS, "DISCONNECT", extra=extra(pairs))
