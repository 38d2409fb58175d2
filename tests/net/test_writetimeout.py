"""The write timeout, on a clock that the test controls: it compares the accepted bytes, and closes the connection."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.support.clock import Clock
from wsbridge.metrics import Metrics
from wsbridge.net.writetimeout import WriteTimeout


class Connection:
    """A connection with a write timeout: `accepted` counts the bytes that the client accepted, `aborted_at` is the time of the abort."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.accepted: int | None = 0
        self.waits = True
        self.aborted_at: float | None = None
        self.metrics = Metrics()
        loop: Any = self.clock
        self.timeout = WriteTimeout(
            accepted=lambda: self.accepted,
            abort=self.abort,
            waits=lambda: self.waits,
            log=logging.getLogger("wsbridge.http"),
            metrics=self.metrics,
            fields={"id": "7"},
            loop=loop,
            **options,
        )

    def abort(self) -> None:
        self.aborted_at = self.clock.now


def test_client_that_accepts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A period without progress closes the connection, increments the metric, and writes a log line with the period."""
    one = Connection()
    with caplog.at_level(logging.INFO):
        one.timeout.start(60)
        one.clock.turn_to(59)
        assert one.aborted_at is None
        one.clock.turn_to(61)
    assert (one.aborted_at, one.metrics.clients_timed_out) == (60, 1)
    assert [record.getMessage() for record in caplog.records] == ["closing: the client accepted no data for 60 s"]


def test_slow_client() -> None:
    """A client that accepts one byte in each period keeps its connection; the first period without one ends it."""
    one = Connection()
    one.timeout.start(60)
    for period in range(10):
        one.accepted = period + 1
        one.clock.turn_to(60 * (period + 1))
    assert one.aborted_at is None
    one.clock.turn_to(10_000)
    assert one.aborted_at == 660


def test_no_data_waits() -> None:
    """A connection without waiting data is closed as well, but this does not count as a timeout of the client."""
    one = Connection()
    one.waits = False
    one.timeout.start(2)
    one.clock.turn_to(3)
    assert (one.aborted_at, one.metrics.clients_timed_out) == (2, 0)


def test_closed_connection() -> None:
    """The timeout does not abort a connection that is already closed, and begins no new period on it."""
    one = Connection()
    one.timeout.start(2)
    one.accepted = None
    one.clock.turn_to(3)
    one.timeout.start(2)
    assert not one.timeout.is_running
    one.clock.turn_to(9)
    assert (one.aborted_at, one.metrics.clients_timed_out) == (None, 0)


def test_stopped() -> None:
    """A period that is stopped, or replaced by a new period, closes nothing."""
    one = Connection()
    one.timeout.start(10)
    one.clock.turn_to(9)
    one.timeout.start(10)
    one.clock.turn_to(18)
    assert one.timeout.is_running
    one.timeout.stop()
    one.clock.turn_to(99)
    assert (one.aborted_at, one.timeout.is_running) == (None, False)


def test_no_timeout() -> None:
    """With 0, no timeout applies."""
    one = Connection()
    one.timeout.start(0)
    assert not one.timeout.is_running


def test_next_period() -> None:
    """The owner sets the length of the next period, for example when the closing handshake has begun."""
    one = Connection(again=lambda seconds: seconds / 2)
    one.timeout.start(60)
    one.accepted = 1
    one.clock.turn_to(60)
    one.clock.turn_to(1000)
    assert one.aborted_at == 90
