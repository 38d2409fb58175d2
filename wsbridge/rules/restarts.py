"""Whether, and after how long, a program that has ended is started again: pauses that grow while it keeps ending early."""

from __future__ import annotations

from enum import StrEnum

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
SETTLED = 10.0
"""Seconds after which a program is taken to have run well: the next pause is the first again."""


class Restart(StrEnum):
    """When a program is started again (`--restart`)."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class Restarts:
    """Decides for one program."""

    def __init__(self, policy: Restart) -> None:
        self._policy = policy
        self._pause = FIRST_PAUSE

    def after(self, status: int, ran: float) -> float | None:
        """Return the pause in seconds, or None when it is not to be started again.

        `status` is the exit status, negative for a signal, and `ran` how many seconds the program was there.
        """
        if self._policy is Restart.NEVER or (self._policy is Restart.ON_FAILURE and status == 0):
            return None
        if ran >= SETTLED:
            self._pause = FIRST_PAUSE
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        return pause
