"""The states of a program's processes, without a process: what may be signalled, and what is reported when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from signal import Signals
from typing import Any

import pytest

from tests.support.deadline import DEADLINE, scaled
from wsbridge.process.group import IDLE_POLL, LEFT_POLL, Group
from wsbridge.process.termination import Step


class Processes:
    """The processes of one program, and the loop, in the hands of the test."""

    def __init__(self) -> None:
        self.are_left = True
        self.removed: list[int] = []
        self.polls: list[float] = []
        self.look: Callable[[], None] = lambda: None

    def add(self, pid: int, ladder: Sequence[Step]) -> None:
        self.pid = pid

    def remove(self, pid: int) -> None:
        self.removed.append(pid)

    def has_members(self, group: Group) -> bool:
        return self.are_left

    def processes(self, group: Group) -> dict[int, int]:
        return {}

    def started_by(self, processes: dict[int, int], pid: int) -> list[int]:
        return []

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle | None:
        self.polls.append(seconds)
        self.look = call
        return None


class Program:
    """A group whose events the test causes; `told` is what it reports."""

    def __init__(self) -> None:
        self.processes = Processes()
        self.told: list[str] = []
        fakes: dict[str, Any] = {"descendants": self.processes, "loop": self.processes}
        self.group = Group(exited=lambda: self.told.append("exited"), fields={}, **fakes)
        self.group.call_when_empty(lambda: self.told.append("gone"))

    def begins(self) -> None:
        def watch(done: Callable[[int], None]) -> None:
            self.exits = done

        self.group.attach(7, watch, ())

    def vanishes(self) -> None:
        """The last process exits, and a check sees it."""
        self.processes.are_left = False
        self.processes.look()

    def may_be_signalled(self) -> bool:
        self.group.signalled = None
        self.group.signal(Signals.SIGINT)
        return self.group.signalled is not None

    def is_gone(self) -> bool:
        """Whether a callback for the end of all processes is called at once."""
        calls: list[str] = []
        self.group.call_when_empty(lambda: calls.append("gone"))
        return bool(calls)


@pytest.fixture
def program() -> Program:
    return Program()


def test_signals(program: Program) -> None:
    """A program gets signals from its start until no process is left, and neither before nor after."""
    may = [program.may_be_signalled()]
    for step in (program.begins, lambda: program.exits(0), program.vanishes):
        step()
        may.append(program.may_be_signalled())
    assert may == [False, True, True, False]
    assert program.processes.removed == [7]


def test_program_that_cannot_be_started(program: Program) -> None:
    """A program that could not be started has no processes: it gets no signal, and has no exit."""
    assert not program.group.has_failed
    program.group.fail()
    assert program.group.has_failed
    assert program.told == ["gone"]
    assert program.is_gone()
    assert not program.may_be_signalled()


@pytest.mark.parametrize(("steps", "runs"), [(["starts"], True), (["starts", "exits"], True), (["fails"], False)])
async def test_wait_for_the_start(program: Program, steps: list[str], runs: bool) -> None:
    """`wait_start` returns True for a program that runs, also if it has exited at once, and False for a failed start."""
    program.processes.create_future = asyncio.get_running_loop().create_future
    waiting = asyncio.create_task(program.group.wait_start())
    await asyncio.sleep(0)
    actions = {"starts": program.begins, "exits": lambda: program.exits(0), "fails": program.group.fail}
    for step in steps:
        actions[step]()
    async with asyncio.timeout(scaled(DEADLINE)):
        assert await waiting is runs


def test_exit_with_processes_left(program: Program) -> None:
    """The exit of the leader is reported at once; the end of the other processes is looked for."""
    program.begins()
    program.exits(3)
    assert (program.group.status, program.told, program.processes.polls) == (3, ["exited"], [IDLE_POLL])
    program.vanishes()
    assert program.told == ["exited", "gone"]
    assert program.is_gone()
    assert not program.group.has_failed


def test_exit_of_the_last_process(program: Program) -> None:
    """Without other processes, the exit of the leader is the end of all; it is known before the exit is reported."""
    program.begins()
    program.processes.are_left = False
    program.exits(0)
    assert (program.told, program.processes.polls) == (["gone", "exited"], [])


def test_no_report(program: Program) -> None:
    """After `stop_reporting`, no exit is reported, and the processes are looked for less often until the last of them is gone."""
    program.begins()
    program.group.stop_reporting()
    program.exits(-9)
    assert (program.group.status, program.told, program.processes.polls) == (-9, [], [LEFT_POLL])
    program.vanishes()
    assert program.told == ["gone"]
