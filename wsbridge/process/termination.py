"""The ladder: the steps that terminate a child, as data.

The close of stdin is enough to end a cooperative program. A program that continues gets INT, then TERM, then KILL. Each signal
goes to all of its processes, after a grace period that `--closems` lengthens.
"""

from __future__ import annotations

from dataclasses import dataclass
from signal import SIGINT, SIGKILL, SIGTERM, Signals


@dataclass(frozen=True, slots=True)
class Step:
    """Wait `grace` seconds for the program to end; if it has not ended by then, send `signal`."""

    grace: float
    signal: Signals


LAST_WAIT = 1.0
"""Seconds to wait for the end after KILL. A process that needs longer hangs in the kernel, and is reported."""


def make_ladder(delay: float) -> tuple[Step, ...]:
    """Return the steps after the close of stdin: INT at 0.1, TERM at 0.35, KILL at 0.85 s, each grace period `delay` seconds longer."""
    return tuple(Step(grace + delay, signal) for grace, signal in ((0.1, SIGINT), (0.25, SIGTERM), (0.5, SIGKILL)))
