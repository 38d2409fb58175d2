"""The alarm in which a broker blocks publishers: it is low on memory or disk space and sends connection.blocked.

During an alarm the broker reads nothing from a connection that has published. Confirms, acknowledgements and answers all wait
until connection.unblocked, of every link that uses the connection. An alarm has no deadline; the heartbeat detects a broker that
ends during it.

aiormq handles both frames itself and offers no callback. So `watch` replaces its two handlers, by their private names.
"""

from __future__ import annotations

import asyncio
from typing import Any

HANDLERS = ("_Connection__handle_connection_blocked", "_Connection__handle_connection_unblocked")
"""The names of the private handlers of aiormq's Connection, as Python mangles them."""


class Alarm:
    """Whether the broker blocks one connection, and why: of the connection itself, or of a link, which follows its connection."""

    def __init__(self) -> None:
        self.reason = ""
        """The broker's text while it blocks publishers, such as `low on memory`; empty while it does not."""
        self._over_at = 0.0
        self._changed = asyncio.Event()
        self._followers: set[Alarm] = set()

    def watch(self, connection: Any) -> None:
        """Observe the alarms of an open aiormq connection."""
        blocked, unblocked = (getattr(connection, name) for name in HANDLERS)

        async def start(frame: Any) -> None:
            await blocked(frame)
            self._set(frame.reason or "no reason given")

        async def end(frame: Any) -> None:
            await unblocked(frame)
            self._set("")

        for name, handler in zip(HANDLERS, (start, end), strict=True):
            setattr(connection, name, handler)

    def follow(self, other: Alarm) -> None:
        """Copy the state of another alarm, now and at each change."""
        other._followers.add(self)
        self._set(other.reason)

    def unfollow(self, other: Alarm) -> None:
        """Ignore later changes of another alarm. A current alarm ends."""
        other._followers.discard(self)
        self._set("")

    def over_at(self) -> float:
        """Return the time until which the broker has blocked publishers, by the loop's clock.

        The result is the current time during an alarm, and 0 before the first alarm.
        """
        return asyncio.get_running_loop().time() if self.reason else self._over_at

    async def changed(self) -> str:
        """Wait until an alarm begins or ends; return the reason of the current alarm, empty if there is none."""
        await self._changed.wait()
        self._changed.clear()
        return self.reason

    def _set(self, reason: str) -> None:
        if reason == self.reason:
            return
        self.reason = reason
        if not reason:
            self._over_at = asyncio.get_running_loop().time()
        self._changed.set()
        for follower in self._followers:
            follower._set(reason)
