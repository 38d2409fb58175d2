"""A selector that busy-polls for a moment before it sleeps.

Messages arrive in bursts. The reply to a message often follows within microseconds: from a program on another processor, or as
the client's next message. A sleep and a wake-up cost more than that, above all on a virtual machine. With a busy poll, a round
trip through `cat` needs half the time. After each turn of the loop with a ready descriptor, the selector therefore polls the
descriptors again for a moment. An idle loop sleeps as usual.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from time import perf_counter

BUSY_POLL_SECONDS = 50e-6
"""Maximum busy poll after each turn. At a hundred messages a second it costs 1 % of a processor; 150 us brought no further gain."""

Ready = list[tuple[selectors.SelectorKey, int]]


class BusyPollSelector(selectors.EpollSelector):
    """epoll with a short busy poll after each time that a descriptor was ready."""

    def __init__(self) -> None:
        super().__init__()
        self._was_ready = False

    def select(self, timeout: float | None = None) -> Ready:
        if self._was_ready and (timeout is None or timeout > BUSY_POLL_SECONDS):
            end = perf_counter() + BUSY_POLL_SECONDS
            while perf_counter() < end:
                if ready := super().select(0):
                    return ready
        ready = super().select(timeout)
        self._was_ready = bool(ready)
        return ready


def make_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop, which busy-polls unless this process has a single processor.

    On a single processor, a busy poll would delay the program or client for whose data it waits.
    """
    alone = len(os.sched_getaffinity(0)) < 2
    return asyncio.SelectorEventLoop(selectors.EpollSelector() if alone else BusyPollSelector())
