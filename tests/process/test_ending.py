"""The ladder with real processes: its order, its pauses, and whole groups."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.deadline import scaled
from tests.support.proc import LONG_LADDER, Running, Starter, descriptors, group_members, until
from tests.support.server import is_alive, mortal, state, wait_for_exit, write_to_fifo
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
    """Close stdin and run the child's ladder; return the time.monotonic() of the start."""
    begun = time.monotonic()
    await running.end()
    return begun


async def test_program_that_exits_at_eof_gets_no_signal(start: Starter, tmp_path: Path) -> None:
    """EOF on stdin is enough for a program that exits at EOF: it gets no signal."""
    running = start(*command("witness", tmp_path / "record", "eof"), ladder=LONG_LADDER)
    await running.line()
    await ended(running)
    assert [event for event, _ in recorded(tmp_path / "record")] == ["eof"]
    assert (running.child.group.status, running.child.group.signalled) == (0, None)


@pytest.mark.parametrize(
    ("until_event", "events"),
    [("INT", ["eof", "INT"]), ("TERM", ["eof", "INT", "TERM"]), ("KILL", ["eof", "INT", "TERM"])],
)
async def test_order_and_pauses(start: Starter, tmp_path: Path, until_event: str, events: list[str]) -> None:
    """A program that continues gets INT 100 ms after EOF on stdin, TERM 250 ms later and KILL 500 ms later."""
    running = start(*command("witness", tmp_path / "record", until_event), ladder=LADDER)
    await running.line()
    begun = await ended(running)
    gone = time.monotonic()
    record = recorded(tmp_path / "record")
    assert [event for event, _ in record] == events
    assert [event for event, when in [*record, (until_event, gone)] if when - begun < STEPS.get(event, 0)] == []
    assert running.child.group.signalled == signal.Signals[f"SIG{until_event}"]
    assert running.child.group.status == (-signal.SIGKILL if until_event == "KILL" else 0)


async def test_closems_lengthens_each_pause(start: Starter, tmp_path: Path) -> None:
    """--closems lengthens each step of the ladder by its value."""
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
    """The processes that a program has started end with it, also if the program itself has already exited."""
    running = start("sh", "-c", script)
    grandchild = int(await running.line())
    with mortal(grandchild):
        await ended(running)
        assert not is_alive(grandchild)
    assert group_members(running.child.group.pid) == []


async def test_group_without_its_leader_gets_the_same_pauses(start: Starter) -> None:
    """The processes of a group whose leader has exited get the same pauses."""
    running = start("sh", "-c", "trap '' INT; (sleep 1000) >&2 & echo $!", ladder=LADDER)
    grandchild = int(await running.line())
    with mortal(grandchild):
        await running.child.group.wait_exit()
        begun = await ended(running)
        assert time.monotonic() - begun >= STEPS["TERM"]
        assert not is_alive(grandchild)
    assert running.child.group.status == 0


async def test_ladder_stops_at_the_end_of_the_group(start: Starter, fifo: str) -> None:
    """The ladder stops without a signal as soon as the last process of the group exits."""
    running = start("sh", "-c", '(read word <"$0") >&2 & echo $!', fifo, ladder=LONG_LADDER)
    grandchild = int(await running.line())
    with mortal(grandchild):
        await running.child.group.wait_exit()
        ending = asyncio.ensure_future(ended(running))
        await until(lambda: running.child.group.status is not None, "the leader's exit")
        assert not ending.done()
        await asyncio.to_thread(write_to_fifo, fifo, "go")
        await ending
    assert running.child.group.signalled is None


async def test_stopped_program_is_killed(start: Starter) -> None:
    """KILL ends a stopped program, which handles no other signal."""
    running = start("sh", "-c", "echo $$; kill -STOP $$; echo never")
    pid = int(await running.line())
    await until(lambda: state(pid) == "T", "the program to be stopped")
    await ended(running)
    assert running.child.group.status == -signal.SIGKILL
    assert running.output.messages == [b"%d" % pid]


async def test_process_in_another_session_does_not_delay_the_end(start: Starter) -> None:
    """A process that has left the program's session is not ended, and does not delay the end although it holds the streams open."""
    running = start("setsid", "sh", "-c", "echo $$; exec sleep 1000", ladder=LADDER)
    stranger = int(await running.line())
    with mortal(stranger):
        await ended(running)
        assert is_alive(stranger) == (stranger != running.child.group.pid)


async def test_flood_of_stderr_does_not_delay_the_end(start: Starter) -> None:
    """A process that has left the session and floods stderr delays neither the end of the session nor another client."""
    running = start("sh", "-c", "setsid yes >&2 & echo $!; read line")
    stranger = int(await running.line())
    with mortal(stranger, *group_members(stranger)):
        async with asyncio.timeout(scaled(10)):
            await ended(running)
        await asyncio.to_thread(wait_for_exit, stranger)


async def test_stderr_is_bounded_at_the_end(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end, the child reads no more of stderr than a pipe holds, however fast a process refills it."""
    running = start("sh", "-c", "echo $$; read line")
    await running.line()
    read, stop_reporting, reads = os.read, Group.stop_reporting, 0

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
        stop_reporting(group)

    monkeypatch.setattr("wsbridge.process.child.os.read", refilled)
    monkeypatch.setattr(Group, "stop_reporting", last_reads)
    await ended(running)
    assert reads == 16


async def test_no_call_after_the_end_of_the_group(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a group is empty, no system call uses its ID, which may belong to another process by then."""
    start.watch = watch = RecordingWatch()
    running = start("true")
    group = running.child.group
    await until(lambda: len(watch.calls) == 2, "the end of the group")

    def stranger(*_: object) -> None:
        raise AssertionError("the number is another's")

    for name in ("killpg", "waitid", "kill"):
        monkeypatch.setattr(os, name, stranger)
    running.child.kill()
    await ended(running)
    running.child.kill()
    assert watch.calls == [("added", group.pid, []), ("removed", group.pid, [])]


async def test_remaining_process_is_watched(start: Starter) -> None:
    """If a leader has exited and another process of its group lives, the group is checked until it is empty."""
    start.watch = watch = RecordingWatch()
    running = start("sh", "-c", "sleep 1000 & echo $!")
    heir = int(await running.line())
    with mortal(heir):
        await running.child.group.wait_exit()
        assert len(watch.calls) == 1
        os.kill(heir, signal.SIGKILL)
        await until(lambda: len(watch.calls) == 2, "the end of the group")
    await ended(running)
    assert len(watch.calls) == 2


async def test_kill(start: Starter) -> None:
    """`kill` kills the group at once, whatever the pauses of the ladder."""
    running = start("sh", "-c", "trap '' INT TERM; sleep 1000 & echo $!; wait; sleep 1000", ladder=(Step(1000, signal.SIGINT),))
    grandchild = int(await running.line())
    with mortal(grandchild):
        ending = asyncio.ensure_future(ended(running))
        running.child.kill()
        await ending
        assert not is_alive(grandchild)
    assert running.child.group.status == -signal.SIGKILL


async def test_end_is_idempotent(start: Starter) -> None:
    """Several callers may call `end`, also more than once: it is the same end."""
    running = start("sh", "-c", "trap '' INT; echo $$; sleep 1000 & wait; wait")
    await running.line()
    running.child.close_input(End(NORMAL))
    await asyncio.gather(running.child.end(), running.child.end())
    await running.child.end()
    assert running.child.group.status is not None


class RecordingWatch:
    """A Watch that records its calls, and the processes that are in the group at an end."""

    pid = 0

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, list[int]]] = []

    def add(self, group: int, ladder: Sequence[Step]) -> None:
        self.calls.append(("added", group, []))

    def remove(self, group: int) -> None:
        self.calls.append(("removed", group, group_members(group)))

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("script", ["true", "echo; cat", "sleep 1000 >&2 & echo"], ids=["gone", "polite", "grandchild"])
async def test_guard_is_notified(start: Starter, script: str) -> None:
    """The guard is notified of each group's start, and of its end when the group is empty."""
    start.watch = watch = RecordingWatch()
    running = start("sh", "-c", script)
    group = running.child.group.pid
    await until(lambda: running.output.batches or running.output.ended, "the program to have begun")
    await ended(running)
    first, *rest = watch.calls
    assert first == ("added", group, [])
    assert rest
    assert [call for call in rest if call != ("removed", group, [])] == []


async def test_no_descriptor_stays_open(start: Starter) -> None:
    """After the end, the child holds no descriptor, not even for streams that another process still holds."""
    before = descriptors()
    running = start("sh", "-c", "setsid sleep 1000 & echo $!")
    stranger = int(await running.line())
    with mortal(stranger):
        await until(lambda: os.getsid(stranger) == stranger, "the one that leaves the session")
        await ended(running)
        assert is_alive(stranger)
    assert descriptors() == before
