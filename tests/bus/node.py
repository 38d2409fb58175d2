"""Nodes of a channel inside the test process: each has a real bus, relay and fanout, and viewers that check the contract.

Each publisher numbers its messages: `NAME NUMBER`, optionally with more text. So a viewer detects every missing and every repeated message,
and fails if no notice of a loss explains it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.deadline import Deadline
from tests.support.proc import descriptors
from tests.wire.peer import read_frames
from wsbridge.bus.base import Body, Bus
from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.memory import MemoryBus
from wsbridge.bus.rabbitmq.bus import RabbitBus
from wsbridge.bus.rabbitmq.connections import Connections
from wsbridge.bus.rabbitmq.tuning import Tuning
from wsbridge.bus.spool import Spool
from wsbridge.channel.position import Position, parse_position
from wsbridge.channel.ring import Channel, Join, Slow
from wsbridge.endpoints.livechannel import new_mark
from wsbridge.flow import Batch, End, Kind
from wsbridge.metrics import Metrics
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.relay import Relay
from wsbridge.wire.positioned import Positioned

WAIT_SECONDS = 30.0
"""Timeout in seconds for an action of the broker: a broker starts slowly on a loaded machine."""

EVERYTHING = 1 << 30
"""A number of bytes or messages that no test reaches, so that nothing is dropped."""

WIRE = Positioned()


async def until(condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = WAIT_SECONDS) -> Any:
    """Run the loop until the condition holds; return its value."""
    deadline = Deadline(seconds)
    while not (value := condition()):
        assert not deadline.has_passed(), f"no success within {seconds} s: {what if isinstance(what, str) else what()}"
        await asyncio.sleep(0.005)
    return value


@dataclass
class Receiver:
    """A receiver that records its calls and checks the contract: the messages of each producer arrive in order and without gaps."""

    bodies: list[Body] = field(default_factory=list)
    renewals: list[str | None] = field(default_factory=list)
    connects: list[bool] = field(default_factory=list)
    losses: int = 0
    next: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def receive(self, body: Body) -> None:
        if body.is_past:
            return
        if body.producer:
            expected = self.next.get(body.producer, body.first)
            assert body.first == expected, f"message {body.first} of a producer arrived instead of {expected}"
            self.next[body.producer] = body.first + len(body.batch.messages)
        if body.is_lost:
            self.losses += len(body.batch.messages)
            return
        self.bodies.append(body)
        self.count += len(body.batch.messages)

    def renewed(self, mark: str | None = None) -> None:
        self.renewals.append(mark)

    def lost(self, messages: int) -> None:
        self.losses += messages

    def connected(self, is_connected: bool) -> None:
        self.connects.append(is_connected)

    @property
    def messages(self) -> list[tuple[Kind, bytes]]:
        """All messages, in the order of their arrival."""
        return [(body.batch.kind, bytes(message)) for body in self.bodies for message in body.batch.messages]

    async def has(self, count: int) -> None:
        """Wait until exactly `count` messages have arrived."""
        await until(lambda: self.count >= count, lambda: f"{count} messages; {self.count} arrived")
        assert self.count == count, f"{self.count} messages arrived, but {count} were published"


class Viewer:
    """A client of wsbridge.v1 that checks for unreported gaps and repeats, and knows its position."""

    def __init__(self) -> None:
        self.fanout: Fanout | None = None
        self.wire = WIRE
        self.room = EVERYTHING
        self.position: Position | None = None
        self.ended: End | None = None
        self.seen: dict[str, int] = defaultdict(int)
        """The number of received messages of each producer."""
        self.last: dict[str, int] = {}
        """The number of the last message of each producer."""
        self.lost = 0
        """The number of messages that the server reported as lost, since its last notice of an unknown loss."""
        self.missing = 0
        """The number of missing messages that the viewer detected, since the same notice."""
        self.total_lost = 0
        self.renewals = 0
        """The number of notices of an unknown loss."""
        self.restarts = 0
        """The number of such notices that rejected the viewer's own position. The server then sends every message that it has."""
        self.words: list[str] = []
        self._related: set[str] = set()
        """The producers of which every message since the last one is accounted for."""
        self._has_come = False

    def __str__(self) -> str:
        return f"a viewer that has {dict(self.seen)}, lacks {self.missing} of {self.lost} lost, at {self.position}; ? {self.renewals} times"

    # The interface of a subscriber, for the fanout

    def send(self, data: bytes) -> None:
        if not self.deliver(data):
            assert self.fanout is not None
            self.fanout.full(self)

    def deliver(self, data: bytes) -> bool:
        self.room -= 1
        for _, payload in read_frames(data):
            head, _, message = payload.partition(b"\n")
            if head.startswith(b"!"):
                self._record(head.decode().split(" "))
            else:
                self.position = parse_position(head.decode())
                assert self.position is not None
                self._message(message.decode())
            self._has_come &= head.startswith(b"!broker")
        return self.room > 0

    def end(self, reason: End) -> None:
        self.ended = reason

    def _record(self, words: list[str]) -> None:
        match words:
            case ["!at", position]:
                self.position = parse_position(position)
                assert self.position is not None
            case ["!lost", position, "?"]:
                self.position = parse_position(position)
                self.renewals += 1
                if self._has_come:
                    self.restarts += 1
                    self.last.clear()
                self._related.clear()
                self.lost = self.missing = 0
            case ["!lost", position, count]:
                self.position = parse_position(position)
                self.lost += int(count)
                self.total_lost += int(count)
            case ["!broker", word]:
                self.words.append(word)
            case _:
                raise AssertionError(f"unknown record: {words}")

    def _message(self, message: str) -> None:
        name, number = message.split(" ")[0], int(message.split(" ")[1])
        last = self.last.get(name)
        if last is not None:
            assert number > last, f"{name} {number} arrived after {name} {last}"
            if name in self._related:
                self.missing += number - last - 1
                assert self.missing <= self.lost, f"an unreported gap before {name} {number}, after {name} {last}: {self}"
        self.last[name] = number
        self._related.add(name)
        self.seen[name] += 1

    # Methods for tests

    def join(self, fanout: Fanout, join: Join = Join.NONE) -> Viewer:
        """Join a node, with the current position if there is one."""
        assert self.fanout is None
        self.fanout, self._has_come = fanout, self.position is not None
        if self.position is not None:
            fanout.resume(self, self.position)
        else:
            fanout.join(self, fanout.channel.join(join))
        return self

    def leave(self) -> None:
        if self.fanout is not None:
            self.fanout.leave(self)
            self.fanout = None

    def stall(self, room: int = 1) -> None:
        """Accept only `room` more pieces, but at least one."""
        self.room = min(self.room, max(room, 1))

    def go_on(self) -> None:
        """Accept any number of pieces again."""
        was_full, self.room = self.room <= 0, EVERYTHING
        if was_full and self.fanout is not None:
            self.fanout.ready(self)

    async def has_all(self, name: str, count: int) -> None:
        """Wait until message `count - 1` of a producer, its last one, has arrived."""
        await until(lambda: self.last.get(name) == count - 1, lambda: f"{name} {count - 1}: {self}")


@dataclass
class Node:
    """A node of the channel in the test process: `publish` numbers its messages and puts `name` in front."""

    name: str
    bus: Bus
    fanout: Fanout
    metrics: Metrics
    published: int = 0

    def publish(self, count: int = 1, padding: str = "") -> None:
        """Publish `count` messages as one batch."""
        first, self.published = self.published, self.published + count
        self.bus.publish(Batch(Kind.TEXT, [f"{self.name} {number}{padding}".encode() for number in range(first, first + count)]))

    def view(self, join: Join = Join.NONE) -> Viewer:
        return Viewer().join(self.fanout, join)

    async def published_all(self) -> None:
        """Wait until the broker has confirmed all messages."""
        await until(lambda: spool(self.bus).is_empty, "the confirms of the broker")


def spool(bus: Bus) -> Spool:
    """Return the spool of a bus over RabbitMQ."""
    assert isinstance(bus, RabbitBus)
    return bus._spool


async def cancel_opening(bus: Bus, milliseconds: int) -> None:
    """Open a bus, cancel that at a moment of the opening, and close the bus."""
    opening = asyncio.create_task(bus.open(Receiver()))
    for _ in range(milliseconds):
        await asyncio.sleep(0.001)
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await opening
    await bus.close(0)


QUICK = Tuning(max_pause=0.5)
"""No node waits for long before it reconnects."""


@dataclass
class Exchange:
    """The name of a channel at a broker, and the options of its nodes. Without a URL, the channel exists only in this process."""

    name: str
    url: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of ExchangeSettings."""
    tuning: Tuning = QUICK

    @property
    def replays(self) -> bool:
        return bool(self.options.get("replay"))

    def bus(
        self,
        metrics: Metrics | None = None,
        *,
        history: int = 1000,
        max_message_bytes: int = 1 << 24,
        start: Any = None,
        consumes: bool = True,
        connections: Connections | None = None,
        tuning: Tuning | None = None,
        **options: Any,
    ) -> Bus:
        """Make a bus; the caller opens it."""
        given = {"urls": (self.url,), **self.options, **options}
        if url := given.pop("url", ""):
            given["urls"] = (url,)
        if not any(given["urls"]):
            return MemoryBus(new_mark())
        return RabbitBus(
            ExchangeSettings(**given),
            self.name,
            producer=new_mark(),
            history=history,
            max_message_bytes=max_message_bytes,
            start=start,
            consumes=consumes,
            connections=connections,
            tuning=tuning or self.tuning,
            metrics=metrics if metrics is not None else Metrics(),
            loop=asyncio.get_running_loop(),
        )

    @asynccontextmanager
    async def open(self, receiver: Any, *, close_seconds: float = 10.0, **options: Any) -> AsyncIterator[Bus]:
        """Open a bus for a receiver that the test provides."""
        bus = self.bus(**options)
        try:
            await bus.open(receiver)
            yield bus
        finally:
            await bus.close(close_seconds)

    @asynccontextmanager
    async def node(
        self,
        name: str = "a",
        *,
        history: int = EVERYTHING,
        queue_bytes: int = EVERYTHING,
        slow: Slow = Slow.DROP_OLDEST,
        close_seconds: float = 10.0,
        bus_history: int = 1000,
        **options: Any,
    ) -> AsyncIterator[Node]:
        metrics = Metrics()
        channel = Channel(new_mark(), queue_bytes=queue_bytes, history=history, history_bytes=EVERYTHING, slow=slow)
        fanout = Fanout(channel, metrics=metrics, loop=asyncio.get_running_loop())
        bus = self.bus(metrics, history=bus_history, **options)
        try:
            await bus.open(Relay(fanout, new_epoch=new_mark, metrics=metrics))
            yield Node(name, bus, fanout, metrics)
        finally:
            await bus.close(close_seconds)
            for subscriber in fanout._all_subscribers():
                fanout.leave(subscriber)

    @asynccontextmanager
    async def nodes(self, *names: str, **options: Any) -> AsyncIterator[list[Node]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.node(name, **options)) for name in names]


class SlowLink:
    """A TCP proxy that passes `rate` bytes a second from the target and, if `up` is set, `up` bytes a second to the target."""

    def __init__(self, target: tuple[str, int], rate: int, *, up: int = 0) -> None:
        self._target = target
        self._rate = rate
        self._up = up
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """End all connections; new connections work as before."""
        while self._writers:
            self._writers.pop().transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await asyncio.open_connection(*self._target)
        self._writers += (writer, their_writer)
        up = 1 / self._up if self._up else 0
        if up:
            # Otherwise the kernel's buffer accepts bytes at once, as if the broker had accepted them.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        await asyncio.gather(self._carry(reader, their_writer, pause=up), self._carry(their_reader, writer, pause=1 / self._rate))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, pause: float) -> None:
        with suppress(OSError):
            while data := await reader.read(8192):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(len(data) * pause)
        writer.close()

    async def __aenter__(self) -> SlowLink:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.cut()


async def publish_until_received(nodes: Sequence[Node], viewers: Sequence[Viewer]) -> None:
    """Publish a message on each node until each viewer has the last message of each node.

    Without replay, any message may be lost; so the function publishes again in each round.
    """

    def have_all() -> bool:
        return all(viewer.last.get(node.name) == node.published - 1 for viewer in viewers for node in nodes)

    deadline = Deadline(WAIT_SECONDS)
    while not deadline.has_passed():
        for node in nodes:
            node.publish()
        with suppress(AssertionError):
            await until(have_all, "the last messages", 2)
            return
    raise AssertionError(f"the last messages of {[(node.name, node.published) for node in nodes]}: {[str(viewer) for viewer in viewers]}")


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Check that the block leaves no task and no descriptor, and that no callback fails."""
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, failure: failures.append(failure))
    before, had = asyncio.all_tasks(), descriptors()
    yield
    # The end of a fixture runs in another task than its beginning.
    before |= {task for task in (asyncio.current_task(),) if task is not None}
    await until(lambda: not asyncio.all_tasks() - before, lambda: f"the end of {asyncio.all_tasks() - before}", 10)
    left = {number: name for number, name in descriptors().items() if number not in had}
    assert left == {}, f"open descriptors: {left}"
    assert failures == [], failures


def texts(messages: Sequence[bytes]) -> list[tuple[Kind, bytes]]:
    return [(Kind.TEXT, message) for message in messages]
