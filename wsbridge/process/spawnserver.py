"""The server's end of the spawn server: programs start in another process, while the event loop continues to serve.

spawnd.py is the other end, and explains why. The server replaces a spawn server that has exited or hangs, and new programs wait for the
replacement. If they started directly, a program that hangs in its exec would stop the loop. If no spawn server can be started,
`Spawner` starts the programs.
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsbridge.errors import ProgramError
from wsbridge.logs import logger
from wsbridge.metrics import Metrics
from wsbridge.process.inherited import DEFAULTED
from wsbridge.process.spawn import Spawner, Started, Stdio, explain, explain_start, reap, watch
from wsbridge.process.spawnd import EXIT, EXITS, MESSAGE_BYTES, REPLY, REQUEST

SCRIPT = str(Path(__file__).with_name("spawnd.py"))
RESTART_PAUSE = 1.0
"""Seconds before a dead spawn server is replaced, or another attempt is made."""
END_SECONDS = 1.0
"""Seconds for a spawn server to exit by itself; it first ends the programs that it is just starting."""
LAUNCH_SECONDS = 30.0
"""Seconds without an answer after which a spawn server counts as hung, for example in an exec from a dead network file system. It
is then replaced."""
STARTING = 8
"""Programs that start at the same time before further programs wait: enough to keep both processes busy."""
REPLIES_A_TURN = 8
"""Replies that are read in one turn of the loop: each begins or ends a session, and other clients wait meanwhile."""
MESSAGE_SIZE = max(REPLY.size, 1 + EXITS * EXIT.size)
"""Bytes of the longest message from the spawn server."""

log = logger("process")


@dataclass(slots=True)
class _Start:
    """A program that is being started."""

    path: str
    started: asyncio.Future[Started]


class _Program:
    """A program that runs, or whose exit has not been reported yet."""

    __slots__ = ("_done", "_loop", "_status", "is_killed")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.is_killed = False
        """Whether it was killed as soon as it ran, because its start had been cancelled."""
        self._status: int | None = None
        self._done: Callable[[int], None] | None = None

    def watch(self, done: Callable[[int], None]) -> None:
        self._done = done
        if self._status is not None:
            self._loop.call_soon(done, self._status)

    def exited(self, status: int) -> None:
        self._status = status
        if self._done is not None:
            self._done(status)


class SpawnServer:
    """Starts programs in another process, which reaps them."""

    def __init__(
        self,
        direct: Spawner,
        metrics: Metrics,
        *,
        loop: asyncio.AbstractEventLoop,
        launch_seconds: float = LAUNCH_SECONDS,
        restart_pause: float = RESTART_PAUSE,
    ) -> None:
        self._direct = direct
        self._metrics = metrics
        self._loop = loop
        self._launch_seconds = launch_seconds
        self._restart_pause = restart_pause
        self._socket: socket.socket | None = None
        self._pidfd = -1
        self._last_id = 0
        self._starting: dict[int, _Start] = {}
        self._programs: dict[int, _Program] = {}
        """The programs that run, by pid."""
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        """Requests, and the descriptors that belong to them, which this process closes once they are sent."""
        self._is_direct = False
        """Whether no spawn server could be started."""
        self._restart_timer: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._due: set[int] = set()
        """The requests whose answers are due at the next check of the watchdog."""
        self._ping = 0
        """The id of the P request that has no answer yet, or 0."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.pid = 0
        self.on_room: Callable[[], None] = lambda: None
        """Called when there may be room to start another program."""
        self._open()

    @property
    def pending(self) -> int:
        """How many programs are being started."""
        return len(self._starting)

    @property
    def has_room(self) -> bool:
        """Whether another program should be started now; `spawn` does not check this."""
        return (self._socket is not None or self._is_direct) and len(self._starting) < STARTING and not self._waiting

    async def room(self) -> None:
        """Wait for room; callers continue in the order of their calls."""
        if not self.has_room:
            turn: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(turn)
            await turn

    def spawn(
        self, argv: tuple[str, ...], environment: Mapping[str, str], stdio: Stdio, *, cwd: str | None = None
    ) -> asyncio.Future[Started]:
        """Start `argv[0]`, a path, as `Spawner.spawn` does. The future raises ProgramError; its cancellation ends the program."""
        started: asyncio.Future[Started] = self._loop.create_future()
        fds = list(stdio.theirs)
        try:
            if self._socket is None and self._is_direct:
                fds.clear()
                started.set_result(self._direct.spawn(argv, environment, stdio, cwd=cwd))
                return started
            if self._socket is None:
                raise ProgramError(f"{explain_start(argv[0])}: the spawn server has died")
            payload = _payload(argv, environment, cwd or "")
            is_large = len(payload) > MESSAGE_BYTES
            if is_large:
                fds.append(_file(payload))
        except (OSError, ValueError, ProgramError) as error:
            for fd in fds:
                os.close(fd)
            started.set_exception(error if isinstance(error, ProgramError) else ProgramError(explain(argv[0], error)))
            return started
        self._starting[self._next_id()] = _Start(argv[0], started)
        if self._watchdog is None:
            self._due = {self._last_id}
            self._watchdog = self._loop.call_later(self._launch_seconds, self._check_answers)
        self._send(REQUEST.pack(b"S", self._last_id, len(argv), len(environment), is_large) + (b"" if is_large else payload), fds)
        return started

    def close(self) -> None:
        """End the spawn server. The caller owns the programs that run; programs that are being started are ended."""
        if self._restart_timer is not None:
            self._restart_timer.cancel()
        if self._socket is not None:
            for start in self._starting.values():
                start.started.cancel()
            self._shut()

    # The spawn server's process

    def _open(self) -> None:
        self._restart_timer = None
        try:
            self._connect()
        except OSError as error:
            if not self._is_direct:
                log.error("cannot start the spawn server: %s; until it starts, the server starts programs directly", error)
            self._is_direct = True
            self._restart_timer = self._loop.call_later(self._restart_pause, self._open)
        else:
            self._is_direct = False
        self._make_room()

    def _connect(self) -> None:
        """Start a spawn server. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            signals = [str(int(number)) for number in DEFAULTED]
            with theirs:
                self.pid = self._direct.helper([sys.executable, "-I", "-S", SCRIPT, *signals], theirs.fileno())
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise
        except OSError:
            ours.close()
            raise
        self._socket = ours
        self._loop.add_reader(ours.fileno(), self._read)
        self._loop.add_reader(self._pidfd, self._died)

    def _died(self) -> None:
        if self._socket is None:
            return
        log.error("the spawn server (pid %d) has died; the server replaces it in %g s", self.pid, self._restart_pause)
        self._metrics.spawn_server_restarts += 1
        self._shut()
        self._restart_timer = self._loop.call_later(self._restart_pause, self._open)

    def _shut(self) -> None:
        """End the process. Unfinished starts fail.

        From now on this process reaps the running programs, as far as they are its children.
        """
        assert self._socket is not None
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        self._ping = 0
        # Read the remaining replies, so that no started program is lost.
        while self._read():
            pass
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._loop.remove_reader(self._pidfd)
        self._socket.close()
        self._socket = None
        has_ended = select.poll()
        has_ended.register(self._pidfd, select.POLLIN)
        if not has_ended.poll(END_SECONDS * 1000):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        for _, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()
        starting, self._starting = self._starting, {}
        for start in starting.values():
            self._failed(start, f"{explain_start(start.path)}: the spawn server has died")
        programs, self._programs = self._programs, {}
        for pid, program in programs.items():
            self._adopt(pid, program)

    def _adopt(self, pid: int, program: _Program) -> None:
        """Watch a program whose spawn server has died: this process is the subreaper of the spawn server's children."""
        if program.is_killed:
            reap(pid)
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            # The spawn server reaped the program, and died before it reported the exit.
            self._loop.call_soon(program.exited, reap(pid))
        else:
            watch(pid, pidfd, program.exited)

    def _check_answers(self) -> None:
        """Replace a spawn server that has not answered requests from before the last check."""
        self._watchdog = None
        if self._due & {*self._starting, self._ping}:
            text = "the spawn server (pid %d) has not answered for %g s; the server replaces it"
            log.error(text, self.pid, self._launch_seconds)
            os.kill(self.pid, signal.SIGKILL)
        elif self._starting or self._programs:
            # Ping it while programs run, too: a spawn server that hangs does not report exits either.
            self._ping = self._next_id()
            self._send(REQUEST.pack(b"P", self._ping, 0, 0, 0), [])
            self._due = {*self._starting, self._ping}
            self._watchdog = self._loop.call_later(self._launch_seconds, self._check_answers)

    # Messages

    def _next_id(self) -> int:
        self._last_id = self._last_id % 0xFFFFFFFF + 1
        return self._last_id

    def _send(self, message: bytes, fds: list[int]) -> None:
        self._unsent.append((message, fds))
        if len(self._unsent) == 1 and not self._flush():
            assert self._socket is not None
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _writable(self) -> None:
        if self._flush() and self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())

    def _flush(self) -> bool:
        """Send the waiting requests; return whether none is left."""
        assert self._socket is not None
        while self._unsent:
            message, fds = self._unsent[0]
            try:
                self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else ())
            except BlockingIOError:
                return False
            except OSError as error:
                # Too many descriptors are in flight. Any other error means that the spawn server has died; its pidfd reports that.
                return error.errno != errno.ETOOMANYREFS
            self._unsent.popleft()
            for fd in fds:
                os.close(fd)
        return True

    def _read(self) -> bool:
        """Handle a few replies; return whether there may be more."""
        for _ in range(REPLIES_A_TURN):
            if self._socket is None:
                return False
            try:
                message = self._socket.recv(MESSAGE_SIZE)
            except OSError:
                return False
            if not message:
                self._loop.remove_reader(self._socket.fileno())
                return False
            if message.startswith(b"E"):
                for pid, status in EXIT.iter_unpack(message[1:]):
                    self._programs.pop(pid).exited(status)
                return True
            kind, number, pid, error = REPLY.unpack(message)
            if kind == b"S":
                self._started(self._starting.pop(number), pid, error)
            else:
                self._ping = 0
        return True

    def _started(self, start: _Start, pid: int, error: int) -> None:
        if error:
            self._failed(start, explain(start.path, OSError(error, os.strerror(error))))
        else:
            program = self._programs[pid] = _Program(self._loop)
            if start.started.cancelled():
                program.is_killed = True
                os.killpg(pid, signal.SIGKILL)
            else:
                start.started.set_result(Started(pid, program.watch))
        self._make_room()

    def _make_room(self) -> None:
        """Wake as many waiting callers as there is room for."""
        woken = 0
        while self._waiting and woken < STARTING - len(self._starting):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                woken += 1
        if woken and self._waiting:
            # Check again after the woken callers have run. A caller whose client has disconnected does not start its program.
            self._loop.call_soon(self._make_room)
        self.on_room()

    def _failed(self, start: _Start, reason: str) -> None:
        if not start.started.cancelled():
            start.started.set_exception(ProgramError(reason))


def _payload(argv: tuple[str, ...], environment: Mapping[str, str], cwd: str) -> bytes:
    """Return the strings of a request. Raises ValueError for a string that the system cannot represent."""
    if "=" in "".join(environment):
        raise ValueError("illegal environment variable name")
    strings = "\0".join((cwd, *argv, *[f"{name}={value}" for name, value in environment.items()]))
    if strings.count("\0") != len(argv) + len(environment):
        raise ValueError("embedded null byte")
    return strings.encode("utf-8", "surrogateescape")


def _file(payload: bytes) -> int:
    fd = os.memfd_create("wsbridge-request")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(payload)
    except BaseException:
        os.close(fd)
        raise
    return fd
