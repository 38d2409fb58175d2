"""The sessions of an endpoint: their maximum number, their ids, and their shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from wsbridge.closecodes import GOING_AWAY, SERVICE_RESTART
from wsbridge.flow import End
from wsbridge.logs import logger
from wsbridge.metrics import Metrics
from wsbridge.sessions.limiter import Limiter

SHUTTING_DOWN = End(GOING_AWAY, "server is shutting down")
RECONFIGURED = End(SERVICE_RESTART, "the configuration has changed; reconnect")
"""The reason for the sessions of an endpoint that was changed or removed while the server runs."""

log = logger("session")


class Live(Protocol):
    """A session that the registry can end."""

    def shut_down(self, reason: End) -> None:
        """End gracefully, as fast as the ladder allows; a WebSocket closes with this reason."""

    def force(self) -> None:
        """End now."""


class Ids:
    """The ids of the connections of one server."""

    def __init__(self) -> None:
        self._last = 0

    def new(self, now_ns: int) -> str:
        """Return an id that no other connection has: the time in nanoseconds, as in websocketd, increased if that id is in use."""
        self._last = max(self._last + 1, now_ns)
        return str(self._last)


class Registry:
    """The slots and tasks of one endpoint; `drain` ends all sessions."""

    def __init__(
        self,
        *,
        max_sessions: int,
        metrics: Metrics,
        setting: str = "max_programs",
        parent: Limiter | None = None,
        ids: Ids | None = None,
    ) -> None:
        """`setting` is the name of the setting that holds `max_sessions`.

        `parent` and `ids` belong to the whole server: each session needs a slot of `parent` too."""
        self.limiter = Limiter(max_sessions, setting=setting, parent=parent)
        self.new_id = (ids or Ids()).new
        self._live: set[Live] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.metrics = metrics
        self.closing: End | None = None
        """Why the sessions end, once `drain` has been called."""
        self.on_end: Callable[[Live], None] = lambda _: None
        """Called with each session that has ended."""

    def add(self, live: Live) -> None:
        self._live.add(live)
        self._idle.clear()
        if self.closing is not None:
            live.shut_down(self.closing)

    def remove(self, live: Live) -> None:
        """Remove a session that has ended completely."""
        self._live.discard(live)
        if not self._live:
            self._idle.set()
        self.on_end(live)

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run the end of a session as a task that the registry owns; log an exception, which affects no other session.

        This is not a TaskGroup, since a TaskGroup would end every session after a fault in a single session.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def drain(self, reason: End = SHUTTING_DOWN) -> None:
        """Shut down every session for this reason, and wait until none is left."""
        self.closing = reason
        for live in list(self._live):
            live.shut_down(reason)
        await self._idle.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def force(self) -> None:
        """End every session now."""
        for live in list(self._live):
            live.force()

    def __len__(self) -> int:
        return len(self._live)
