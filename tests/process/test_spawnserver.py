"""The spawn server: a program's inherited state, the reports, and the recovery from a crash or a hang."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.support.deadline import DEADLINE, scaled
from tests.support.proc import adopting, descriptors, no_callback_fails, nothing_left, same_limits, until, which
from tests.support.server import children, is_alive
from tests.support.tool import command
from wsbridge.errors import ProgramError
from wsbridge.flow import Batch, End, Kind, Memory
from wsbridge.framing import chunks
from wsbridge.metrics import Metrics
from wsbridge.process import spawnd
from wsbridge.process.child import Child
from wsbridge.process.descendants import Descendants
from wsbridge.process.guard import NoGuard
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import UNKNOWN_STATUS, Spawner, Started, Watch, open_stdio
from wsbridge.process.spawnd import REQUEST
from wsbridge.process.spawnserver import STARTING, SpawnServer
from wsbridge.process.terminal import PLAIN
from wsbridge.process.termination import make_ladder
from wsbridge.settings import TerminalSize

PATH = {"PATH": os.environ["PATH"]}


@contextmanager
def serving(
    metrics: Metrics | None = None, *, soft: int | None = None, launch_seconds: float = 60.0, restart_pause: float = 1.0
) -> Iterator[SpawnServer]:
    """A spawn server of a process that was started with this soft limit of descriptors."""
    with same_limits(), nothing_left(), no_callback_fails():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if soft is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        spawner = Spawner()
        loop = asyncio.get_running_loop()
        server = SpawnServer(spawner, metrics or Metrics(), loop=loop, launch_seconds=launch_seconds, restart_pause=restart_pause)
        try:
            yield server
        finally:
            server.close()
            os.close(spawner._home)


@pytest.fixture
async def server() -> AsyncIterator[SpawnServer]:
    with serving() as server:
        yield server


@dataclass
class Spawned:
    """A running program, and the server's ends of its pipes."""

    pid: int
    watch: Watch
    stdin: int
    stdout: int
    stderr: int


def spawn(
    server: SpawnServer, argv: tuple[str, ...], environment: dict[str, str], *, pty: TerminalSize | None = None, cwd: str | None = None
) -> asyncio.Task[Spawned]:
    """Start a program; if that fails, close its pipes."""
    stdio = open_stdio(pty)
    starting = server.spawn(argv, environment, stdio, cwd=cwd)

    async def join() -> Spawned:
        try:
            started = await starting
        except BaseException:
            stdio.close_ours()
            raise
        return Spawned(started.pid, started.watch, stdio.stdin, stdio.stdout, stdio.stderr)

    return asyncio.ensure_future(join())


async def ended(spawned: Spawned) -> tuple[int, bytes]:
    """Wait for the end of a program; return its status and its output."""
    os.close(spawned.stdin)
    os.set_blocking(spawned.stdout, True)
    printed = await asyncio.to_thread(_read, spawned.stdout)
    status = await exited(spawned)
    os.close(spawned.stderr)
    return status, printed


def _read(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


async def exited(spawned: Spawned) -> int:
    status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    spawned.watch(status.set_result)
    return await status


async def run(server: SpawnServer, *argv: object, environment: dict[str, str] | None = None, cwd: str | None = None) -> bytes:
    """Run a program to its end; return its output."""
    words = tuple(map(str, argv))
    spawned = await spawn(server, (which(words[0]), *words[1:]), PATH if environment is None else environment, cwd=cwd)
    status, printed = await ended(spawned)
    assert status == 0
    return printed


@pytest.mark.parametrize("pty", [False, True], ids=["pipe", "pty"])
async def test_descriptors(pty: bool) -> None:
    """A program has only the descriptors 0, 1 and 2, however many programs start at once."""
    with serving() as server:
        programs = [await spawn(server, command("descriptors"), PATH, pty=PLAIN if pty else None) for _ in range(2)]
        programs += await asyncio.gather(*(spawn(server, command("descriptors"), PATH, pty=PLAIN if pty else None) for _ in range(8)))
        for spawned in programs:
            if pty:
                os.close(spawned.stdin)
                lines: list[bytes] = []
                await until(lambda spawned=spawned, lines=lines: _hung_up(spawned.stdout, lines), "the end")
                assert await exited(spawned) == 0
                for fd in (spawned.stdout, spawned.stderr):
                    os.close(fd)
                printed = b"".join(lines)
            else:
                _, printed = await ended(spawned)
            assert [line.split()[0] for line in printed.splitlines()] == [b"0", b"1", b"2"]


def _hung_up(terminal: int, lines: list[bytes]) -> bool:
    """Read all available data; return whether the terminal's other end is closed."""
    try:
        lines.append(os.read(terminal, 65536))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


async def test_inherited_state(server: SpawnServer, tmp_path: Path) -> None:
    """A program gets its arguments, environment and directory, its own session, and no ignored or blocked signal."""
    assert await run(server, "printf", "%s|", "a", "", " b c ", "é") == "a|| b c |é|".encode()
    assert sorted((await run(server, "env", environment={"B": "two words", "A": "é"})).splitlines()) == ["A=é".encode(), b"B=two words"]
    assert await run(server, "pwd", "-P", cwd=str(tmp_path)) == f"{os.path.realpath(tmp_path)}\n".encode()  # noqa: ASYNC240
    assert await run(server, "pwd", "-P") == f"{os.getcwd()}\n".encode()
    stat = "read pid name state parent group session rest </proc/$$/stat; echo $(($pid - $group)) $(($pid - $session))"
    assert await run(server, "sh", "-c", stat) == b"0 0\n"
    masks = await run(server, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    blocked, ignored = (int(line.split()[1], 16) for line in masks.splitlines())
    assert blocked == 0
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ)
    assert [number.name for number in numbers if ignored >> number - 1 & 1] == []


async def test_limit_of_descriptors() -> None:
    """A program gets the soft descriptor limit that the server was started with."""
    with serving(soft=512) as server:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        assert await run(server, "sh", "-c", "ulimit -Sn; ulimit -Hn") == f"512\n{hard}\n".encode()


async def test_long_environment(server: SpawnServer) -> None:
    """An environment that is too long for one message also reaches the program."""
    environment = {f"V{number}": chr(97 + number) * 100_000 for number in range(5)}
    printed = await run(server, "env", environment=environment)
    assert dict(line.split("=", 1) for line in printed.decode().splitlines()) == environment


async def test_exit_status(server: SpawnServer) -> None:
    """The spawn server reports the status of a program, minus N after signal N, and leaves nothing of it, whenever a caller waits."""
    for script, status in (("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -signal.SIGTERM)):
        spawned = await spawn(server, ("/bin/sh", "-c", script), PATH)
        if status == 7:
            await until(lambda spawned=spawned: spawned.pid not in server._programs, "the word of its exit")
        assert (await ended(spawned))[0] == status
        with pytest.raises(ProcessLookupError):
            os.kill(spawned.pid, 0)


async def test_exits_among_failures(server: SpawnServer, tmp_path: Path) -> None:
    """Each exit is reported once, however many programs end at once, and while other programs fail to start."""
    words = [("/bin/sh", "-c", f"exit {number % 200}") if number % 2 else (str(tmp_path / "missing"),) for number in range(300)]
    programs = await asyncio.gather(*(spawn(server, argv, PATH) for argv in words), return_exceptions=True)
    for number, spawned in enumerate(programs):
        if number % 2:
            assert isinstance(spawned, Spawned)
            assert (await ended(spawned))[0] == number % 200
        else:
            assert isinstance(spawned, ProgramError)
    programs = [await spawn(server, ("/bin/cat",), PATH) for _ in range(200)]
    statuses = [asyncio.ensure_future(exited(spawned)) for spawned in programs]
    for spawned in programs:
        os.close(spawned.stdin)
    assert await asyncio.gather(*statuses) == [0] * 200
    for spawned in programs:
        os.close(spawned.stdout)
        os.close(spawned.stderr)
    assert children(server.pid) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("echo no first line\n"), "first line"),
        (lambda path: path.write_text("#!/no/such/interpreter\n"), "interpreter"),
        (lambda path: path.mkdir(), "permission denied"),
        (lambda path: None, "no such file"),
    ],
    ids=["no-shebang", "no-interpreter", "directory", "missing"],
)
async def test_error_if_a_program_cannot_start(server: SpawnServer, tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    """If a program cannot start, the error has its path and the reason, and nothing stays behind."""
    path = tmp_path / "program"
    make(path)
    if path.is_file():
        path.chmod(0o755)
    with pytest.raises(ProgramError, match=f"Could not launch process {path}: .*{words}"):
        await spawn(server, (str(path),), PATH)
    assert server.pending == 0


async def test_invalid_words_and_variables(server: SpawnServer) -> None:
    """Arguments and variables that the kernel cannot represent, or that are too long, are errors like any other."""
    long = "x" * 200_000
    for argv, environment, words in (
        (("/bin/true", "a\0b"), {}, "null"),
        (("/bin/true",), {"A": "b\0"}, "null"),
        (("/bin/true",), {"A=": "b"}, "variable"),
        (("/bin/true", long), {}, "longer than the system allows"),
        (("/bin/true",), {"LONG": long}, "longer than the system allows"),
    ):
        with pytest.raises(ProgramError, match=f"Could not launch process /bin/true: .*{words}"):
            await spawn(server, argv, environment)


@contextmanager
def launching(server: SpawnServer) -> Iterator[Callable[..., tuple[Child, asyncio.Future[Started]]]]:
    """Return a function that starts programs as the server does."""
    loop = asyncio.get_running_loop()
    descendants = Descendants(NoGuard(), Metrics(), loop=loop, is_excluded=lambda pid: pid == server.pid)
    launcher = Launcher(server._direct, descendants, make_ladder(0), loop=loop, server=server)
    yield partial(launcher.start, decoder=chunks.Decoder(), encoder=chunks.Encoder(), fields={})
    descendants.close()


async def test_no_descriptors_left() -> None:
    """If descriptors for a program's pipes run out, here or in the spawn server, no program starts, and the error states the reason."""
    with adopting(), serving() as server, launching(server) as start:
        await run(server, "true")
        before = descriptors()
        spare: list[int] = []
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with same_limits():
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + 10, hard))
            with suppress(OSError):
                while True:
                    spare.append(os.open(os.devnull, os.O_RDONLY))
            for number in range(6):
                child, starting = start(("/bin/cat",), PATH, error_decoder=chunks.Decoder() if number % 2 else None)
                with pytest.raises(ProgramError, match=r"too many open files.*ulimit"):
                    await starting
                child.abandon()
                os.close(spare.pop())
            for fd in spare:
                os.close(fd)
        soft = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0]
        for few in (3, 4, 5):
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (few, hard))
            with pytest.raises(ProgramError, match=r"too many open files.*ulimit"):
                await spawn(server, ("/bin/cat",), PATH)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert children(server.pid) == []
        assert descriptors() == before
        assert await run(server, "echo", "well") == b"well\n"


async def test_cancelled_start(server: SpawnServer) -> None:
    """The spawn server ends and reaps a program whose start is cancelled."""
    stdio = open_stdio()
    server.spawn(("/bin/sleep", "1000"), PATH, stdio).cancel()
    stdio.close_ours()
    await until(lambda: server.pending == 0, "the start")
    await until(lambda: children(server.pid) == [], "the end of the program")


async def test_spawn_server_dies() -> None:
    """When the spawn server dies, its pending starts fail and programs live on; the subreaper reaps them. New programs wait for the
    next spawn server."""
    metrics = Metrics()
    with adopting(), serving(metrics) as server:
        lives = await spawn(server, ("/bin/cat",), PATH)
        first = server.pid
        os.kill(first, signal.SIGSTOP)
        starting = spawn(server, ("/bin/cat",), PATH)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ProgramError, match="spawn server has died"):
            await starting
        assert metrics.spawn_server_restarts == 1
        assert not server.has_room
        with pytest.raises(ProgramError, match="spawn server has died"):
            await spawn(server, ("/bin/cat",), PATH)
        assert is_alive(lives.pid)
        await server.room()
        assert server.pid != first
        assert (await ended(lives))[0] in (0, UNKNOWN_STATUS)
        assert await run(server, "echo", "again") == b"again\n"


async def test_spawn_server_hangs() -> None:
    """A spawn server that completes no start for too long is replaced, and its pending starts fail."""
    metrics = Metrics()
    with adopting(), serving(metrics, launch_seconds=0.2) as server:
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(ProgramError, match="spawn server has died"):
            await spawn(server, ("/bin/cat",), PATH)
        assert metrics.spawn_server_restarts == 1


async def test_wait_for_room_while_it_hangs() -> None:
    """A caller that waits for room continues when the next spawn server runs, not earlier: a direct start could block the loop."""
    with adopting(), serving(launch_seconds=0.2) as server:
        first = server.pid
        os.kill(first, signal.SIGSTOP)
        starting = [spawn(server, ("/bin/cat",), PATH) for _ in range(STARTING)]
        waiting = asyncio.ensure_future(server.room())
        assert all(isinstance(each, ProgramError) for each in await asyncio.gather(*starting, return_exceptions=True))
        assert not waiting.done()
        # On a busy machine, the next spawn server may start more slowly.
        server._launch_seconds = 60.0
        await waiting
        assert server.pid != first
        assert await run(server, "echo", "well") == b"well\n"


async def test_spawn_server_does_not_reap() -> None:
    """A spawn server that does not answer is also replaced if callers only wait for an exit status."""
    with adopting(), serving(launch_seconds=scaled(0.5)) as server:
        spawned = await spawn(server, (which("true"),), PATH)
        os.kill(server.pid, signal.SIGSTOP)
        assert (await ended(spawned))[0] in (0, UNKNOWN_STATUS)


async def test_program_starts_as_the_spawn_server_dies() -> None:
    """A program that has started, but whose report was unread when the spawn server died, is not orphaned."""
    with adopting(), serving() as server:
        starting = spawn(server, ("/bin/cat",), PATH)
        assert server._socket is not None
        select.select([server._socket], [], [])
        os.kill(server.pid, signal.SIGKILL)
        assert (await ended(await starting))[0] in (0, UNKNOWN_STATUS)


def test_server_dies_with_unread_messages() -> None:
    """The spawn server exits when the server has died, also if the server has not read all of its messages."""
    question = REQUEST.pack(b"P", 0, 0, 0, 0)
    # One of four threads gets the reset of the socket.
    for _ in range(12):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with subprocess.Popen([sys.executable, "-I", "-S", spawnd.__file__], stdin=theirs) as process:
            theirs.close()
            ours.send(question)
            ours.recv(100)
            ours.send(question)
            assert select.select([ours], [], [], scaled(DEADLINE))[0]
            ours.close()
            try:
                assert process.wait(scaled(DEADLINE)) == 0
            finally:
                process.kill()


async def test_program_starts_as_the_server_closes() -> None:
    """When the server closes, it ends programs that are starting, and cancels their starts."""
    had = set(children(os.getpid()))
    with adopting(), serving() as server:
        starting = [spawn(server, ("/bin/sleep", "1000"), PATH) for _ in range(STARTING)]
        spawn_server = server.pid
        server.close()
        await asyncio.wait(starting)
        assert all(start.cancelled() for start in starting)
        assert not is_alive(spawn_server)
        await until(lambda: not any(map(is_alive, {*children(os.getpid())} - had)), "the end of the programs")


async def test_spawn_server_cannot_start(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Programs start directly until a spawn server runs; the server logs this once."""

    def fails(*_: object) -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(Spawner, "helper", fails)
        with serving(restart_pause=0.01) as server:
            for _ in range(3):
                assert server.has_room
                assert await run(server, "echo", "direct") == b"direct\n"
                await asyncio.sleep(0)
            patch.undo()
            await until(lambda: server.pid, "a spawn server")
            assert await run(server, "echo", "well") == b"well\n"
    assert caplog.text.count("cannot start the spawn server: [Errno 11]") == 1


@pytest.mark.parametrize("passes_stderr", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_abandoned_start(server: SpawnServer, turns: int, passes_stderr: bool) -> None:
    """An abandoned program is ended, even if it starts in the same loop iteration."""
    with adopting(), launching(server) as start:
        before = descriptors()
        child, starting = start(("/bin/sleep", "1000"), PATH, error_decoder=chunks.Decoder() if passes_stderr else None)
        if turns == 1:
            starting.add_done_callback(lambda _: child.abandon())
        else:
            if turns == 2:
                await starting
            child.abandon()
        await asyncio.wait((starting,))
        await until(lambda: server.pending == 0 and children(server.pid) == [], "the end of the program")
        assert descriptors() == before
        await until(lambda: child.group.has_failed or child.group.status == -signal.SIGKILL, "the word of its end")


async def test_input_before_the_start(server: SpawnServer) -> None:
    """A starting program accepts input. Its output is read after the guard was notified."""
    with adopting(), launching(server) as start:
        output = Memory()
        child, starting = start(("/bin/cat",), PATH)
        child.start(output)
        child.write(Batch(Kind.BINARY, [b"one"]))
        child.close_input(End(1000))
        ending = asyncio.ensure_future(child.end())
        assert not starting.done()
        taken = []
        starting.add_done_callback(lambda _: taken.append(len(output.batches)))
        await ending
        assert output.messages == [b"one"]
        assert taken == [0]
        assert child.group.status == 0


async def test_many_requests_at_once(server: SpawnServer) -> None:
    """If requests exceed the socket's buffer, they are sent as the socket accepts them, and each is answered."""
    starting = [spawn(server, ("/bin/echo", str(number)), {"FILL": "x" * 30_000}) for number in range(100)]
    assert server.pending == 100
    for number, start in enumerate(starting):
        status, printed = await ended(await start)
        assert (status, printed) == (0, f"{number}\n".encode())


async def test_room(server: SpawnServer) -> None:
    """Beyond a few starts there is no room. Waiting callers continue in order, and a cancelled caller does not block the others."""
    assert server.has_room
    starting = [spawn(server, ("/bin/true",), PATH) for _ in range(STARTING)]
    assert not server.has_room
    order: list[int] = []

    async def wait(number: int) -> None:
        await server.room()
        order.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in range(3 * STARTING)]
    await asyncio.sleep(0)
    for number in (0, 5, 20):
        waiting[number].cancel()
    assert order == []
    for start in starting:
        await ended(await start)
    await until(lambda: all(task.done() for task in waiting), "room for all, though none of them starts anything")
    assert order == [number for number in range(3 * STARTING) if number not in (0, 5, 20)]
    assert server.has_room


async def test_spawn_server_ignores_signals(server: SpawnServer) -> None:
    """The spawn server ignores HUP, INT, QUIT and TERM, which a terminal or a service manager may send to all. It exits with the server."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        os.kill(server.pid, number)
    assert await run(server, "echo", "well") == b"well\n"
