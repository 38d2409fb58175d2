"""When to ping a client, and when to give it up. Times are seconds of any clock that does not go back.

A client is given up when it has said nothing for two intervals. Any frame counts, not only a pong; and while we are
not reading, because its program takes nothing, the client cannot be heard and the deadline rests.
"""

from __future__ import annotations

from enum import Enum


class Beat(Enum):
    PING = "ping"
    GONE = "gone"
    WAIT = "wait"


class Heartbeat:
    """The heartbeat of one client; `heard` is called for each read, so it is an attribute to be set."""

    __slots__ = ("_interval", "_next_ping", "_resting", "heard")

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._next_ping = now + interval
        self._resting = False
        self.heard = now
        """When the client was last heard."""

    def rest(self) -> None:
        """We have stopped reading."""
        self._resting = True

    def wake(self, now: float) -> None:
        """We read again: the client has its full time from now."""
        if self._resting:
            self._resting = False
            self.heard = now

    def beat(self, now: float) -> tuple[Beat, float]:
        """Decide what is due now; return it, and when to ask again."""
        if not self._resting and now >= self.heard + 2 * self._interval:
            return Beat.GONE, now
        due = now >= self._next_ping
        if due:
            self._next_ping = now + self._interval
        deadline = self._next_ping if self._resting else min(self._next_ping, self.heard + 2 * self._interval)
        return (Beat.PING if due else Beat.WAIT), deadline
