"""Nodes of a channel inside the tests' own process: a real bus, relay and fanout each, and viewers that hold them to their word.

Whoever publishes numbers its messages, `NAME NUMBER` and perhaps more, so that a viewer can see for itself what is missing and
what comes twice: nothing ever does without word of it.
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
from wsbridge.bus.rabbitmq.shared import Connections
from wsbridge.channel.position import Position, parse_position
from wsbridge.channel.ring import Channel, Join, Slow
from wsbridge.endpoints.livechannel import new_mark
from wsbridge.flow import Batch, End, Kind
from wsbridge.metrics import Metrics
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.relay import Relay
from wsbridge.wire.positioned import Positioned

PATIENCE = 30.0
"""Seconds that a test waits for what a broker does: a start of it takes long on a machine that has other work."""

EVERYTHING = 1 << 30
"""Bytes and messages that no test reaches: nothing is let go of."""

WIRE = Positioned()


async def until(condition: Callable[[], Any], what: str | Callable[[], str], patience: float = PATIENCE) -> Any:
    """Let the loop run until the condition holds; return its value."""
    deadline = Deadline(patience)
    while not (value := condition()):
        assert not deadline.has_passed(), f"waited {patience} s in vain for {what if isinstance(what, str) else what()}"
        await asyncio.sleep(0.005)
    return value


@dataclass
class Taker:
    """A receiver that keeps what it is brought, and sees to the contract: each producer's messages in order, none left out."""

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
            assert body.first == expected, f"message {body.first} of a producer came where {expected} should"
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
        """All messages, in the order in which they came."""
        return [(body.batch.kind, bytes(message)) for body in self.bodies for message in body.batch.messages]

    async def has(self, count: int) -> None:
        """Wait until so many messages have come."""
        await until(lambda: self.count >= count, lambda: f"{count} messages; {self.count} came")
        assert self.count == count, f"{self.count} messages came where {count} were published"


class Viewer:
    """A client of wsbridge.v1: it checks that nothing is missing or comes twice in silence, and knows its position."""

    def __init__(self) -> None:
        self.fanout: Fanout | None = None
        self.wire = WIRE
        self.room = EVERYTHING
        self.position: Position | None = None
        self.ended: End | None = None
        self.seen: dict[str, int] = defaultdict(int)
        """How many messages of each producer have come."""
        self.last: dict[str, int] = {}
        """The number of the last message of each."""
        self.lost = 0
        """Messages of which it was told that they are lost to it, since it was told that nobody knows."""
        self.missing = 0
        """Messages that it has seen to be missing, since then."""
        self.total_lost = 0
        self.renewals = 0
        """How often it was told that nobody knows."""
        self.restarts = 0
        """How often it was told so of the position that it brought: then all that there is comes, had or not."""
        self.words: list[str] = []
        self._related: set[str] = set()
        """Producers of which all is accounted for since the last message."""
        self._has_come = False

    def __str__(self) -> str:
        return f"a viewer that has {dict(self.seen)}, lacks {self.missing} of {self.lost} lost, at {self.position}; ? {self.renewals} times"

    # What a fanout asks of a subscriber

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
                raise AssertionError(f"no such record: {words}")

    def _message(self, message: str) -> None:
        name, number = message.split(" ")[0], int(message.split(" ")[1])
        last = self.last.get(name)
        if last is not None:
            assert number > last, f"{name} {number} came after {name} {last}"
            if name in self._related:
                self.missing += number - last - 1
                assert self.missing <= self.lost, f"a gap in silence before {name} {number}, after {name} {last}: {self}"
        self.last[name] = number
        self._related.add(name)
        self.seen[name] += 1

    # What a test does with it

    def join(self, fanout: Fanout, join: Join = Join.NONE) -> Viewer:
        """Come to a node: with the position of before, or without one."""
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
        """Take only so many pieces from now on, at least one."""
        self.room = min(self.room, max(room, 1))

    def go_on(self) -> None:
        """Have room for everything again."""
        was_full, self.room = self.room <= 0, EVERYTHING
        if was_full and self.fanout is not None:
            self.fanout.ready(self)

    async def has_all(self, name: str, count: int) -> None:
        """Wait until the last of so many messages of a producer has come."""
        await until(lambda: self.last.get(name) == count - 1, lambda: f"{name} {count - 1}: {self}")


@dataclass
class Node:
    """A process of the channel, but in this one: `publish` numbers its messages after `name`."""

    name: str
    bus: Bus
    fanout: Fanout
    metrics: Metrics
    published: int = 0

    def publish(self, count: int = 1, padding: str = "") -> None:
        """Publish so many messages as one batch."""
        first, self.published = self.published, self.published + count
        self.bus.publish(Batch(Kind.TEXT, [f"{self.name} {number}{padding}".encode() for number in range(first, first + count)]))

    def view(self, join: Join = Join.NONE) -> Viewer:
        return Viewer().join(self.fanout, join)

    async def published_all(self) -> None:
        """Wait until the broker has confirmed everything."""
        assert isinstance(self.bus, RabbitBus)
        await until(lambda: self.bus._spool.is_empty, "the broker's confirmation")  # type: ignore[attr-defined]


@dataclass
class Exchange:
    """A channel's name at a broker, and what its nodes are told; without a URL it is one process's own."""

    name: str
    url: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """Of ExchangeSettings."""

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
        **options: Any,
    ) -> Bus:
        """Make a bus; it is not open yet."""
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
            metrics=metrics if metrics is not None else Metrics(),
            loop=asyncio.get_running_loop(),
        )

    @asynccontextmanager
    async def open(self, receiver: Any, *, patience: float = 10.0, **options: Any) -> AsyncIterator[Bus]:
        """Open a bus for a receiver of the test's own."""
        bus = self.bus(**options)
        try:
            await bus.open(receiver)
            yield bus
        finally:
            await bus.close(patience)

    @asynccontextmanager
    async def node(
        self,
        name: str = "a",
        *,
        history: int = EVERYTHING,
        queue_bytes: int = EVERYTHING,
        slow: Slow = Slow.DROP_OLDEST,
        patience: float = 10.0,
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
            await bus.close(patience)
            for subscriber in fanout._everyone():
                fanout.leave(subscriber)

    @asynccontextmanager
    async def nodes(self, *names: str, **options: Any) -> AsyncIterator[list[Node]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.node(name, **options)) for name in names]


class SlowLink:
    """A TCP link to a target over which so many bytes a second come back, and with `up` so many go there."""

    def __init__(self, target: tuple[str, int], rate: int, *, up: int = 0) -> None:
        self._target = target
        self._rate = rate
        self._up = up
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """End all connections; new ones are as before."""
        while self._writers:
            self._writers.pop().transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await asyncio.open_connection(*self._target)
        self._writers += (writer, their_writer)
        up = 1 / self._up if self._up else 0
        if up:
            # What the kernel takes at once would pass for taken by the broker.
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


async def heard_of_all(nodes: Sequence[Node], viewers: Sequence[Viewer]) -> None:
    """Wait until each viewer has the last message of each node: one more is published until it has, for without replay any may be lost."""

    def have_all() -> bool:
        return all(viewer.last.get(node.name) == node.published - 1 for viewer in viewers for node in nodes)

    deadline = Deadline(PATIENCE)
    while not deadline.has_passed():
        for node in nodes:
            node.publish()
        with suppress(AssertionError):
            await until(have_all, "the last words", 2)
            return
    raise AssertionError(f"the last words of {[(node.name, node.published) for node in nodes]}: {[str(viewer) for viewer in viewers]}")


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """See to it that the block leaves no task and no descriptor, and that no callback fails."""
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, failure: failures.append(failure))
    before, had = asyncio.all_tasks(), descriptors()
    yield
    # A fixture's end runs in another task than its beginning.
    before |= {task for task in (asyncio.current_task(),) if task is not None}
    await until(lambda: not asyncio.all_tasks() - before, lambda: f"the end of {asyncio.all_tasks() - before}", 10)
    left = {number: name for number, name in descriptors().items() if number not in had}
    assert left == {}, f"descriptors are left open: {left}"
    assert failures == [], failures


def texts(messages: Sequence[bytes]) -> list[tuple[Kind, bytes]]:
    return [(Kind.TEXT, message) for message in messages]
