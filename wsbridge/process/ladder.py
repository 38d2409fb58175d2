"""How a child is made to end: the steps, as data.

Closing stdin is enough for a polite program. One that does not take the hint gets INT, then TERM, then KILL, each to
its whole process group, each after a grace that `--closems` lengthens.
"""

from __future__ import annotations

from dataclasses import dataclass
from signal import SIGINT, SIGKILL, SIGTERM, Signals


@dataclass(frozen=True, slots=True)
class Step:
    """Wait `grace` seconds for the end; if it does not come, send `signal`."""

    grace: float
    signal: Signals


LAST_WAIT = 1.0
"""Seconds to wait for the end after KILL: what takes longer hangs in the kernel, and is reported."""


def make_ladder(close_ms: int) -> tuple[Step, ...]:
    """Return the steps after stdin was closed: INT at 100, TERM at 350, KILL at 850 ms, each grace `close_ms` longer."""
    return tuple(
        Step((grace_ms + close_ms) / 1000, signal) for grace_ms, signal in ((100, SIGINT), (250, SIGTERM), (500, SIGKILL))
    )
