"""A CGI script that runs: what it prints is kept, in bounds, until it is read; what it is told waits for room.

It is the sink and the source of its child and knows no HTTP. What it printed is over when its stdout is closed and it has
exited, or when it has exited and others of its group have held its stdout open for the drain time; it is whole unless a
signal has ended the script. Its group goes down the ladder when its output is over, and when `finish` is called: by whoever
has what he wanted of it, or by the registry when the server shuts down.
"""

from __future__ import annotations

import asyncio

from wsbridge.closecodes import GOING_AWAY, NORMAL
from wsbridge.flow import Batch, End, Kind
from wsbridge.logs import Pairs, extra, logger
from wsbridge.process.child import DRAIN_POLL, Child
from wsbridge.process.group import describe
from wsbridge.sessions.registry import Registry
from wsbridge.sessions.slots import Slots

HIGH_WATER = 256 * 1024
"""Bytes of output that wait to be read before the script is held up."""
ENDED = "the script was ended"

log = logger("http")


class Cut(Exception):
    """What the script printed ended before it was complete."""


class RunningScript:
    """One script, from its start until nothing is left of it. It holds a slot, and gives it back."""

    def __init__(self, child: Child, *, slots: Slots, registry: Registry, pairs: Pairs, drain_seconds: float) -> None:
        self._child = child
        self._slots = slots
        self._registry = registry
        self._pairs = pairs
        self._waiting: list[bytes | bytearray] = []
        self._size = 0
        self._is_closed = self._is_over = False
        """Whether stdout is at its end, and whether it is decided that nothing will follow what waits."""
        self._fault: str | None = None
        """Why what was printed is not whole; None where it is."""
        self.crashed = False
        """Whether a signal has ended the script that was not ours."""
        self._drain_seconds = drain_seconds
        self._drain: asyncio.TimerHandle | None = None
        self._is_ending = False
        self._gone = asyncio.Event()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        child.source = self
        child.on_exit = self._exited
        child.start(self)
        registry.add(self)

    # What it prints

    async def read(self) -> bytes:
        """Return what the script has printed since, waiting for it; nothing at the end. Raises Cut when it had no end."""
        while not self._waiting:
            if self._is_over:
                if self._fault is not None:
                    raise Cut(self._fault)
                return b""
            self._changed.clear()
            await self._changed.wait()
        piece = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._child.resume()
        return piece

    def unread(self, data: bytes) -> None:
        """Put back what was read too much: it is read again next."""
        if data:
            self._waiting.insert(0, data)

    def write(self, batch: Batch) -> None:
        """Take what the child prints, as its sink."""
        if self._is_over:
            return
        self._waiting += batch.messages
        self._size += sum(map(len, batch.messages))
        if self._size > HIGH_WATER:
            self._child.pause()
        self._changed.set()

    def end(self, reason: End) -> None:
        """Take note of the end of stdout, as the child's sink."""
        self._is_closed = True
        if self._child.group.status is not None:
            self._conclude(self._fault)
        elif self._child.group.signalled is not None:
            self._conclude(ENDED)
        else:
            # How it ends decides whether this is all; one that lives on after its last word is ended by the ladder.
            self.finish()

    def _exited(self) -> None:
        status, signalled = self._child.group.status or 0, self._child.group.signalled
        self.crashed = status < 0 and signalled is None
        if self.crashed:
            self._fault = describe(status)
        elif signalled is not None and not self._is_closed:
            # It was ended by the ladder, and may have had more to say.
            self._fault = ENDED
        if self._is_closed:
            self._conclude(self._fault)
        elif not self._is_over:
            self._drain = asyncio.get_running_loop().call_later(self._drain_seconds, self._drained)

    def _drained(self) -> None:
        if not self._child.owes_output:
            log.debug("stdout is still held open by a process of the group", extra=extra(self._pairs))
            self._conclude(self._fault)
        else:
            # The reader is slow: what the script printed before it exited is still on its way.
            self._drain = asyncio.get_running_loop().call_later(max(self._drain_seconds, DRAIN_POLL), self._drained)

    def _conclude(self, fault: str | None) -> None:
        """Let nothing follow what waits, and end what is left of the group."""
        if self._is_over:
            return
        self._is_over = True
        self._fault = fault
        if self._drain is not None:
            self._drain.cancel()
        self._changed.set()
        self.finish()

    # What it is told

    @property
    def has_room(self) -> bool:
        return self._room.is_set()

    async def wait_for_room(self) -> None:
        """Wait until the script has taken what it was told."""
        await self._room.wait()

    def tell(self, data: bytes) -> None:
        self._child.write(Batch(Kind.BINARY, [data]))

    def close_input(self) -> None:
        """Close stdin as soon as all is taken: there is no more to be told."""
        self._child.close_input(End(NORMAL))

    def pause(self) -> None:
        """Take note, as the child's source, that it takes no more for now."""
        self._room.clear()

    def resume(self) -> None:
        self._room.set()

    # Its end

    def finish(self) -> None:
        """Lead the script down the ladder and give its slot back; called again, do nothing."""
        if not self._is_ending:
            self._is_ending = True
            self._child.close_input(End(GOING_AWAY))
            self._registry.run(self._end(), f"end of CGI script {self._pairs['cgiscript']}")

    async def wait_gone(self) -> None:
        """Wait until nothing is left of it, and its slot is free; the ladder bounds that, once it has begun."""
        await self._gone.wait()

    def shut_down(self) -> None:
        """End it; what it still prints on its way down the ladder can be read."""
        self.finish()

    def hurry(self) -> None:
        self._child.kill()

    async def _end(self) -> None:
        try:
            await self._child.end()
        finally:
            self._conclude(self._fault if self._child.group.status is not None else ENDED)
            self._child.group.when_gone(self._slots.give)
            self._registry.remove(self)
            self._gone.set()
