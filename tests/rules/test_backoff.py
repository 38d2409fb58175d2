"""Pauses before a retry: each is longer, all are bounded, and chance spreads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.rules.backoff import FIRST, MAX_PAUSE, SETTLED, Backoff


def test_growing() -> None:
    """Each pause is twice the previous pause, up to the longest."""
    backoff = Backoff()
    assert [backoff.next(1) for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]


@pytest.mark.parametrize("chance", [0, 0.5, 1])
def test_chance(chance: float) -> None:
    """Chance chooses a pause between half of its length and all of it, so that many clients do not reconnect simultaneously."""
    assert Backoff().next(chance) == FIRST * (0.5 + chance / 2)


def test_settled() -> None:
    """After a long run, the next pause is the first again; after a short run, the pauses keep growing."""
    backoff = Backoff()
    for _ in range(9):
        backoff.next(1)
    backoff.ran(SETTLED - 0.001)
    assert backoff.next(1) == MAX_PAUSE
    backoff.ran(SETTLED)
    assert backoff.next(1) == FIRST
    backoff.ran(0)
    assert backoff.next(1) == FIRST * 2


@given(steps=st.lists(st.tuples(st.floats(0, 1), st.none() | st.floats(0, 1e6)), max_size=30))
def test_any_life(steps: list[tuple[float, float | None]]) -> None:
    """Every pause is at least half of the first and at most the longest."""
    backoff = Backoff()
    for chance, ran in steps:
        if ran is not None:
            backoff.ran(ran)
        assert FIRST / 2 <= backoff.next(chance) <= MAX_PAUSE
