"""A selector that looks a little longer before it sleeps.

Messages come in trains: what was just handed on is often answered within microseconds, by a program on the next processor
or by a client's next message. To be put to sleep and woken again costs more than that, above all on a virtual machine: a
round trip through `cat` takes half the time when it is waited for awake. So after each turn that brought something the
descriptors are looked at again and again for a moment; a loop that has nothing to do sleeps as ever.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from time import perf_counter

AWAKE_SECONDS = 50e-6
"""At most this much after each turn. A hundred messages a second cost 1 % of a processor by it; 150 us gained nothing more."""

Ready = list[tuple[selectors.SelectorKey, int]]


class EagerSelector(selectors.EpollSelector):
    """epoll, awake for a moment after each time that something was ready."""

    def __init__(self) -> None:
        super().__init__()
        self._was_ready = False

    def select(self, timeout: float | None = None) -> Ready:
        if self._was_ready and (timeout is None or timeout > AWAKE_SECONDS):
            end = perf_counter() + AWAKE_SECONDS
            while perf_counter() < end:
                if ready := super().select(0):
                    return ready
        ready = super().select(timeout)
        self._was_ready = bool(ready)
        return ready


def make_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop; with a single processor one that sleeps at once: whoever is waited for could not run else."""
    alone = len(os.sched_getaffinity(0)) < 2
    return asyncio.SelectorEventLoop(selectors.EpollSelector() if alone else EagerSelector())
