"""A CGI script that runs: what it prints is kept, in bounds, until it is read; what it is told waits for room.

It is the sink and the source of its child and knows no HTTP. Its group goes down the ladder when `finish` is called, by
whoever has what he wanted of it or by the registry when the server shuts down.
"""

from __future__ import annotations

import asyncio

from wsbridge.closecodes import GOING_AWAY, NORMAL
from wsbridge.flow import Batch, End, Kind
from wsbridge.logs import Pairs
from wsbridge.process.child import Child
from wsbridge.sessions.registry import Registry

HIGH_WATER = 256 * 1024
"""Bytes of output that wait to be read before the script is held up."""


class Cut(Exception):
    """What the script printed ended before it was complete."""


class RunningScript:
    """One script, from its start until nothing is left of it. It holds a slot of the registry's, and gives it back."""

    def __init__(self, child: Child, *, registry: Registry, pairs: Pairs) -> None:
        self._child = child
        self._registry = registry
        self._pairs = pairs
        self._waiting: list[bytes | bytearray] = []
        self._size = 0
        self._is_over = self._is_whole = False
        """Whether nothing will follow what waits, and whether that is then all that the script had to say."""
        self._is_ending = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        child.source = self
        child.start(self)
        registry.add(self)

    # What it prints

    async def read(self) -> bytes:
        """Return what the script has printed since, waiting for it; nothing at the end. Raises Cut when it had no end."""
        while not self._waiting:
            if self._is_over:
                if not self._is_whole:
                    raise Cut("the script was ended")
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
        self._waiting += batch.messages
        self._size += sum(map(len, batch.messages))
        if self._size > HIGH_WATER:
            self._child.pause()
        self._changed.set()

    def end(self, reason: End) -> None:
        """Take note of the end of stdout, as the child's sink."""
        # A script that was ended by the ladder may have had more to say.
        self._is_whole = self._child.signalled is None
        self._is_over = True
        self._changed.set()

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

    def shut_down(self) -> None:
        """End it; what it still prints on its way down the ladder can be read."""
        self.finish()

    def hurry(self) -> None:
        self._child.kill()

    async def _end(self) -> None:
        try:
            await self._child.end()
        finally:
            self._is_over = True
            self._changed.set()
            self._registry.give_slot()
            self._registry.remove(self)
