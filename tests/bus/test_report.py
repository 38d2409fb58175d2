"""What the log says about the broker: values in, lines out."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from wsbridge.bus.rabbitmq.report import Report, Reported, all_of
from wsbridge.errors import BusError
from wsbridge.logs import RepeatFilters, logger

AT = "amqp://rabbit:5672/"
URLS = ("amqp://rabbit/", "amqp://hare/")
LOST = f"disconnected from the broker at {AT}: gone; reconnecting"
BACK = f"reconnected to the broker at {AT}"

Lines = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Returns the lines since the last call, each with the exchange that it names."""
    caplog.set_level(logging.INFO, "wsbridge")

    def take() -> list[tuple[str, str]]:
        taken = [(getattr(record, "fields", {}).get("exchange", ""), record.getMessage()) for record in caplog.records]
        caplog.clear()
        return taken

    return take


def reports(number: int) -> list[Report]:
    """Return the reports of some channels over the same connections."""
    failures = RepeatFilters(logger("bus"))
    return [Report(f"channel{index}", failures) for index in range(number)]


def test_connection(lines: Lines) -> None:
    """The loss of a connection, the failed attempts and the reconnection are one line each, however many channels it carried."""
    many = reports(200)
    for connection in (Reported(), Reported()):
        for report in many:
            report.disconnected(AT, "gone", lost=connection)
        assert lines() == [("", LOST)]
        for seconds in (0.0, 1.0, 2.0):
            for report in many:
                report.failed({URLS[1]: BusError("hare away"), URLS[0]: BusError("rabbit away")}, URLS, seconds)
        assert lines() == [("", "rabbit away; hare away")]
        for report in many:
            report.reconnected(AT)
        assert lines() == [("", BACK)]


def test_link(lines: Lines) -> None:
    """The loss of one link, and what happens until the bus has another, name the exchange."""
    one, other = reports(2)
    one.disconnected(AT, "gone", lost=None)
    one.failed({URLS[0]: BusError("no exchange", exchange="channel0")}, URLS, 0.0)
    one.failed({URLS[0]: BusError("no exchange", exchange="channel0")}, URLS, 1.0)
    one.reconnected(AT)
    assert lines() == [("channel0", LOST), ("channel0", "no exchange"), ("channel0", BACK)]
    other.disconnected(AT, "gone", lost=Reported())
    other.reconnected(AT)
    assert lines() == [("", LOST), ("", BACK)]


def test_one_channel_stays_away(lines: Lines) -> None:
    """If one channel cannot be used after a lost connection, its error and its own reconnection name the exchange."""
    one, other = reports(2)
    lost = Reported()
    for report in (one, other):
        report.disconnected(AT, "gone", lost=lost)
    one.failed({URLS[0]: BusError("no exchange", exchange="channel0")}, URLS, 0.0)
    other.reconnected(AT)
    one.reconnected(AT)
    assert lines() == [("", LOST), ("channel0", "no exchange"), ("", BACK), ("channel0", BACK)]


def test_named_one_comes_first(lines: Lines) -> None:
    """The reconnection of a channel that the log has named does not hide that of the others."""
    one, other = reports(2)
    one.disconnected(AT, "gone", lost=None)
    other.disconnected(AT, "gone", lost=Reported())
    one.reconnected(AT)
    other.reconnected(AT)
    assert lines()[2:] == [("channel0", BACK), ("", BACK)]


def test_failure_of_several_addresses(lines: Lines) -> None:
    """If one of the errors of a round concerns the channel, the line and the reconnection name the exchange."""
    (report,) = reports(1)
    report.disconnected(AT, "gone", lost=Reported())
    lines()
    report.failed({URLS[0]: BusError("rabbit away"), URLS[1]: BusError("no exchange", exchange="channel0")}, URLS, 0.0)
    report.reconnected(AT)
    assert lines() == [("channel0", "rabbit away; no exchange"), ("channel0", BACK)]


def test_same_failure_after_another_loss(lines: Lines) -> None:
    """After each loss, the errors of the channel are logged at once; a lost connection after that names no exchange."""
    (report,) = reports(1)
    for now in (0.0, 1.0):
        report.disconnected(AT, "gone", lost=None)
        report.failed({URLS[0]: BusError("no exchange", exchange="channel0")}, URLS, now)
    assert lines() == [("channel0", LOST), ("channel0", "no exchange")] * 2
    report.disconnected(AT, "gone", lost=Reported())
    report.reconnected(AT)
    assert lines() == [("", LOST), ("", BACK)]


def test_replacements(lines: Lines) -> None:
    """Each lost connection has one line of its loss and one of its replacement, also if one of several connections remains."""
    first, second, third = reports(3)
    lost, alone = Reported(), Reported()
    for report in (first, second, third):
        report.disconnected(AT, "gone", lost=lost)
    second.reconnected(AT)
    first.reconnected(AT)
    assert lines() == [("", LOST), ("", BACK)]
    first.disconnected(AT, "gone", lost=alone)
    third.reconnected(AT)
    first.reconnected(AT)
    assert lines() == [("", LOST), ("", BACK)]


@pytest.mark.parametrize("with_connection", [True, False])
def test_failures_of_another_loss(lines: Lines, with_connection: bool) -> None:
    """After a reconnection, with or without the name of the exchange, the errors of the next loss are logged at once."""
    (report,) = reports(1)
    away = {URLS[0]: BusError("rabbit away")}
    report.disconnected(AT, "gone", lost=Reported() if with_connection else None)
    report.failed(away, URLS, 0.0)
    report.failed({URLS[0]: BusError("no exchange", exchange="channel0")}, URLS, 1.0)
    report.reconnected(AT)
    lines()
    report.disconnected(AT, "gone", lost=Reported())
    report.failed(away, URLS, 10.0)
    assert lines() == [("", LOST), ("", "rabbit away")]


def test_alarm(lines: Lines) -> None:
    """The beginning and the end of each alarm of a connection are one line."""
    connection = Reported()
    for _ in range(2):
        for reason in ("low on memory", ""):
            for report in reports(3):
                report.alarm(AT, reason, connection)
    begin = f"the broker at {AT} is blocking publishers (low on memory): their messages wait in the spool"
    assert lines() == [("", begin), ("", f"the broker at {AT} is no longer blocking publishers")] * 2


def test_no_failure(lines: Lines) -> None:
    """A round without a failure says nothing, and the order of the errors is that of the settings."""
    (report,) = reports(1)
    report.failed({}, URLS, 0.0)
    assert lines() == []
    assert all_of({URLS[1]: BusError("b"), URLS[0]: BusError("a")}, URLS) == "a; b"
