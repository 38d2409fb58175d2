"""The spool compared with a model: a list of messages, and the state of each."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wsbridge.bus.bodies import BODY_BYTES, OutgoingBody, unpack
from wsbridge.bus.spool import OVERHEAD_BYTES, Spool
from wsbridge.flow import Batch, Kind

LINE = b"x" * 100
messages = {
    Kind.TEXT: st.lists(st.sampled_from((b"", b"a", b"a\nb", b"\n", LINE)), min_size=1, max_size=4),
    Kind.BINARY: st.lists(st.sampled_from((b"", b"a\nb", LINE)), min_size=1, max_size=3),
}
batches = st.sampled_from(Kind).flatmap(lambda kind: messages[kind].map(lambda found: Batch(kind, found)))


class Model(RuleBasedStateMachine):
    """In any order of put, take, confirm, link loss and reconnect, each message leaves once and in order, or is counted as lost."""

    @initialize(limit=st.sampled_from([0, 400, 1_000, 100_000]))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.spool = Spool(limit)
        self.published: list[tuple[Kind, bytes]] = []
        self.under_way: list[OutgoingBody] = []
        self.sent_before: dict[int, OutgoingBody] = {}
        """Bodies that were sent and put back, by the number of their first message."""
        self.next = 0
        """The number of the next message that has not been sent before."""
        self.settled: set[int] = set()
        """Messages that were confirmed, or counted as lost."""

    @rule(batch=batches)
    def put(self, batch: Batch) -> None:
        self.published += [(batch.kind, message) for message in batch.messages]
        self.spool.put(batch)

    @rule(count=st.integers(1, 400))
    def put_many_lines(self, count: int) -> None:
        for _ in range(count):
            self.put(Batch(Kind.TEXT, [LINE * 5]))

    @rule()
    def put_more_than_one_body(self) -> None:
        self.put(Batch(Kind.TEXT, [LINE] * 2_000))

    @precondition(lambda self: self.spool)
    @rule()
    def take(self) -> None:
        packed = self.spool.pop()
        if (again := self.sent_before.pop(packed.first, None)) is not None:
            assert packed == again, "the spool changed a body that was put back"
        else:
            assert not self.sent_before or min(self.sent_before) > packed.first, "a new body left before a body that was put back"
            assert packed.first == self.next
            self.next += packed.messages
        assert packed.messages == 1 or len(packed.data) <= BODY_BYTES
        body = unpack(packed.data, packed.content_type, packed.headers("p"))
        numbers = range(packed.first, packed.first + packed.messages)
        assert [(body.batch.kind, message) for message in body.batch.messages] == [self.published[number] for number in numbers]
        self.under_way.append(packed)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        packed = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.settle(packed)
        self.spool.confirm(packed)

    @precondition(lambda self: self.under_way)
    @rule()
    def confirm_twice(self) -> None:
        packed = self.under_way.pop()
        self.settle(packed)
        self.spool.confirm(packed)
        before = self.spool.bytes
        self.spool.confirm(packed)
        assert self.spool.bytes == before

    @rule()
    def put_back(self) -> None:
        self.sent_before |= {packed.first: packed for packed in self.under_way}
        self.under_way.clear()
        self.spool.put_back()

    @rule()
    def give_up(self) -> None:
        assert self.spool.give_up() == sum(packed.messages for packed in self.under_way)
        for packed in self.under_way:
            self.settle(packed)
        self.under_way.clear()

    @rule()
    def drop_oldest(self) -> None:
        dropped = self.spool.drop_oldest()
        assert not self.spool.is_full or not self.spool
        while dropped and self.sent_before:
            first = min(self.sent_before)
            if first > self.next:
                break
            packed = self.sent_before.pop(first)
            self.settle(packed)
            dropped -= packed.messages
        assert dropped >= 0
        self.settled |= set(range(self.next, self.next + dropped))
        self.next += dropped

    def settle(self, packed: OutgoingBody) -> None:
        numbers = set(range(packed.first, packed.first + packed.messages))
        assert not numbers & self.settled, "a message left twice"
        self.settled |= numbers

    @invariant()
    def is_what_it_says(self) -> None:
        if not hasattr(self, "spool"):
            return
        owed = len(self.published) - len(self.settled)
        assert self.spool.is_empty == (owed == 0)
        assert (self.spool.bytes == 0) == self.spool.is_empty
        assert self.spool.bytes >= 0
        assert bool(self.spool) == (bool(self.sent_before) or self.next < len(self.published))
        assert self.spool.is_full == (self.spool.bytes >= self.limit)
        assert self.spool.has_room == (self.spool.bytes <= self.limit // 2)

    def teardown(self) -> None:
        """Finally, every message has left or is counted, and the spool holds no bytes."""
        if not hasattr(self, "spool"):
            return
        while self.spool:
            self.take()
        while self.under_way:
            packed = self.under_way.pop(0)
            self.settle(packed)
            self.spool.confirm(packed)
        assert self.settled == set(range(len(self.published)))
        assert (self.spool.bytes, self.spool.is_empty) == (0, True)


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_spool = Model.TestCase


def put_lines(spool: Spool, *lines: bytes) -> None:
    for line in lines:
        spool.put(Batch(Kind.TEXT, [line]))


def test_waiting_lines_are_joined() -> None:
    """The longer the broker takes, the fewer and larger the bodies are."""
    spool = Spool(1 << 20)
    put_lines(spool, *[b"%d" % number for number in range(1_000)])
    packed = spool.pop()
    assert (packed.first, packed.messages) == (0, 1_000)
    assert not spool
    assert spool.bytes == len(packed.data) + OVERHEAD_BYTES


def test_body_that_is_put_back_is_not_joined() -> None:
    """The spool sends a body again unchanged: joined with other lines, it could not be recognized as a repeat."""
    spool = Spool(1 << 20)
    put_lines(spool, b"one")
    first = spool.pop()
    spool.put_back()
    put_lines(spool, b"two", b"three")
    assert spool.pop() == first
    assert spool.pop().data == b"two\nthree"


def test_late_confirmation() -> None:
    """The spool ignores a confirm for a body that it has put back; it sends the body again, and receivers recognize the repeat."""
    spool = Spool(1 << 20)
    put_lines(spool, b"one")
    packed = spool.pop()
    spool.put_back()
    spool.confirm(packed)
    assert spool.pop() == packed


def test_empty_messages_fill_the_spool() -> None:
    """Messages without bytes fill a spool too."""
    spool = Spool(10 * OVERHEAD_BYTES)
    for _ in range(10):
        assert not spool.is_full
        spool.put(Batch(Kind.BINARY, [b""]))
    assert spool.is_full
    assert spool.drop_oldest() == 1


@pytest.mark.parametrize("size", [BODY_BYTES * 3, 1 << 20])
def test_message_longer_than_the_spool(size: int) -> None:
    """The spool accepts a single message of any length, and sends it in a body of its own."""
    spool = Spool(1000)
    put_lines(spool, b"before", b"x" * size, b"after")
    assert spool.is_full
    assert [spool.pop().messages for _ in range(3)] == [1, 1, 1]
