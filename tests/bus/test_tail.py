"""The end of a stream that was had: what comes next is news, known, or says that it is another stream."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.deadline import scaled
from tests.support.proc import turns
from wsbridge.bus.rabbitmq.tail import Place, Relation, Tail


def tail_at(offset: int, fingerprint: str = "aa") -> Tail:
    tail = Tail()
    assert tail.classify(Place(offset, fingerprint)) is Relation.FIRST
    return tail


@pytest.mark.parametrize("offset", [0, 17])
def test_first(offset: int) -> None:
    """Of a stream that was not known whatever comes is the first, wherever the stream begins by now."""
    tail = tail_at(offset)
    assert tail.last == Place(offset, "aa")


def test_in_order() -> None:
    """The next is news, also behind one offset that is left out, where a segment of the stream begins."""
    tail = tail_at(3)
    assert tail.classify(Place(4, "bb")) is Relation.NEXT
    assert tail.classify(Place(6, "cc")) is Relation.NEXT
    assert tail.last == Place(6, "cc")


def test_gap() -> None:
    """More that is left out says nothing by itself: it is a gap where the stream has let go of the last, and else no loss."""
    tail = tail_at(3)
    assert tail.classify(Place(9, "bb")) is Relation.DOUBT
    assert tail.last == Place(3, "aa"), "nothing is known yet"
    assert tail.classify(Place(9, "bb"), oldest=3) is Relation.NEXT
    assert tail.classify(Place(19, "cc"), oldest=10) is Relation.GAP
    assert tail.classify(Place(20, "dd")) is Relation.NEXT
    assert tail.last == Place(20, "dd")


def test_doubt_reaches_nothing() -> None:
    """A body that is in doubt was not had."""
    tail = tail_at(3)
    tail.classify(Place(9, "bb"))
    assert tail.classify(Place(9, "bb"), oldest=0) is Relation.NEXT


@pytest.mark.parametrize("offset", [2, 4, 5])
def test_known(offset: int) -> None:
    """What was had before comes again where a chunk of the stream begins before the offset that was asked for."""
    tail = tail_at(5)
    assert tail.classify(Place(offset, "aa")) is Relation.KNOWN
    assert tail.last == Place(5, "aa")


def test_last_comes_again() -> None:
    """After a break the last body is asked for again: if it is the same, so is the stream."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(5, "aa")) is Relation.KNOWN
    assert tail.classify(Place(6, "bb")) is Relation.NEXT


def test_another_in_its_place() -> None:
    """Another body where the last one was is another stream."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(5, "bb")) is Relation.OTHER
    assert tail.last == Place(5, "aa"), "nothing of it was had"
    tail.forget()
    assert tail.last is None
    assert tail.classify(Place(5, "bb")) is Relation.FIRST


def test_place_before_the_last() -> None:
    """A stream that brings an earlier body first where the last one was asked for has no such offset: it is another."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(0, "bb")) is Relation.OTHER


def test_last_has_gone() -> None:
    """When the stream has let go of the last body meanwhile, what comes is a gap; one that is the very next would prove nothing."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(8, "bb")) is Relation.GAP
    assert tail.classify(Place(9, "cc")) is Relation.NEXT


def test_nothing_was_had() -> None:
    """Who has had nothing can expect nothing."""
    tail = Tail()
    tail.expect_last()
    assert tail.classify(Place(0, "aa")) is Relation.FIRST


def test_expected_once() -> None:
    """Only the first body after a break is held against the last."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(5, "aa")) is Relation.KNOWN
    assert tail.classify(Place(5, "bb")) is Relation.KNOWN


def test_names() -> None:
    """A place is written as the mark of its body."""
    assert str(Place(1207, "9f3ac01b")) == "1207.9f3ac01b"


async def test_reach() -> None:
    """It can be waited for until a place is reached, also for one that has been already."""
    tail = tail_at(3)
    async with asyncio.timeout(scaled(1)):
        await tail.reach(3)
        await tail.reach(1)
        reaching = asyncio.create_task(tail.reach(5))
        await turns()
        tail.classify(Place(4, "bb"))
        await turns()
        assert not reaching.done()
        tail.classify(Place(5, "cc"))
        await reaching


async def test_reach_by_a_gap() -> None:
    """A place is also reached by what lies behind it."""
    tail = Tail()
    reaching = asyncio.create_task(tail.reach(5))
    await turns()
    tail.classify(Place(9, "aa"))
    async with asyncio.timeout(scaled(1)):
        await reaching
