"""Tracks the processes of programs whose leader has exited, and the processes that have left their program.

A program's processes are those with the session id of its leader, whatever their process group. Shells with job control, timeout(1) and
many launchers create groups of their own. The kernel has no call that lists the processes of a session. So this file combines two
sources:

- This process is the subreaper of its descendants (prctl(2)): an orphan becomes its child. If its only children are the leaders
  of programs, no process is left of any program whose leader has exited. That check costs one read, however many processes run.
- If there are orphans, and before a signal is sent, the session of every process on the machine is read. Callers that ask at
  about the same time share the result, so that all such reads use a bounded share of the processor.

An orphan with a session of its own (a daemon) is not ended: it is logged, counted, and reaped when it exits.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol

from wsbridge.logs import INFO, logger
from wsbridge.metrics import Metrics
from wsbridge.process.guard import Watch
from wsbridge.process.procfs import Children, by_session, children_of, read_stat, user_of
from wsbridge.process.termination import Step

SET_CHILD_SUBREAPER = 36
"""The number of the prctl(2) operation PR_SET_CHILD_SUBREAPER."""
SWEEP_SECONDS = 1.0
"""Seconds between two searches for orphans while programs run. An orphan that exits stays a zombie for at most this long."""
SETTLE_SECONDS = 0.9
"""Seconds for which an orphan must have a session of its own before it counts as a daemon."""
MAX_STEPS = 256
"""The most processes whose children are looked up before the next list: 8 ms, in which the event loop serves no session."""

log = logger("process")


class Ages(NamedTuple):
    """The ages at which the list of all sessions is read again."""

    least: float = 0.01
    """The least age, in seconds."""
    signal_share: int = 4
    """The age while signals are sent, as a multiple of the time that the reading of the list took: a fifth of the processor at most."""
    check_share: int = 20
    """The age while the end of sessions is awaited: a twentieth of the processor at most."""


AGES = Ages()


class Member(Protocol):
    """One program whose processes are looked up."""

    pid: int
    """The pid of the leader, which is also the session id."""
    status: int | None
    """The leader's exit status; None until it is reaped."""
    members: set[int]
    """The processes that were alive at the last check, except the leader."""
    dead: set[int]
    """The processes that the list contained although they were not alive."""
    dead_at: float
    """When `dead` was determined, by time.perf_counter()."""
    exited_at: float
    """When the leader was reaped, by time.perf_counter()."""


class Descendants:
    """Finds the live processes of each program. A server has one instance; `close` it when the last program has ended."""

    def __init__(
        self,
        watch: Watch,
        metrics: Metrics,
        *,
        loop: asyncio.AbstractEventLoop,
        is_excluded: Callable[[int], bool] = lambda pid: False,
        ages: Ages = AGES,
    ) -> None:
        """`is_excluded` returns whether a child of this process has another owner, which reaps it. The spawn server's process is such
        a child."""
        self._watch = watch
        self.ages = ages
        """May change at any time."""
        self.metrics = metrics
        self._loop = loop
        self._is_excluded = is_excluded
        self._own_session = os.getsid(0)
        self._leaders: set[bytes] = set()
        self._orphans: set[int] = set()
        self._daemons: dict[int, float] = {}
        """The orphans in sessions of their own, each with the time at which it is to be reported; infinite after the report."""
        self._children = Children()
        self._earlier = {*map(int, self._children.read())}
        """Children from before the exec of this process: no process of a program is among their descendants."""
        self._is_certain = self._has_searched = False
        """Whether the set of orphans is complete, and whether orphans were already searched for in this turn of the loop."""
        self._sessions: dict[int, list[int]] = {}
        self._read_at, self._cost = -1.0, 0.0
        self._timer: asyncio.TimerHandle | None = None
        _set_subreaper(True)

    def add(self, leader: int, ladder: Sequence[Step]) -> None:
        """Record that a program runs. `ladder` ends it if this process is killed."""
        self._leaders.add(b"%d" % leader)
        self._watch.add(leader, ladder)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def remove(self, leader: int) -> None:
        """Record that no process of a program is left."""
        self._leaders.discard(b"%d" % leader)
        self._watch.remove(leader)

    def close(self) -> None:
        """Stop searching; report the daemons that have not been reported yet."""
        for pid, when in list(self._daemons.items()):
            if when < math.inf:
                self._daemons[pid] = 0.0
                self._maybe_report(pid)
        if self._timer is not None:
            self._timer.cancel()
        self._children.close()
        _set_subreaper(False)

    def has_members(self, program: Member) -> bool:
        """Whether any process may be alive of a program whose leader has exited. False is certain, and final."""
        if any(_is_in(pid, program.pid) for pid in program.members):
            return True
        self._find_orphans()
        if self._is_certain and not self._orphans:
            program.members = set()
            return False
        listed = {*self._listed(program.pid, self.ages.check_share)}
        if self._read_at <= program.exited_at:
            return True
        if program.pid in listed:
            # No process was left, and an unrelated process now has the pid.
            return False
        program.members = {pid for pid in listed if _is_in(pid, program.pid)}
        # A process that has exited since the list was read may have started another process, which the next list contains.
        is_unsure = self._read_at <= program.dead_at or not listed <= program.dead
        if self._read_at > program.dead_at:
            program.dead, program.dead_at = listed - program.members, perf_counter()
        return bool(program.members) or is_unsure

    def processes(self, program: Member) -> dict[int, int]:
        """Return the live processes of a program, each with its process group. The leader is among them until it is reaped."""
        found: dict[int, int] = {}
        if program.status is None and (leader := read_stat(program.pid)):
            if leader.parent != os.getpid() and not self._is_excluded(leader.parent):
                # Its parent has reaped it, the report has not arrived yet, and another process already has the pid.
                return found
            found[program.pid] = program.pid
        listed = self._listed(program.pid, self.ages.signal_share)
        if program.status is not None and program.pid in listed:
            # The list is older than the exit of the leader, or an unrelated process has the pid.
            listed = self._listed(program.pid, 0)
            if program.pid in listed and self._read_at > program.exited_at:
                return found
        for pid in reversed(listed):
            if pid != program.pid and (stat := read_stat(pid)) and stat.is_alive and stat.session == program.pid:
                found[pid] = stat.group
        return found

    def started_by(self, processes: Collection[int], session: int) -> Iterator[int]:
        """Yield the process groups of the processes in a session that these processes started, and of those that they started in turn.

        Each step takes 0.03 ms, and a fork takes longer. If the caller kills each group at once, it catches up with a program that forks
        faster than the server can list all processes. The newest processes come first, and there are at most MAX_STEPS steps.
        """
        known = set(processes)
        parents = sorted(known)
        for _ in range(MAX_STEPS):
            if not parents:
                return
            for child in children_of(parents.pop()):
                if child not in known and (stat := read_stat(child)) and stat.session == session:
                    known.add(child)
                    parents.append(child)
                    yield stat.group

    def survivors(self, program: Member) -> list[int]:
        """Return the live processes of a program, including its leader."""
        return sorted(pid for pid in by_session().get(program.pid, ()) if _is_in(pid, program.pid))

    def _listed(self, session: int, share: int) -> Sequence[int]:
        """Return the processes of a session, from a list that may be some milliseconds old."""
        now = perf_counter()
        if now - self._read_at >= max(self.ages.least, share * self._cost) or self._read_at < 0:
            self._sessions = by_session()
            self._read_at = perf_counter()
            self._cost = self._read_at - now
        return self._sessions.get(session, ())

    # Orphans

    def _sweep(self) -> None:
        self._find_orphans()
        again = self._leaders or self._orphans
        self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep) if again else None

    def _find_orphans(self) -> None:
        """Search for orphans, once per turn of the loop: every exit that is handled in this turn happened before it."""
        if self._has_searched:
            return
        self._has_searched = True
        self._loop.call_soon(self._allow_search)
        found = {pid for pid in map(int, self._children.read() - self._leaders) if not self._is_excluded(pid)}
        ended = {pid for pid in found if _reap(pid)}
        # This process inherits the children of an orphan that has exited, and the list may lack them.
        self._is_certain = not ended
        self._earlier -= ended
        self._orphans = found - ended - self._earlier
        self._daemons = {pid: when for pid, when in self._daemons.items() if pid in self._orphans}
        for pid in self._orphans:
            self._maybe_report(pid)

    def _allow_search(self) -> None:
        self._has_searched = False

    def _maybe_report(self, pid: int) -> None:
        """Report an orphan that stays in a session that is neither a program's nor this process's own."""
        due = self._daemons.get(pid, -1.0)
        if due > self._loop.time():
            return
        stat = read_stat(pid)
        if stat is None or stat.session == self._own_session or b"%d" % stat.session in self._leaders:
            return
        if due < 0:
            # The orphan may be about to exit, or its program may be so new that it is not registered here yet.
            self._daemons[pid] = self._loop.time() + SETTLE_SECONDS
            return
        self._daemons[pid] = math.inf
        self.metrics.daemons_left += 1
        text = "pid %d (%s) of user %s has left the session of its program; the server does not end it"
        log.log(INFO, text, pid, stat.name, user_of(pid))


def _is_in(pid: int, session: int) -> bool:
    """Whether a process is alive and in a session."""
    stat = read_stat(pid)
    return stat is not None and stat.is_alive and stat.session == session


def _reap(pid: int) -> bool:
    """Reap a child if it has exited; return whether it has."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def _set_subreaper(on: bool) -> None:
    import ctypes  # only where programs run: the import adds some milliseconds to a start

    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
