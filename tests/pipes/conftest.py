"""The two ends of a pipe as processes, between a real server and a real RabbitMQ."""

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
    """A running `wsbridge publish` or `subscribe`, a context manager that leaves nothing of it."""

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
        """All that it has said on stderr so far."""
        return self._errors.decode()

    def say(self, data: bytes) -> None:
        """Write to its stdin all of it."""
        stdin = self._pipe(self.process.stdin)
        while data:
            data = data[stdin.write(data) :]

    def wait_until_read(self) -> None:
        """Wait until it has read all that was written to its stdin."""
        stdin = self._pipe(self.process.stdin)
        wait_until(lambda: not any(fcntl.ioctl(stdin, termios.FIONREAD, bytes(4))), "an empty stdin")

    def wait_until_full(self) -> None:
        """Wait until its stdout, a pipe, takes no more."""
        ours = os.open(f"/proc/{self.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
        try:
            wait_until(lambda: not select.select([], [ours], [], 0)[1], "a full stdout")
        finally:
            os.close(ours)

    def close_stdin(self) -> None:
        self._pipe(self.process.stdin).close()

    def fill(self, line: bytes, limit: int) -> int:
        """Write a line again and again until it takes no more for a moment; return how many bytes it took. `limit` is too many.

        It has to read the first in any case: by that one knows that it has begun.
        """
        self.say(line)
        self.wait_until_read()
        stdin = self._pipe(self.process.stdin)
        block, taken = line * (65536 // len(line)), 0
        os.set_blocking(stdin.fileno(), False)
        while select.select([], [stdin], [], 2.0)[1]:
            taken += stdin.write(block) or 0
            assert taken < limit, f"it has read {taken} bytes"
        os.set_blocking(stdin.fileno(), True)
        return taken

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes of its stdout, fewer only at its end."""
        data = bytearray()
        while len(data) < size and (got := self._read_some(size - len(data))):
            data += got
        return bytes(data)

    def _read_some(self, size: int = 65536) -> bytes:
        stdout = self._pipe(self.process.stdout)
        assert select.select([stdout], [], [], scaled(DEADLINE * 3))[0], f"nothing came: {self.errors}"
        return bytes(stdout.read(size))

    def read_until(self, end: bytes) -> bytes:
        """Read until what was read ends so."""
        data = bytearray()
        while not data.endswith(end):
            data += self._read_some()
        return bytes(data)

    def lines(self, count: int) -> list[str]:
        """Read so many lines of its stdout, and no byte more."""
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
        """Wait for its end; return its exit status, or minus the signal that it died of."""
        status = self.process.wait(scaled(timeout))
        self._reader.join(scaled(DEADLINE))
        return status

    def wait_for_error(self, words: str) -> None:
        """Wait until it has said something on stderr."""
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
    """Return a broadcast that is still to be entered."""
    return Server("--exchange=talk", *words, bridge=BROADCAST, **options)


def finish(
    *words: str, data: bytes = b"", timeout: float = DEADLINE * 3, env: Mapping[str, str | None] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run an end whose stdin is known to its end; return its status, stdout and stderr."""
    return forkserver.run([*WSBRIDGE.command, *words], data=data, timeout=scaled(timeout), env=environment(env or {}))


@contextmanager
def stranger(answer: bytes) -> Iterator[str]:
    """Be a server that answers one request with these bytes, in which `{accept}` becomes what a WebSocket's client looks for; the URL."""
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
    """How many subscribers a broadcast has."""
    return int(json.loads(server.get("/status").body)["viewers"])


def wait_for_viewers(server: Server, count: int) -> None:
    wait_until(lambda: viewers(server) == count, f"{count} subscribers")


def wait_for_queue(broker: Broker, exchange: str) -> None:
    """Wait until a queue is bound to an exchange: what is published from now on is kept for whoever made it."""
    wait_until(lambda: exchange in dict(broker.bindings()), "the subscriber's queue", DEADLINE * 3)


def wait_until_confirmed(broker: Broker, proxy: Proxy, before: int) -> None:
    """Wait until the broker has confirmed all published messages, more than `before`, and the proxy has passed the confirms on."""

    def is_confirmed() -> bool:
        published, confirmed = broker.confirms()
        return before < published == confirmed and proxy.brought in broker.sent_bytes()

    wait_until(is_confirmed, "the confirm", DEADLINE * 3)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts an end: `start("publish", "--url=…")`."""
    with ExitStack() as stack:
        yield lambda *words, **options: stack.enter_context(End(*words, **options))


@pytest.fixture
def exchange() -> str:
    """The name of an exchange that nobody else uses."""
    return f"cli.{secrets.token_hex(6)}"
