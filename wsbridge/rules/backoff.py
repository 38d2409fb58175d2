"""How long to wait before trying again: longer each time, and never all at once."""

from __future__ import annotations

FIRST, LONGEST = 0.25, 15.0
SETTLED = 10.0
"""Seconds that something must have worked before the pauses begin anew."""


class Backoff:
    """The pauses of one who tries again for ever."""

    def __init__(self) -> None:
        self._pause = FIRST

    def next(self, chance: float) -> float:
        """Return the next pause in seconds; `chance` of 0 to 1 puts it between half of it and all."""
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST)
        return pause * (0.5 + chance / 2)

    def ran(self, seconds: float) -> None:
        """Take note of how long it worked."""
        if seconds >= SETTLED:
            self._pause = FIRST
