"""The sessions of this process: how many there may be, their names, and their common end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from wsbridge.logs import logger
from wsbridge.metrics import Metrics
from wsbridge.sessions.slots import Slots

log = logger("session")


class Live(Protocol):
    """What can be told to end."""

    def shut_down(self) -> None:
        """End in good order, as fast as the ladder allows."""

    def hurry(self) -> None:
        """End now."""


class Registry:
    """Slots, ids and tasks of one server; `drain` ends them."""

    def __init__(self, *, max_sessions: int, metrics: Metrics) -> None:
        self.slots = Slots(max_sessions)
        self._last_id = 0
        self._live: set[Live] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.metrics = metrics
        self.closing = False
        self.on_end: Callable[[Live], None] = lambda _: None
        """Called with each session that is over."""

    def new_id(self, now_ns: int) -> str:
        """Return an id that no other connection has: the time in nanoseconds, as websocketd's, moved on when it is taken."""
        self._last_id = max(self._last_id + 1, now_ns)
        return str(self._last_id)

    def add(self, live: Live) -> None:
        self._live.add(live)
        self._idle.clear()
        if self.closing:
            live.shut_down()

    def remove(self, live: Live) -> None:
        """Take a session off the list: nothing of it is left."""
        self._live.discard(live)
        if not self._live:
            self._idle.set()
        self.on_end(live)

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run the end of a session as a task that the registry owns; what it raises is logged and stops nobody else.

        Not a TaskGroup: that would end every session for a fault in one.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def drain(self) -> None:
        """Shut down every session and wait until none is left."""
        self.closing = True
        for live in list(self._live):
            live.shut_down()
        await self._idle.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def hurry(self) -> None:
        """Make every session end now."""
        for live in list(self._live):
            live.hurry()

    def __len__(self) -> int:
        return len(self._live)
