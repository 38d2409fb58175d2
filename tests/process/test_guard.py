"""The guard: no program's process group outlives a server that is killed with KILL."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.proc import SHORT_LADDER, Starter, descriptors, group_members, no_callback_fails, nothing_left, status_line, turns, until
from tests.support.server import Server, children, command_line, is_alive, mortal, state, wait_for_exit, wait_until
from tests.support.tool import command, recorded
from wsbridge.metrics import Metrics
from wsbridge.process.guard import Guard
from wsbridge.process.termination import make_ladder

STUBBORN = "trap '' HUP INT TERM; sleep 1000 & echo $$ $!; wait; sleep 1000"


def guards(pid: int) -> list[int]:
    """Return the guards of a server."""
    return [child for child in children(pid) if "wsbridge-guard" in command_line(child)]


def guard_of(server: Server) -> int:
    return wait_until(lambda: guards(server.pid), "the guard")[0]


@contextmanager
def killed(server: Server, *pids: int) -> Iterator[None]:
    """Kill the server with KILL; the block checks its programs, which must not outlive it."""
    with mortal(*pids, *children(server.pid)):
        server.send_signal(signal.SIGKILL)
        server.wait()
        yield


def pids_of(client: Client) -> list[int]:
    return [int(word) for word in client.receive_text().split()]


def test_killed_server_ends_its_programs_by_the_ladder(tmp_path: Path) -> None:
    """When the server is killed, the guard runs the same ladder: a program that exits at EOF gets no signal, others get INT, then TERM."""
    with Server("sh", "-c", 'exec "$@" "$QUERY_STRING"', "sh", *command("witness")) as server, ExitStack() as clients:
        pids = []
        for name in ("eof", "INT", "TERM"):
            client = clients.enter_context(server.connect(f"/?{tmp_path / name}"))
            pids += pids_of(client)
        with killed(server, *pids):
            for pid in pids:
                os.kill(pid, 0)
            wait_until(lambda: all((tmp_path / name).exists() for name in ("eof", "INT", "TERM")), "the end of every stdin")
            for pid in pids:
                wait_for_exit(pid)
    events = {path.name: [event for event, _ in recorded(path)] for path in tmp_path.iterdir()}
    assert set(events) == {"eof", "INT", "TERM"}
    assert {tuple(happened) for happened in events.values()} == {("eof", "INT", "TERM")}


def test_killed_server_leaves_no_group() -> None:
    """When the server is killed, whole groups end: of a program that exits at EOF, of one that ignores signals, and without a leader."""
    scripts = {"/polite": "sleep 1000 & echo $$ $!; cat", "/stubborn": STUBBORN, "/alone": "sleep 1000 & echo $$ $!"}
    words = " ".join(f"{path}) exec sh -c '{script.replace(chr(39), chr(34))}' ;;" for path, script in scripts.items())
    with Server("--drainms=60000", "sh", "-c", f"case $PATH_INFO in {words} esac") as server, ExitStack() as clients:
        groups = [pids_of(clients.enter_context(server.connect(path))) for path in scripts]
        wait_until(lambda: not is_alive(groups[2][0]), "the exit of the program that leaves another behind")
        pids = [pid for group in groups for pid in group]
        with killed(server, *pids):
            for pid in pids:
                wait_for_exit(pid)
    assert [group_members(group[0]) for group in groups] == [[], [], []]


def test_killed_guard_is_replaced() -> None:
    """A killed guard is replaced, and the new guard is notified of the existing groups."""
    with Server("sh", "-c", STUBBORN) as server, server.connect() as before, server.connect() as after:
        first = guard_of(server)
        pids = pids_of(before) + pids_of(after)
        os.kill(first, signal.SIGKILL)
        server.wait_for_log(rf"\| ERROR .*{first}")
        second = wait_until(lambda: [guard for guard in guards(server.pid) if guard != first], "another guard")[0]
        wait_until(lambda: server.children() == [child for child in server.children() if child != first], "the first one to be reaped")
        with server.connect() as later:
            pids += pids_of(later)
            with killed(server, second, *pids):
                for pid in pids:
                    wait_for_exit(pid)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signals_do_not_end_the_guard(served: Server, number: signal.Signals) -> None:
    """The guard is in its own session, and a signal to its group does not end it, so it outlives the server."""
    guard = guard_of(served)
    assert os.getsid(guard) == os.getpgid(guard) == guard
    os.killpg(guard, number)
    with served.connect() as client:
        client.send_text("still there?")
        assert client.receive_text() == "still there?"
    assert guards(served.pid) == [guard]
    assert int(status_line(guard, "SigIgn"), 16) >> number - 1 & 1


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    with Server("cat") as server:
        yield server


def test_guard_holds_only_its_pipe(served: Server) -> None:
    """The guard holds only a pipe from the server, and uses no more memory than a shell."""
    with served.connect():
        held = descriptors(guard_of(served))
    assert {name.partition(":")[0] for fd, name in held.items() if fd == 0} == {"pipe"}
    assert {name for fd, name in held.items() if fd in (1, 2)} == {os.devnull}
    assert [name for fd, name in held.items() if fd > 2 and not name.endswith("/guard.sh")] == []


def test_no_guard() -> None:
    """With --no-guard, no guard runs, and a program that ignores EOF outlives a server that is killed."""
    with Server("--no-guard", "sh", "-c", STUBBORN) as server, server.connect() as client:
        pids = pids_of(client)
        assert guards(server.pid) == []
        assert server.children() == pids[:1]
        with killed(server, *pids):
            client.wait_for_end()
            assert all(is_alive(pid) for pid in pids)


def test_no_guard_without_programs(tmp_path: Path) -> None:
    """A server of static files starts no guard."""
    with Server(f"--staticdir={tmp_path}") as server:
        assert server.get("/").status == 200
        assert server.children() == []


def test_shutdown_leaves_no_process() -> None:
    """A server that shuts down leaves neither a program nor its guard."""
    with Server("sh", "-c", STUBBORN) as server, server.connect() as client:
        pids, guard = pids_of(client), guard_of(server)
        with mortal(*pids, guard):
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
            assert [pid for pid in pids if is_alive(pid)] == []
            wait_for_exit(guard)


@pytest.fixture
async def watched() -> AsyncIterator[Metrics]:
    """The metrics of a Guard in this process."""
    with nothing_left(), no_callback_fails():
        yield Metrics()


async def test_stopped_guard_is_replaced(watched: Metrics) -> None:
    """The data that a stopped guard does not read is bounded: beyond the bound, the guard is replaced and a metric counts it."""
    guard = Guard(watched, loop=asyncio.get_running_loop())
    try:
        first = guard.pid
        os.kill(first, signal.SIGSTOP)
        await until(lambda: state(first) == "T", "the guard to be stopped")
        for number in range(120_000):
            guard.add(10_000_000 + number, SHORT_LADDER)
            guard.remove(10_000_000 + number)
            if number % 1000 == 0:
                await turns(2)
        await until(lambda: watched.guard_restarts == 1, "the end of the first guard")
        await until(lambda: guard.pid != first, "the second guard")
    finally:
        guard.close()


async def test_guard_ends_with_its_pipe(watched: Metrics, start: Starter) -> None:
    """When its pipe closes, the guard ends the remaining groups, then exits."""
    guard = start.watch = Guard(watched, loop=asyncio.get_running_loop())
    running = start("sh", "-c", "trap '' INT; echo ready; sleep 1000 & wait; wait", ladder=make_ladder(0))
    await running.line()
    guard.close()
    assert await running.child.group.wait_exit() == -signal.SIGTERM
    assert await asyncio.to_thread(os.waitpid, guard.pid, 0) == (guard.pid, 0)
    assert watched.guard_restarts == 0


@pytest.mark.parametrize("replaced", [False, True])
async def test_each_program_has_its_own_ladder(watched: Metrics, start: Starter, replaced: bool) -> None:
    """The guard ends each program by the ladder with which it began, also after the guard was replaced."""
    guard = start.watch = Guard(watched, loop=asyncio.get_running_loop())
    ladders = [make_ladder(delay) for delay in (600, 0, 600, 0)]
    running = [start("sh", "-c", "trap '' INT; echo ready; read x", ladder=ladder) for ladder in ladders]
    for program in running:
        await program.line()
    if replaced:
        first = guard.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: guard.pid != first, "the second guard")
    guard.close()
    for program in (running[1], running[3]):
        assert await program.child.group.wait_exit() == -signal.SIGTERM
    assert [is_alive(program.child.group.pid) for program in running] == [True, False, True, False]
    os.killpg(guard.pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, guard.pid, 0)


async def test_replaced_while_no_program_runs(watched: Metrics, start: Starter) -> None:
    """A guard that was replaced while no program ran ends later programs by their ladder."""
    guard = start.watch = Guard(watched, loop=asyncio.get_running_loop())
    script = "trap seen=1 INT; trap 'exit 2$seen' TERM; echo ready; while :; do sleep 0.01; done"
    before = start("true", ladder=make_ladder(0))
    await before.child.group.wait_exit()
    await until(lambda: not guard._sessions, "the end of the first program")
    first = guard.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: guard.pid != first, "the second guard")
    after = start("sh", "-c", script, ladder=make_ladder(0))
    assert await after.line() == "ready"
    guard.close()
    assert await after.child.group.wait_exit() == 21
    assert await asyncio.to_thread(os.waitpid, guard.pid, 0) == (guard.pid, 0)


async def test_ended_program_is_forgotten(watched: Metrics, start: Starter) -> None:
    """The guard signals only the programs that have not ended: it learns of each end."""
    guard = start.watch = Guard(watched, loop=asyncio.get_running_loop())
    ended, running = start("cat"), start("cat")
    await turns()
    guard.remove(ended.child.group.pid)
    guard.close()
    assert await running.child.group.wait_exit() == -signal.SIGINT
    await asyncio.to_thread(os.waitpid, guard.pid, 0)
    ended.write(b"alive")
    assert await ended.line() == "alive"


async def test_ended_groups_are_forgotten(watched: Metrics, start: Starter) -> None:
    """The guard forgets a group that has ended, because its ID may belong to another group later."""
    guard = Guard(watched, loop=asyncio.get_running_loop())
    start.spared.add(guard.pid)
    stranger = start("cat")
    for group in (stranger.child.group.pid, stranger.child.group.pid + 1):
        guard.add(group, SHORT_LADDER)
    await turns()
    for group in (stranger.child.group.pid + 1, stranger.child.group.pid):
        guard.remove(group)
    guard.close()
    assert not is_alive(guard.pid)
    stranger.write(b"alive")
    assert await stranger.line() == "alive"
