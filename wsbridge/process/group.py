"""A process group, from the start of its leader until nobody is left in it.

Its number stays taken for as long as somebody is in it. Once it was seen empty the number may be a stranger's, and from
then on nothing is sent to it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from wsbridge.logs import Pairs, extra, logger
from wsbridge.process.guard import Watch
from wsbridge.process.spawn import Reap

POLL = 0.01
"""Seconds between two looks at a group that is to end and whose leader has: nothing reports the end of the others."""
IDLE_POLL = 0.25
"""The same for one that may live on: it must be seen empty before its number can be another's."""

log = logger("process")


class Group:
    """The leader is our child and is reaped here; the others are seen, and signalled, as a group."""

    __slots__ = ("_is_empty", "_loop", "_pidfd", "_reap", "_timer", "_waiters", "_watch", "on_exit", "pairs", "pid", "signalled", "status")

    def __init__(self, pid: int, pidfd: int, reap: Reap, *, watch: Watch, pairs: Pairs, loop: asyncio.AbstractEventLoop) -> None:
        self._pidfd = pidfd
        self._reap = reap
        self._watch = watch
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_empty = False
        self.pid = pid
        self.pairs = pairs
        self.status: int | None = None
        """The leader's exit status, minus N after signal N, None while it lives."""
        self.signalled: signal.Signals | None = None
        """The last signal that was sent."""
        self.on_exit: Callable[[], None] = _nothing
        """Called when the leader has exited."""
        watch.begun(pid)
        loop.add_reader(pidfd, self._exited)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to everyone in the group."""
        if self._is_empty:
            return
        self.signalled = number
        log.debug("Sending %s to process group %d", number.name, self.pid, extra=extra(self.pairs))
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError) as error:
            log.debug("%s: %s", number.name, error, extra=extra(self.pairs))

    async def wait_exit(self, seconds: float | None = None) -> int | None:
        """Wait for the leader to exit, at most so long; return its status, or None when it lives or was let go."""
        if self.status is None and not self._is_empty:
            # A future of its own for each who waits: half the cost of a shield and a timeout, and it is in every session.
            waiter: asyncio.Future[None] = self._loop.create_future()
            timer = self._loop.call_later(seconds, _wake, waiter) if seconds is not None else None
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
                if timer is not None:
                    timer.cancel()
        return self.status

    async def gone_within(self, seconds: float) -> bool:
        """Wait until nobody is left, at most so long; return whether nobody is."""
        deadline = self._loop.time() + seconds
        if self.status is None and await self.wait_exit(seconds) is None:
            return False
        while not self._seen_empty():
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(POLL)
        return True

    def let_go(self) -> None:
        """Look no more. A leader that not even KILL has ended is left behind."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_empty:
            self._watch.ended(self.pid)
            self._is_empty = True
        if self._pidfd >= 0:
            self._stop_watching()
        for waiter in self._waiters:
            _wake(waiter)

    def _exited(self) -> None:
        self._stop_watching()
        self._reap(self._reaped)

    def _reaped(self, status: int) -> None:
        self.status = status
        log.debug("Process exit: %s", describe(self.status), extra=extra(self.pairs))
        self._look()
        for waiter in self._waiters:
            _wake(waiter)
        self.on_exit()

    def _look(self) -> None:
        self._timer = None if self._seen_empty() else self._loop.call_later(IDLE_POLL, self._look)

    def _seen_empty(self) -> bool:
        if not self._is_empty and not self._lives():
            self._is_empty = True
            self._watch.ended(self.pid)
        return self._is_empty

    def _lives(self) -> bool:
        """Whether anyone is left; the leader was reaped."""
        try:
            # As the first process of a container we inherit the orphans of the group, and nobody else reaps them.
            while os.waitid(os.P_PGID, self.pid, os.WEXITED | os.WNOHANG) is not None:
                pass
        except ChildProcessError:
            pass
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def _stop_watching(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def describe(status: int) -> str:
    """Say an exit status in words, as a close frame's reason has it: `exit 3`, `signal TERM`."""
    if status >= 0:
        return f"exit {status}"
    try:
        return f"signal {signal.Signals(-status).name.removeprefix('SIG')}"
    except ValueError:
        return f"signal {-status}"


def _nothing() -> None:
    """Nobody waits for the exit."""
