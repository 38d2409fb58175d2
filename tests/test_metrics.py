"""The metrics and their form in the log."""

from __future__ import annotations

from wsbridge.metrics import Metrics


def test_new_server_has_no_counts() -> None:
    """A new server shows no counts, and each server has its own counts."""
    first, second = Metrics(), Metrics()
    first.refused[404] += 1
    assert (second.nonzero(), second.refused[404]) == ("", 0)


def test_shown_as_one_line() -> None:
    """The line has the counts that are not zero, in a fixed order, and refusals by their status."""
    metrics = Metrics(sessions=3, protocol_errors=1)
    metrics.refused[429] += 2
    metrics.refused[403] += 1
    metrics.refused[404] += 0
    assert metrics.nonzero() == "sessions=3 refused_403=1 refused_429=2 protocol_errors=1"
