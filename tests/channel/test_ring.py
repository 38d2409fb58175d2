"""The channel compared with a model that keeps every message and computes every result from the start."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from wsbridge.channel import ring as channels
from wsbridge.channel.position import Position, parse_position
from wsbridge.channel.ring import BODY_BYTES, MESSAGE_BYTES, WHOLE_BYTES, Channel, Cursor, Join, Loss, Slice, Slow
from wsbridge.flow import Batch, Kind

MESSAGES = st.lists(st.binary(max_size=6), min_size=1, max_size=5)


@dataclass
class Subscriber:
    """A cursor, and the model's state of it."""

    cursor: Cursor
    next: int
    joined_at: int
    """Bytes published before it joined."""
    owed: int | None = 0
    """Lost messages that it has not been notified of; None for an unknown number."""


class Model(RuleBasedStateMachine):
    """For any order of publish, join, resume, take and renew, each subscriber receives what the model predicts."""

    subscribers = Bundle("subscribers")

    @initialize(
        queue=st.integers(0, 30),
        history=st.integers(0, 8),
        history_bytes=st.integers(0, 30),
        slow=st.sampled_from(Slow),
        each=st.integers(0, 3),
        body=st.integers(0, 5),
        whole=st.sampled_from([0, 8, 100]),
    )
    def begin(self, queue: int, history: int, history_bytes: int, slow: Slow, each: int, body: int, whole: int) -> None:
        self.queue, self.history, self.history_bytes, self.slow = queue, history, history_bytes, slow
        self.each, self.body, self.whole = each, body, whole
        bounds = {"queue_bytes": queue, "history": history, "history_bytes": history_bytes, "message_bytes": each, "body_bytes": body}
        self.channel = Channel("e0", slow=slow, **bounds)
        channels.WHOLE_BYTES = whole
        self.epochs = 0
        self.all: list[Subscriber] = []
        self.anew()

    def teardown(self) -> None:
        channels.WHOLE_BYTES = WHOLE_BYTES

    def anew(self) -> None:
        self.published: list[bytes | None] = []
        """None stands for a message that was lost before it reached the channel."""
        self.bodies: list[tuple[int, int]] = []

    # Results of the model

    def bytes_before(self, number: int) -> int:
        """Return the bytes before a message: payloads, the cost of each message, and the cost of each body. Lost messages cost nothing."""
        bodies = sum(self.body for first, end in self.bodies if end <= number and self.published[first] is not None)
        return bodies + sum(len(message) + self.each for message in self.published[:number] if message is not None)

    @property
    def end(self) -> int:
        return len(self.published)

    @property
    def newest(self) -> int:
        """Bytes before the newest body."""
        return self.bytes_before(self.bodies[-1][0]) if self.bodies else 0

    def oldest(self) -> int:
        """Return the first message of the first body that a subscriber may still need."""
        now = self.bytes_before(self.end)
        for first, end in self.bodies:
            here = self.bytes_before(end)
            if self.newest - here <= self.queue or (now - here < self.history_bytes and self.end - end < self.history):
                return first
        return self.end

    def within(self, first_byte: int) -> int:
        """Return the first kept message that begins at `first_byte` or later."""
        return next((n for n in range(self.oldest(), self.end) if self.bytes_before(n) >= first_byte), self.end)

    def lags(self, one: Subscriber) -> bool:
        return one.next < self.end and self.newest - max(self.bytes_before(one.next), one.joined_at) > self.queue

    def piece(self, number: int, limit: int) -> int:
        """Return the end of a piece that begins at a message: whole bodies within the limit, short bodies, and a part of the last body."""
        while limit > 0 and number < self.end:
            ((first, end),) = [(first, end) for first, end in self.bodies if first <= number < end]
            here = self.bytes_before(number)
            payload = self.body + sum(len(message or b"") for message in self.published[first:end])
            is_whole = self.bytes_before(end) - here <= limit or (number == first and payload <= self.whole)
            number = end if is_whole else next(n for n in range(number + 1, end + 1) if self.bytes_before(n) - here >= limit or n == end)
            limit -= self.bytes_before(number) - here
        return number

    def lose(self, one: Subscriber, number: int) -> None:
        if number > one.next:
            one.owed = None if one.owed is None else one.owed + number - one.next
            one.next = number

    # Operations

    @rule(messages=MESSAGES)
    def publish(self, messages: list[bytes]) -> None:
        body = self.channel.append(Batch(Kind.BINARY, messages))
        assert body.first == self.end
        self.bodies.append((self.end, self.end + len(messages)))
        self.published += messages

    @rule(messages=st.integers(1, 4))
    def lose_before(self, messages: int) -> None:
        self.channel.lose(messages)
        first = self.bodies.pop()[0] if self.published and self.published[-1] is None else self.end
        self.bodies.append((first, self.end + messages))
        self.published += [None] * messages

    @rule(target=subscribers, how=st.sampled_from(Join))
    def join(self, how: Join) -> Subscriber:
        match how:
            case Join.HISTORY:
                number = max(self.end - self.history, self.within(self.bytes_before(self.end) - self.history_bytes))
            case Join.LAST:
                kept = range(self.oldest(), self.end)
                number = max((number for number in kept if self.published[number] is not None), default=self.end)
            case Join.NONE:
                number = self.end
        return self.keep(Subscriber(self.channel.join(how), number, self.bytes_before(self.end)))

    @rule(target=subscribers, number=st.integers(0, 40), stranger=st.booleans())
    def resume(self, number: int, stranger: bool) -> Subscriber:
        epoch = "other" if stranger else self.channel.epoch
        cursor = self.channel.resume(parse_position(str(Position(epoch, number))))
        one = Subscriber(cursor, self.oldest(), self.bytes_before(self.end), owed=None)
        if not stranger and number <= self.end:
            one.next, one.owed = number, 0
            self.lose(one, self.oldest())
        return self.keep(one)

    def keep(self, one: Subscriber) -> Subscriber:
        self.all.append(one)
        return one

    @rule(one=subscribers, limit=st.integers(1, 40))
    def take(self, one: Subscriber, limit: int) -> None:
        assert self.channel.is_too_slow(one.cursor) == (self.slow is Slow.CLOSE and self.lags(one))
        if self.slow is not Slow.CLOSE and self.lags(one):
            self.lose(one, self.end if self.slow is Slow.LATEST else self.within(self.newest - self.queue))
        self.lose(one, self.oldest())
        taken = self.channel.read(one.cursor, limit)
        if one.owed != 0:
            assert taken.pop(0) == Loss(one.owed, one.next)
            one.owed = 0
        if one.next == self.end:
            assert taken == []
            return
        assert taken
        end = one.next
        for item in taken:
            if isinstance(item, Slice):
                assert item.first == end
                assert list(item.messages) == self.published[end : item.end]
                end = item.end
            else:
                assert item.messages is not None
                assert self.published[end : end + item.messages] == [None] * item.messages
                end += item.messages
                assert item.next == end
        assert end == self.piece(one.next, limit)
        one.next = end

    @rule(one=consumes(subscribers))
    def leave(self, one: Subscriber) -> None:
        self.all.remove(one)

    @rule()
    def renew(self) -> None:
        self.epochs += 1
        self.channel.renew(f"e{self.epochs}", [one.cursor for one in self.all])
        self.anew()
        for one in self.all:
            one.next = one.joined_at = 0
            one.owed = None

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "channel"):
            assert (self.channel.first, self.channel.end) == (self.oldest(), self.end)
            assert self.channel.bytes == self.bytes_before(self.end)


Model.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
test_channel = Model.TestCase


def make(slow: Slow = Slow.DROP_OLDEST, *, queue: int = 100, history: int = 0, history_bytes: int = 1000) -> Channel:
    return Channel("e", queue_bytes=queue, history=history, history_bytes=history_bytes, slow=slow, message_bytes=0, body_bytes=0)


def batch(*messages: bytes) -> Batch:
    return Batch(Kind.TEXT, messages)


def shown(items: list[Loss | Slice]) -> list[object]:
    return [list(item.messages) if isinstance(item, Slice) else item for item in items]


def test_stalled_subscriber() -> None:
    """A stalled subscriber receives the number of messages it missed, and continues with the last messages within its limit."""
    channel = make(queue=3)
    cursor = channel.join(Join.NONE)
    for number in range(1000):
        channel.append(batch(b"%d" % (number % 10)))
    assert shown(channel.read(cursor, 100)) == [Loss(996, 996), [b"6"], [b"7"], [b"8"], [b"9"]]
    assert channel.read(cursor, 100) == []


def test_latest() -> None:
    """With `latest`, a lagging subscriber receives no old message, and immediate notice of the loss."""
    channel = make(Slow.LATEST, queue=3)
    cursor = channel.join(Join.NONE)
    for _ in range(5):
        channel.append(batch(b"a"))
    assert shown(channel.read(cursor, 100)) == [Loss(5, 5)]
    channel.append(batch(b"b"))
    assert shown(channel.read(cursor, 100)) == [[b"b"]]


def test_whole_entries_are_shared() -> None:
    """A subscriber in step with its channel receives the entry itself, so that all subscribers share its encodings."""
    channel = make()
    cursors = [channel.join(Join.NONE) for _ in range(3)]
    entry = channel.append(batch(b"a", b"b"))
    for cursor in cursors:
        (item,) = channel.read(cursor, 100)
        assert isinstance(item, Slice)
        assert item.is_whole
        assert item.entry is entry


def test_message_longer_than_the_lag() -> None:
    """A message longer than the allowed lag reaches each subscriber that keeps up."""
    for slow in Slow:
        channel = make(slow, queue=3)
        cursor = channel.join(Join.NONE)
        for _ in range(3):
            channel.append(batch(b"long" * 10))
            assert not channel.is_too_slow(cursor)
            assert shown(channel.read(cursor, 1)) == [[b"long" * 10]]


def test_close_comes_before_a_loss() -> None:
    """With `close`, a subscriber within its limit loses nothing; a slower one is detected before it has lost anything."""
    channel = make(Slow.CLOSE, queue=3)
    cursor = channel.join(Join.NONE)
    for _ in range(4):
        channel.append(batch(b"a"))
        assert not channel.is_too_slow(cursor)
    channel.append(batch(b"a"))
    assert channel.is_too_slow(cursor)


def test_unneeded_messages_are_dropped() -> None:
    """The ring holds the allowed lag and the history, and no further body, however much is published."""
    channel = make(queue=10, history=3)
    for number in range(10_000):
        channel.append(batch(b"%05d" % number))
        kept = [entry for entry in channel._entries if entry.size]
        assert sum(body.size for body in kept) <= 10 + 2 * 5
        assert len(channel._entries) < 200
    assert channel.first == 10_000 - 4


def test_empty_messages_count() -> None:
    """The limit of the ring covers empty messages too."""
    channel = Channel("e", queue_bytes=1000, history=3, history_bytes=1000, slow=Slow.DROP_OLDEST)
    for _ in range(10_000):
        channel.append(batch(b"", b""))
    assert channel.end - channel.first < 1000 / MESSAGE_BYTES + 4


NONE = ("", "e", "e-", "-1", "e-1x", "E-1", "e-1-", "e--1", "é-1", "e-\u0661", "e-" + "1" * 19, "e" * 65 + "-1", "e-1\n")


@pytest.mark.parametrize("text", NONE)
def test_no_position(text: str) -> None:
    """Text that is not a position is rejected."""
    assert parse_position(text) is None


def test_losses_without_messages() -> None:
    """Consecutive losses merge into one entry and one notice, so that they take no more memory."""
    channel = make(history=10)
    channel.append(batch(b"a"))
    cursor = channel.join(Join.NONE)
    for _ in range(10_000):
        channel.lose(1)
    assert channel.read(cursor, 1) == [Loss(10_000, 10_001)]
    channel.lose(2)
    assert channel.read(cursor, 1) == [Loss(2, 10_003)]
    assert len(channel._entries) == 2


def test_repeat_is_not_ahead() -> None:
    """A position with the mark of a repeat refers to the first copy, although the offset of the repeat is later."""
    channel = make(history=10)
    channel.renew("7.00", [])
    channel.append(batch(b"a", b"b"), "7.aa")
    channel.repeat("9.aa")
    position = parse_position("9.aa-1")
    assert position is not None
    assert not channel.is_ahead(position)
    assert shown(channel.read(channel.resume(position), 100)) == [[b"b"]]


def test_beginning_of_a_stream() -> None:
    """In a stream that begins at its first body, an earlier position and `0-0` are valid, but no position of another stream."""
    channel = make(history=10)
    channel.renew("0.ab", [])
    for text, is_ahead in (("0.ab-0", False), ("0-0", False), ("0.cd-0", True)):
        position = parse_position(text)
        assert position is not None
        assert channel.is_ahead(position) is is_ahead
    channel.append(batch(b"a"), "0.aa")
    for text, expected in (("0.ab-0", [[b"a"]]), ("0-0", [[b"a"]]), ("0.cd-0", [Loss(None, 0), [b"a"]])):
        assert shown(channel.read(channel.resume(parse_position(text)), 100)) == expected


def test_later_beginning() -> None:
    """If the history begins after the beginning of the stream, `0-0` lies before the kept messages."""
    channel = make(history=10)
    channel.renew("7.ab", [])
    assert shown(channel.read(channel.resume(parse_position("0-0")), 100)) == [Loss(None, 0)]


def test_bodies_count() -> None:
    """The cost of a body counts, so that single messages reach the limit too."""
    channel = Channel("e", queue_bytes=100 * (BODY_BYTES + MESSAGE_BYTES + 1), history=0, history_bytes=0, slow=Slow.DROP_OLDEST)
    for _ in range(1_000):
        channel.append(batch(b"x"))
    assert channel.end - channel.first in (100, 101, 102)
