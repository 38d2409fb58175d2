"""What is counted, and how it is shown."""

from __future__ import annotations

from wsbridge.metrics import Metrics


def test_begins_at_nothing() -> None:
    """A server that did nothing shows nothing, and each server counts for itself."""
    first, second = Metrics(), Metrics()
    first.refused[404] += 1
    assert (second.nonzero(), second.refused[404]) == ("", 0)


def test_shown_as_one_line() -> None:
    """Counts that are not zero, in a fixed order, refusals by their status."""
    metrics = Metrics(sessions=3, protocol_errors=1)
    metrics.refused[429] += 2
    metrics.refused[403] += 1
    metrics.refused[404] += 0
    assert metrics.nonzero() == "sessions=3 refused_403=1 refused_429=2 protocol_errors=1"
