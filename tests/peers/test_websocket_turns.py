"""A client's protocol without a socket: a transport that records calls, and a loop whose clock the test controls."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, cast

import pytest

from tests.wire.peer import BINARY, CONTINUATION, PING, PONG, TEXT, close, frame, message, read_frames
from wsbridge.flow import Batch, CallbackSink, End, Kind
from wsbridge.metrics import Metrics
from wsbridge.peers.websocket import CLOSE_WAIT, PONGS, PROBE_SECONDS, WebSocketPeer
from wsbridge.settings import ClientSettings
from wsbridge.wire.deflate import Deflate, Parameters
from wsbridge.wire.reader import SLOW_FRAME, TURN, unmask

A_PONG = 0x80 | PONG


class Handle:
    """The handle that a loop returns for a callback."""

    def __init__(self, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.function, self.arguments, self.is_cancelled = function, arguments, False

    def cancel(self) -> None:
        self.is_cancelled = True

    def __call__(self) -> None:
        if not self.is_cancelled:
            self.function(*self.arguments)


class Loop:
    """The part of an event loop that a client uses. A turn runs the callbacks that were ready when it began, as asyncio's does."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._number = count()
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, function: Callable[..., object], *arguments: object) -> Handle:
        self._ready.append(Handle(function, arguments))
        return self._ready[-1]

    def call_at(self, when: float, function: Callable[..., object], *arguments: object) -> Handle:
        handle = Handle(function, arguments)
        heapq.heappush(self._timers, (when, next(self._number), handle))
        return handle

    def call_later(self, delay: float, function: Callable[..., object], *arguments: object) -> Handle:
        return self.call_at(self.now + delay, function, *arguments)

    def turn(self) -> bool:
        """Run one turn; return whether a callback was ready."""
        ready, self._ready = self._ready, []
        for handle in ready:
            handle()
        return bool(ready)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and run each timer at its own time."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, handle = heapq.heappop(self._timers)
            handle()
        self.now = end


class Transport:
    """A transport that accepts and records all data."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_reading = True
        self.is_closed = self.is_aborted = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    @property
    def sent(self) -> list[tuple[int, bytes]]:
        """First byte and payload of each frame that was sent."""
        return read_frames(b"".join(self.writes))


class Talk:
    """A client that has joined a sink; the sink records what it receives."""

    def __init__(self, *, compress: bool = False) -> None:
        self.loop, self.transport = Loop(), Transport()
        self.received: list[Batch] = []
        self.ended: End | None = None
        self.client = WebSocketPeer(
            cast("Any", self.transport),
            settings=ClientSettings(ping=0),
            mask=unmask,
            deflate=Deflate(Parameters()) if compress else None,
            hangups=cast("Any", None),
            metrics=Metrics(),
            fields={},
            loop=cast("Any", self.loop),
        )
        self.client.join(CallbackSink(self.received.append, self._end), lambda: None)

    def _end(self, reason: End) -> None:
        self.ended = reason

    @property
    def messages(self) -> int:
        return sum(len(batch.messages) for batch in self.received)


EMPTY_COMPRESSED = frame(b"\0", TEXT, rsv=4)
FLOODS = {
    "text": (frame(b"x"), 1, 1),
    "empty text": (frame(b""), 1, 1),
    "text and binary": (frame(b"x") + frame(b"x", BINARY), 2, SLOW_FRAME),
    "pings": (frame(b"", PING), 0, SLOW_FRAME),
    "pongs": (frame(b"", PONG), 0, SLOW_FRAME),
    "empty fragments": (message(b"", b"", b"", b""), 1, 4 * SLOW_FRAME),
    "pings between fragments": (message(b"", b"", between=frame(b"", PING)), 1, 3 * SLOW_FRAME),
    "empty compressed": (EMPTY_COMPRESSED, 1, SLOW_FRAME),
    "long": (frame(b"x" * 126), 1, SLOW_FRAME),
}
"""One piece of a flood, its number of messages, and its minimum cost."""


@pytest.mark.parametrize(("piece", "messages", "cost"), FLOODS.values(), ids=FLOODS)
def test_flood_takes_turns(piece: bytes, messages: int, cost: int) -> None:
    """The client's data from one read is parsed in bounded portions, one per turn, while reading is paused. No message is lost."""
    talk = Talk(compress=True)
    pieces = 5 * TURN // cost
    talk.client.data_received(piece * pieces + frame(b"last"))
    turns = 1
    while not talk.transport.is_reading:
        assert talk.messages <= turns * (TURN + 1)
        before = talk.messages
        assert talk.loop.turn()
        turns += 1
        assert talk.messages - before <= TURN + 1
    assert turns >= 5
    assert talk.messages == messages * pieces + 1
    assert talk.received[-1].messages[-1] == b"last"
    assert not talk.loop.turn()


def test_few_messages_take_one_turn() -> None:
    """A few hundred messages from one read are one batch, without a delay."""
    talk = Talk()
    talk.client.data_received(frame(b"x" * 64) * 500)
    assert talk.transport.is_reading
    assert [len(batch.messages) for batch in talk.received] == [500]


def test_long_messages_from_one_read_are_one_batch() -> None:
    """Messages of any length from one read are one batch: the server writes to the program once."""
    talk = Talk()
    talk.client.data_received((frame(b"x" * 126) + frame(b"y") + frame(b"z" * 70_000)) * 3)
    assert [(batch.kind, [len(message) for message in batch.messages]) for batch in talk.received] == [(Kind.TEXT, [126, 1, 70_000] * 3)]


def test_flood_waits_for_room() -> None:
    """The rest of a flood waits while the sink is full, and continues when the sink has room. It never uses two callbacks in one turn."""
    talk = Talk()
    talk.client.data_received(frame(b"x") * 5 * TURN)
    for _ in range(10):
        talk.client.pause()
        talk.client.resume()
    talk.client.pause()
    before = talk.messages
    while talk.loop.turn():
        pass
    assert talk.messages == before
    assert not talk.transport.is_reading
    for _ in range(10):
        talk.client.resume()
        talk.client.pause()
    talk.client.resume()
    talk.loop.turn()
    assert talk.messages - before <= TURN + 1
    while talk.loop.turn():
        pass
    assert talk.messages == 5 * TURN
    assert talk.transport.is_reading


def test_flood_and_close() -> None:
    """The server processes a close frame behind a flood after all messages of the flood."""
    talk = Talk()
    talk.client.data_received(frame(b"x") * 3 * TURN + close(1000))
    assert talk.ended is None
    while talk.loop.turn():
        pass
    assert (talk.messages, talk.ended) == (3 * TURN, End(1000))


def test_connection_lost_behind_a_flood() -> None:
    """The sink receives all messages that arrived before the connection was lost, then the end."""
    talk = Talk()
    talk.client.data_received(frame(b"x") * 3 * TURN)
    talk.client.connection_lost(None)
    while talk.loop.turn():
        pass
    assert (talk.messages, talk.ended) == (3 * TURN, End(1006))


def test_answer_behind_a_flood_of_a_client_that_is_lost() -> None:
    """The answer to the server's close frame counts although the connection was lost before it is read."""
    talk = Talk()
    talk.client.data_received(frame(b"x") * 3 * TURN + close(1000))
    talk.client.end(End(1001))
    talk.client.connection_lost(None)
    while talk.loop.turn():
        pass
    assert (talk.messages, talk.ended) == (3 * TURN, End(1000))


def test_few_pings() -> None:
    """The server answers each of a few pings from one read, in order, with one write."""
    talk = Talk()
    talk.client.data_received(b"".join(frame(b"%d" % number, PING) for number in range(10)))
    assert talk.transport.sent == [(A_PONG, b"%d" % number) for number in range(10)]
    assert len(talk.transport.writes) == 1


def test_many_pings() -> None:
    """Of many pings from one read, the server answers the last."""
    talk = Talk()
    talk.client.data_received(b"".join(frame(b"%d" % number, PING) for number in range(100)))
    assert talk.transport.sent == [(A_PONG, b"%d" % number) for number in range(100)[-PONGS:]]
    assert len(talk.transport.writes) == 1


def test_ping_before_a_close() -> None:
    """The server answers a ping before the close frame that follows it."""
    talk = Talk()
    talk.client.data_received(frame(b"a", PING) + close(1000))
    assert [first & 0x0F for first, _ in talk.transport.sent] == [PONG, 8]


def test_pings_of_a_client_that_reads_nothing() -> None:
    """While the transport is full, the server keeps the last ping, and answers it when there is room."""
    talk = Talk()
    talk.client.pause_writing()
    talk.client.data_received(frame(b"a", PING) + frame(b"b", PING))
    assert talk.transport.writes == []
    talk.client.resume_writing()
    assert talk.transport.sent == [(A_PONG, b"b")]


# The unsolicited pong


def test_probe_of_a_client_while_reading_is_paused() -> None:
    """When reading from a client is paused for PROBE_SECONDS, the server sends an unsolicited pong. It repeats this in the same
    interval."""
    talk = Talk()
    talk.client.pause()
    talk.loop.pass_time(PROBE_SECONDS - 0.1)
    assert talk.transport.sent == []
    talk.loop.pass_time(0.2)
    assert talk.transport.sent == [(A_PONG, b"")]
    talk.loop.pass_time(2 * PROBE_SECONDS)
    assert talk.transport.sent == [(A_PONG, b"")] * 3


def test_no_probe_of_a_client_after_short_pauses() -> None:
    """Repeated short pauses of reading cause no unsolicited pong."""
    talk = Talk()
    for _ in range(100):
        talk.client.pause()
        talk.loop.pass_time(PROBE_SECONDS / 7)
        talk.client.resume()
        talk.loop.pass_time(PROBE_SECONDS / 11)
    talk.client.pause()
    talk.loop.pass_time(PROBE_SECONDS / 2)
    assert talk.transport.sent == []
    talk.loop.pass_time(PROBE_SECONDS)
    assert talk.transport.sent == [(A_PONG, b"")]


def test_fragments_are_one_message() -> None:
    """A fragmented message that spans turns is one message."""
    talk = Talk()
    talk.client.data_received(frame(b"a", fin=False) + frame(b"b", CONTINUATION, fin=False) * TURN + frame(b"c", CONTINUATION))
    while talk.loop.turn():
        pass
    assert [bytes(message) for batch in talk.received for message in batch.messages] == [b"a" + b"b" * TURN + b"c"]


# The closing handshake


def test_no_frame_after_the_close_frame() -> None:
    """After its close frame, wsbridge sends no other frame: no message, no pong, no second close frame."""
    talk = Talk()
    talk.client.end(End(1001))
    talk.client.write(Batch(Kind.TEXT, [b"late"]))
    talk.client.deliver(b"\x81\x04late")
    talk.client.data_received(frame(b"", PING))
    talk.client.end(End(1000))
    assert (talk.transport.sent, talk.client.sent) == ([(0x88, (1001).to_bytes(2))], 0)


def test_answer_closes_the_connection() -> None:
    """The client's answer to the close frame closes the connection; a second `end` does not."""
    talk = Talk()
    talk.client.end(End(1001))
    talk.client.end(End(1001))
    assert not talk.transport.is_closed
    talk.client.data_received(close(1001))
    assert talk.transport.is_closed


def test_client_without_an_answer() -> None:
    """wsbridge aborts the connection of a client that does not answer the close frame in time, also if it accepts data again."""
    talk = Talk()
    talk.client.pause_writing()
    talk.client.end(End(1001))
    talk.client.resume_writing()
    talk.loop.pass_time(CLOSE_WAIT - 0.1)
    assert not talk.transport.is_aborted
    talk.loop.pass_time(0.2)
    assert talk.transport.is_aborted


def test_close_wait_begins_with_the_last_byte() -> None:
    """The time for the client's answer begins when all data has been sent; before that, the write timeout applies."""
    talk = Talk()
    talk.transport.unsent = 1000
    talk.client.pause_writing()
    talk.client.end(End(1001))
    talk.transport.unsent = 0
    talk.loop.pass_time(ClientSettings().write_timeout + CLOSE_WAIT - 0.1)
    assert not talk.transport.is_aborted
    talk.loop.pass_time(0.2)
    assert talk.transport.is_aborted
