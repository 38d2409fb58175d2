"""The steps that end a child, as data."""

from __future__ import annotations

from itertools import accumulate
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

from wsbridge.process.termination import LAST_WAIT, make_ladder


@pytest.mark.parametrize(
    ("close_ms", "int_ms", "term_ms", "kill_ms"),
    [(0, 100, 350, 850), (1, 101, 352, 853), (400, 500, 1150, 2050), (5000, 5100, 10350, 15850)],
)
def test_steps(close_ms: int, int_ms: float, term_ms: float, kill_ms: float) -> None:
    """After stdin was closed, the steps are INT at 100+N ms, TERM at 350+2N and KILL at 850+3N, where N is `--closems`."""
    ladder = make_ladder(close_ms / 1000)
    times = [round(total * 1000) for total in accumulate(step.grace for step in ladder)]
    assert list(zip(times, (step.signal for step in ladder), strict=True)) == [(int_ms, SIGINT), (term_ms, SIGTERM), (kill_ms, SIGKILL)]


def test_last_pause() -> None:
    """A child that still lives a second after KILL is reported."""
    assert LAST_WAIT == 1.0
