"""Parts for the tests of floors 3 to 6: real children with twins at their ends, and what a process holds.

A child in these tests is a real one, run by the product's own Spawner; what it would be joined to is the in-memory twin
of flow.py, with the few words more that a session asks of its client. Nothing waits for a guessed time: `until` asks
again and again with a deadline, for what is told only when asked.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.client import Headers, Response, Stream, open_stream, read_response, request_bytes
from tests.support.deadline import DEADLINE, Deadline
from tests.support.server import Server, children, state, wait_for_exit
from wsbridge.closecodes import NORMAL
from wsbridge.flow import NULL_SOURCE, Batch, CallbackSink, End, Kind, Memory, Source
from wsbridge.framing import make_framing
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.descendants import Descendants
from wsbridge.process.guard import NoGuard, Watch
from wsbridge.process.spawn import Spawner, open_stdio
from wsbridge.process.stderr import Lines
from wsbridge.process.terminal import PLAIN, terminal_environment
from wsbridge.process.termination import Step
from wsbridge.settings import TerminalSize

SHORT = (Step(0.05, signal.SIGINT), Step(0.05, signal.SIGTERM), Step(0.05, signal.SIGKILL))
"""A ladder for tests that do not ask how long it takes."""

TRANSPORTS: dict[str, dict[str, str]] = {"aiofastnet": {}, "asyncio": {"WSBRIDGE_FASTNET": "0"}}
"""The environment in which a server uses each kind of transports."""

PATIENT = tuple(Step(DEADLINE, step.signal) for step in SHORT)
"""A ladder that has sent no signal when the test is over."""

GENTLE = (SHORT[0], *PATIENT[1:])
"""A ladder that sends INT soon, and nothing after it until the test is over, however long the end takes."""


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Let the loop run until the condition holds; return its value."""
    deadline = Deadline(DEADLINE)
    while not (value := condition()):
        assert not deadline.has_passed(), f"waited {DEADLINE} s in vain for {what}"
        await asyncio.sleep(0.002)
    return value


async def turns(count: int = 20) -> None:
    """Let the loop go round: whatever was ready is done."""
    for _ in range(count):
        await asyncio.sleep(0)


def pause(seconds: float) -> None:
    """Take time between two steps of a client that is slow on purpose; nothing is waited for."""
    threading.Event().wait(seconds)


@dataclass(slots=True)
class ClientTwin(Memory):
    """The twin of a connected client, as a session sees it."""

    source: Source = NULL_SOURCE
    received: int = 0
    sent: int = 0
    closed: bool = False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        """The twin is closed when it is told to."""


@dataclass(slots=True)
class Running:
    """A real child, started: what it prints is taken by `output`, and what `output` pushes is written to it."""

    child: Child
    output: Memory
    errors: list[str]

    def say(self, *lines: bytes, kind: Kind = Kind.TEXT) -> None:
        """Write messages to the child, as one batch."""
        self.output.push(Batch(kind, list(lines)))

    async def line(self) -> str:
        """Return the first line, once it has come."""
        await until(lambda: self.output.batches, "the first line")
        return self.output.messages[0].decode()

    async def ended(self) -> End:
        """Wait until all that it prints has come; return how it ended."""
        return await until(lambda: self.output.ended, "the end of the output")

    async def end(self) -> None:
        """Lead it down its ladder."""
        self.child.close_input(End(NORMAL))
        await self.child.end()


@dataclass(slots=True)
class Starter:
    """Starts children, and ends what a test has left of them."""

    spawner: Spawner
    watch: Watch = field(default_factory=NoGuard)
    started: list[Running] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    spared: set[int] = field(default_factory=lambda: set(children(os.getpid())))
    """Children of this process that are not the Starter's to reap."""
    descendants: Descendants = field(init=False)
    pid: int = 0

    def __post_init__(self) -> None:
        def spared(pid: int) -> bool:
            return pid in self.spared or pid == self.watch.pid

        self.descendants = Descendants(self, self.metrics, loop=asyncio.get_running_loop(), is_excluded=spared)

    # It hands on what its Descendants tell to the watch that it has by then

    def add(self, group: int) -> None:
        self.watch.add(group)

    def remove(self, group: int) -> None:
        self.watch.remove(group)

    def __call__(self, *argv: object, **options: Any) -> Running:
        """Start a program; its output flows into the twin. Options are those of `make`."""
        running = self.make(*argv, **options)
        running.child.start(running.output)
        return running

    def make(
        self,
        *argv: object,
        framing: str = "lines",
        limit: int = 16 * 1024 * 1024,
        pty: bool | TerminalSize = False,
        ladder: Sequence[Step] = SHORT,
        environment: Mapping[str, str] | None = None,
        error_framing: str | None = None,
    ) -> Running:
        """Start a program without joining it: that is left to a session."""
        words = tuple(map(str, argv))
        terminal = PLAIN if pty is True else pty or None
        variables = environment or {"PATH": os.environ["PATH"], **terminal_environment(terminal)}
        stdio = open_stdio(terminal)
        make_decoder, encoder = make_framing(framing, limit=limit)
        errors: list[str] = []
        child = Child(
            stdio,
            decoder=make_decoder(),
            encoder=encoder,
            errors=Lines(errors.extend),
            error_decoder=make_framing(error_framing, limit=limit)[0]() if error_framing else None,
            ladder=ladder,
            descendants=self.descendants,
            fields={},
            loop=asyncio.get_running_loop(),
        )
        child.attach(self.spawner.spawn((which(words[0]), *words[1:]), variables, stdio))
        output = Memory(sink=CallbackSink(child.write, child.close_input))
        child.source = output
        running = Running(child, output, errors)
        self.started.append(running)
        return running

    async def close(self) -> None:
        for running in self.started:
            running.child.kill()
            await running.end()
        self.descendants.close()


def which(word: str) -> str:
    """The path of a program, as the command line would have found it."""
    if "/" in word:
        return word
    return next(path for part in os.environ["PATH"].split(":") if os.access(path := f"{part}/{word}", os.X_OK))


def python(*lines: str) -> tuple[str, ...]:
    """The command line of a Python program: its stdout is held back by the block unless it is a terminal."""
    return (sys.executable, "-S", "-E", "-I", "-c", "\n".join(lines))


@contextmanager
def no_callback_fails() -> Iterator[None]:
    """See to it that no callback of the running loop raises: the loop would log it, and go on."""
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, failure: failures.append(failure))
    yield
    assert failures == []


@contextmanager
def nothing_left() -> Iterator[None]:
    """See to it that the block leaves no descriptor, no child and no zombie of this process behind."""
    before, had = descriptors(), children(os.getpid())
    yield
    left = {number: name for number, name in descriptors().items() if number not in before}
    assert left == {}, f"descriptors are left open: {left}"
    assert [pid for pid in children(os.getpid()) if pid not in had] == []


@contextmanager
def adopting() -> Iterator[None]:
    """Reap the orphans that this process has inherited in the block, once they have ended."""
    had = set(children(os.getpid()))
    try:
        yield
    finally:
        for pid in set(children(os.getpid())) - had:
            wait_for_exit(pid)
            os.waitpid(pid, 0)


@contextmanager
def same_limits() -> Iterator[None]:
    """Put the limit of descriptors back: a Spawner raises it for its whole process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """The open descriptors of a process, each with what it is."""
    found: dict[int, str] = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def resident(pid: int) -> int:
    """The memory that a process has resident, in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def status_line(pid: int | str, name: str) -> str:
    """One value of /proc/PID/status."""
    found = re.search(rf"^{name}:\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return found[1]


def zombies(pid: int) -> list[int]:
    """The children of a process that have ended and were not reaped."""
    return [child for child in children(pid) if state(child) == "Z"]


def group_members(group: int) -> list[int]:
    """The processes of a process group that run; zombies do not count."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            letter, _, its_group = entry.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and letter not in "ZX":
                found.append(int(entry.parent.name))
    return sorted(found)


def send_what_is_taken(sock: socket.socket, data: bytes, quiet: float = 1.0) -> int:
    """Send until all is taken or nothing has been for `quiet` seconds; return how many bytes were."""
    rest = memoryview(data)
    sock.setblocking(False)
    try:
        while rest and select.select([], [sock], [], quiet)[1]:
            with suppress(BlockingIOError):
                rest = rest[sock.send(rest[: 1 << 16]) :]
    finally:
        sock.setblocking(True)
    return len(data) - len(rest)


def exchange(server: Server, method: str, path: str, body: bytes, headers: Headers = ()) -> Response:
    """Make a request whose body is sent while the answer is read: neither side need keep much of it."""
    given = [("Host", "h"), ("Connection", "close"), ("Content-Length", str(len(body))), *headers]
    with open_stream(port=server.port, **server.where) as stream:
        if server.where.get("tls"):
            # Python's TLS is not for two threads: the kernel's buffers must do.
            stream.send(request_bytes(method, path, given, body))
            return read_response(stream, method=method)
        sender = threading.Thread(target=send_all, args=(stream, request_bytes(method, path, given, body)))
        sender.start()
        try:
            return read_response(stream, method=method)
        finally:
            with suppress(OSError):
                stream.sock.shutdown(socket.SHUT_RDWR)
            sender.join()


def send_all(stream: Stream, data: bytes) -> None:
    with suppress(OSError):
        stream.sock.sendall(data)
