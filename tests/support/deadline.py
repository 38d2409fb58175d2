"""The deadlines of tests. A deadline only ends a test that hangs, so it is generous, and it grows with the load of the machine.

A test gives the seconds of an idle machine. The slowdown is measured again when a deadline is about to pass, so that load during the
wait counts too.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path

DEADLINE = 30.0
"""Seconds that a test waits for one step by default."""

START_DEADLINE = 60.0
"""Seconds for the start of a server. RabbitMQ takes 4 on two idle cores, nearly all of it to load code."""

MOST = 10.0
"""The largest slowdown that counts: beyond it, the limit of the whole test applies (`scripts/test.py`)."""

CORES = len(os.sched_getaffinity(0))


FRESH_SECONDS = 1.0
"""Seconds for which a measured slowdown is used: reading the load takes 50 us, and a test may receive 200,000 messages."""


def slowdown() -> float:
    """Return the slowdown in comparison with an idle machine: the runnable threads per core, from 1 to MOST."""
    return _measured(int(time.monotonic() / FRESH_SECONDS))


@lru_cache(maxsize=1)
def _measured(_moment: int) -> float:
    return slowdown_of(Path("/proc/loadavg").read_text(), CORES)


def slowdown_of(loadavg: str, cores: int) -> float:
    """Return the slowdown from a line of /proc/loadavg: the greater of the last minute's average and the current number of threads."""
    average, _, _, running, _ = loadavg.split()
    busy = max(float(average), int(running.partition("/")[0]))
    return min(max(1.0, busy / cores), MOST)


def scaled(seconds: float) -> float:
    """Return seconds of an idle machine as seconds of this machine at its current load."""
    return seconds * slowdown()


class Deadline:
    """A deadline that moves while the machine is busy, or while there is progress."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Start again, because there was progress."""
        self._start = time.monotonic()
        self._slowdown = 1.0

    def remaining(self) -> float:
        """Return the remaining seconds, 0 after the deadline."""
        age = time.monotonic() - self._start
        if age >= self.seconds * self._slowdown:
            self._slowdown = max(self._slowdown, slowdown())
        return max(0.0, self.seconds * self._slowdown - age)

    def has_passed(self) -> bool:
        return self.remaining() == 0
