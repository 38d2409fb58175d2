"""When a program is started again, as values: how it ended and how long it ran in, the pause out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.rules.backoff import SETTLED
from wsbridge.rules.restarts import FIRST_PAUSE, LONGEST_PAUSE, Restart, Restarts

STATUSES = (0, 1, 126, -2, -9)


@pytest.mark.parametrize("status", STATUSES)
def test_policies(status: int) -> None:
    """`always` starts again whatever happened, `on-failure` all but exit 0, `never` nothing."""
    first = {policy: Restarts(policy).after(status, 0) for policy in Restart}
    assert first == {
        Restart.ALWAYS: FIRST_PAUSE,
        Restart.ON_FAILURE: None if status == 0 else FIRST_PAUSE,
        Restart.NEVER: None,
    }


def test_growing_pauses() -> None:
    """A program that keeps ending early is started again after pauses that double, up to half a minute."""
    restarts = Restarts(Restart.ALWAYS)
    assert [restarts.after(1, 0.1) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_settled() -> None:
    """One that has run well has all its patience again."""
    restarts = Restarts(Restart.ALWAYS)
    for _ in range(9):
        restarts.after(1, SETTLED - 0.001)
    assert restarts.after(1, SETTLED) == FIRST_PAUSE
    assert restarts.after(1, 0) == FIRST_PAUSE * 2


@given(lives=st.lists(st.tuples(st.sampled_from(STATUSES), st.floats(0, 1e6)), max_size=30), policy=st.sampled_from(Restart))
def test_any_life(lives: list[tuple[int, float]], policy: Restart) -> None:
    """Whatever a program does, no pause is shorter than the first or longer than the longest, and each grows unless it ran well."""
    restarts = Restarts(policy)
    before = 0.0
    for status, ran in lives:
        pause = restarts.after(status, ran)
        if pause is None:
            continue
        assert FIRST_PAUSE <= pause <= LONGEST_PAUSE
        assert pause == (FIRST_PAUSE if ran >= SETTLED or not before else min(before * 2, LONGEST_PAUSE))
        before = pause


def test_words() -> None:
    """These are the words of --restart."""
    assert [policy.value for policy in Restart] == ["always", "on-failure", "never"]
