"""A bus that drops, repeats, mixes producers and restarts: no subscriber has a gap or a repeat without a notice."""

from __future__ import annotations

import asyncio
import itertools
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.sessions.test_fanout import Turns
from tests.wire.peer import read_frames
from wsbridge.bus.base import Body, Receiver
from wsbridge.bus.memory import MemoryBus
from wsbridge.channel.position import Position, parse_position
from wsbridge.channel.ring import Channel, Join, Slice, Slow
from wsbridge.flow import Batch, End, Kind
from wsbridge.metrics import Metrics
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.relay import Relay
from wsbridge.wire.positioned import Positioned

PRODUCERS = ("a", "b")


class Viewer:
    """A client of wsbridge.v1 that records its messages, accepts data while it has room, and knows its position."""

    def __init__(self, fanout: Fanout) -> None:
        self.fanout = fanout
        self.wire = WIRE
        self.room = 1
        self.seen: list[bytes] = []
        self.lost: int | None = 0
        self.position: Position | None = None
        self.ended: End | None = None

    def send(self, data: bytes) -> None:
        if not self.deliver(data):
            self.fanout.full(self)

    def deliver(self, data: bytes) -> bool:
        self.room -= 1
        for _, payload in read_frames(data):
            if payload.startswith(b"!at "):
                here = parse_position(payload.decode().removeprefix("!at "))
                assert here is not None
                assert self.position in (None, here), "the stream begins at another position than the client's last"
                self.position = here
                continue
            if payload.startswith(b"!lost "):
                _, text, count = payload.decode().split(" ")
                self.lost = None if count == "?" or self.lost is None else self.lost + int(count)
                self.position = parse_position(text)
                continue
            head, _, message = payload.partition(b"\n")
            here = parse_position(head.decode())
            assert here is not None
            if self.position is not None:
                assert here == Position(self.position.mark, self.position.number + 1), "a gap or a repeat without a notice"
            self.position = here
            self.seen.append(message)
        return self.room > 0

    def end(self, reason: End) -> None:
        self.ended = reason


WIRE = Positioned()


class WorstBus(RuleBasedStateMachine):
    """Each producer's bodies are numbered. They arrive in the producer's order, but some arrive again and some never."""

    @initialize(slow=st.sampled_from([Slow.DROP_OLDEST, Slow.LATEST]), queue=st.sampled_from([10, 10_000]))
    def begin(self, slow: Slow, queue: int) -> None:
        self.turns, self.metrics = Turns(), Metrics()
        channel = Channel("e", queue_bytes=queue, history=1000, history_bytes=100_000, slow=slow)
        self.fanout = Fanout(channel, metrics=self.metrics, loop=cast(asyncio.AbstractEventLoop, self.turns))
        epochs = (f"e{number}" for number in itertools.count())
        self.relay: Receiver = Relay(self.fanout, new_epoch=lambda: next(epochs), metrics=self.metrics)
        self.bodies: dict[str, list[Body]] = {producer: [] for producer in PRODUCERS}
        self.published = dict.fromkeys(PRODUCERS, 0)
        self.next = dict.fromkeys(PRODUCERS, 0)
        """The index of the next body to deliver."""
        self.heard: dict[str, int] = {}
        """From the message of this number on, all messages of a producer are accounted for."""
        self.viewers: list[Viewer] = [Viewer(self.fanout)]
        self.fanout.join(self.viewers[0], channel.join(Join.NONE))

    @rule(producer=st.sampled_from(PRODUCERS), count=st.integers(1, 3))
    def publish(self, producer: str, count: int) -> None:
        first = self.published[producer]
        self.published[producer] += count
        messages = [b"%s%d" % (producer.encode(), first + index) for index in range(count)]
        self.bodies[producer].append(Body(Batch(Kind.TEXT, messages), producer, first))

    @rule(producer=st.sampled_from(PRODUCERS), drops=st.integers(0, 2))
    def bring(self, producer: str, drops: int) -> None:
        index = self.next[producer] + drops
        if index < len(self.bodies[producer]):
            self.next[producer] = index + 1
            self.relay.receive(self.bodies[producer][index])

    @rule(producer=st.sampled_from(PRODUCERS), back=st.integers(1, 4))
    def bring_again(self, producer: str, back: int) -> None:
        for body in self.bodies[producer][max(self.next[producer] - back, 0) : self.next[producer]]:
            if producer in self.heard or self.next[producer]:
                self.relay.receive(body)

    @rule()
    def renew(self) -> None:
        self.relay.renewed()

    @rule()
    def turn(self) -> None:
        self.turns.turn()

    @rule(index=st.integers(0, 3), room=st.integers(1, 3))
    def has_room(self, index: int, room: int) -> None:
        viewer = self.viewers[index % len(self.viewers)]
        was_full = viewer.room == 0
        viewer.room += room
        if was_full:
            self.fanout.ready(viewer)

    @rule(index=st.integers(0, 3))
    def comes_back(self, index: int) -> None:
        viewer = self.viewers[index % len(self.viewers)]
        self.fanout.leave(viewer)
        viewer.room = max(viewer.room, 1)
        if viewer.position:
            self.fanout.resume(viewer, viewer.position)
        else:
            self.fanout.join(viewer, self.fanout.channel.join(Join.NONE))

    @rule()
    def another(self) -> None:
        if len(self.viewers) < 4:
            self.viewers.append(Viewer(self.fanout))
            self.fanout.join(self.viewers[-1], self.fanout.channel.join(Join.HISTORY))

    @invariant()
    def nothing_twice_and_all_in_order(self) -> None:
        if not hasattr(self, "viewers"):
            return
        for viewer in self.viewers:
            for producer in PRODUCERS:
                numbers = [int(message[1:]) for message in viewer.seen if message.startswith(producer.encode())]
                assert numbers == sorted(set(numbers))

    def teardown(self) -> None:
        """At the end, every subscriber has each delivered message, or a notice of its loss."""
        if not hasattr(self, "viewers"):
            return
        self.turns.turn()
        for viewer in self.viewers:
            was_full, viewer.room = viewer.room == 0, 1_000_000
            if was_full:
                self.fanout.ready(viewer)
            if viewer.position is not None:
                assert viewer.position == Position(self.fanout.channel.epoch, self.fanout.channel.end)
        first = self.viewers[0]
        if first.lost is not None:
            assert first.position is not None
            assert len(first.seen) + first.lost == self.fanout.channel.end
            by_producer = [[int(message[1:]) for message in first.seen if message.startswith(p.encode())] for p in PRODUCERS]
            gaps = sum(numbers[-1] - numbers[0] + 1 - len(numbers) for numbers in by_producer if numbers)
            assert gaps <= first.lost, "a loss at the bus without a notice"


WorstBus.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
test_relay_over_the_worst_bus = WorstBus.TestCase


async def test_memory() -> None:
    """Over the in-process bus, every message arrives once and in order."""
    turns, metrics = Turns(), Metrics()
    channel = Channel("e", queue_bytes=10_000, history=0, history_bytes=0, slow=Slow.DROP_OLDEST)
    fanout = Fanout(channel, metrics=metrics, loop=cast(asyncio.AbstractEventLoop, turns))
    bus = MemoryBus("p")
    await bus.open(Relay(fanout, new_epoch=lambda: "never", metrics=metrics))
    viewer = Viewer(fanout)
    viewer.room = 1000
    fanout.join(viewer, channel.join(Join.NONE))
    for number in range(100):
        bus.publish(Batch(Kind.TEXT, [b"%d" % number, b"and"]))
    turns.turn()
    assert viewer.seen == [message for number in range(100) for message in (b"%d" % number, b"and")]
    await bus.close(1)
    bus.publish(Batch(Kind.TEXT, [b"too late"]))
    turns.turn()
    assert len(viewer.seen) == 200
    assert metrics.nonzero() == "messages_out=200"


def test_lost_body() -> None:
    """A body that is marked as lost is reported once with its count: at first, as a repeat, and after a gap."""
    turns, metrics = Turns(), Metrics()
    channel = Channel("e", queue_bytes=10_000, history=0, history_bytes=0, slow=Slow.DROP_OLDEST)
    fanout = Fanout(channel, metrics=metrics, loop=cast(asyncio.AbstractEventLoop, turns))
    relay = Relay(fanout, new_epoch=lambda: "never", metrics=metrics)
    viewer = Viewer(fanout)
    viewer.room = 1000
    fanout.join(viewer, channel.join(Join.NONE))
    lost = Body(Batch(Kind.TEXT, [b"long", b"longer"]), "p", 5, is_lost=True)
    for body in (lost, lost, Body(Batch(Kind.TEXT, [b"next"]), "p", 7), lost._replace(first=9)):
        relay.receive(body)
    turns.turn()
    assert viewer.seen == [b"next"]
    assert viewer.lost == metrics.bus_lost == 2 + 1 + 2
    assert metrics.bus_repeats == 2


@pytest.mark.parametrize(
    ("body_at", "mark", "is_live", "at"),
    [(7, None, False, 7), (None, None, False, 99), (7, "1.a", True, 7), (None, "1.a", True, 99), (None, "1.a", False, None)],
)
def test_time_of_a_body(body_at: int | None, mark: str | None, is_live: bool, at: int | None) -> None:
    """A body has the time from its bus. Without it, a live body has the current time, and a body of the history has none."""
    channel = Channel("e", queue_bytes=10_000, history=10, history_bytes=10_000, slow=Slow.DROP_OLDEST)
    fanout = Fanout(channel, metrics=Metrics(), loop=cast(asyncio.AbstractEventLoop, Turns()))
    relay = Relay(fanout, new_epoch=lambda: "never", metrics=Metrics(), clock=lambda: 99)
    relay.is_live = is_live
    relay.receive(Body(Batch(Kind.TEXT, [b"x"]), "p", 0, mark, at=body_at))
    [part] = channel.read(channel.join(Join.HISTORY), 1000)
    assert isinstance(part, Slice)
    assert part.entry.at == at
