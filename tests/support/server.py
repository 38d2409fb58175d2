"""Start a server as a user does, check that it listens itself, read its log, inspect its processes, and end it.

A server is ready when its log announces it and the kernel shows that its own process owns the listening port. So a foreign server on
the same port cannot be mistaken for it. wsbridge chooses its port itself (`--port 0`). websocketd cannot, so a free port is tried, and
another if it is in use.

No process outlives a server: after its end, its remaining descendants are killed by their process IDs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from threading import Condition, Thread
from typing import IO, Any, Self

from tests.support import forkserver
from tests.support.client import Client, Refused, Response, connect, request
from tests.support.deadline import DEADLINE, START_DEADLINE, Deadline, scaled
from tests.support.forkserver import Forked

ROOT = Path(__file__).parents[2]
ANNOUNCEMENT = r"Starting WebSocket server +: wss?://\S*:(\d+)/"
CANNOT_LISTEN = 3
"""The exit status of both servers if they cannot listen."""

SYS_PIDFD_GETFD = 438
"""The same number on every architecture; Python has no name for the system call."""

PORTS = [range(first, first + 2_500) for first in range(10_000, 30_000, 2_500)]
"""A range of ports for each of the processes that run tests in parallel."""


SPAWN_SERVER = "process/spawnd.py"
"""A word in the command line of a spawn server."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A command line that can be started as a server."""

    name: str
    command: tuple[str, ...]
    takes_port_zero: bool


WSBRIDGE = Bridge("wsbridge", (sys.executable, "-m", "wsbridge"), takes_port_zero=True)
WEBSOCKETD = Bridge("websocketd", ("websocketd",), takes_port_zero=False)

LISTEN = ("--address=127.0.0.1", "--port={port}")
"""The flags for the listening address; `{port}` becomes the port, or 0 if the server can choose it."""


class Server:
    """A running server, a context manager. `words` are its flags, then COMMAND and its arguments.

    `listen` replaces the flags for the listening address; without `{port}` in it, `port` is the announced port or 0. `prefix` precedes
    the command line (for example a shell that sets a limit, then runs exec). `env` is added to this process's environment; a value None
    removes a variable. The client gets `where` for every connection (`unix=`, `tls=`).
    """

    def __init__(
        self,
        *words: str,
        bridge: Bridge = WSBRIDGE,
        listen: Sequence[str] = LISTEN,
        prefix: Sequence[str] = (),
        cwd: str | Path | None = None,
        env: Mapping[str, str | None] | None = None,
        **where: Any,
    ) -> None:
        self.words = tuple(words)
        self.bridge = bridge
        self.port = 0
        self.where = where
        self._listen = tuple(listen)
        self._prefix = tuple(prefix)
        self._cwd = cwd
        self._env = environment(env or {})
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._readers: list[Thread] = []
        self._changed = Condition()
        self._log: list[str] = []
        self._errors: list[str] = []
        self._reads_log = True
        self._is_over = False

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def log(self) -> str:
        """All of the server's stdout so far."""
        with self._changed:
            return "".join(self._log)

    @property
    def errors(self) -> str:
        """All of the server's stderr so far."""
        with self._changed:
            return "".join(self._errors)

    def start(self) -> Self:
        """Start the server and wait until it accepts connections."""
        needs_port = not self.bridge.takes_port_zero and any("{port}" in word for word in self._listen)
        for _ in range(5):
            self.port = free_port() if needs_port else 0
            self._spawn()
            try:
                self._wait_until_ready()
            except BaseException as error:
                status = self.stop()
                if needs_port and status == CANNOT_LISTEN and isinstance(error, ServerEnded):
                    continue
                raise
            return self
        raise AssertionError("five free ports, and each was taken before the server listened")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Shut down the server, or kill it if it takes too long; return its exit status (negative: the signal)."""
        process = self._running
        if self._is_over:
            return process.wait()
        self._is_over = True
        with mortal(*descendants(process.pid)):
            if process.poll() is None:
                process.send_signal(how)
            try:
                status = process.wait(scaled(DEADLINE))
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for reader in self._readers:
            reader.join(scaled(DEADLINE))
        return status

    def connect(self, path: str = "/", **options: Any) -> Client:
        """Open a WebSocket; options are those of client.connect()."""
        return connect(path, **{"port": self.port, **self.where, **options})

    def refusal(self, path: str = "/", **options: Any) -> Response:
        """Request an upgrade that the server must refuse; return the response."""
        try:
            client = self.connect(path, **options)
        except Refused as refused:
            return refused.response
        client.drop()
        raise AssertionError(f"the upgrade of {path} was granted")

    def get(self, path: str = "/", **options: Any) -> Response:
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> Response:
        """Make a plain HTTP request; options are those of client.request()."""
        return request(method, path, **{"port": self.port, **self.where, **options})

    def wait_for_log(self, regex: str, timeout: float = DEADLINE) -> re.Match[str]:
        """Wait until the log has a match; `^` and `$` match at line ends."""
        pattern = re.compile(regex, re.MULTILINE)
        with self._changed:
            found = self._changed.wait_for(lambda: pattern.search("".join(self._log)), scaled(timeout))
            assert found, f"the log never held {regex!r}:\n{''.join(self._log)}{''.join(self._errors)}"
            return found

    def lose_log(self) -> None:
        """Stop reading stdout: this end of the pipe is closed after the next line, if not before."""
        self._reads_log = False

    def wait_until_log_is_lost(self, timeout: float = DEADLINE) -> None:
        self._readers[0].join(scaled(timeout))
        assert not self._readers[0].is_alive(), "the server wrote nothing after lose_log()"

    def wait(self, timeout: float = DEADLINE) -> int:
        """Wait until the server exits by itself; return its exit status."""
        return self._running.wait(scaled(timeout))

    def send_signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def children(self) -> list[int]:
        """The pids of the server's unreaped children, including those that its spawn server has started."""
        spawners = self.spawn_servers()
        return [pid for parent in (self.pid, *spawners) for pid in children(parent) if pid not in spawners]

    def spawn_servers(self) -> list[int]:
        """The pid of the server's spawn server, if it has one."""
        return [pid for pid in children(self.pid) if SPAWN_SERVER in command_line(pid)]

    def descriptors(self) -> int:
        """The number of the server's open descriptors."""
        return len(_listing(f"/proc/{self.pid}/fd"))

    def accepted(self, client: Client) -> socket.socket:
        """A duplicate of the server's own end of a client's TCP connection (pidfd_getfd), to read its options."""
        their_port = client.stream.sock.getsockname()[1]
        rows = [row.split() for row in _table("tcp")]
        (inode,) = [row[9] for row in rows if _port(row[1]) == self.port and _port(row[2]) == their_port]
        (number,) = [fd for fd, socket_inode in _sockets(self.pid) if socket_inode == inode]
        process = os.pidfd_open(self.pid)
        try:
            duplicate = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, process, number, 0)
        finally:
            os.close(process)
        if duplicate < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        return socket.socket(fileno=duplicate)

    @property
    def _running(self) -> subprocess.Popen[bytes] | Forked:
        assert self._process is not None, "the server was not started"
        return self._process

    def _spawn(self) -> None:
        listen = [word.replace("{port}", str(self.port)) for word in self._listen]
        self._log.clear()
        self._errors.clear()
        self._is_over = False
        self._process = forkserver.start(
            [*self._prefix, *self.bridge.command, *listen, *self.words],
            cwd=self._cwd,
            env=self._env,
            # A group of its own, so that processes that websocketd leaves behind can be found and killed.
            start_new_session=True,
        )
        pipes = ((self._process.stdout, self._log), (self._process.stderr, self._errors))
        self._readers = [Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[bytes], lines: list[str]) -> None:
        with open(pipe.fileno(), encoding="utf-8", errors="backslashreplace", closefd=False) as text, pipe:
            for line in text:
                with self._changed:
                    lines.append(line)
                    self._changed.notify_all()
                if lines is self._log and not self._reads_log:
                    return

    def _wait_until_ready(self) -> None:
        """Wait for the announcement and for the listening socket itself, which websocketd opens later."""
        wait_until(self._announced_port, "the server's announcement", START_DEADLINE)
        unix = self.where.get("unix")
        if unix is None:
            self.port = self.port or self._announced_port()
        wait_until(lambda: self._is_alive() and listens(self.pid, unix or self.port), "the server's listening socket", START_DEADLINE)

    def _announced_port(self) -> int:
        self._is_alive()
        if "unix" in self.where:
            return listens(self.pid, self.where["unix"])
        found = re.search(ANNOUNCEMENT, self.log)
        return int(found[1]) if found else 0

    def _is_alive(self) -> bool:
        status = self._running.poll()
        if status is not None:
            for reader in self._readers:
                reader.join(scaled(DEADLINE))
            raise ServerEnded(f"the server ended with {status}:\n{self.log}{self.errors}")
        return True

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class ServerEnded(AssertionError):
    """The server exited before it was ready."""


def run(
    *words: str,
    bridge: Bridge = WSBRIDGE,
    cwd: str | Path | None = None,
    env: Mapping[str, str | None] | None = None,
    timeout: float = DEADLINE,
) -> subprocess.CompletedProcess[str]:
    """Run a command line that must exit by itself; return its status, stdout and stderr."""
    done = forkserver.run([*bridge.command, *words], timeout=scaled(timeout), cwd=cwd, env=environment(env or {}))
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment with changes (None removes a variable), in which wsbridge can be imported from any directory.

    The developer's own settings of wsbridge are removed. Tests may use any host name for their server; the tests of the check for host
    names remove WSBRIDGE_HOST.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("WSBRIDGE_")}
    merged = {**own, "PYTHONPATH": str(ROOT), "WSBRIDGE_HOST": "*", **changes}
    return {name: value for name, value in merged.items() if value is not None}


def wait_until(condition: Callable[[], Any], what: str, timeout: float = DEADLINE, progress: Callable[[], Any] = lambda: None) -> Any:
    """Poll until the condition holds, for state that only polling shows; return its value.

    With `progress`, the deadline counts from the last change of its value: work with progress may take any time.
    """
    deadline, before = Deadline(timeout), None
    while not (value := condition()):
        if (now := progress()) != before:
            before = now
            deadline.restart()
        assert not deadline.has_passed(), f"waited {timeout} s in vain for {what}"
        time.sleep(0.005)
    return value


def write_to_fifo(fifo: Path, line: str) -> None:
    """Write a line to a program as soon as it opens the named pipe for reading."""

    def maybe_open() -> int | None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    # Above 0, so that it counts as true: 0, 1 and 2 are open.
    descriptor = wait_until(maybe_open, "a reader of the named pipe")
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def wait_for_exit(pid: int, timeout: float = DEADLINE) -> float:
    """Wait until a process, which may be no child of this process, has ended; return its time.monotonic()."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            ended, _, _ = select.select([descriptor], [], [], scaled(timeout))
        finally:
            os.close(descriptor)
        assert ended, f"process {pid} is still alive after {timeout} s: {command_line(pid)}"
    return time.monotonic()


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    return state(pid) not in {"Z", "X", ""}


def state(pid: int) -> str:
    """The state letter of a process, empty if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> list[int]:
    """The pids of a process's children, including zombies; none if the process has exited."""
    found: list[int] = []
    for task in _listing(f"/proc/{pid}/task"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def descendants(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from descendants(child)


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def memory_peak(pid: int) -> int:
    """The peak resident memory of a process, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def free_port() -> int:
    """Return a free port of 127.0.0.1, from the range of this test process.

    The ranges lie below the kernel's default range for outgoing connections (32768 to 60999). If a client connects to an unused port of
    the kernel's range, the kernel may select the same port as the client's own, and the client connects to itself. Up to eight test
    processes have different ranges, and each begins at a random port, so that two runs at the same time seldom select the same ports.
    The function returns each port of the range once before it returns one again: the caller may not listen on its port yet.
    """
    for port in _ports():
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError


@cache
def _ports() -> Iterator[int]:
    """Return the ports of this process without end, from a random start: another run of the tests may be in progress."""
    ports = PORTS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % len(PORTS)]
    return islice(cycle(ports), secrets.randbelow(len(ports)), None)


def listens(pid: int, where: int | str | Path) -> bool:
    """Return whether a socket of this process listens on a TCP port or a Unix path, according to the kernel."""
    if isinstance(where, int):
        rows = [row.split() for table in ("tcp", "tcp6") for row in _table(table)]
        inodes = {row[9] for row in rows if row[3] == "0A" and _port(row[1]) == where}
    else:
        rows = [row.split() for row in _table("unix")]
        inodes = {row[6] for row in rows if len(row) > 7 and int(row[3], 16) & 0x10000 and row[7] == str(where)}
    return not inodes.isdisjoint(inode for _, inode in _sockets(pid))


@contextmanager
def mortal(*pids: int) -> Iterator[None]:
    """Kill these processes at the end of the block, however it ends.

    The block holds them by pidfd, which never refers to another process, whereas a process ID may.
    """
    descriptors: list[int] = []
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(pid))
        yield
    finally:
        for descriptor in descriptors:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)


def _table(name: str) -> list[str]:
    path = Path(f"/proc/net/{name}")
    return path.read_text().splitlines()[1:] if path.exists() else []


def _port(address: str) -> int:
    """The port of an address in the format of /proc/net/tcp, `0100007F:1F90`."""
    return int(address.rpartition(":")[2], 16)


def _sockets(pid: int) -> Iterator[tuple[int, str]]:
    """The sockets of a process: descriptor and inode."""
    for number in _listing(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            if target.startswith("socket:["):
                yield int(number), target[8:-1]


def _listing(path: str) -> list[str]:
    """The names in a process's folder; none if the process has exited, or is a zombie of another user."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
