"""Calls to a receiver, in order: made at once, or queued while the receiver applies backpressure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Backlog:
    """A queue of calls to a receiver. It has no bound: its users must limit what they add during backpressure."""

    def __init__(self) -> None:
        self._held = self._is_releasing = False
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __len__(self) -> int:
        return len(self._waiting)

    def do(self, work: Callable[[], None]) -> None:
        """Call `work` now, or after all the work that waits."""
        if not self._held and not self._waiting:
            work()
            return
        self._waiting.append(work)
        self._is_empty.clear()
        if not self._held and not self._is_releasing:
            # A call has raised an exception, and the rest has waited since.
            self.release()

    def hold(self) -> None:
        """Queue all work from now on."""
        self._held = True

    def release(self) -> None:
        """Do the waiting work, until a call from it applies backpressure again with `hold`.

        An exception of a call leaves the rest waiting, up to the next `do` or `release`.
        """
        self._held = False
        self._is_releasing = True
        try:
            while self._waiting and not self._held:
                self._waiting.popleft()()
        finally:
            self._is_releasing = False
            if not self._waiting:
                self._is_empty.set()

    async def wait_empty(self) -> None:
        """Wait until the queue is empty."""
        await self._is_empty.wait()
