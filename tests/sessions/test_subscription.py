"""A subscriber's session, from its join to its close, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from tests.support.proc import ClientTwin, turns, until
from tests.wire.peer import read_frames
from wsbridge.channel.position import Position
from wsbridge.channel.ring import Channel, Join, Slow
from wsbridge.flow import Batch, End, Kind, Memory, Sink
from wsbridge.metrics import Metrics
from wsbridge.sessions.fanin import FanIn
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.registry import Registry
from wsbridge.sessions.subscription import Subscription
from wsbridge.wire.positioned import PlainWire, Positioned, Wire

PLAIN, POSITIONED = PlainWire(), Positioned()


@dataclass(slots=True)
class Twin(ClientTwin):
    """The twin of a connected client: it records the bytes of its wire format, and is full when the test says so."""

    data: list[bytes] = field(default_factory=list)
    full: bool = False

    def send(self, data: bytes) -> None:
        self.data.append(data)
        if self.full:
            self.source.pause()

    def deliver(self, data: bytes) -> bool:
        self.data.append(data)
        return not self.full

    @property
    def frames(self) -> list[bytes]:
        return [payload for _, payload in read_frames(b"".join(self.data))]

    __hash__ = object.__hash__


class Place:
    """A fan-out and a registry with two slots, in which clients subscribe."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.metrics = Metrics()
        self.registry = Registry(max_sessions=2, metrics=self.metrics)
        channel = Channel("e", queue_bytes=1000, history=10, history_bytes=1000, slow=Slow.DROP_OLDEST)
        self.fanout = Fanout(channel, metrics=self.metrics, loop=loop)
        self.received = Memory()
        self.fan_in = FanIn(self.received.write)

    def subscribe(self, client: Twin, *, wire: Wire = PLAIN, fan_in: FanIn | None = None, start_at: Join | Position = Join.NONE) -> Sink:
        assert self.registry.limiter.acquire()
        session = Subscription(client, self.fanout, wire, fan_in=fan_in, registry=self.registry, fields={"id": "7"})
        return session.start(start_at)

    def publish(self, *texts: bytes) -> None:
        self.fanout.publish(Batch(Kind.TEXT, list(texts)))
        self.fanout.flush()

    def dismiss(self, reason: End) -> None:
        for subscriber in self.fanout._all_subscribers():
            self.fanout.dismiss(subscriber, reason)

    async def over(self) -> None:
        """Wait until no session remains, and all slots are free."""
        await until(lambda: len(self.registry) == 0, "the end of all sessions")
        await turns()
        assert len(self.fanout) == 0
        slots = [self.registry.limiter.acquire() for _ in range(3)]
        assert slots == [True, True, False]
        for _ in range(2):
            self.registry.limiter.release()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    yield made
    await made.registry.drain()
    await made.over()


async def test_messages_reach_the_client(place: Place) -> None:
    """Published messages reach the client until it disconnects, and no byte later."""
    client = Twin()
    sink = place.subscribe(client)
    place.publish(b"one", b"two")
    assert client.frames == [b"one", b"two"]
    sink.end(End(1000))
    assert client.closed
    place.publish(b"three")
    assert client.frames == [b"one", b"two"]
    await place.over()


async def test_message_without_an_input(place: Place) -> None:
    """Without an input, a client that sends a message is closed with 1003, once, and receives nothing afterwards."""
    client = Twin()
    sink = place.subscribe(client)
    for _ in range(3):
        sink.write(Batch(Kind.TEXT, [b"x"]))
    assert client.ended is not None
    assert client.ended.code == 1003
    place.publish(b"late")
    assert client.frames == []
    await place.over()


async def test_message_of_a_client(place: Place) -> None:
    """A client's messages go to the fan-in; messages after its end are dropped."""
    client = Twin()
    sink = place.subscribe(client, fan_in=place.fan_in)
    sink.write(Batch(Kind.TEXT, [b"one"]))
    sink.end(End(1000))
    sink.write(Batch(Kind.TEXT, [b"two"]))
    assert place.received.messages == [b"one"]
    await place.over()


async def test_paused_client_disconnects(place: Place) -> None:
    """A client that disconnects while it is paused is removed, and the fan-in does not resume it."""
    client = Twin()
    sink = place.subscribe(client, fan_in=place.fan_in)
    place.fan_in.pause()
    sink.write(Batch(Kind.TEXT, [b"one"]))
    assert client.paused
    sink.end(End(1006))
    place.fan_in.resume()
    await place.over()


async def test_full_client(place: Place) -> None:
    """A full client gets no data until it has room, then the messages that it missed."""
    client = Twin()
    place.subscribe(client)
    client.full = True
    place.publish(b"one")
    place.publish(b"two")
    assert client.frames == [b"one"]
    client.full = False
    client.source.resume()
    assert client.frames == [b"one", b"two"]


async def test_full_from_the_start(place: Place) -> None:
    """A client with pending data from before its join gets no data until it has room."""
    client = Twin(full=True)
    place.subscribe(client)
    place.publish(b"one")
    assert client.frames == []
    client.full = False
    client.source.resume()
    assert client.frames == [b"one"]


async def test_slot_of_a_slowly_closing_client(place: Place) -> None:
    """A slot is released when the connection is lost, after its pending data, not when the close began."""
    gone = asyncio.Event()

    class Slow(Twin):
        async def wait_closed(self) -> None:
            await gone.wait()

    client = Slow()
    sink = place.subscribe(client)
    sink.end(End(1000))
    await turns()
    assert [place.registry.limiter.acquire() for _ in range(2)] == [True, False]
    place.registry.limiter.release()
    gone.set()
    await place.over()


ENDS: dict[str, Callable[[Place, Sink], object]] = {
    "the client": lambda place, sink: sink.end(End(1000)),
    "its message": lambda place, sink: sink.write(Batch(Kind.TEXT, [b"x"])),
    "the fanout": lambda place, sink: place.dismiss(End(1001)),
    "force": lambda place, sink: place.registry.force(),
}


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
async def test_ends_once(place: Place, first: str, second: str) -> None:
    """The first event that ends the session decides, and the session ends once: its slot is released once."""
    sink = place.subscribe(Twin())
    ENDS[first](place, sink)
    ENDS[second](place, sink)
    await place.over()


async def test_shutdown(place: Place) -> None:
    """At the shutdown, each client is closed with 1001. A client that joins meanwhile is closed too, without a message."""
    client = Twin()
    place.subscribe(client)
    await place.registry.drain()
    late = Twin()
    place.subscribe(late, start_at=Join.HISTORY)
    assert [one.ended and one.ended.code for one in (client, late)] == [1001, 1001]
    assert len(place.fanout) == 0


async def test_messages_of_clients_are_counted(place: Place) -> None:
    """The metric counts the clients' messages as they arrive."""
    sink = place.subscribe(Twin(), fan_in=place.fan_in)
    sink.write(Batch(Kind.TEXT, [b"a", b"b"]))
    sink.write(Batch(Kind.BINARY, [b"c"]))
    assert place.metrics.messages_in == 3


@pytest.mark.parametrize("position", [None, Position("e", 0), Position("of-before", 3)], ids=["none", "known", "unknown"])
async def test_join_while_the_broker_is_disconnected(place: Place, position: Position | None) -> None:
    """A client that joins while the broker is disconnected gets a notice of it, whatever its position, so that silence is not ambiguous."""
    place.fanout.set_connected(False)
    client = Twin()
    place.subscribe(client, wire=POSITIONED, start_at=position or Join.NONE)
    assert b"!broker away" in client.frames
