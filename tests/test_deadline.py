"""The deadlines of tests (tests/support/deadline.py)."""

import pytest

from tests.support.deadline import CORES, MOST, Deadline, scaled, slowdown_of
from tests.support.server import wait_until


@pytest.mark.parametrize(
    ("loadavg", "cores", "expected"),
    [
        ("0.10 0.20 0.30 1/200 4711", 2, 1.0),
        ("2.00 0.20 0.30 1/200 4711", 2, 1.0),
        ("8.00 0.20 0.30 1/200 4711", 2, 4.0),
        ("0.10 0.20 0.30 12/200 4711", 2, 6.0),
        ("8.00 0.20 0.30 12/200 4711", 2, 6.0),
        ("50.0 0.20 0.30 1/200 4711", 2, MOST),
        ("50.0 0.20 0.30 1/200 4711", 64, 1.0),
    ],
)
def test_slowdown(loadavg: str, cores: int, expected: float) -> None:
    """Deadlines grow with the number of runnable threads, on the average of a minute or at the moment, up to a bound."""
    assert slowdown_of(loadavg, cores) == expected


def test_scaled() -> None:
    """On this machine, whatever its load, a deadline is at least that of an idle machine."""
    assert CORES >= 1
    assert 3.0 <= scaled(3.0) <= 3.0 * MOST


def test_deadline() -> None:
    """A deadline passes, and starts again after progress."""
    deadline = Deadline(0.0)
    assert deadline.has_passed()
    deadline.seconds = 60.0
    deadline.restart()
    assert not deadline.has_passed()
    assert 0 < deadline.remaining() <= 60.0 * MOST


def test_wait_ends() -> None:
    """Without progress, a wait ends with an error that names its condition."""
    with pytest.raises(AssertionError, match="in vain for Godot"):
        wait_until(lambda: False, "Godot", 0.01)


def test_wait_continues_with_progress() -> None:
    """A wait with progress may take far longer than the deadline."""
    steps = iter(range(200))
    done: list[int] = []

    def go_on() -> int:
        done.append(next(steps))
        return len(done)

    assert wait_until(lambda: len(done) == 200, "all steps", 0.05, progress=go_on)
