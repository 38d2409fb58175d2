"""An event stream's protocol without a socket: the test controls the clock, and a fake transport whose client accepts bytes on request."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from tests.support.clock import Clock
from tests.support.proc import turns
from wsbridge.flow import NULL_SOURCE, CallbackSink, End, Memory
from wsbridge.metrics import Metrics
from wsbridge.peers.eventstream import CLOSE_WAIT, COMMENT, EventStream
from wsbridge.settings import ClientSettings


class Timers(Clock):
    """The timers of a fake loop, and the futures of the running loop."""

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()


class Transport:
    """Holds every byte that its client has not accepted, with asyncio's rules for a full buffer and for the close."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.protocol: EventStream | None = None
        self.sock: socket.socket | None = None
        self.writes: list[tuple[float, bytes]] = []
        self.buffered = 0
        self.high = 0
        self.is_full = self.is_closed = False
        self.aborted_at: float | None = None

    def get_extra_info(self, name: str) -> object:
        return self.sock if name == "socket" else None

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes) -> None:
        self.writes.append((self._clock.now, data))
        self.buffered += len(data)
        if self.buffered > self.high and not self.is_full:
            self.is_full = True
            assert self.protocol is not None
            self.protocol.pause_writing()

    def accept(self, count: int) -> None:
        """Let the client accept bytes. asyncio's low-water mark is a quarter of the high-water mark."""
        self.buffered -= count
        if self.is_full and self.buffered <= self.high // 4:
            self.is_full = False
            assert self.protocol is not None
            self.protocol.resume_writing()

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True
        self.aborted_at = self._clock.now


class Stream:
    """An event stream that has joined a sink: `ends` is the list of ends that the sink received, `source` is the fan-out's side."""

    def __init__(self, *, sock: socket.socket | None = None, joins: bool = True, unsent_bytes: int = 0, **settings: Any) -> None:
        self.clock = Timers()
        self.transport = Transport(self.clock)
        self.transport.sock = sock
        self.metrics = Metrics()
        self.source = Memory()
        self.ends: list[End] = []
        transport, loop = self.transport, self.clock
        values: dict[str, Any] = {"ping": 0, "write_timeout": 60.0, "send_buffer": 100, **settings}
        self.client = EventStream(
            self.any(transport),
            settings=ClientSettings(**values),
            unsent_bytes=unsent_bytes,
            metrics=self.metrics,
            fields={"id": "7"},
            loop=self.any(loop),
        )
        self.transport.protocol = self.client
        if joins:
            self.join()

    @staticmethod
    def any(fake: object) -> Any:
        return fake

    def join(self) -> None:
        self.client.source = self.source
        self.client.join(CallbackSink(lambda batch: None, self.ends.append))

    @property
    def sent(self) -> list[bytes]:
        return [data for _, data in self.transport.writes]


# Events


def test_take() -> None:
    """The client receives events as they come, and `take` returns whether the transport has room for more."""
    one = Stream()
    assert one.client.deliver(b"data: 1\n\n")
    assert not one.client.deliver(b"x" * 100)
    one.client.send(b"data: 3\n\n")
    assert one.sent == [b"data: 1\n\n", b"x" * 100, b"data: 3\n\n"]


@pytest.mark.parametrize(("setting", "high"), [(0, 1), (1, 1), (4096, 4096)])
def test_buffer_limit(setting: int, high: int) -> None:
    """The transport buffers as many bytes as the setting allows, and at least one, since TLS treats a limit of 0 as full."""
    assert Stream(send_buffer=setting).transport.high == high


@pytest.mark.parametrize(("unsent", "is_limited"), [(0, False), (16384, True)])
def test_unsent_limit(unsent: int, is_limited: bool) -> None:
    """The stream limits the unsent bytes in the kernel if the settings name a limit."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        before = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        Stream(sock=sock, unsent_bytes=unsent)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == (unsent if is_limited else before)


def test_input() -> None:
    """The stream ignores all bytes from the client, and a client that ends its output ends the connection."""
    one = Stream()
    one.client.data_received(b"GET / HTTP/1.1\r\n\r\n")
    one.client.pause()
    one.client.resume()
    assert (one.sent, one.ends, one.client.received) == ([], [], 0)
    assert one.client.eof_received() is False


# Comments


def test_comments() -> None:
    """The server sends one comment in each interval, whether events flow or not."""
    one = Stream(ping=25)
    one.clock.turn_to(24.9)
    assert one.sent == []
    one.clock.turn_to(30)
    one.client.deliver(b"data: 1\n\n")
    one.clock.turn_to(80)
    assert one.transport.writes == [(25, COMMENT), (30, b"data: 1\n\n"), (50, COMMENT), (75, COMMENT)]


def test_comment_is_no_event() -> None:
    """A comment is a comment line and a blank line, which dispatch no event (HTML, section 9.2.6)."""
    assert COMMENT.startswith(b":")
    assert COMMENT.endswith(b"\n\n")
    assert all(line.startswith(b":") or not line for line in COMMENT.split(b"\n"))


def test_no_comments() -> None:
    """With an interval of 0, the server sends no comments."""
    one = Stream(ping=0)
    one.clock.turn_to(1e6)
    assert (one.sent, one.clock.timers) == ([], [])


def test_no_comments_while_full() -> None:
    """The server sends no comment while the transport is full, and continues at the interval when there is room again."""
    one = Stream(ping=1, write_timeout=0)
    one.client.deliver(b"x" * 101)
    one.clock.turn_to(3.5)
    assert one.sent == [b"x" * 101]
    one.transport.accept(101)
    one.clock.turn_to(5.5)
    assert one.transport.writes[1:] == [(4, COMMENT), (5, COMMENT)]


def test_no_comments_after_the_end() -> None:
    """The server sends no comment after the connection is lost, and leaves no timer."""
    one = Stream(ping=1)
    one.client.deliver(b"x" * 101)
    one.client.connection_lost(None)
    one.clock.turn_to(1e4)
    assert one.sent == [b"x" * 101]
    assert [timer for timer in one.clock.timers if not timer.is_cancelled] == []


# Backpressure


def test_full_and_not_full() -> None:
    """A full transport pauses the source of events, and a transport with room resumes it."""
    one = Stream()
    one.client.deliver(b"x" * 100)
    assert not one.source.paused
    one.client.deliver(b"x")
    assert one.source.paused
    one.transport.accept(60)
    assert one.source.paused
    one.transport.accept(40)
    assert not one.source.paused
    assert one.client.deliver(b"x")


def test_full_before_the_join() -> None:
    """A transport that is full before the join pauses the source at the join."""
    one = Stream(joins=False)
    one.client.deliver(b"x" * 101)
    assert not one.source.paused
    one.join()
    assert one.source.paused
    one.transport.accept(101)
    assert not one.source.paused


def test_room_at_the_join() -> None:
    """A transport with room does not pause the source at the join."""
    one = Stream(joins=False)
    one.client.deliver(b"x" * 101)
    one.transport.accept(101)
    one.join()
    assert not one.source.paused


# The write timeout


def test_client_that_accepts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The server aborts the connection of a client that accepts no data for the write timeout, counts it and logs it."""
    one = Stream()
    with caplog.at_level(logging.INFO, "wsbridge.http"):
        one.clock.turn_to(5)
        one.client.deliver(b"x" * 101)
        one.clock.turn_to(64)
        assert one.transport.aborted_at is None
        one.clock.turn_to(1000)
    assert (one.transport.aborted_at, one.metrics.clients_timed_out) == (65, 1)
    assert [record.getMessage() for record in caplog.records] == ["closing: the client accepted no data for 60 s"]
    assert [record.__dict__["fields"] for record in caplog.records] == [{"id": "7"}]


def test_slow_client() -> None:
    """A client that accepts one byte in each period keeps its connection, although the transport stays full."""
    one = Stream()
    one.client.deliver(b"x" * 1000)
    for period in range(1, 11):
        one.transport.accept(1)
        one.clock.turn_to(60 * period)
    assert (one.source.paused, one.transport.aborted_at) == (True, None)
    one.clock.turn_to(1e4)
    assert one.transport.aborted_at == 660


def test_room_stops_the_timeout() -> None:
    """The write timeout ends when there is room, and begins anew when the transport is full again."""
    one = Stream()
    one.client.deliver(b"x" * 101)
    one.clock.turn_to(59)
    one.transport.accept(101)
    one.clock.turn_to(200)
    assert one.transport.aborted_at is None
    one.client.deliver(b"x" * 101)
    one.clock.turn_to(1e4)
    assert one.transport.aborted_at == 260


def test_no_write_timeout() -> None:
    """With a write timeout of 0, the server waits for a client that accepts nothing."""
    one = Stream(write_timeout=0)
    one.client.deliver(b"x" * 101)
    one.clock.turn_to(1e6)
    assert (one.transport.aborted_at, one.metrics.clients_timed_out) == (None, 0)


def test_nothing_is_full() -> None:
    """A client for which less than a full buffer waits has no write timeout."""
    one = Stream()
    one.client.deliver(b"x" * 100)
    one.clock.turn_to(1e6)
    assert one.transport.aborted_at is None


# The close


@pytest.mark.parametrize("way", ["close", "end"])
def test_close(way: str) -> None:
    """Closing the stream closes the transport, and sends nothing: an event stream cannot carry a reason."""
    one = Stream()
    if way == "close":
        one.client.close()
    else:
        one.client.end(End(1001, "server is shutting down"))
    assert (one.transport.is_closed, one.transport.aborted_at, one.sent, one.ends) == (True, None, [], [])


@pytest.mark.parametrize("waiting", [0, 50])
def test_close_timeout(waiting: int) -> None:
    """A closing connection that makes no progress is aborted after CLOSE_WAIT; that counts as a timeout if data waits."""
    one = Stream()
    if waiting:
        one.client.deliver(b"x" * waiting)
    one.client.close()
    one.clock.turn_to(CLOSE_WAIT - 0.1)
    assert one.transport.aborted_at is None
    one.clock.turn_to(100)
    assert (one.transport.aborted_at, one.metrics.clients_timed_out) == (CLOSE_WAIT, 1 if waiting else 0)


@pytest.mark.parametrize("send_timeout", [0, 60.0])
def test_close_of_a_full_client(send_timeout: float) -> None:
    """The close replaces the write timeout, or its absence, by CLOSE_WAIT."""
    one = Stream(write_timeout=send_timeout)
    one.client.deliver(b"x" * 101)
    one.clock.turn_to(10)
    one.client.close()
    one.clock.turn_to(100)
    assert one.transport.aborted_at == 10 + CLOSE_WAIT


def test_room_while_closing() -> None:
    """Room in a closing transport does not stop the close timeout."""
    one = Stream()
    one.client.deliver(b"x" * 101)
    one.client.close()
    one.clock.turn_to(1)
    one.transport.accept(90)
    one.clock.turn_to(100)
    assert one.transport.aborted_at == 2 * CLOSE_WAIT


@pytest.mark.parametrize("send_timeout", [0, 60.0])
def test_comment_while_closing(send_timeout: float) -> None:
    """A comment on a closing connection does not lengthen the close timeout, even if the comment makes the transport full."""
    one = Stream(ping=1, write_timeout=send_timeout)
    one.client.deliver(b"x" * 99)
    one.client.close()
    one.clock.turn_to(100)
    assert one.transport.aborted_at == CLOSE_WAIT


def test_close_that_succeeds() -> None:
    """The loss of the connection ends the close timeout: the server does not abort a closed connection."""
    one = Stream()
    one.client.close()
    one.client.connection_lost(None)
    one.clock.turn_to(100)
    assert (one.transport.aborted_at, one.metrics.clients_timed_out) == (None, 0)


# The end of the connection


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_connection_lost(error: Exception | None) -> None:
    """The sink receives one end, without a close frame (1006), when the connection is lost."""
    one = Stream()
    one.client.abort()
    assert one.ends == []
    one.client.connection_lost(error)
    assert one.ends == [End(1006)]


def test_sink_that_closes() -> None:
    """A sink that closes the stream when it receives the end receives no second end."""
    one = Stream(joins=False)

    def end(reason: End) -> None:
        one.ends.append(reason)
        one.client.close()
        one.client.abort()

    one.client.join(CallbackSink(lambda batch: None, end))
    one.client.connection_lost(None)
    assert (one.ends, one.transport.is_closed) == ([End(1006)], False)


def test_lost_before_the_join() -> None:
    """A connection may be lost before a sink has joined."""
    one = Stream(joins=False, ping=1)
    one.client.connection_lost(None)
    one.clock.turn_to(100)
    assert (one.ends, one.sent) == ([], [])


def test_nothing_after_the_loss() -> None:
    """After the loss the stream drops its source, sends no events and ignores every further close."""
    one = Stream()
    one.client.connection_lost(None)
    assert one.client.source is NULL_SOURCE
    one.client.deliver(b"late")
    one.client.end(End(1000))
    one.client.close()
    one.client.abort()
    one.clock.turn_to(100)
    assert (one.sent, one.transport.is_closed, one.transport.aborted_at, one.ends) == ([], False, None, [End(1006)])


def test_timeout_of_a_lost_client() -> None:
    """The loss of a full client's connection ends its write timeout."""
    one = Stream()
    one.client.deliver(b"x" * 101)
    one.client.connection_lost(None)
    assert [timer for timer in one.clock.timers if not timer.is_cancelled] == []
    one.clock.turn_to(1e4)
    assert (one.transport.aborted_at, one.metrics.clients_timed_out) == (None, 0)


async def test_wait_closed() -> None:
    """A caller of `wait_closed` waits until the connection is lost, not only until it is closing."""
    one = Stream()
    waiting = asyncio.create_task(one.client.wait_closed())
    await turns()
    one.client.close()
    await turns()
    assert not waiting.done()
    one.client.connection_lost(None)
    await turns()
    assert waiting.done()


async def test_wait_for_a_lost_connection() -> None:
    """A caller of `wait_closed` does not wait if the connection is already lost."""
    one = Stream()
    one.client.connection_lost(None)
    waiting = asyncio.create_task(one.client.wait_closed())
    await turns()
    assert waiting.done()


async def test_wait_that_is_cancelled() -> None:
    """The loss of the connection follows a cancelled `wait_closed` without an error."""
    one = Stream()
    waiting = asyncio.create_task(one.client.wait_closed())
    await turns()
    waiting.cancel()
    await turns()
    one.client.connection_lost(None)
    assert (waiting.cancelled(), one.ends) == (True, [End(1006)])
