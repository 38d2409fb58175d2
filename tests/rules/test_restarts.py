"""The restart policy of a program, as values: exit status and run time in, pause out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.rules.backoff import SETTLED
from wsbridge.rules.restarts import FIRST_PAUSE, MAX_PAUSE, Restart, Restarts

STATUSES = (0, 1, 126, -2, -9)


@pytest.mark.parametrize("status", STATUSES)
def test_policies(status: int) -> None:
    """`always` restarts after every exit, `on-failure` after all but exit 0, `never` after none."""
    first = {policy: Restarts(policy).after(status, 0) for policy in Restart}
    assert first == {
        Restart.ALWAYS: FIRST_PAUSE,
        Restart.ON_FAILURE: None if status == 0 else FIRST_PAUSE,
        Restart.NEVER: None,
    }


def test_growing_pauses() -> None:
    """Short runs cause restarts after pauses that double, up to half a minute."""
    restarts = Restarts(Restart.ALWAYS)
    assert [restarts.after(1, 0.1) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_settled() -> None:
    """After a long run, the pauses start from the first again."""
    restarts = Restarts(Restart.ALWAYS)
    for _ in range(9):
        restarts.after(1, SETTLED - 0.001)
    assert restarts.after(1, SETTLED) == FIRST_PAUSE
    assert restarts.after(1, 0) == FIRST_PAUSE * 2


@given(lives=st.lists(st.tuples(st.sampled_from(STATUSES), st.floats(0, 1e6)), max_size=30), policy=st.sampled_from(Restart))
def test_any_life(lives: list[tuple[int, float]], policy: Restart) -> None:
    """Every pause is between the first and the longest, and each grows unless the run was long."""
    restarts = Restarts(policy)
    before = 0.0
    for status, ran in lives:
        pause = restarts.after(status, ran)
        if pause is None:
            continue
        assert FIRST_PAUSE <= pause <= MAX_PAUSE
        assert pause == (FIRST_PAUSE if ran >= SETTLED or not before else min(before * 2, MAX_PAUSE))
        before = pause


def test_flag_values() -> None:
    """These are the values of --restart."""
    assert [policy.value for policy in Restart] == ["always", "on-failure", "never"]
