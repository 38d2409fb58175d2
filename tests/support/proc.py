"""Parts for the tests of real children: twins at their ends, and the resources of a process.

A child in these tests is a real program that the product's own Spawner starts. Its sink and its source are in-memory twins, with the
methods that a session needs of its client. No test waits for a fixed time: `until` polls a condition with a deadline.
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
from tests.support.deadline import DEADLINE, Deadline, scaled
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

SHORT_LADDER = (Step(0.05, signal.SIGINT), Step(0.05, signal.SIGTERM), Step(0.05, signal.SIGKILL))
"""A ladder for tests in which its duration does not matter, and in which the program need not act on each step."""

TRANSPORTS: dict[str, dict[str, str]] = {"aiofastnet": {}, "asyncio": {"WSBRIDGE_FASTNET": "0"}}
"""The environment in which a server uses each kind of transports."""

LONG_LADDER = tuple(Step(DEADLINE, step.signal) for step in SHORT_LADDER)
"""A ladder that has sent no signal when the test ends."""

INT_LADDER = (SHORT_LADDER[0], *LONG_LADDER[1:])
"""A ladder that soon sends INT, and nothing else until the test ends, however long the end takes."""


def scaled_ladder() -> tuple[Step, ...]:
    """Return a short ladder whose pauses grow with the load of the machine, so that a program can act on each step."""
    return tuple(Step(scaled(step.grace), step.signal) for step in SHORT_LADDER)


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Run the loop until the condition holds; return its value."""
    deadline = Deadline(DEADLINE)
    while not (value := condition()):
        assert not deadline.has_passed(), f"waited {DEADLINE} s in vain for {what}"
        await asyncio.sleep(0.002)
    return value


async def turns(count: int = 20) -> None:
    """Run some iterations of the loop: all ready callbacks run."""
    for _ in range(count):
        await asyncio.sleep(0)


def pause(seconds: float) -> None:
    """Sleep between two steps of a client that is slow on purpose, without waiting for an event."""
    threading.Event().wait(seconds)


@dataclass(slots=True)
class ClientTwin(Memory):
    """The twin of a connected client, as a session uses it."""

    source: Source = NULL_SOURCE
    received: int = 0
    sent: int = 0
    closed: bool = False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        """Return when the twin is closed."""


@dataclass(slots=True)
class Running:
    """A real child that runs: `output` receives its output, and the child receives what `output` pushes."""

    child: Child
    output: Memory
    errors: list[str]

    def write(self, *lines: bytes, kind: Kind = Kind.TEXT) -> None:
        """Write messages to the child, as one batch."""
        self.output.push(Batch(kind, list(lines)))

    async def line(self) -> str:
        """Return the first line when it has arrived."""
        await until(lambda: self.output.batches, "the first line")
        return self.output.messages[0].decode()

    async def ended(self) -> End:
        """Wait until all of the child's output has arrived; return its end."""
        return await until(lambda: self.output.ended, "the end of the output")

    async def end(self) -> None:
        """Run the child's ladder."""
        self.child.close_input(End(NORMAL))
        await self.child.end()


@dataclass(slots=True)
class Starter:
    """Starts children, and ends those that a test has left."""

    spawner: Spawner
    watch: Watch = field(default_factory=NoGuard)
    started: list[Running] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    spared: set[int] = field(default_factory=lambda: set(children(os.getpid())))
    """Children of this process that the Starter must not reap."""
    descendants: Descendants = field(init=False)
    pid: int = 0

    def __post_init__(self) -> None:
        def spared(pid: int) -> bool:
            return pid in self.spared or pid == self.watch.pid

        self.descendants = Descendants(self, self.metrics, loop=asyncio.get_running_loop(), is_excluded=spared)

    # It forwards the calls of its Descendants to the current watch

    def add(self, group: int, ladder: Sequence[Step]) -> None:
        self.watch.add(group, ladder)

    def remove(self, group: int) -> None:
        self.watch.remove(group)

    def __call__(self, *argv: object, **options: Any) -> Running:
        """Start a program whose output flows into the twin. Options are those of `make`."""
        running = self.make(*argv, **options)
        running.child.start(running.output)
        return running

    def make(
        self,
        *argv: object,
        framing: str = "lines",
        limit: int = 16 * 1024 * 1024,
        pty: bool | TerminalSize = False,
        ladder: Sequence[Step] | None = None,
        environment: Mapping[str, str] | None = None,
        error_framing: str | None = None,
    ) -> Running:
        """Start a program without joining it, for a session that joins it. By default, its ladder is that of `scaled_ladder`."""
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
            ladder=scaled_ladder() if ladder is None else ladder,
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
    """Return the path of a program, as the command line finds it."""
    if "/" in word:
        return word
    return next(path for part in os.environ["PATH"].split(":") if os.access(path := f"{part}/{word}", os.X_OK))


def python(*lines: str) -> tuple[str, ...]:
    """Return the command line of a Python program: its stdout is block-buffered unless it is a terminal."""
    return (sys.executable, "-S", "-E", "-I", "-c", "\n".join(lines))


@contextmanager
def no_callback_fails() -> Iterator[None]:
    """Check that no callback of the running loop raises: the loop would only log it."""
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, failure: failures.append(failure))
    yield
    assert failures == []


@contextmanager
def nothing_left() -> Iterator[None]:
    """Check that the block leaves no descriptor, child or zombie of this process behind."""
    before, had = descriptors(), children(os.getpid())
    yield
    left = {number: name for number, name in descriptors().items() if number not in before}
    assert left == {}, f"descriptors are left open: {left}"
    assert [pid for pid in children(os.getpid()) if pid not in had] == []


@contextmanager
def adopting() -> Iterator[None]:
    """Reap the orphans that this process inherits in the block, once they have exited."""
    had = set(children(os.getpid()))
    try:
        yield
    finally:
        for pid in set(children(os.getpid())) - had:
            wait_for_exit(pid)
            os.waitpid(pid, 0)


@contextmanager
def same_limits() -> Iterator[None]:
    """Restore the descriptor limit: a Spawner raises it for its whole process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """The open descriptors of a process, with their targets."""
    found: dict[int, str] = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def resident(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def status_line(pid: int | str, name: str) -> str:
    """Return one value of /proc/PID/status."""
    found = re.search(rf"^{name}:\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return found[1]


def zombies(pid: int) -> list[int]:
    """The zombie children of a process."""
    return [child for child in children(pid) if state(child) == "Z"]


def group_members(group: int) -> list[int]:
    """The running processes of a process group, without zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            letter, _, its_group = entry.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and letter not in "ZX":
                found.append(int(entry.parent.name))
    return sorted(found)


def send_until_full(sock: socket.socket, data: bytes, quiet: float = 1.0) -> int:
    """Send until all data is accepted or the peer accepts nothing for `quiet` seconds; return the number of accepted bytes."""
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
    """Make a request whose body is sent while the response is read, so that neither side must buffer much."""
    given = [("Host", "h"), ("Connection", "close"), ("Content-Length", str(len(body))), *headers]
    with open_stream(port=server.port, **server.where) as stream:
        if server.where.get("tls"):
            # Two threads cannot share Python's TLS, so the kernel's buffers must suffice.
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
