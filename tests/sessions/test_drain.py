"""The drain after an exit, on a clock that the test controls: output from before the exit is read, however long that takes."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.support.clock import Clock
from wsbridge.sessions.drain import POLL_SECONDS, Drain


class Stdout:
    """The stdout of a program that has exited."""

    has_unread_output = False


def drain(stdout: Stdout, clock: Clock, seconds: float) -> tuple[Drain, list[float]]:
    """Begin a drain; the list gets the time of its end."""
    ends: list[float] = []
    loop: Any = clock
    return Drain(stdout, seconds, lambda: ends.append(clock.now), fields={"id": "7"}, loop=loop), ends


def test_open_stdout(caplog: pytest.LogCaptureFixture) -> None:
    """The drain waits for more output for --drainms; then it ends, and the log states the reason."""
    clock = Clock()
    with caplog.at_level(logging.DEBUG):
        _, ends = drain(Stdout(), clock, 2)
        clock.turn_to(1.9)
        assert ends == []
        clock.turn_to(99)
    assert ends == [2]
    assert clock.timers == []
    assert [record.getMessage() for record in caplog.records] == ["a process of the group still holds stdout open"]


@pytest.mark.parametrize(("seconds", "step"), [(0, POLL_SECONDS), (2, 2)])
def test_slow_reader(seconds: float, step: float) -> None:
    """Output from before the exit is never truncated: the drain continues until it has been read."""
    clock, stdout = Clock(), Stdout()
    stdout.has_unread_output = True
    _, ends = drain(stdout, clock, seconds)
    clock.turn_to(seconds + 100 * step)
    assert ends == []
    stdout.has_unread_output = False
    clock.turn_to(seconds + 102 * step)
    assert ends == [pytest.approx(seconds + 101 * step)]


def test_cancelled() -> None:
    """A cancelled drain never ends anything, and `cancel` is idempotent."""
    clock = Clock()
    draining, ends = drain(Stdout(), clock, 2)
    draining.cancel()
    clock.turn_to(99)
    draining.cancel()
    assert ends == []
