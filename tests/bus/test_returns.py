"""Confirmed bodies that have not returned from the broker, as a pure function."""

from __future__ import annotations

from wsbridge.bus.bodies import LINES, OutgoingBody
from wsbridge.bus.rabbitmq.returns import Returns
from wsbridge.bus.spool import size_of


def packed(first: int, messages: int = 1, data: bytes = b"x") -> OutgoingBody:
    return OutgoingBody(LINES, data, first, messages)


def test_returned_body() -> None:
    """A returned body is not missing, whether its confirm arrives before or after it."""
    returns = Returns()
    returns.confirmed(packed(0), 1.0)
    returns.returned(2)
    returns.confirmed(packed(1), 2.0)
    assert not returns.is_missing(9.0)
    assert returns.pop_all() == []


def test_missing_body() -> None:
    """A body that does not return in time is missing; `take` returns the missing bodies once, in order."""
    returns = Returns()
    returns.confirmed(packed(0, 2), 1.0)
    returns.confirmed(packed(2), 2.0)
    returns.returned(1)
    assert not returns.is_missing(0.9)
    assert returns.is_missing(1.0)
    assert returns.pop_all() == [packed(0, 2), packed(2)]
    assert returns.pop_all() == []


def test_bound() -> None:
    """The memory for unreturned bodies is limited; the oldest bodies drop out first."""
    returns = Returns(limit=2 * size_of(packed(0, data=b"12345")))
    for first in range(4):
        returns.confirmed(packed(first, data=b"12345"), 1.0)
    assert returns.pop_all() == [packed(2, data=b"12345"), packed(3, data=b"12345")]


def test_bound_of_empty_bodies() -> None:
    """An empty body also counts towards the limit."""
    returns = Returns(limit=1000)
    for first in range(1000):
        returns.confirmed(packed(first, data=b""), 1.0)
    assert len(returns.pop_all()) < 10
