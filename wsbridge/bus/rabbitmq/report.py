"""Log lines about the broker: one line for each event of a connection, and a line with the `exchange` field for each event of one channel.

A connection carries many channels, and its end is the end of all their links. Each bus reports the events of its own link. The first
bus that reports an event of the connection logs it, without the `exchange` field.

A failure that concerns one channel, such as a deleted exchange, has the `exchange` field. So has the later reconnection.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import Enum

from wsbridge.errors import BusError
from wsbridge.logs import INFO, RepeatFilter, RepeatFilters, extra, logger

log = logger("bus")


class Event(Enum):
    """What the buses of one lost connection do once for all of them."""

    LOSS_LOGGED = "loss logged"
    RECOVERY_LOGGED = "recovery logged"
    FAILURES_CLEARED = "failures cleared"


class Reported:
    """What the log has shown of one connection."""

    def __init__(self) -> None:
        self._events: set[Event] = set()
        self._alarm = ""

    def is_first(self, event: Event) -> bool:
        """Record an event; return whether it is the first of its kind."""
        is_first = event not in self._events
        self._events.add(event)
        return is_first

    def is_new_alarm(self, reason: str) -> bool:
        """Record the reason of the alarm, empty without an alarm; return whether it has changed."""
        has_changed, self._alarm = reason != self._alarm, reason
        return has_changed


def channel_log(exchange: str) -> logging.LoggerAdapter[logging.Logger]:
    """Return the log for the events of only one channel."""
    return logging.LoggerAdapter(log, extra({"exchange": exchange}))


class Report:
    """The log lines of one bus. All buses with the same connections share `failures`."""

    def __init__(self, exchange: str, failures: RepeatFilters) -> None:
        self.log = channel_log(exchange)
        self._lost: Reported | None = None
        """What the log has shown of the last connection, if that connection was lost and not only the link."""
        self._failures = failures
        self._has_shared_failure = False
        """Whether this bus has added an error to `_failures` since its last link."""
        self._failure = RepeatFilter(self.log)
        self._is_named = False
        """Whether the log shows, with the name of the exchange, that this channel is disconnected."""

    def disconnected(self, broker: str, why: str, *, lost: Reported | None) -> None:
        """Log the loss of a link. `lost` is what the log has shown of its connection, if the whole connection is lost."""
        self._is_named = lost is None
        self._lost = lost
        self._failure = RepeatFilter(self.log)
        if lost is None:
            self.log.error("disconnected from the broker at %s: %s; reconnecting", broker, why)
        elif lost.is_first(Event.LOSS_LOGGED):
            log.error("disconnected from the broker at %s: %s; reconnecting", broker, why)

    def failed(self, failures: Mapping[str, BusError], urls: Sequence[str], now: float) -> None:
        """Log the errors of the addresses that failed in a round, if any. `now` is in seconds of a monotonic clock."""
        if not failures:
            return
        sentence = all_of(failures, urls)
        if any(error.exchange for error in failures.values()):
            self._is_named = True
            self._failure.error(sentence, now)
        else:
            self._has_shared_failure = True
            self._failures.error(sentence, now)

    def reconnected(self, broker: str) -> None:
        """Log that the bus has a link again: once for each lost connection, however many connections replace it."""
        if self._has_shared_failure and (self._lost is None or self._lost.is_first(Event.FAILURES_CLEARED)):
            # The next loss is another one, so its errors are logged at once.
            self._failures.clear()
        self._has_shared_failure = False
        if self._is_named or self._lost is None:
            self.log.log(INFO, "reconnected to the broker at %s", broker)
        elif self._lost.is_first(Event.RECOVERY_LOGGED):
            log.log(INFO, "reconnected to the broker at %s", broker)
        self._is_named = False

    def alarm(self, broker: str, reason: str, connection: Reported) -> None:
        """Log that the broker blocks the publishers of a connection, or with an empty reason that it no longer does."""
        if not connection.is_new_alarm(reason):
            return
        if reason:
            log.error("the broker at %s is blocking publishers (%s): their messages wait in the spool", broker, reason)
        else:
            log.log(INFO, "the broker at %s is no longer blocking publishers", broker)


def all_of(failures: Mapping[str, BusError], urls: Sequence[str]) -> str:
    """Return the errors of a round in the order of the settings: a round may begin with any address, but the text must stay the same."""
    return "; ".join(str(failures[url]) for url in urls if url in failures)
