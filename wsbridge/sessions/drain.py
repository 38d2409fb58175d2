"""Reads stdout after the exit of a program, while other processes of its group still hold stdout open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from wsbridge.logs import LogFields, extra, logger

POLL_SECONDS = 0.05
"""Least seconds between two checks whether the output from before the exit has been read."""

log = logger("session")


class Output(Protocol):
    """The output of a program that has exited."""

    @property
    def has_unread_output(self) -> bool:
        """Whether output from before the exit is still unread, because its reader is slow."""


class Drain:
    """Reads on for a while after the exit, and calls `over` when that time has passed and no output from before the exit is left.

    Output from before the exit is never cut short, however slow its reader is.
    """

    __slots__ = ("_fields", "_loop", "_output", "_over", "_seconds", "_timer")

    def __init__(
        self, output: Output, seconds: float, over: Callable[[], None], *, fields: LogFields, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._output = output
        self._seconds = seconds
        self._over = over
        self._fields = fields
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = loop.call_later(seconds, self._check)

    def cancel(self) -> None:
        """Never call `over` from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        if self._output.has_unread_output:
            self._timer = self._loop.call_later(max(self._seconds, POLL_SECONDS), self._check)
            return
        self._timer = None
        log.debug("a process of the group still holds stdout open", extra=extra(self._fields))
        self._over()
