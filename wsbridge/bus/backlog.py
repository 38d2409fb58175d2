"""What a receiver is to be told, in order: at once, or, while it holds us up, later."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Backlog:
    """Work that waits for its turn. It has no bound of its own: whoever puts into it sees to what may come meanwhile."""

    def __init__(self) -> None:
        self._held = False
        self._kept: deque[Callable[[], None]] = deque()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __len__(self) -> int:
        return len(self._kept)

    def do(self, work: Callable[[], None]) -> None:
        """Do it, now or after all that waits."""
        if self._held or self._kept:
            self._kept.append(work)
            self._is_empty.clear()
        else:
            work()

    def hold(self) -> None:
        """Do nothing from now on."""
        self._held = True

    def release(self) -> None:
        """Go on, until something that is done holds it up again."""
        self._held = False
        while self._kept and not self._held:
            self._kept.popleft()()
        if not self._kept:
            self._is_empty.set()

    async def wait_empty(self) -> None:
        """Return when nothing waits."""
        await self._is_empty.wait()
