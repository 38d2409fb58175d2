"""The ladder against real processes: its order, its patience, and whole groups of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.deadline import scaled
from tests.support.proc import PATIENT, Running, Starter, descriptors, group_members, until
from tests.support.server import is_alive, mortal, state, tell, wait_for_exit
from tests.support.tool import command, recorded
from wsbridge.closecodes import NORMAL
from wsbridge.flow import End
from wsbridge.process.child import ERROR_READ_SIZE
from wsbridge.process.group import Group
from wsbridge.process.termination import Step, make_ladder

LADDER = make_ladder(0)
STEPS = {"INT": 0.1, "TERM": 0.35, "KILL": 0.85}
"""Seconds from the end of stdin to each signal."""


async def ended(running: Running) -> float:
    """Close stdin and lead the child down its ladder; return the time.monotonic() of the beginning."""
    begun = time.monotonic()
    await running.end()
    return begun


async def test_polite_program_gets_no_signal(start: Starter, tmp_path: Path) -> None:
    """Closing stdin is enough for a polite program: it gets no signal."""
    running = start(*command("witness", tmp_path / "record", "eof"), ladder=PATIENT)
    await running.line()
    await ended(running)
    assert [event for event, _ in recorded(tmp_path / "record")] == ["eof"]
    assert (running.child.group.status, running.child.group.signalled) == (0, None)


@pytest.mark.parametrize(
    ("until_event", "events"),
    [("INT", ["eof", "INT"]), ("TERM", ["eof", "INT", "TERM"]), ("KILL", ["eof", "INT", "TERM"])],
)
async def test_order_and_patience(start: Starter, tmp_path: Path, until_event: str, events: list[str]) -> None:
    """A program that goes on gets INT 100 ms after the end of its stdin, TERM 250 ms later, KILL 500 ms later."""
    running = start(*command("witness", tmp_path / "record", until_event), ladder=LADDER)
    await running.line()
    begun = await ended(running)
    gone = time.monotonic()
    record = recorded(tmp_path / "record")
    assert [event for event, _ in record] == events
    assert [event for event, when in [*record, (until_event, gone)] if when - begun < STEPS.get(event, 0)] == []
    assert running.child.group.signalled == signal.Signals[f"SIG{until_event}"]
    assert running.child.group.status == (-signal.SIGKILL if until_event == "KILL" else 0)


async def test_each_grace_is_lengthened(start: Starter, tmp_path: Path) -> None:
    """--closems is added to each step of the ladder."""
    running = start(*command("witness", tmp_path / "record"), ladder=make_ladder(0.15))
    await running.line()
    begun = await ended(running)
    gone = time.monotonic()
    times = {event: when - begun for event, when in [*recorded(tmp_path / "record"), ("KILL", gone)]}
    assert list(times) == ["eof", "INT", "TERM", "KILL"]
    assert [event for event, after in (("INT", 0.25), ("TERM", 0.65), ("KILL", 1.3)) if times[event] < after] == []


GRANDCHILDREN = {
    "polite": "cat >&2 & sleep 1000 & echo $!; wait",
    "ignoring": "sh -c 'trap \"\" INT TERM; sleep 1000; sleep 1000' & echo $!; wait",
    "in the background alone": "sleep 1000 >&2 & echo $!",
    "ignoring, alone": "sh -c 'trap \"\" INT TERM; sleep 1000; sleep 1000' >&2 & echo $!",
}


@pytest.mark.parametrize("script", GRANDCHILDREN.values(), ids=GRANDCHILDREN.keys())
async def test_whole_group_ends(start: Starter, script: str) -> None:
    """What a program has started ends with it, also where the program itself has gone already."""
    running = start("sh", "-c", script)
    grandchild = int(await running.line())
    with mortal(grandchild):
        await ended(running)
        assert not is_alive(grandchild)
    assert group_members(running.child.group.pid) == []


async def test_group_whose_leader_has_gone_gets_its_grace(start: Starter) -> None:
    """The processes of a group whose leader has gone are given the same time as any others."""
    running = start("sh", "-c", "trap '' INT; (sleep 1000) >&2 & echo $!", ladder=LADDER)
    grandchild = int(await running.line())
    with mortal(grandchild):
        await running.child.group.wait_exit()
        begun = await ended(running)
        assert time.monotonic() - begun >= STEPS["TERM"]
        assert not is_alive(grandchild)
    assert running.child.group.status == 0


async def test_group_that_ends_by_itself_is_not_waited_for_longer(start: Starter, fifo: str) -> None:
    """The ladder ends as soon as the last process of the group has, without a signal."""
    running = start("sh", "-c", '(read word <"$0") >&2 & echo $!', fifo, ladder=PATIENT)
    grandchild = int(await running.line())
    with mortal(grandchild):
        await running.child.group.wait_exit()
        ending = asyncio.ensure_future(ended(running))
        await until(lambda: running.child.group.status is not None, "the leader's exit")
        assert not ending.done()
        await asyncio.to_thread(tell, fifo, "go")
        await ending
    assert running.child.group.signalled is None


async def test_stopped_program_is_killed(start: Starter) -> None:
    """A program that is stopped, and so takes no other signal, ends by KILL."""
    running = start("sh", "-c", "echo $$; kill -STOP $$; echo never")
    pid = int(await running.line())
    await until(lambda: state(pid) == "T", "the program to be stopped")
    await ended(running)
    assert running.child.group.status == -signal.SIGKILL
    assert running.output.messages == [b"%d" % pid]


async def test_descendant_of_another_session_holds_nothing_up(start: Starter) -> None:
    """What has left the program's session is not ours to end, and does not hold up the end though it holds the streams open."""
    running = start("setsid", "sh", "-c", "echo $$; exec sleep 1000", ladder=LADDER)
    stranger = int(await running.line())
    with mortal(stranger):
        await ended(running)
        assert is_alive(stranger) == (stranger != running.child.group.pid)


async def test_flood_of_stderr_does_not_hold_up_the_end(start: Starter) -> None:
    """What has left the program's session and floods stderr holds up neither the end of the session nor anybody else."""
    running = start("sh", "-c", "setsid yes >&2 & echo $!; read line")
    stranger = int(await running.line())
    with mortal(stranger, *group_members(stranger)):
        async with asyncio.timeout(scaled(10)):
            await ended(running)
        await asyncio.to_thread(wait_for_exit, stranger)


async def test_stderr_without_end(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end no more of stderr is read than a pipe holds, were it refilled as fast as it is read."""
    running = start("sh", "-c", "echo $$; read line")
    await running.line()
    read, release, reads = os.read, Group.release, 0

    def refilled(fd: int, size: int) -> bytes:
        nonlocal reads
        if size != ERROR_READ_SIZE:
            return read(fd, size)
        reads += 1
        assert reads < 10_000
        return b"x" * size

    def last_reads(group: Group) -> None:
        nonlocal reads
        reads = 0
        release(group)

    monkeypatch.setattr("wsbridge.process.child.os.read", refilled)
    monkeypatch.setattr(Group, "release", last_reads)
    await ended(running)
    assert reads == 16


async def test_number_that_was_given_back(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of a group, or sent to it, once it was seen empty: its number may be a stranger's by then."""
    start.watch = told = Told()
    running = start("true")
    group = running.child.group
    await until(lambda: len(told.words) == 2, "the end of the group")

    def stranger(*_: object) -> None:
        raise AssertionError("the number is another's")

    for name in ("killpg", "waitid", "kill"):
        monkeypatch.setattr(os, name, stranger)
    running.child.kill()
    await ended(running)
    running.child.kill()
    assert told.words == [("begun", group.pid, []), ("ended", group.pid, [])]


async def test_heir_is_looked_for(start: Starter) -> None:
    """Where a leader has exited and another of its group lives on, the group is looked at until it is empty."""
    start.watch = told = Told()
    running = start("sh", "-c", "sleep 1000 & echo $!")
    heir = int(await running.line())
    with mortal(heir):
        await running.child.group.wait_exit()
        assert len(told.words) == 1
        os.kill(heir, signal.SIGKILL)
        await until(lambda: len(told.words) == 2, "the end of the group")
    await ended(running)
    assert len(told.words) == 2


async def test_force(start: Starter) -> None:
    """A bridge that is told to force kills the group at once, whatever patience the ladder has."""
    running = start("sh", "-c", "trap '' INT TERM; sleep 1000 & echo $!; wait; sleep 1000", ladder=(Step(1000, signal.SIGINT),))
    grandchild = int(await running.line())
    with mortal(grandchild):
        ending = asyncio.ensure_future(ended(running))
        running.child.kill()
        await ending
        assert not is_alive(grandchild)
    assert running.child.group.status == -signal.SIGKILL


async def test_end_may_come_twice(start: Starter) -> None:
    """The end may be asked for by several and more than once: it is the same end."""
    running = start("sh", "-c", "trap '' INT; echo $$; sleep 1000 & wait; wait")
    await running.line()
    running.child.close_input(End(NORMAL))
    await asyncio.gather(running.child.end(), running.child.end())
    await running.child.end()
    assert running.child.group.status is not None


class Told:
    """A Watch that keeps what it is told, and who is still in the group at an end."""

    pid = 0

    def __init__(self) -> None:
        self.words: list[tuple[str, int, list[int]]] = []

    def add(self, group: int) -> None:
        self.words.append(("begun", group, []))

    def remove(self, group: int) -> None:
        self.words.append(("ended", group, group_members(group)))

    def close(self) -> None:
        """Nothing to end."""


@pytest.mark.parametrize("script", ["true", "echo; cat", "sleep 1000 >&2 & echo"], ids=["gone", "polite", "grandchild"])
async def test_guard_is_told(start: Starter, script: str) -> None:
    """The guard is told of each group's start, and of its end when nobody is left in it."""
    start.watch = told = Told()
    running = start("sh", "-c", script)
    group = running.child.group.pid
    await until(lambda: running.output.batches or running.output.ended, "the program to have begun")
    await ended(running)
    first, *rest = told.words
    assert first == ("begun", group, [])
    assert rest
    assert [word for word in rest if word != ("ended", group, [])] == []


async def test_nothing_is_held_after_the_end(start: Starter) -> None:
    """After the end nothing is held open, not even the streams that somebody else still holds."""
    before = descriptors()
    running = start("sh", "-c", "setsid sleep 1000 & echo $!")
    stranger = int(await running.line())
    with mortal(stranger):
        await until(lambda: os.getsid(stranger) == stranger, "the one that leaves the session")
        await ended(running)
        assert is_alive(stranger)
    assert descriptors() == before
