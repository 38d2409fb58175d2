"""The fan-out: each subscriber gets every message once and in order, or a notice of its lost messages, however it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from tests.support.clock import Timer
from wsbridge.channel.position import Position, parse_position
from wsbridge.channel.ring import Channel, Join, Slow
from wsbridge.flow import Batch, End, Kind
from wsbridge.metrics import Metrics
from wsbridge.sessions.fanout import AHEAD_SECONDS, Fanout


class ParsableWire:
    """A wire format that the test can parse: `message epoch number;` for each message, `lost epoch next count;` for a loss."""

    name = "parsable"

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        self.encoded += len(batch.messages)
        return "".join(f"message {mark[:-1]} {first + index};" for index in range(len(batch.messages))).encode()

    def published(self, at: int | None) -> bytes:
        return b""

    def joined(self, mark: str, number: int) -> bytes:
        return b""

    def lost(self, messages: int | None, mark: str, number: int) -> bytes:
        return f"lost {mark[:-1]} {number} {messages};".encode()

    def broker(self, is_connected: bool) -> bytes:
        return b""


class One:
    """A subscriber with room for a number of batches that the test sets."""

    def __init__(self, fanout: Fanout, wire: ParsableWire, room: int) -> None:
        self.fanout = fanout
        self.wire = wire
        self.room = room
        self.taken: list[bytes] = []
        self.ended: End | None = None

    def send(self, data: bytes) -> None:
        if not self.deliver(data):
            self.fanout.full(self)

    def deliver(self, data: bytes) -> bool:
        if not data:
            return self.room > 0
        assert self.room > 0, "data for a full subscriber"
        self.room -= 1
        self.taken.append(data)
        return self.room > 0

    def end(self, reason: End) -> None:
        self.ended = reason

    def position(self) -> Position | None:
        """Its position, as a client knows it."""
        words = self.words()
        return Position(words[-1][1], int(words[-1][2]) + (words[-1][0] == "message")) if words else None

    def words(self) -> list[list[str]]:
        return [word.split() for word in b"".join(self.taken).decode().split(";") if word]


class Turns:
    """A loop whose iterations and timers the test runs."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.timers: list[Timer] = []
        self.now = 0.0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(self, _: float, callback: Callable[[], None]) -> Timer:
        return self.call_at(self.now, callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    def time(self) -> float:
        return self.now

    def turn(self) -> None:
        now, self.soon = self.soon, []
        for callback in now:
            callback()

    def wait(self) -> None:
        """Run the timers that are due; a delay counts as over, whatever its length."""
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.is_cancelled:
                timer.call()


def make_fanout(turns: Turns, **options: Any) -> Fanout:
    given = {"queue_bytes": 40, "history": 5, "history_bytes": 1000, "slow": Slow.DROP_OLDEST} | options
    return Fanout(Channel("e0", message_bytes=0, body_bytes=0, **given), metrics=Metrics(), loop=cast(asyncio.AbstractEventLoop, turns))


class Model(RuleBasedStateMachine):
    """No subscriber has a gap or a repeat without a notice, whatever happens in whatever order."""

    ones = Bundle("ones")

    @initialize(queue=st.sampled_from([0, 5, 40, 10_000]), slow=st.sampled_from(Slow))
    def begin(self, queue: int, slow: Slow) -> None:
        self.turns = Turns()
        self.fanout = make_fanout(self.turns, queue_bytes=queue, slow=slow)
        self.queue = queue
        self.wire = ParsableWire()
        self.epochs = 0
        self.joined: set[One] = set()

    @invariant()
    def each_has_one_state(self) -> None:
        """Each subscriber that was neither closed nor has left is in step, behind or ahead, and in one of these states only."""
        assert len(self.fanout) == sum(one.ended is None for one in self.joined)

    @rule(messages=st.lists(st.binary(max_size=9), min_size=1, max_size=4))
    def publish(self, messages: list[bytes]) -> None:
        self.fanout.publish(Batch(Kind.BINARY, messages))

    @rule(messages=st.integers(1, 3))
    def lose(self, messages: int) -> None:
        self.fanout.lose(messages)

    @rule()
    def turn(self) -> None:
        self.turns.turn()

    @rule()
    def second(self) -> None:
        self.turns.wait()

    @rule(target=ones, how=st.sampled_from(Join), room=st.integers(1, 4))
    def join(self, how: Join, room: int) -> One:
        one = One(self.fanout, self.wire, room)
        self.joined.add(one)
        self.fanout.join(one, self.fanout.channel.join(how))
        return one

    @rule(target=ones, one=consumes(ones), room=st.integers(1, 4))
    def come_back(self, one: One, room: int) -> One:
        """A subscriber leaves, and returns with the position of its last message."""
        self.leave(one)
        again = One(self.fanout, self.wire, room)
        self.joined.add(again)
        again.taken = one.taken
        position = one.position()
        if position:
            self.fanout.resume(again, position)
        else:
            self.fanout.join(again, self.fanout.channel.join(Join.HISTORY))
        return again

    @rule(one=ones, room=st.integers(1, 4))
    def has_room(self, one: One, room: int) -> None:
        full = one.room == 0
        one.room += room
        if full and one.ended is None:
            self.fanout.ready(one)
        self.check(one)

    @rule()
    def renew(self) -> None:
        self.epochs += 1
        self.fanout.renew(f"e{self.epochs}")

    def check(self, one: One) -> None:
        position: Position | None = None
        for what, epoch, number, *lost in one.words():
            here = Position(epoch, int(number))
            if what == "message":
                assert position in (None, here)
                here = Position(epoch, here.number + 1)
            elif position is not None and lost != ["None"]:
                assert here == Position(position.mark, position.number + int(lost[0]))
            position = here

    @rule(one=consumes(ones))
    def drain(self, one: One) -> None:
        """A subscriber that from now on has room for everything catches up with the channel."""
        self.turns.turn()
        if one.ended is not None:
            return
        full = one.room == 0
        one.room = 1_000_000
        if full:
            self.fanout.ready(one)
        if one.ended is not None:
            assert self.fanout.channel._slow is Slow.CLOSE
            return
        assert one.position() in (None, Position(self.fanout.channel.epoch, self.fanout.channel.end))
        self.fanout.publish(Batch(Kind.TEXT, [b"last"]))
        self.turns.turn()
        assert one.position() == Position(self.fanout.channel.epoch, self.fanout.channel.end)
        self.check(one)
        self.leave(one)

    def leave(self, one: One) -> None:
        self.fanout.leave(one)
        self.joined.discard(one)


Model.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
test_fanout = Model.TestCase


def test_encoded_once() -> None:
    """A turn's messages are encoded once. All subscribers at the same position get the same buffer."""
    turns, wire = Turns(), ParsableWire()
    fanout = make_fanout(turns)
    ones = [One(fanout, wire, 10) for _ in range(100)]
    for one in ones:
        fanout.join(one, fanout.channel.join(Join.NONE))
    for number in range(3):
        fanout.publish(Batch(Kind.TEXT, [b"%d" % number]))
    turns.turn()
    assert wire.encoded == 3
    assert [len(one.taken) for one in ones] == [1] * 100
    assert len({id(one.taken[0]) for one in ones}) == 1


def test_encoded_once_for_slow_subscribers() -> None:
    """A subscriber that is behind, but at the beginning of a body, gets the encoded body that others got."""
    turns, wire = Turns(), ParsableWire()
    fanout = make_fanout(turns, queue_bytes=1_000_000)
    quick, slow = One(fanout, wire, 1_000), One(fanout, wire, 1)
    for one in (quick, slow):
        fanout.join(one, fanout.channel.join(Join.NONE))
    for _ in range(20):
        fanout.publish(Batch(Kind.TEXT, [b"x" * 100] * 1_000))
        turns.turn()
        slow.room = 1
        fanout.ready(slow)
    assert wire.encoded == 20_000
    assert len(slow.words()) == 20_000


def test_full_subscriber_is_not_called() -> None:
    """A full subscriber is not called again until it has room, however much is published."""
    turns, wire = Turns(), ParsableWire()
    fanout = make_fanout(turns)
    stuck, other = One(fanout, wire, 1), One(fanout, wire, 10_000)
    for one in (stuck, other):
        fanout.join(one, fanout.channel.join(Join.NONE))
    for number in range(1_000):
        fanout.publish(Batch(Kind.TEXT, [b"%06d" % number]))
        turns.turn()
    assert len(stuck.taken) == 1
    assert [int(number) for _, _, number in other.words()] == list(range(1_000))
    stuck.room = 10
    fanout.ready(stuck)
    assert stuck.words()[1] == ["lost", "e0", "993", "992"]
    assert stuck.words()[-1] == ["message", "e0", "999"]


def test_position_from_a_node_that_is_ahead() -> None:
    """A subscriber with a future position gets messages when the position arrives, without a gap or a repeat."""
    turns, wire = Turns(), ParsableWire()
    fanout = make_fanout(turns, queue_bytes=10_000)
    fanout.renew("7.00")
    fanout.publish(Batch(Kind.TEXT, [b"a", b"b"]), "7.aa")
    turns.turn()
    one, other = One(fanout, wire, 100), One(fanout, wire, 100)
    for viewer, text in ((one, "9.cc-1"), (other, "9.dd-1")):
        fanout.resume(viewer, parse_position(text))
        assert viewer.words() == []
    assert len(fanout) == 2
    fanout.publish(Batch(Kind.TEXT, [b"c"]), "8.bb")
    turns.turn()
    assert one.words() == []
    fanout.publish(Batch(Kind.TEXT, [b"d", b"e"]), "9.cc")
    turns.turn()
    assert one.words() == [["message", "9.cc", "1"]]
    assert other.words()[0] == ["lost", "7.aa", "0", "None"]
    fanout.publish(Batch(Kind.TEXT, [b"f"]), "10.ee")
    turns.turn()
    assert one.words()[1:] == [["message", "10.ee", "0"]]
    assert len(fanout) == 2


def test_position_that_never_arrives() -> None:
    """A subscriber with a future position that does not arrive gets a notice of a loss, after a time in which the broker was connected."""
    turns, wire = Turns(), ParsableWire()
    fanout = make_fanout(turns, queue_bytes=10_000)
    fanout.renew("7.00")
    fanout.set_connected(False)
    one, gone = One(fanout, wire, 100), One(fanout, wire, 100)
    for viewer in (one, gone):
        fanout.resume(viewer, parse_position("9.cc-1"))
    fanout.leave(gone)
    turns.now = 1000.0
    turns.wait()
    assert one.words() == []
    fanout.set_connected(True)
    turns.now = 2000.0
    turns.wait()
    assert one.words() == [["lost", "7.00", "0", "None"]]
    assert gone.words() == []


def test_each_position_has_the_same_wait() -> None:
    """Each subscriber with a future position waits for the same time, and again after an outage, in which nothing could arrive."""
    turns, wire = Turns(), ParsableWire()
    fanout = make_fanout(turns, queue_bytes=10_000)
    fanout.renew("7.00")
    ones = [One(fanout, wire, 100) for _ in range(3)]
    for seconds, one in enumerate(ones):
        turns.now = float(seconds)
        fanout.resume(one, parse_position("9.cc-1"))

    def served(now: float) -> list[bool]:
        turns.now = now
        turns.wait()
        return [bool(one.words()) for one in ones]

    assert served(AHEAD_SECONDS - 0.1) == [False, False, False]
    assert served(AHEAD_SECONDS) == [True, False, False]
    assert served(AHEAD_SECONDS + 1) == [True, True, False]
    fanout.set_connected(False)
    assert served(100) == [True, True, False]
    fanout.set_connected(True)
    assert served(99.9 + AHEAD_SECONDS) == [True, True, False]
    assert served(100 + AHEAD_SECONDS) == [True, True, True]


def test_dismissed() -> None:
    """A dismissed subscriber is ended when it has all messages published before: at once, or when it has caught up."""
    turns, wire = Turns(), ParsableWire()
    fanout = make_fanout(turns, queue_bytes=10_000)
    quick, slow = One(fanout, wire, 100), One(fanout, wire, 1)
    for one in (quick, slow):
        fanout.join(one, fanout.channel.join(Join.NONE))
    fanout.publish(Batch(Kind.TEXT, [b"first"]))
    turns.turn()
    fanout.publish(Batch(Kind.TEXT, [b"last"]))
    for one in (quick, slow):
        fanout.dismiss(one, End(1001))
    assert (quick.ended, slow.ended) == (End(1001), None)
    slow.room = 5
    fanout.ready(slow)
    assert slow.ended == End(1001)
    assert [one.words()[-1] for one in (quick, slow)] == [["message", "e0", "1"]] * 2
    assert len(fanout) == 0


def test_slow_subscriber_is_closed() -> None:
    """With `close`, a subscriber that falls too far behind is closed with 1013, although it never has room. It can resume without a
    loss."""
    turns, wire = Turns(), ParsableWire()
    fanout = make_fanout(turns, slow=Slow.CLOSE, history=100)
    stuck = One(fanout, wire, 1)
    fanout.join(stuck, fanout.channel.join(Join.NONE))
    for number in range(50):
        fanout.publish(Batch(Kind.TEXT, [b"%06d" % number]))
        turns.turn()
    assert stuck.ended is None
    turns.wait()
    assert stuck.ended is not None
    assert stuck.ended.code == 1013
    assert len(fanout) == 0
    back = One(fanout, wire, 100)
    fanout.resume(back, parse_position("e0-1"))
    assert [int(number) for _, _, number in back.words()] == list(range(1, 50))


def test_subscriber_that_is_slow_from_the_start_is_closed() -> None:
    """A subscriber that was full right after the join is closed as well."""
    turns, wire = Turns(), ParsableWire()
    fanout = make_fanout(turns, slow=Slow.CLOSE, history=100)
    fanout.publish(Batch(Kind.TEXT, [b"first"]))
    turns.turn()
    stuck = One(fanout, wire, 1)
    fanout.join(stuck, fanout.channel.join(Join.HISTORY))
    for number in range(50):
        fanout.publish(Batch(Kind.TEXT, [b"%06d" % number]))
        turns.turn()
    turns.wait()
    assert stuck.ended is not None
    assert stuck.ended.code == 1013
