"""Broadcasts as a user starts them, and strict subscribers: over wsbridge.v1 and over an event stream.

Most tests need a publisher that the test controls. With `--input=exchange`, a WebSocket client is the publisher.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from tests.support.client import Client, Headers, Opcode, Response, Stream, open_stream, replaced, request_bytes
from tests.support.proc import TRANSPORTS
from tests.support.server import Bridge, Server, wait_until
from tests.support.site import Certificates, assert_sound, certificates, transports

__all__ = ["certificates", "transports"]

BROADCAST = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "broadcast"), takes_port_zero=True)
V1 = "wsbridge.v1"
POSITION = re.compile(r"([0-9a-z.]+)-([0-9]+)")

Broadcast = Callable[..., Server]
LISTENERS = ("tcp", "unix", "tls")


@pytest.fixture
def broadcast() -> Iterator[Broadcast]:
    """Starts a broadcast for one test: `broadcast("--input=exchange")`, `broadcast("seq", 10)`."""
    servers: list[Server] = []
    with ExitStack() as stack:

        def start(*words: object, **options: Any) -> Server:
            servers.append(Server("--exchange=temps", *map(str, words), bridge=BROADCAST, **options))
            return stack.enter_context(servers[-1])

        yield start
    for server in servers:
        assert_sound(server)


@pytest.fixture(scope="session", params=[(name, listener) for name in TRANSPORTS for listener in LISTENERS], ids="-".join)
def talk_of_all(request: pytest.FixtureRequest, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A channel on which clients publish, behind each kind of listener and on both kinds of transports."""
    name, listener = request.param
    if name == "aiofastnet":
        pytest.importorskip("aiofastnet")
    flags: tuple[str, ...] = ("--input=exchange", "--maxframesize=100000")
    options: dict[str, Any] = {"env": TRANSPORTS[name]}
    match listener:
        case "unix":
            path = str(tmp_path_factory.mktemp("socket") / "s")
            options |= {"listen": (f"--unixsocket={path}",), "unix": path}
        case "tls":
            flags += certificates.server_flags
            options |= {"tls": certificates.context()}
    with Server("--exchange=talk", *flags, bridge=BROADCAST, **options) as server:
        yield server
    assert_sound(server)


@pytest.fixture
def talk(talk_of_all: Server) -> Iterator[Server]:
    """A channel on which clients publish, without subscribers at the start of a test."""
    wait_for_viewers(talk_of_all, 0)
    yield talk_of_all
    assert_sound(talk_of_all)


class Record(NamedTuple):
    """A record of wsbridge.v1: `message` with its data, `at`, `lost` with its count, or `broker` with its state."""

    what: str
    data: bytes = b""


class Viewer:
    """A client of wsbridge.v1. It fails on a missing or repeated message without a notice, and adds up the lost messages."""

    def __init__(self, client: Client, position: str | None = None) -> None:
        assert client.subprotocol == V1
        self.client = client
        self.position = position
        self.lost = 0
        self.losses: list[int | None] = []

    def next(self, timeout: float | None = None) -> Record:
        """Return the next record of any kind."""
        message = self.client.receive(timeout)
        if message.data.startswith(b"!"):
            assert message.kind is Opcode.TEXT
            what, *words = message.data.decode()[1:].split(" ")
            match what, words:
                case "at", [position]:
                    assert self.position in (None, position), "the stream begins at another position than the client's last"
                    self.position = position
                case "lost", [position, count]:
                    self._lose(position, None if count == "?" else int(count))
                case _:
                    assert what == "broker"
            return Record(what, words[-1].encode())
        head, newline, data = message.data.partition(b"\n")
        assert newline
        self._follow(head.decode())
        return Record("message", data)

    def message(self, timeout: float | None = None) -> bytes:
        """Return the next message, and skip other records."""
        while (record := self.next(timeout)).what != "message":
            pass
        return record.data

    def messages(self, count: int) -> list[bytes]:
        return [self.message() for _ in range(count)]

    def _follow(self, position: str) -> None:
        if self.position is not None:
            mark, number = split(self.position)
            assert split(position) == (mark, number + 1), f"a gap or a repeat without a notice: {position} after {self.position}"
        self.position = position

    def _lose(self, position: str, count: int | None) -> None:
        if self.position is not None and count is not None:
            mark, number = split(self.position)
            assert split(position) == (mark, number + count), f"{count} lost, and {position} after {self.position}"
        self.losses.append(count)
        self.lost += count or 0
        self.position = position

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.drop()


class Event(NamedTuple):
    """An event, as a browser would dispatch it."""

    kind: str
    data: str
    position: str


class Listener:
    """A client of an event stream, which it parses as HTML's section 9.2.6 specifies. It fails on a missing or repeated message without
    a notice."""

    def __init__(self, stream: Stream, head: Response) -> None:
        self.stream = stream
        self.head = head
        self.position = ""
        self.comments = 0

    def next(self, timeout: float | None = None) -> Event:
        """Return the next event that a browser would dispatch."""
        while True:
            block = self.stream.read_until(b"\n\n", timeout).decode()
            kind, data, before = "message", [], self.position
            for line in block.split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                match name:
                    case "event":
                        kind = value
                    case "data":
                        data.append(value)
                    case "id":
                        self.position = value
                    case "":
                        self.comments += bool(line)
            if data:
                self._check(kind, data, before)
                return Event(kind, "\n".join(data), self.position)

    def data(self, count: int = 1) -> list[str]:
        """Return the data of the next `count` messages."""
        events = [self.next() for _ in range(count)]
        assert all(event.kind == "message" for event in events), events
        return [event.data for event in events]

    def _check(self, kind: str, data: list[str], before: str) -> None:
        if before and kind != "broker" and data != ["?"]:
            mark, number = split(before)
            step = int(data[0]) if kind == "lost" else 1
            assert split(self.position) == (mark, number + step), f"a gap or a repeat without a notice: {self.position} after {before}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stream.close()


def split(position: str) -> tuple[str, int]:
    found = POSITION.fullmatch(position)
    assert found, f"{position!r} is no position"
    return found[1], int(found[2])


def view(server: Server, path: str = "/", *, since: str | None = None, **options: Any) -> Viewer:
    """Join over wsbridge.v1, after a position if there is one."""
    path += f"?since={since}" if since is not None else ""
    return Viewer(server.connect(path, subprotocols=(V1,), **options), since)


def listen(server: Server, path: str = "/events", *, headers: Headers = (), version: str = "HTTP/1.1", **options: Any) -> Listener:
    """Join over an event stream; the response must be 200."""
    stream = open_stream(**{"port": server.port, **server.where, **options})
    try:
        stream.send(request_bytes("GET", path, replaced([("Host", f"127.0.0.1:{server.port}")], headers), version=version))
        head = stream.read_until(b"\r\n\r\n").decode("latin-1").removesuffix("\r\n\r\n")
        status_line, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines)
        response = Response(int(status_line.split(" ")[1]), "", tuple((name, value.strip()) for name, _, value in pairs))
        assert response.status == 200, head
    except BaseException:
        stream.close()
        raise
    return Listener(stream, response)


def status(server: Server) -> dict[str, Any]:
    """Return the content of /status."""
    return json.loads(server.get("/status").body)


def wait_for_viewers(server: Server, count: int) -> None:
    """Wait until the server has this number of subscribers; a client with a response is a subscriber."""
    wait_until(lambda: status(server)["viewers"] == count, f"{count} viewers")


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A named pipe, by which a test lets a program continue."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path
