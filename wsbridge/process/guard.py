"""The guard: a small process that outlives a server killed with KILL, and ends the programs that the server left.

It is a shell that reads a pipe: it costs 0.1 MB of memory and a millisecond to start. The server writes to the pipe when each
session begins and ends. If the guard exits, the server starts it again and sends it the present sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from wsbridge.logs import logger
from wsbridge.metrics import Metrics
from wsbridge.process.inherited import DEFAULTED
from wsbridge.process.pipewriter import PipeWriter
from wsbridge.process.termination import Step

SHELL = "/bin/sh"
SCRIPT = str(Path(__file__).with_name("guard.sh"))
BACKLOG_LIMIT = 1024 * 1024
"""Maximum bytes that wait for the guard. The server replaces a guard that is further behind: it has probably been stopped."""
LATE_SECONDS = 0.05
"""Seconds after which the guard receives the end of a session, if no session begins before that."""
RESTART_PAUSE = 1.0
"""Seconds before a dead guard is replaced, so that a guard that cannot run does not keep the server busy."""

log = logger("process")


class Watch(Protocol):
    """Receives the beginning and the end of each program's session."""

    @property
    def pid(self) -> int:
        """The pid of the guard process; 0 if there is none."""

    def add(self, session: int, ladder: Sequence[Step]) -> None: ...

    def remove(self, session: int) -> None: ...

    def close(self) -> None: ...


class NoGuard:
    """`--no-guard`: programs of a killed server must notice the end of their stdin by themselves."""

    pid = 0

    def add(self, session: int, ladder: Sequence[Step]) -> None:
        """Do nothing: there is no guard."""

    def remove(self, session: int) -> None:
        """Do nothing: there is no guard."""

    def close(self) -> None:
        """Do nothing: there is no guard."""


class Guard:
    """The guard process and the server's end of its pipe. It ends each program by the ladder with which the program began."""

    def __init__(self, metrics: Metrics, *, loop: asyncio.AbstractEventLoop) -> None:
        self._metrics = metrics
        self._loop = loop
        self._sessions: dict[int, int] = {}
        """The number of the ladder of each session."""
        self._ladders: dict[tuple[Step, ...], int] = {}
        """The numbers of all ladders so far. There are few: a change of `close_delay` adds one."""
        self._unsent = b""
        """Lines for the guard. A beginning is sent in the next turn of the loop; an end is sent with it, or a little later. Each
        write wakes the guard."""
        self._is_urgent = False
        self._timer: asyncio.TimerHandle | None = None
        self._pipe: PipeWriter | None = None
        self._pidfd = -1
        self.pid = 0
        self._start()

    def add(self, session: int, ladder: Sequence[Step]) -> None:
        ladder = tuple(ladder)
        number = self._ladders.get(ladder)
        if number is None:
            number = self._ladders[ladder] = len(self._ladders)
            self._unsent += _definition(number, ladder)
        self._sessions[session] = number
        self._unsent += b"+ %d %d\n" % (session, number)
        if not self._is_urgent:
            self._is_urgent = True
            self._loop.call_soon(self._send_unsent)

    def remove(self, session: int) -> None:
        if session in self._sessions:
            del self._sessions[session]
            if not self._unsent:
                self._loop.call_later(LATE_SECONDS, self._send_unsent)
            self._unsent += b"- %d\n" % session

    def close(self) -> None:
        """End the guard; it first ends the programs that are still alive."""
        if self._timer is not None:
            self._timer.cancel()
        self._send_unsent()
        self._stop()

    def _start(self) -> None:
        try:
            self._spawn()
        except OSError as error:
            log.error("cannot start the guard: %s; the server tries again", error)
            self._timer = self._loop.call_later(RESTART_PAUSE, self._start)
            return
        # A guard that wakes up must not preempt the server.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(self.pid, os.SCHED_BATCH, os.sched_param(0))
        # A new guard knows no ladder, not even those of the programs that will begin.
        definitions = [_definition(number, ladder) for ladder, number in self._ladders.items()]
        self._unsent = b"".join([*definitions, *(b"+ %d %d\n" % session for session in self._sessions.items())])
        self._send_unsent()

    def _spawn(self) -> None:
        read, pipe = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = os.posix_spawn(
                SHELL,
                ["wsbridge-guard", SCRIPT],
                {"PATH": "/usr/bin:/bin"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, read, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=DEFAULTED,
            )
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            os.close(pipe)
            raise
        finally:
            os.close(read)
        os.set_blocking(pipe, False)
        self._pipe = PipeWriter(pipe, drained=_nothing, lost=_nothing, loop=self._loop)
        self._loop.add_reader(self._pidfd, self._died)

    def _send_unsent(self) -> None:
        unsent, self._unsent = self._unsent, b""
        self._is_urgent = False
        if unsent:
            self._write(unsent)

    def _write(self, lines: bytes) -> None:
        pipe = self._pipe
        if pipe is None or not pipe.is_open:
            return
        if not pipe.write(lines) and len(pipe.pending) > BACKLOG_LIMIT:
            os.kill(self.pid, signal.SIGKILL)

    def _died(self) -> None:
        self._stop()
        self._metrics.guard_restarts += 1
        log.error("the guard (pid %d) has died; the server starts it again", self.pid)
        self._timer = self._loop.call_later(RESTART_PAUSE, self._start)

    def _stop(self) -> None:
        if self._pipe is None:
            return
        self._loop.remove_reader(self._pidfd)
        self._pipe.close()
        os.close(self._pidfd)
        self._pipe, self._pidfd = None, -1
        if not self._sessions:
            # The guard has nothing to do, and may be stopped, so that it would not exit by itself.
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0 if not self._sessions else os.WNOHANG)


def _definition(number: int, ladder: Sequence[Step]) -> bytes:
    """Return the line that defines a ladder for the guard."""
    steps = " ".join(f"{step.grace:g} {step.signal.name.removeprefix('SIG')}" for step in ladder)
    return b"= %d %s\n" % (number, steps.encode())


def _nothing() -> None:
    """Do nothing: the guard's pidfd reports its end, and the server does not wait for room in its pipe."""
