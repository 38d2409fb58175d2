"""Start wsbridge without loading it again: a fork server loads the modules once, and forks a process for each start.

Loading Python and the libraries takes 0.4 s of processor time, and the tests start wsbridge two thousand times. A forked process runs
the same module as `python -m wsbridge`, with its own arguments, environment, folder, descriptors and session, and exits as Python does.
It differs in two points: /proc shows the command line of the fork server, and the fork server is its parent.

A fork cannot receive the variables that Python, the C library or another library reads when it is loaded. A test that changes such a
variable, ignores or blocks a signal, or puts a command before the command line, gets a real start. The tests of the command line
(tests/cli/test_main.py) start Python themselves.
"""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from threading import Lock
from typing import IO, Any

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "wsbridge")

LARGEST = 64 * 1024
"""The most bytes of a request. A socket accepts so many as one message; a process with longer arguments gets a real start."""

AT_LOAD = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_", "GLIBC_", "AIOHTTP_", "SSL_")
"""Prefixes of the variables that are read when a process starts, or when a library is loaded."""

Stream = int | IO[Any]


@dataclass(frozen=True, slots=True)
class Request:
    """The properties of a process to fork. Its stdin, stdout and stderr are sent as descriptors with the request."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    umask: int
    has_own_session: bool


class Forked:
    """A process of the fork server, with the attributes and methods of subprocess.Popen; its pipes are binary and unbuffered."""

    def __init__(self, request: bytes, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        self.returncode: int | None = None
        inside, self.stdin = _ends(stdin, 0, "wb")
        outside, self.stdout = _ends(stdout, 1, "rb")
        errors, self.stderr = _ends(stderr, 2, "rb")
        self._lock = Lock()
        asked, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs = [inside, outside, errors, answers.detach()]
        try:
            socket.send_fds(_fork_server(), [request], theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        number, descriptors, _, _ = socket.recv_fds(asked, 100, 1)
        self._status = asked.detach()
        assert number, "the fork server has ended"
        self.pid = int(number)
        (self._pidfd,) = descriptors

    def poll(self) -> int | None:
        """Return the exit status, or minus the signal that the process died of; None while it lives."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process; return what poll() then returns."""
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(COMMAND, timeout or 0)
        with self._lock:
            if self.returncode is None:
                self.returncode = int(os.read(self._status, 100))
                self._close()
            return self.returncode

    def send_signal(self, number: int) -> None:
        with self._lock, suppress(ProcessLookupError):
            if self.returncode is None:
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _close(self) -> None:
        os.close(self._status)
        os.close(self._pidfd)

    def __del__(self) -> None:
        if self.returncode is None:
            self._close()


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.PIPE,
    stderr: Stream = subprocess.PIPE,
    cwd: str | Path | None = None,
    start_new_session: bool = False,
) -> subprocess.Popen[bytes] | Forked:
    """Start a command line as subprocess.Popen does, by a fork where it is wsbridge's; the pipes are binary and unbuffered."""
    if tuple(command[:3]) == COMMAND and _at_load(env) == _at_load(own_environment()) and not _passes_on_signals():
        request = pickle.dumps(Request(tuple(command[3:]), dict(env), str(cwd or os.getcwd()), _umask(), start_new_session))
        if len(request) <= LARGEST:
            return Forked(request, stdin, stdout, stderr)
    return subprocess.Popen(
        command, bufsize=0, env=env, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, start_new_session=start_new_session
    )


def run(
    command: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str],
    data: bytes | None = None,
    cwd: str | Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command line that must end by itself, as subprocess.run does; `data` is all of its stdin."""
    process = start(command, stdin=subprocess.DEVNULL if data is None else subprocess.PIPE, env=env, cwd=cwd)
    with ThreadPoolExecutor(3) as pool:
        feeding = pool.submit(_feed, process.stdin, data or b"")
        outside, errors = pool.submit(_drain, process.stdout), pool.submit(_drain, process.stderr)
        try:
            status = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        feeding.result()
        return subprocess.CompletedProcess(command, status, outside.result(), errors.result())


def _feed(pipe: IO[bytes] | None, data: bytes) -> None:
    if pipe is not None:
        with pipe, suppress(BrokenPipeError):
            while data:
                data = data[pipe.write(data) :]


def _drain(pipe: IO[bytes] | None) -> bytes:
    assert pipe is not None
    with pipe:
        return pipe.read()


def own_environment() -> dict[str, str]:
    """This process's environment, in which wsbridge can be imported from any folder."""
    return os.environ | {"PYTHONPATH": str(ROOT)}


def _at_load(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_LOAD)}


def _passes_on_signals() -> bool:
    """Whether this process ignores a signal that Python does not ignore itself, or blocks a signal: a child would inherit that."""
    if signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        return True
    return any(signal.getsignal(number) == signal.SIG_IGN for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ})


def _umask() -> int:
    """Return the umask of this process. os.umask() cannot read it without setting it."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))


def _ends(stream: Stream, number: int, mode: str) -> tuple[int, IO[bytes] | None]:
    """Return the descriptor of the new process, which the caller closes, and the own end of the pipe if the stream is one."""
    if stream == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    if stream != subprocess.PIPE:
        return os.dup(stream if isinstance(stream, int) else stream.fileno()), None
    reading, writing = os.pipe()
    theirs, ours = (reading, writing) if number == 0 else (writing, reading)
    return theirs, open(ours, mode, buffering=0)


@cache
def _fork_server() -> socket.socket:
    """Start the fork server of this process. It ends when this process ends, and kills all processes that it started."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env=own_environment(),
            # Ctrl-C signals the foreground process group, and pytest alone handles it.
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def load() -> None:
    """Import all modules of wsbridge except its programs, including the modules that it imports on demand."""
    import wsbridge

    for module in walk_packages(wsbridge.__path__, "wsbridge."):
        if module.name.rpartition(".")[2] not in {"__main__", "spawnd"}:
            import_module(module.name)


def serve(requests: socket.socket) -> None:
    """Fork a process for each request, and return in that process. When the socket closes, kill all processes and raise SystemExit."""
    living: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready in select.select([requests, *living], [], [])[0]:
            if ready is not requests:
                pid, answers = living.pop(ready)
                _, status = os.waitpid(pid, 0)
                with suppress(OSError):
                    answers.send(str(os.waitstatus_to_exitcode(status)).encode())
                answers.close()
                os.close(ready)
                continue
            data, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 4)
            if not data:
                for pidfd in living:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                sys.exit()
            request = pickle.loads(data)
            ready, becoming = os.pipe()
            pid = os.fork()
            if not pid:
                for own in (requests, *(answers for _, answers in living.values())):
                    # become() closes all descriptors, so no socket object may close a reused number later.
                    own.detach()
                become(request, descriptors[:3], becoming)
                return
            answers = socket.socket(fileno=descriptors.pop())
            for descriptor in (*descriptors, becoming):
                os.close(descriptor)
            # subprocess.Popen returns after the exec. In the same way, answer only after become() has finished.
            os.read(ready, 1)
            os.close(ready)
            pidfd = os.pidfd_open(pid)
            living[pidfd] = pid, answers
            with suppress(OSError):
                socket.send_fds(answers, [str(pid).encode()], [pidfd])


def become(request: Request, streams: Sequence[int], becoming: int) -> None:
    """Apply the request to a forked process, then close `becoming`, so that the fork server knows that the process is ready."""
    if request.has_own_session:
        os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != becoming:
            with suppress(OSError):
                os.close(descriptor)
    os.umask(request.umask)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv[1:] = request.arguments
    sys.path[0] = os.getcwd()
    os.close(becoming)


if __name__ == "__main__":
    gc.disable()
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("wsbridge", run_name="__main__", alter_sys=True)
