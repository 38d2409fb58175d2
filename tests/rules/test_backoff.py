"""Pauses before trying again: longer each time, bounded, and spread by chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.rules.backoff import FIRST, MAX_PAUSE, SETTLED, Backoff


def test_growing() -> None:
    """Each pause is twice the one before, up to the longest."""
    backoff = Backoff()
    assert [backoff.next(1) for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]


@pytest.mark.parametrize("chance", [0, 0.5, 1])
def test_chance(chance: float) -> None:
    """Chance puts a pause between half of it and all, so that a thousand who were cut off at once do not come back at once."""
    assert Backoff().next(chance) == FIRST * (0.5 + chance / 2)


def test_settled() -> None:
    """What has worked for a while begins anew with the first pause; what has not goes on where it was."""
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
    """No pause is ever shorter than half of the first or longer than the longest."""
    backoff = Backoff()
    for chance, ran in steps:
        if ran is not None:
            backoff.ran(ran)
        assert FIRST / 2 <= backoff.next(chance) <= MAX_PAUSE
