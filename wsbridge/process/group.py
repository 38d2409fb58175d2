"""The processes of one program, from the start of its leader until none of them is left.

They are the processes with the leader's session id, whatever their process group. A group never spans two sessions, so a signal to each
of the groups reaches all of them. The session keeps its number as long as a process is in it. Once a check has found no process
in it, another session may get the number, so no signal is sent to it any more.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Callable, Sequence
from enum import Enum
from signal import Signals
from time import perf_counter

from wsbridge.logs import LogFields, extra, logger
from wsbridge.process.descendants import Descendants
from wsbridge.process.procfs import read_stat, user_of
from wsbridge.process.spawn import Watch
from wsbridge.process.termination import Step

POLL = 0.01
"""Poll interval in seconds for a terminating program whose leader has exited; the kernel does not report the exit of the other
processes."""
IDLE_POLL = 0.25
"""Poll interval in seconds for a program that may continue to run without its leader."""
LEFT_POLL = 1.0
"""Poll interval in seconds for processes that KILL did not end."""
SHOWN_SURVIVORS = 16
"""Maximum processes of one program that are logged when KILL did not end them; all of them are counted."""

log = logger("process")


class State(Enum):
    """The life cycle of a program's processes: STARTING, RUNNING, LEADERLESS and EMPTY in this order, or STARTING and FAILED."""

    STARTING = "starting"
    """It is not known yet whether the program runs."""
    RUNNING = "running"
    LEADERLESS = "leaderless"
    """The leader has exited, and other processes may be left."""
    EMPTY = "empty"
    """A check has found no process."""
    FAILED = "failed"
    """The program could not be started, and so has no processes."""


class Group:
    """One program's processes. The leader is watched; the other processes are found, and signalled, by the session id.

    `exited` is called when the leader has exited, unless `stop_reporting` was called before.
    """

    __slots__ = (
        "_descendants",
        "_exited",
        "_loop",
        "_on_empty",
        "_state",
        "_timer",
        "_waiters",
        "dead",
        "dead_at",
        "exited_at",
        "fields",
        "members",
        "pid",
        "signalled",
        "status",
    )

    def __init__(self, *, exited: Callable[[], None], descendants: Descendants, fields: LogFields, loop: asyncio.AbstractEventLoop) -> None:
        self._exited: Callable[[], None] | None = exited
        """None after `stop_reporting`: then no caller waits for the exit, and the reference would keep the session in memory."""
        self._descendants = descendants
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._state = State.STARTING
        self._on_empty: Callable[[], None] = _nothing
        self.pid = 0
        self.fields = fields
        self.status: int | None = None
        """The leader's exit status, minus N after signal N; None while it lives."""
        self.exited_at = 0.0
        self.members: set[int] = set()
        self.dead: set[int] = set()
        self.dead_at = -math.inf
        self.signalled: Signals | None = None
        """The last signal that was sent."""

    @property
    def has_failed(self) -> bool:
        """Whether the program could not be started."""
        return self._state is State.FAILED

    @property
    def _is_empty(self) -> bool:
        """Whether no process is left, or there never was one."""
        return self._state is State.EMPTY or self._state is State.FAILED

    def attach(self, pid: int, watch: Watch, ladder: Sequence[Step]) -> None:
        """Record that the program runs. `ladder` ends it if this process is killed."""
        self._state = State.RUNNING
        self.pid = pid
        self.fields["pid"] = str(pid)
        self._descendants.add(pid, ladder)
        watch(self._reaped)
        self._wake_all()

    def fail(self) -> None:
        """Record that the program could not be started, and so has no processes."""
        self._state = State.FAILED
        self._wake_all()
        self._on_empty()

    async def wait_start(self) -> bool:
        """Wait until the program runs or its start has failed; return whether it runs."""
        if self._state is State.STARTING:
            await self._wait(None)
        return self._state not in (State.STARTING, State.FAILED)

    def signal(self, number: Signals) -> None:
        """Send a signal to every process of the program."""
        if self._state is not State.RUNNING and self._state is not State.LEADERLESS:
            return
        self.signalled = number
        log.debug("Sending %s to the processes of session %d", number.name, self.pid, extra=extra(self.fields))
        self._send(number)

    async def wait_exit(self, seconds: float | None = None) -> int | None:
        """Wait at most `seconds` for the leader to exit; return its status, or None if it is alive."""
        if self.status is None:
            await self._wait(seconds)
        return self.status

    async def _wait(self, seconds: float | None) -> None:
        """Wait at most `seconds` for the next event of the leader: its start, a failed start, or its exit."""
        # Each waiter has its own future: this costs half as much as a shield and a timeout, and every session pays it.
        waiter: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(seconds, _wake, waiter) if seconds is not None else None
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)
            if timer is not None:
                timer.cancel()

    def _wake_all(self) -> None:
        for waiter in self._waiters:
            _wake(waiter)

    async def wait_empty(self, seconds: float) -> bool:
        """Wait at most `seconds` until the group has no process; return whether it has none.

        After KILL, it sends KILL again to each process that is left.
        """
        deadline = self._loop.time() + seconds
        if self.status is None and await self.wait_exit(seconds) is None:
            return False
        while not self._check_empty():
            if self._loop.time() >= deadline:
                return False
            if self.signalled == signal.SIGKILL:
                self._send(signal.SIGKILL)
            await asyncio.sleep(POLL)
        return True

    def call_when_empty(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, as soon as the group has no process, or at once if it has none now."""
        if self._is_empty:
            callback()
        else:
            self._on_empty = callback

    def report_survivors(self) -> None:
        """Log and count the processes that KILL did not end."""
        survivors = self._descendants.survivors(self)
        self._descendants.metrics.left_behind += len(survivors)
        for pid in survivors[:SHOWN_SURVIVORS]:
            stat = read_stat(pid)
            why = _why_alive(pid)
            name, user = stat.name if stat else "?", user_of(pid)
            text = "KILL did not end pid %d (%s) of user %s: %s; the process remains"
            log.error(text, pid, name, user, why, extra=extra(self.fields))
        if len(survivors) > SHOWN_SURVIVORS:
            log.error("%d more processes remain", len(survivors) - SHOWN_SURVIVORS, extra=extra(self.fields))

    def stop_reporting(self) -> None:
        """Wake all waiters, and do not call `exited` any more. The processes that are left are watched until they have exited."""
        self._exited = None
        self._wake_all()

    def _reaped(self, status: int) -> None:
        self._state = State.LEADERLESS
        self.status = status
        self.exited_at = perf_counter()
        log.debug("Process exit: %s", describe(self.status), extra=extra(self.fields))
        self._poll_processes()
        self._wake_all()
        if self._exited is not None:
            self._exited()

    def _poll_processes(self) -> None:
        poll = IDLE_POLL if self._exited is not None else LEFT_POLL
        self._timer = None if self._check_empty() else self._loop.call_later(poll, self._poll_processes)

    def _check_empty(self) -> bool:
        if not self._is_empty and not self._descendants.has_members(self):
            self._state = State.EMPTY
            if self._timer is not None:
                self._timer.cancel()
            self._descendants.remove(self.pid)
            self._on_empty()
        return self._is_empty

    def _send(self, number: Signals) -> None:
        processes = self._descendants.processes(self)
        for group in set(processes.values()):
            self._send_to(group, number)
        if number == signal.SIGKILL:
            for group in self._descendants.started_by(processes, self.pid):
                self._send_to(group, number)

    def _send_to(self, group: int, number: Signals) -> None:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError) as error:
            log.debug("%s to process group %d: %s", number.name, group, error, extra=extra(self.fields))


def _why_alive(pid: int) -> str:
    """Return the reason that a process may have survived KILL."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return "not permitted"
    except ProcessLookupError:
        return "it is exiting"
    return "it waits for the kernel"


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def describe(status: int) -> str:
    """Return an exit status in words, in the form of a close frame's reason: `exit 3`, `signal TERM`."""
    if status >= 0:
        return f"exit {status}"
    try:
        return f"signal {Signals(-status).name.removeprefix('SIG')}"
    except ValueError:
        return f"signal {-status}"


def _nothing() -> None:
    """Do nothing: no caller waits for this event."""
