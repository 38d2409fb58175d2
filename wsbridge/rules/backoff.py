"""Backoff for retries: the pauses grow, and jitter spreads them, so that clients do not retry all at once."""

from __future__ import annotations

FIRST, MAX_PAUSE = 0.25, 15.0
"""The first and the longest pause, in seconds."""
SETTLED = 10.0
"""Seconds that an attempt must have worked before the pauses start at the first again."""


class Backoff:
    """The pauses of a loop that retries: from `first` up to `max_pause` seconds, each twice the last."""

    def __init__(self, first: float = FIRST, max_pause: float = MAX_PAUSE) -> None:
        self._first = self._pause = first
        self._max_pause = max_pause

    def next(self, chance: float = 1) -> float:
        """Return the next pause in seconds; `chance`, from 0 to 1, places it between half the pause and the whole pause."""
        pause, self._pause = self._pause, min(self._pause * 2, self._max_pause)
        return pause * (0.5 + chance / 2)

    def ran(self, seconds: float) -> None:
        """Record for how many seconds an attempt worked."""
        if seconds >= SETTLED:
            self._pause = self._first
