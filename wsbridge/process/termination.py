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


def make_ladder(close_ms: int) -> tuple[Step, ...]:
    """Return the steps after the close of stdin: INT at 100, TERM at 350, KILL at 850 ms, each grace period `close_ms` longer."""
    return tuple(Step((grace_ms + close_ms) / 1000, signal) for grace_ms, signal in ((100, SIGINT), (250, SIGTERM), (500, SIGKILL)))
