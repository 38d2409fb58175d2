"""The write timeout (`--send-timeout`): it disconnects a client that accepts no data, but not a client that is slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from wsbridge.logs import LogFields, extra
from wsbridge.metrics import Metrics


class WriteTimeout:
    """Measures how much a client accepts in each period, and ends the connection if that is nothing.

    `accepted` returns how many bytes the client has accepted so far, or None after the end of the connection. `abort` ends the
    connection. `waits` returns whether data waits for the client: only then the end counts as a timeout, and is logged. `again`
    returns the length of the period that follows one in which the client accepted data, from the length of that period, in seconds.
    """

    __slots__ = ("_abort", "_accepted", "_again", "_fields", "_log", "_loop", "_metrics", "_timer", "_waits")

    def __init__(
        self,
        *,
        accepted: Callable[[], int | None],
        abort: Callable[[], object],
        waits: Callable[[], object] = lambda: True,
        again: Callable[[float], float] = lambda seconds: seconds,
        log: logging.Logger,
        metrics: Metrics,
        fields: LogFields,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._accepted = accepted
        self._abort = abort
        self._waits = waits
        self._again = again
        self._log = log
        self._metrics = metrics
        self._fields = fields
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        return self._timer is not None

    def start(self, seconds: float) -> None:
        """Begin a period of `seconds`, in place of the current one; 0 means no timeout."""
        self.stop()
        accepted = self._accepted()
        if accepted is not None and seconds > 0:
            self._timer = self._loop.call_later(seconds, self._check, seconds, accepted)

    def stop(self) -> None:
        """End the current period without a check."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, seconds: float, before: int) -> None:
        self._timer = None
        accepted = self._accepted()
        if accepted is None:
            return
        if accepted > before:
            self.start(self._again(seconds))
            return
        if self._waits():
            self._metrics.clients_timed_out += 1
            self._log.info("closing: the client accepted no data for %g s", seconds, extra=extra(self._fields))
        self._abort()
