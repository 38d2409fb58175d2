"""The alarm in which a broker blocks publishers: it is low on memory or disk space, and says so by connection.blocked.

The broker then reads nothing from a connection that has published: confirms, acknowledgements and answers all wait until
connection.unblocked. That has no deadline; a broker that dies meanwhile is noticed by its heartbeat.

aiormq handles both frames itself and tells nobody, so that its two handlers are replaced here, by their private names.
"""

from __future__ import annotations

import asyncio
from typing import Any

HANDLERS = ("_Connection__handle_connection_blocked", "_Connection__handle_connection_unblocked")
"""How the handlers of aiormq's Connection are called from outside."""


class Alarm:
    """Whether the broker blocks one connection, and why."""

    def __init__(self) -> None:
        self.reason = ""
        """The broker's own words while it blocks publishers: `low on memory`; empty while it does not."""
        self._over_at = 0.0
        self._changed = asyncio.Event()

    def watch(self, connection: Any) -> None:
        """Learn of the alarms of an open connection of aiormq."""
        blocked, unblocked = (getattr(connection, name) for name in HANDLERS)

        async def begin(frame: Any) -> None:
            await blocked(frame)
            self._set(frame.reason or "no reason given")

        async def end(frame: Any) -> None:
            await unblocked(frame)
            self._set("")

        for name, handler in zip(HANDLERS, (begin, end), strict=True):
            setattr(connection, name, handler)

    def over_at(self) -> float:
        """Return until when the broker has blocked publishers, by the loop's clock: now while it does, 0 if it never did."""
        return asyncio.get_running_loop().time() if self.reason else self._over_at

    async def changed(self) -> str:
        """Wait until an alarm begins or ends; return the reason of the one that there is, empty for none."""
        await self._changed.wait()
        self._changed.clear()
        return self.reason

    def _set(self, reason: str) -> None:
        if not reason:
            self._over_at = asyncio.get_running_loop().time()
        if reason != self.reason:
            self.reason = reason
            self._changed.set()
