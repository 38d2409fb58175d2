"""`wsbridge publish` and `subscribe` as processes, between a real server and a real RabbitMQ."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import termios
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha1
from threading import Thread
from typing import IO, Any, Self

import pytest

from tests.support import forkserver
from tests.support.client import DEADLINE, GUID
from tests.support.deadline import scaled
from tests.support.rabbit import Broker, Proxy
from tests.support.server import WSBRIDGE, Bridge, Server, environment, wait_until
from tests.support.site import certificates as certificates

MODULE = ("-m", "wsbridge")
BROADCAST = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "broadcast"), takes_port_zero=True)


class End:
    """A running `wsbridge publish` or `subscribe`; a context manager that ends the process and closes its pipes."""

    def __init__(
        self, *words: str, stdin: Any = subprocess.PIPE, stdout: Any = subprocess.PIPE, python: Sequence[str] = MODULE, **options: Any
    ) -> None:
        self.process = forkserver.start(
            [sys.executable, *python, *words], stdin=stdin, stdout=stdout, env=environment({"COLUMNS": "100"}), **options
        )
        self._errors = bytearray()
        self._reader = Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def errors(self) -> str:
        """All of the process's stderr so far."""
        return self._errors.decode()

    def write(self, data: bytes) -> None:
        """Write all data to the process's stdin."""
        stdin = self._pipe(self.process.stdin)
        while data:
            data = data[stdin.write(data) :]

    def wait_until_read(self) -> None:
        """Wait until the process has read all data in its stdin."""
        stdin = self._pipe(self.process.stdin)
        wait_until(lambda: not any(fcntl.ioctl(stdin, termios.FIONREAD, bytes(4))), "an empty stdin")

    def wait_until_full(self) -> None:
        """Wait until the process's stdout, a pipe, is full."""
        ours = os.open(f"/proc/{self.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
        try:
            wait_until(lambda: not select.select([], [ours], [], 0)[1], "a full stdout")
        finally:
            os.close(ours)

    def close_stdin(self) -> None:
        self._pipe(self.process.stdin).close()

    def fill(self, line: bytes, limit: int) -> int:
        """Write a line again and again until the process reads nothing for 2 s; return the number of bytes that it accepted.

        The process must accept fewer than `limit` bytes. Its reading of the first line shows that it is running.
        """
        self.write(line)
        self.wait_until_read()
        stdin = self._pipe(self.process.stdin)
        block, taken = line * (65536 // len(line)), 0
        os.set_blocking(stdin.fileno(), False)
        while select.select([], [stdin], [], 2.0)[1]:
            taken += stdin.write(block) or 0
            assert taken < limit, f"the process accepted {taken} bytes"
        os.set_blocking(stdin.fileno(), True)
        return taken

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes of the process's stdout, or fewer at its end."""
        data = bytearray()
        while len(data) < size and (got := self._read_some(size - len(data))):
            data += got
        return bytes(data)

    def _read_some(self, size: int = 65536) -> bytes:
        stdout = self._pipe(self.process.stdout)
        assert select.select([stdout], [], [], scaled(DEADLINE * 3))[0], f"no output: {self.errors}"
        return bytes(stdout.read(size))

    def read_until(self, end: bytes) -> bytes:
        """Read until the output ends with these bytes."""
        data = bytearray()
        while not data.endswith(end):
            data += self._read_some()
        return bytes(data)

    def lines(self, count: int) -> list[str]:
        """Read `count` lines of the process's stdout, and no byte more."""
        return [self._line() for _ in range(count)]

    def _line(self) -> str:
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = self.read(1)
            assert byte, f"stdout has ended after {bytes(line)!r}: {self.errors}"
            line += byte
        return line.decode()[:-1]

    def close_stdout(self) -> None:
        self._pipe(self.process.stdout).close()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = DEADLINE * 3) -> int:
        """Wait for the process to end; return its exit status, or the negative number of the signal that killed it."""
        status = self.process.wait(scaled(timeout))
        self._reader.join(scaled(DEADLINE))
        return status

    def wait_for_error(self, words: str) -> None:
        """Wait until the process has printed these words on stderr."""
        wait_until(lambda: words in self.errors or self.process.poll() is not None, f"{words!r} on stderr", DEADLINE * 3)
        assert words in self.errors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(scaled(DEADLINE))
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def _read_errors(self) -> None:
        stderr = self._pipe(self.process.stderr)
        while data := stderr.read(4096):
            self._errors += data

    @staticmethod
    def _pipe(pipe: IO[Any] | None) -> IO[Any]:
        assert pipe is not None
        return pipe


Start = Callable[..., End]


def serve(*words: str, **options: Any) -> Server:
    """Return a broadcast server that is not started yet."""
    return Server("--exchange=talk", *words, bridge=BROADCAST, **options)


def finish(
    *words: str, data: bytes = b"", timeout: float = DEADLINE * 3, env: Mapping[str, str | None] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `publish` or `subscribe` with the whole stdin; return its status, stdout and stderr."""
    return forkserver.run([*WSBRIDGE.command, *words], data=data, timeout=scaled(timeout), env=environment(env or {}))


@contextmanager
def stranger(answer: bytes) -> Iterator[str]:
    """Run a server that answers one request with these bytes; yield its URL. `{accept}` in them becomes the expected
    Sec-WebSocket-Accept."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=_answer, args=(listener, answer))
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            thread.join()


def _answer(listener: socket.socket, answer: bytes) -> None:
    listener.settimeout(scaled(DEADLINE * 3))
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as request:
        connection.settimeout(scaled(DEADLINE * 3))
        while not (line := request.readline()).lower().startswith(b"sec-websocket-key:"):
            assert line
        key = line.partition(b":")[2].strip()
        while request.readline().strip():
            pass
        connection.sendall(answer.replace(b"{accept}", b64encode(sha1(key + GUID).digest())))
        request.read()


def address(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/"


def viewers(server: Server) -> int:
    """Return the number of subscribers of a broadcast."""
    return int(json.loads(server.get("/status").body)["viewers"])


def wait_for_viewers(server: Server, count: int) -> None:
    wait_until(lambda: viewers(server) == count, f"{count} subscribers")


def wait_for_queue(broker: Broker, exchange: str) -> None:
    """Wait until a queue is bound to an exchange: from then on, the broker keeps published messages for the subscriber."""
    wait_until(lambda: exchange in dict(broker.bindings()), "the subscriber's queue", DEADLINE * 3)


def wait_until_confirmed(broker: Broker, proxy: Proxy, before: int) -> None:
    """Wait until the broker has confirmed all published messages, more than `before`, and the proxy has passed the confirms on."""

    def is_confirmed() -> bool:
        published, confirmed = broker.confirms()
        return before < published == confirmed and proxy.brought in broker.sent_bytes()

    wait_until(is_confirmed, "the confirm", DEADLINE * 3)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process: `start("publish", "--url=…")`."""
    with ExitStack() as stack:
        yield lambda *words, **options: stack.enter_context(End(*words, **options))


@pytest.fixture
def exchange() -> str:
    """The name of an exchange that no other test uses."""
    return f"cli.{secrets.token_hex(6)}"
