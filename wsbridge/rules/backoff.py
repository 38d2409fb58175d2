"""Backoff for retries: the pauses grow, and jitter spreads them, so that clients do not retry all at once."""

from __future__ import annotations

FIRST, MAX_PAUSE = 0.25, 15.0
SETTLED = 10.0
"""Seconds that an attempt must have worked before the pauses start at the first again."""


class Backoff:
    """The pauses of a loop that retries: from `first` up to `longest` seconds, each twice the last."""

    def __init__(self, first: float | None = None, longest: float | None = None) -> None:
        self._first = FIRST if first is None else first
        self._longest = longest
        self._pause = self._first

    def next(self, chance: float = 1) -> float:
        """Return the next pause in seconds; `chance`, from 0 to 1, places it between half the pause and the whole pause."""
        pause, self._pause = self._pause, min(self._pause * 2, MAX_PAUSE if self._longest is None else self._longest)
        return pause * (0.5 + chance / 2)

    def ran(self, seconds: float) -> None:
        """Record for how many seconds an attempt worked."""
        if seconds >= SETTLED:
            self._pause = self._first
