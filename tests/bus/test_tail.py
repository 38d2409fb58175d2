"""The last body that was read from a stream: whether the next body is new, known, or from another stream."""

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
    """In an unknown stream, any body is the first, whatever its offset."""
    tail = tail_at(offset)
    assert tail.last == Place(offset, "aa")


def test_in_order() -> None:
    """The next body is new, even after one skipped offset at the beginning of a segment."""
    tail = tail_at(3)
    assert tail.classify(Place(4, "bb")) is Relation.NEXT
    assert tail.classify(Place(6, "cc")) is Relation.NEXT
    assert tail.last == Place(6, "cc")


def test_gap() -> None:
    """More skipped offsets are a loss only if the stream has dropped the last body."""
    tail = tail_at(3)
    assert tail.classify(Place(9, "bb")) is Relation.DOUBT
    assert tail.last == Place(3, "aa"), "a doubt changed the last body"
    assert tail.classify(Place(9, "bb"), oldest=3) is Relation.NEXT
    assert tail.classify(Place(19, "cc"), oldest=10) is Relation.GAP
    assert tail.classify(Place(20, "dd")) is Relation.NEXT
    assert tail.last == Place(20, "dd")


def test_doubt_reaches_nothing() -> None:
    """A body in doubt does not change the last body."""
    tail = tail_at(3)
    tail.classify(Place(9, "bb"))
    assert tail.classify(Place(9, "bb"), oldest=0) is Relation.NEXT


@pytest.mark.parametrize("offset", [2, 4, 5])
def test_known(offset: int) -> None:
    """Earlier bodies arrive again if a chunk begins before the requested offset."""
    tail = tail_at(5)
    assert tail.classify(Place(offset, "aa")) is Relation.KNOWN
    assert tail.last == Place(5, "aa")


def test_last_comes_again() -> None:
    """After a lost link, the reader requests the last body again: if it is the same, the stream is the same."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(5, "aa")) is Relation.KNOWN
    assert tail.classify(Place(6, "bb")) is Relation.NEXT


def test_other_body_in_its_place() -> None:
    """Another body at the offset of the last body shows another stream."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(5, "bb")) is Relation.OTHER
    assert tail.last == Place(5, "aa"), "a body of another stream changed the last body"
    tail.forget()
    assert tail.last is None
    assert tail.classify(Place(5, "bb")) is Relation.FIRST


def test_place_before_the_last() -> None:
    """If an earlier body arrives instead of the requested last one, the stream has no such offset: it is another stream."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(0, "bb")) is Relation.OTHER


def test_last_was_dropped() -> None:
    """If the stream has dropped the last body, the next one is a gap, since even its direct successor would prove nothing."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(8, "bb")) is Relation.GAP
    assert tail.classify(Place(9, "cc")) is Relation.NEXT


def test_expectation_without_a_body() -> None:
    """A tail without a body expects no body."""
    tail = Tail()
    tail.expect_last()
    assert tail.classify(Place(0, "aa")) is Relation.FIRST


def test_expected_once() -> None:
    """Only the first body after a lost link is compared with the last body."""
    tail = tail_at(5)
    tail.expect_last()
    assert tail.classify(Place(5, "aa")) is Relation.KNOWN
    assert tail.classify(Place(5, "bb")) is Relation.KNOWN


def test_names() -> None:
    """The text of a place is the mark of its body."""
    assert str(Place(1207, "9f3ac01b")) == "1207.9f3ac01b"


async def test_reach() -> None:
    """A task can wait until the tail reaches a place, even one that it has already reached."""
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
    """A body behind a place also reaches the place."""
    tail = Tail()
    reaching = asyncio.create_task(tail.reach(5))
    await turns()
    tail.classify(Place(9, "aa"))
    async with asyncio.timeout(scaled(1)):
        await reaching
