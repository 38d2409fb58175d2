"""The processes of a program are those of its session, in any process group. A process that has left the session is reported."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.client import DEADLINE, Client, Refused, Stream, open_stream, request_bytes
from tests.support.deadline import scaled
from tests.support.proc import LONG_LADDER, SHORT_LADDER, Starter, python, until, which, zombies
from tests.support.server import Server, children, command_line, is_alive, mortal, wait_for_exit, wait_until, write_to_fifo
from tests.support.tool import command, recorded
from wsbridge.metrics import Metrics
from wsbridge.process import descendants
from wsbridge.process.descendants import Ages, Descendants
from wsbridge.process.guard import NoGuard
from wsbridge.process.termination import make_ladder

GROUPS = {
    "timeout": "timeout 900 sh -c 'echo $PPID $$; exec sleep 800'; true",
    "timeout in the background": "timeout 900 sh -c 'echo $PPID $$; exec sleep 800' & wait",
    "job control": "set -m; sleep 800 & first=$!; sleep 800 & echo $first $!; wait",
    "orphans": "(timeout 900 sh -c 'echo $PPID $$; exec sleep 800' &)",
    "ignoring": "timeout 900 sh -c 'trap \"\" INT TERM HUP; echo $PPID $$; sleep 800; sleep 800'; true",
    "silent": "timeout 900 sh -c 'echo $PPID $$; exec sleep 800 >/dev/null 2>&1 </dev/null'; true",
    "nested": "timeout 900 timeout 900 sh -c 'echo $PPID $$; exec sleep 800'; true",
}
"""Programs with processes outside the leader's process group; each prints the process IDs of two of them."""

every_group = pytest.mark.parametrize("script", GROUPS.values(), ids=GROUPS.keys())

DAEMON = (
    "import os, sys",
    "reader, writer = os.pipe()",
    "if os.fork() == 0:",
    "    os.setsid()",
    "    if os.fork() == 0:",
    "        for fd in 0, 1, 2: os.close(fd)",
    "        os.write(writer, b'%d' % os.getpid())",
    "        os.close(writer)",
    "        os.execlp('sleep', 'sleep', '800')",
    "    os._exit(0)",
    "os.wait()",
    "print(os.read(reader, 20).decode(), flush=True)",
    "sys.stdin.read()",
)
"""A program that starts a daemon in the classic way, prints the daemon's process ID and waits for EOF on stdin."""


async def numbers(start: Starter, *argv: str, **options: object) -> tuple[object, list[int]]:
    running = start(*argv, **options)
    return running, [int(word) for word in (await running.line()).split()]


@every_group
async def test_other_groups_end_too(start: Starter, script: str) -> None:
    """Processes that a program has started in their own process groups end with the program."""
    running = start("bash", "-c", script)
    pids = [int(word) for word in (await running.line()).split()]
    with mortal(*pids):
        await running.end()
        assert [pid for pid in pids if is_alive(pid)] == []
    assert start.metrics.left_behind == start.metrics.daemons_left == 0


async def test_other_groups_climb_the_ladder(start: Starter, tmp_path: Path) -> None:
    """A process in its own group gets INT before TERM, and ends at the first signal that it does not ignore."""
    record = tmp_path / "record"
    running = start("bash", "-c", 'set -m; "$@" & wait', "bash", *command("witness", record, "TERM", "stdin"), ladder=make_ladder(0.3))
    pid = int(await running.line())
    with mortal(pid):
        await running.end()
        assert not is_alive(pid)
    assert [event for event, _ in recorded(record)] == ["INT", "TERM"]


async def test_end_waits_for_other_groups(start: Starter, fifo: str) -> None:
    """A program has ended when the last process of its session has exited, in any group. If all exit on their own, no signal is sent."""
    running = start("bash", "-c", 'set -m; (read word <"$0") >&2 & echo $!', fifo, ladder=LONG_LADDER)
    heir = int(await running.line())
    gone: list[bool] = []
    running.child.group.call_when_empty(lambda: gone.append(True))
    with mortal(heir):
        await running.child.group.wait_exit()
        ending = asyncio.ensure_future(running.end())
        assert not await running.child.group.wait_empty(0.3)
        assert (ending.done(), gone) == (False, [])
        await asyncio.to_thread(write_to_fifo, fifo, "go")
        await ending
    assert gone == [True]
    assert running.child.group.signalled is None


async def test_no_signal_to_a_reused_process_id(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process reuses the ID of a reaped leader, the program counts as ended, and no signal is sent to that process."""
    running = start("bash", "-c", "set -m; sleep 800 >&2 & echo $!")
    heir = int(await running.line())
    group = running.child.group
    with mortal(heir):
        await group.wait_exit()
        monkeypatch.setattr(descendants, "by_session", lambda: {group.pid: [group.pid, os.getpid()]})
        start.descendants.ages = Ages(least=0, signal_share=0, check_share=0)
        group.members = set()
        assert start.descendants.processes(group) == {}
        # The list has this process, which is the parent of the remaining process.
        group._send(signal.SIGKILL)
        assert await group.wait_empty(10)
        assert is_alive(heir)


async def test_no_signal_to_a_leader_that_has_just_been_reaped(start: Starter) -> None:
    """Between a leader's exit and its report, the leader's ID may be unused or belong to another process. Both have no processes."""
    running = start("sleep", "800")
    group = running.child.group
    assert start.descendants.processes(group) == {group.pid: group.pid}
    leader = group.pid
    for other in (os.getppid(), 2**22):
        group.pid = other
        assert start.descendants.processes(group) == {}
    group.pid = leader
    await running.end()
    assert group.status == -signal.SIGINT


async def test_kill_reaches_other_groups(start: Starter) -> None:
    """`kill` sends KILL to every process group of the program at once."""
    running = start("bash", "-c", GROUPS["ignoring"], ladder=LONG_LADDER)
    pids = [int(word) for word in (await running.line()).split()]
    with mortal(*pids):
        running.child.kill()
        await running.end()
        assert [pid for pid in pids if is_alive(pid)] == []


async def test_fork_storm_is_ended(start: Starter) -> None:
    """The ladder also ends a program whose processes permanently start others in new groups."""
    storm = python(
        "import os, signal, time",
        "for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP: signal.signal(number, signal.SIG_IGN)",
        "print('ready', flush=True)",
        "for _ in range(2400):",  # two minutes, if the test does not end it
        "    if os.fork():",
        "        time.sleep(0.05)",
        "        os._exit(0)",
        "    os.setpgid(0, 0)",
    )
    # On a busy machine, more processes start between two lists, so each step of the ladder takes longer.
    running = start(*storm, ladder=make_ladder(scaled(1.0) - 1))
    await running.line()
    session = running.child.group.pid
    await running.end()
    assert start.descendants.survivors(running.child.group) == []
    assert running.child.group.pid == session
    assert start.metrics.left_behind == 0


async def test_old_list_proves_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listed process may start another process before it exits, so only a newer list proves that the program has ended."""
    listed = {7: [2**22 + 1]}
    monkeypatch.setattr(descendants, "by_session", lambda: listed)
    found = Descendants(NoGuard(), Metrics(), loop=asyncio.get_running_loop())
    try:
        monkeypatch.setattr(found, "_find_orphans", lambda: None)
        program = SimpleNamespace(pid=7, status=0, members=set(), dead=set(), dead_at=-math.inf, exited_at=-math.inf)
        assert found.has_members(program)
        # A list that took long to read is reused for a while.
        found._cost = 1000.0
        assert [found.has_members(program) for _ in range(3)] == [True] * 3
        found._cost, found._read_at = 0.0, -1.0
        assert not found.has_members(program)
    finally:
        found.close()


async def test_daemon_is_left_and_reported(start: Starter, caplog: pytest.LogCaptureFixture) -> None:
    """The server leaves a daemon in its own session running. It logs the daemon's process ID and user, counts it once, and reaps it
    later."""
    running = start(*python(*DAEMON), ladder=LONG_LADDER)
    daemon = int(await running.line())
    with caplog.at_level("INFO", "wsbridge.process"), mortal(daemon):
        await running.end()
        await until(lambda: start.metrics.daemons_left == 1, "the report")
        assert is_alive(daemon)
        assert running.child.group.status == 0
        os.kill(daemon, signal.SIGKILL)
        await until(lambda: daemon not in children(os.getpid()), "the daemon to be reaped")
    (line,) = [record.getMessage() for record in caplog.records if "left the session" in record.getMessage()]
    assert f"pid {daemon} (sleep) of user root" in line or os.getuid() != 0
    assert start.metrics.daemons_left == 1


async def test_other_programs_end_beside_a_daemon(start: Starter) -> None:
    """While a daemon continues, the server still notices the end of every other program."""
    running = start(*python(*DAEMON))
    daemon = int(await running.line())
    with mortal(daemon):
        await running.end()
        for script in ("true", "timeout 900 sleep 800 & echo", "exit 3"):
            other = start("bash", "-c", script)
            await until(lambda other=other: other.output.batches or other.output.ended, "the program to have begun")
            await other.end()
            assert start.descendants.survivors(other.child.group) == []


async def test_orphans_of_a_running_program_are_reaped(start: Starter) -> None:
    """A program's orphan that exits while the program runs is reaped at its exit, so no zombie stays."""
    running = start("sh", "-c", "for n in 1 2 3 4 5; do (true &); done; echo; read line")
    await running.line()
    await until(lambda: not zombies(os.getpid()), "the orphans to be reaped")
    await running.end()


async def test_one_list_serves_all_programs(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """If many programs end at the same time, the server reads the list of all processes a few times, not once per program."""
    reads = 0
    by_session = descendants.by_session

    def counted() -> dict[int, list[int]]:
        nonlocal reads
        reads += 1
        return by_session()

    monkeypatch.setattr(descendants, "by_session", counted)
    programs = [start("bash", "-c", "timeout 900 sleep 800 & echo $!", ladder=SHORT_LADDER) for _ in range(30)]
    for program in programs:
        await program.line()
    # Long enough for a hundred checks of each program.
    start.descendants.ages = Ages(least=0.5)
    await asyncio.gather(*(program.end() for program in programs))
    assert 0 < reads < 30


async def test_clean_exit_needs_no_list_of_processes(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server detects the end of a program without descendants without a list of the machine's processes."""

    def read() -> dict[int, list[int]]:
        raise AssertionError("all processes were listed")

    monkeypatch.setattr("wsbridge.process.descendants.by_session", read)
    for _ in range(5):
        running = start("sh", "-c", "cat & wait", ladder=LONG_LADDER)
        await running.end()
        assert running.child.group.status == 0


# A whole server


def pids_of(client: Client) -> list[int]:
    return [int(word) for word in client.receive_text().split()]


def none_alive(pids: Sequence[int]) -> bool:
    return not any(is_alive(pid) for pid in pids)


@every_group
def test_client_disconnects(script: str) -> None:
    """When the client disconnects, every group of its program ends, and only then does the slot become free."""
    with Server("--maxforks=1", "bash", "-c", script) as server:
        with server.connect() as client:
            pids = pids_of(client)
            with mortal(*pids):
                assert server.refusal().status == 429
                client.drop()
                for pid in pids:
                    wait_for_exit(pid)
        with connected_at_last(server) as client, mortal(*pids_of(client)):
            pass
        server.stop()
        assert "left_behind" not in server.log


@contextmanager
def connected_at_last(server: Server) -> Iterator[Client]:
    """Connect as soon as a slot is free."""

    def maybe() -> Client | None:
        try:
            return server.connect()
        except Refused:
            return None

    with wait_until(maybe, "a free slot") as client:
        yield client


def test_slot_is_taken_while_a_process_lives() -> None:
    """After a program's exit, its slot stays taken while a process of its session lives, and the ladder continues."""
    script = "set -m; sleep 800 <&- >&- 2>&- & first=$!; sleep 800 <&- >&- 2>&- & echo $first $!"
    with Server("--maxforks=1", "--closems=300000", "bash", "-c", script) as server, server.connect() as client:
        pids = pids_of(client)
        with mortal(*pids):
            client.receive_close()
            assert server.refusal().status == 429
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            with connected_at_last(server) as other, mortal(*pids_of(other)):
                pass


@every_group
def test_server_shuts_down(script: str) -> None:
    """When the server shuts down, every group of its programs has ended before its exit."""
    with Server("bash", "-c", script) as server, server.connect() as client:
        pids = pids_of(client)
        with mortal(*pids):
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
            assert none_alive(pids)


@every_group
def test_server_is_killed(script: str) -> None:
    """When the server is killed, the guard ends every group of its programs."""
    with Server("bash", "-c", script) as server, ExitStack() as clients:
        pids = [pid for _ in range(2) for pid in pids_of(clients.enter_context(server.connect()))]
        with mortal(*pids):
            server.send_signal(signal.SIGKILL)
            server.wait()
            for pid in pids:
                wait_for_exit(pid)


@pytest.mark.parametrize("ends_first", [True, False], ids=["script ends", "client goes"])
def test_cgi(tmp_path: Path, ends_first: bool) -> None:
    """Processes that a CGI script has started in their own groups end with its response, and when its client disconnects."""
    then = "exit" if ends_first else "wait"
    script = tmp_path / "script"
    script.write_text(
        f"#!/bin/bash\necho content-type: text/plain; echo\nset -m\nsleep 800 >/dev/null 2>&1 & first=$!\n"
        f"timeout 900 sleep 800 >/dev/null 2>&1 &\necho $first $!; {then}\n"
    )
    script.chmod(0o755)
    with Server("--maxforks=1", f"--cgidir={tmp_path}") as server:
        if ends_first:
            pids = [int(word) for word in server.get("/script").body.split()]
        else:
            with asking(server) as stream:
                assert b" 200 " in stream.read_until(b"\r\n\r\n", DEADLINE)
                stream.read_until(b"\r\n", DEADLINE)
                pids = [int(word) for word in stream.read_until(b"\n", DEADLINE).split()]
        with mortal(*pids):
            assert len(pids) == 2
            for pid in pids:
                wait_for_exit(pid)
            wait_until(lambda: is_answered(server), "a free slot")


def asking(server: Server) -> Stream:
    """Request the script's response, without waiting for its end."""
    stream = open_stream(port=server.port)
    stream.send(request_bytes("GET", "/script", [("Host", "h")], b""))
    return stream


def is_answered(server: Server) -> bool:
    with asking(server) as stream:
        return b" 200 " in stream.read_until(b"\r\n\r\n", DEADLINE)


def test_daemon_of_a_session() -> None:
    """A program's daemon outlives its session. The log reports it at once with its process ID and user; the exit line counts it."""
    with Server(*python(*DAEMON)) as server:
        with server.connect() as client:
            daemon = int(client.receive_text())
        with mortal(daemon):
            server.wait_for_log(rf"INFO .*pid {daemon} \(sleep\) of user \S+ has left the session")
            assert is_alive(daemon)
            # `stop` would kill the remaining processes.
            os.kill(server.pid, signal.SIGTERM)
            wait_for_exit(server.pid)
            server.wait_for_log("daemons_left=1")
            assert is_alive(daemon)


def test_children_before_the_exec() -> None:
    """Children that the server's process had before its exec are not programs: the server neither ends nor reports them."""
    with Server("cat", prefix=("bash", "-c", 'sleep 800 & setsid sleep 801 & exec "$@"', "bash")) as server:
        helpers = [pid for pid in children(server.pid) if "sleep" in command_line(pid)]
        assert len(helpers) == 2
        with mortal(*helpers):
            with server.connect() as client:
                client.send_text("word")
                assert client.receive_text() == "word"
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
            assert "left" not in server.log
            assert [pid for pid in helpers if not is_alive(pid)] == []


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a process of another user is started by root alone")


@pytest.fixture
def as_root() -> Iterator[str]:
    """A set-user-id program that runs another program as root, like sudo, in a directory that every user can reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        program = Path(folder) / "as_root"
        program.write_bytes(Path(which("setpriv")).read_bytes())
        Path(folder).chmod(0o755)
        program.chmod(0o4755)
        yield f"{program} --reuid=0"


READS_ALL = "dac_read_search"
"""A capability to read all files: Python and wsbridge may be readable for root only, as in root's home directory."""
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps=+{READS_ALL}", f"--ambient-caps=+{READS_ALL}")


@needs_root
@pytest.mark.parametrize("is_leader", [True, False], ids=["leader", "child"])
def test_process_of_another_user(as_root: str, is_leader: bool) -> None:
    """The server logs a process of another user, which it cannot kill, with its user, and counts it. The process keeps its slot until
    it exits."""
    script = f"{'exec ' if is_leader else ''}{as_root} sh -c 'trap \"\" INT TERM HUP; echo $$; while :; do sleep 800; done'"
    with Server("--maxforks=1", "sh", "-c", script, prefix=NOBODY, cwd="/") as server:
        with server.connect() as client:
            pid = int(client.receive_text())
        with mortal(pid, *children(pid)):
            server.wait_for_log(rf"ERROR .*KILL did not end pid {pid} \(sh\) of user root: not permitted")
            assert is_alive(pid)
            assert server.refusal().status == 429
            # Kill the shell first, because it would start another sleep.
            for number in (pid, *children(pid)):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            with connected_at_last(server) as other:
                last = int(other.receive_text())
                with mortal(last, *children(last)):
                    server.stop()
                    assert "left_behind=" in server.log
