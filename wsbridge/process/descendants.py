"""The descendants of this process: what is left of programs whose leader has exited, and what has left its program.

A program's processes are those that carry the session id of its leader, in whichever process group: shells with job
control, timeout(1) and many launchers make groups of their own. The kernel offers no call for "who is in this session",
so two views are combined:

- This process is the subreaper of its descendants (prctl(2)): an orphan becomes its child. When it has no child but the leaders
  of programs, nothing is left of any program whose leader has exited. That costs one read, however many processes run.
- Where there are orphans, and before a signal is sent, the session of every process on the machine is read. Whoever
  asks at about the same time shares the answer, so that all the asking together takes a bounded part of the processor.

An orphan with a session of its own (a daemon) is not ended: it is logged, counted, and reaped when it exits.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Protocol

from wsbridge.logs import INFO, logger
from wsbridge.metrics import Metrics
from wsbridge.process.guard import Watch
from wsbridge.process.procfs import Children, by_session, read_stat, user_of

SET_CHILD_SUBREAPER = 36
"""The number of an operation of prctl(2)."""
SWEEP_SECONDS = 1.0
"""Seconds between two looks for orphans while programs run: one that exits stays a zombie for so long at most."""
SETTLE_SECONDS = 0.9
"""Seconds that an orphan has a session of its own before it counts as a daemon."""
FRESH_SECONDS = 0.01
"""The least age at which the list of all sessions is read again."""
SIGNAL_SHARE, LOOK_SHARE = 4, 20
"""How old the list may be, in times of what reading it took: reading takes a fifth of the processor at most while signals are
sent, and a twentieth while the end of sessions is waited for."""

log = logger("process")


class Member(Protocol):
    """What is asked about: the processes of one program."""

    pid: int
    """The leader, and so the session."""
    status: int | None
    """The leader's exit status; None until it was reaped."""
    members: set[int]
    """The processes that were alive at the last look, but for the leader."""
    dead: set[int]
    """The processes that were listed and were not."""
    exited_at: float
    """When the leader was reaped, by time.perf_counter()."""


class Descendants:
    """Knows what lives of each program. One for a process; `close` it when the last program has ended."""

    def __init__(
        self,
        watch: Watch,
        metrics: Metrics,
        *,
        loop: asyncio.AbstractEventLoop,
        spared: Callable[[int], bool] = lambda pid: False,
    ) -> None:
        """`spared` says of a child of this process whether it has another owner, who reaps it; the spawn server is one."""
        self._watch = watch
        self.metrics = metrics
        self._loop = loop
        self._spared = spared
        self._own_session = os.getsid(0)
        self._leaders: set[bytes] = set()
        self._orphans: set[int] = set()
        self._daemons: dict[int, float] = {}
        """The orphans in sessions of their own, each with the time at which it is reported; infinite when it was."""
        self._children = Children()
        self._earlier = {*map(int, self._children.read())}
        """Children from before our own exec: nothing of a program is below them."""
        self._is_certain = self._has_looked = False
        """Whether in this turn of the loop the orphans were looked for, and whether these are all."""
        self._sessions: dict[int, list[int]] = {}
        self._read_at, self._cost = -1.0, 0.0
        self._timer: asyncio.TimerHandle | None = None
        _set_subreaper(True)

    def add(self, leader: int) -> None:
        """Take note of a program that has begun."""
        self._leaders.add(b"%d" % leader)
        self._watch.begun(leader)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def remove(self, leader: int) -> None:
        """Take note of a program of which nothing is left."""
        self._leaders.discard(b"%d" % leader)
        self._watch.ended(leader)

    def close(self) -> None:
        """Stop looking; report the daemons that are still to be reported."""
        for pid, when in list(self._daemons.items()):
            if when < math.inf:
                self._daemons[pid] = 0.0
                self._maybe_report(pid)
        if self._timer is not None:
            self._timer.cancel()
        self._children.close()
        _set_subreaper(False)

    def has_members(self, program: Member) -> bool:
        """Whether anything may live of a program whose leader has exited. False is certain, and stays so."""
        if any(_is_in(pid, program.pid) for pid in program.members):
            return True
        self._look_for_orphans()
        if self._is_certain and not self._orphans:
            program.members = set()
            return False
        listed = {*self._listed(program.pid, LOOK_SHARE)}
        if self._read_at <= program.exited_at:
            return True
        if program.pid in listed:
            # Nothing was left, and the number is a stranger's.
            return False
        program.members = {pid for pid in listed if _is_in(pid, program.pid)}
        # One that has ended since may have started another, which is in the next list.
        is_unsure = not listed <= program.dead
        program.dead = listed - program.members
        return bool(program.members) or is_unsure

    def groups(self, program: Member) -> set[int]:
        """Return the process groups of a program; while its leader is not reaped, that of the leader among them."""
        found: set[int] = set()
        if program.status is None and (leader := read_stat(program.pid)):
            if leader.parent != os.getpid() and not self._spared(leader.parent):
                # Its parent has reaped it, the report is still on its way, and another process has the number already.
                return found
            found.add(program.pid)
        listed = self._listed(program.pid, SIGNAL_SHARE)
        if program.status is not None and program.pid in listed:
            # The list is older than the end of the leader, or the number is a stranger's.
            listed = self._listed(program.pid, 0)
            if program.pid in listed and self._read_at > program.exited_at:
                return found
        for pid in reversed(listed):
            if pid != program.pid and (stat := read_stat(pid)) and stat.is_alive and stat.session == program.pid:
                found.add(stat.group)
        return found

    def survivors(self, program: Member) -> list[int]:
        """Return the processes of a program that live, its leader among them."""
        return sorted(pid for pid in by_session().get(program.pid, ()) if _is_in(pid, program.pid))

    def _listed(self, session: int, share: int) -> Sequence[int]:
        """Return the processes of a session in a list that may be some milliseconds old."""
        now = perf_counter()
        if now - self._read_at >= max(FRESH_SECONDS, share * self._cost) or self._read_at < 0:
            self._sessions = by_session()
            self._read_at = perf_counter()
            self._cost = self._read_at - now
        return self._sessions.get(session, ())

    # Orphans

    def _sweep(self) -> None:
        self._look_for_orphans()
        again = self._leaders or self._orphans
        self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep) if again else None

    def _look_for_orphans(self) -> None:
        """Look once a turn of the loop: who exits in it has exited before it."""
        if self._has_looked:
            return
        self._has_looked = True
        self._loop.call_soon(self._forget_look)
        found = {pid for pid in map(int, self._children.read() - self._leaders) if not self._spared(pid)}
        ended = {pid for pid in found if _reap(pid)}
        # The children of one that has ended are ours since, and may be missing in this list.
        self._is_certain = not ended
        self._earlier -= ended
        self._orphans = found - ended - self._earlier
        self._daemons = {pid: when for pid, when in self._daemons.items() if pid in self._orphans}
        for pid in self._orphans:
            self._maybe_report(pid)

    def _forget_look(self) -> None:
        self._has_looked = False

    def _maybe_report(self, pid: int) -> None:
        """Report an orphan that stays in the session of no program, and not in ours either."""
        due = self._daemons.get(pid, -1.0)
        if due > self._loop.time():
            return
        stat = read_stat(pid)
        if stat is None or stat.session == self._own_session or b"%d" % stat.session in self._leaders:
            return
        if due < 0:
            # It may be about to end, or its program may be so new that we do not know of it yet.
            self._daemons[pid] = self._loop.time() + SETTLE_SECONDS
            return
        self._daemons[pid] = math.inf
        self.metrics.daemons_left += 1
        log.log(INFO, "pid %d (%s) of user %s has left the session of its program and is not ended", pid, stat.name, user_of(pid))


def _is_in(pid: int, session: int) -> bool:
    """Whether a process lives and is in a session."""
    stat = read_stat(pid)
    return stat is not None and stat.is_alive and stat.session == session


def _reap(pid: int) -> bool:
    """Reap a child that has exited; return whether it has."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def _set_subreaper(on: bool) -> None:
    import ctypes  # where programs are run alone: it costs a start some milliseconds

    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
