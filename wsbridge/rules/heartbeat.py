"""Decides when to ping a client, and when to disconnect it. Times are seconds of a monotonic clock.

The server disconnects a client after two intervals of silence. Any frame counts, not only a pong. While the program applies
backpressure, the server does not read, so it cannot receive frames and the deadline is suspended.
"""

from __future__ import annotations

from enum import Enum


class Beat(Enum):
    PING = "ping"
    TIMEOUT = "timeout"
    WAIT = "wait"


class Heartbeat:
    """The heartbeat of one client; `received_at` is a plain attribute, because the caller sets it on each read."""

    __slots__ = ("_interval", "_next_ping", "_resting", "received_at")

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._next_ping = now + interval
        self._resting = False
        self.received_at = now
        """When data last arrived from the client."""

    def rest(self) -> None:
        """Suspend the deadline: the caller has stopped reading."""
        self._resting = True

    def wake(self, now: float) -> None:
        """Resume the deadline: the caller reads again, and the client has its full time from now on."""
        if self._resting:
            self._resting = False
            self.received_at = now

    def beat(self, now: float) -> tuple[Beat, float]:
        """Decide what is due now; return it, and when to call again."""
        if not self._resting and now >= self.received_at + 2 * self._interval:
            return Beat.TIMEOUT, now
        due = now >= self._next_ping
        if due:
            self._next_ping = now + self._interval
        deadline = self._next_ping if self._resting else min(self._next_ping, self.received_at + 2 * self._interval)
        return (Beat.PING if due else Beat.WAIT), deadline
