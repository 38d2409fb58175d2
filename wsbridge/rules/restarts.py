"""Whether to restart a program that has exited, and after what pause: pauses grow while the program keeps exiting early."""

from __future__ import annotations

from enum import StrEnum

from wsbridge.rules.backoff import Backoff

FIRST_PAUSE = 0.5
MAX_PAUSE = 30.0


class Restart(StrEnum):
    """When to restart a program (`--restart`)."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class Restarts:
    """The restart policy of one program, with the state of its backoff."""

    def __init__(self, policy: Restart) -> None:
        self._policy = policy
        self._backoff = Backoff(FIRST_PAUSE, MAX_PAUSE)

    def after(self, status: int, ran: float) -> float | None:
        """Return the pause before the restart in seconds, or None for no restart.

        `status` is the exit status, negative for a signal. `ran` is the running time in seconds.
        """
        if self._policy is Restart.NEVER or (self._policy is Restart.ON_FAILURE and status == 0):
            return None
        self._backoff.ran(ran)
        return self._backoff.next()
