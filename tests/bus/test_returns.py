"""What was confirmed and has not come back: values in, values out."""

from __future__ import annotations

from wsbridge.bus.bodies import LINES, OutgoingBody
from wsbridge.bus.rabbitmq.returns import Returns
from wsbridge.bus.spool import size_of


def packed(first: int, messages: int = 1, data: bytes = b"x") -> OutgoingBody:
    return OutgoingBody(LINES, data, first, messages)


def test_comes_back() -> None:
    """What comes back is not missing, whether it is confirmed before that or after."""
    returns = Returns()
    returns.confirmed(packed(0), 1.0)
    returns.returned(2)
    returns.confirmed(packed(1), 2.0)
    assert not returns.is_missing(9.0)
    assert returns.pop_all() == []


def test_does_not() -> None:
    """What does not is missing when its time is over, and is taken in order, once."""
    returns = Returns()
    returns.confirmed(packed(0, 2), 1.0)
    returns.confirmed(packed(2), 2.0)
    returns.returned(1)
    assert not returns.is_missing(0.9)
    assert returns.is_missing(1.0)
    assert returns.pop_all() == [packed(0, 2), packed(2)]
    assert returns.pop_all() == []


def test_bound() -> None:
    """No more is kept than the bound says; the oldest goes first."""
    returns = Returns(limit=2 * size_of(packed(0, data=b"12345")))
    for first in range(4):
        returns.confirmed(packed(first, data=b"12345"), 1.0)
    assert returns.pop_all() == [packed(2, data=b"12345"), packed(3, data=b"12345")]


def test_bound_of_empty_bodies() -> None:
    """A body without a byte takes room, too."""
    returns = Returns(limit=1000)
    for first in range(1000):
        returns.confirmed(packed(first, data=b""), 1.0)
    assert len(returns.pop_all()) < 10
