"""How long tests wait (tests/support/deadline.py)."""

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
    """Deadlines grow with the threads that want a core, on the average of a minute or at this moment, up to a bound."""
    assert slowdown_of(loadavg, cores) == expected


def test_scaled() -> None:
    """On this machine, whatever it does now, a deadline is at least what a quiet one needs."""
    assert CORES >= 1
    assert 3.0 <= scaled(3.0) <= 3.0 * MOST


def test_deadline() -> None:
    """A deadline passes, and begins again when there was progress."""
    deadline = Deadline(0.0)
    assert deadline.has_passed()
    deadline.seconds = 60.0
    deadline.restart()
    assert not deadline.has_passed()
    assert 0 < deadline.remaining() <= 60.0 * MOST


def test_wait_ends() -> None:
    """Without progress a wait ends and says what it waited for."""
    with pytest.raises(AssertionError, match="in vain for Godot"):
        wait_until(lambda: False, "Godot", 0.01)


def test_wait_goes_on_with_progress() -> None:
    """Work that goes on may take far longer than the deadline."""
    steps = iter(range(200))
    done: list[int] = []

    def go_on() -> int:
        done.append(next(steps))
        return len(done)

    assert wait_until(lambda: len(done) == 200, "all steps", 0.05, progress=go_on)
