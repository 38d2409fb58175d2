"""What the log says about the broker: an event of a connection once, an event of one channel with the name of its exchange.

A connection carries many channels, and its end is the end of all their links. Each bus reports what its own link meets. The first
bus that reports an event of the connection logs it, without the `exchange` field.

A failure that concerns one channel, such as a deleted exchange, has the `exchange` field. So has the later reconnection.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from wsbridge.errors import BusError
from wsbridge.logs import INFO, RepeatFilter, RepeatFilters, extra, logger

log = logger("bus")


class Reported:
    """The events of one connection that the log has shown."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def is_news(self, subject: str, state: str) -> bool:
        """Record the state of a subject; return whether it differs from the last one."""
        is_news = self._last.get(subject, "") != state
        self._last[subject] = state
        return is_news


class Report:
    """The log lines of one bus. `failures` are those of all buses with the same connections."""

    def __init__(self, exchange: str, failures: RepeatFilters) -> None:
        self.log = logging.LoggerAdapter(log, extra({"exchange": exchange}))
        """The log for the events of only this channel."""
        self._failures = failures
        self._failure = RepeatFilter(self.log)
        self._is_named = False
        """Whether the log shows, with the name of the exchange, that this channel is disconnected."""

    def disconnected(self, broker: str, why: str, *, lost: Reported | None) -> None:
        """Log the loss of a link. `lost` are the events of its connection if the whole connection is lost."""
        self._is_named = lost is None
        self._failure = RepeatFilter(self.log)
        if lost is None:
            self.log.error("disconnected from the broker at %s: %s; reconnecting", broker, why)
        elif lost.is_news("connection", "lost"):
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
            self._failures.error(sentence, now)

    def reconnected(self, broker: str, connection: Reported) -> None:
        """Log that the bus has a link again."""
        if self._is_named:
            self.log.log(INFO, "reconnected to the broker at %s", broker)
        elif connection.is_news("connection", "used"):
            # The next loss is another one, so its errors are logged at once.
            self._failures.clear()
            log.log(INFO, "reconnected to the broker at %s", broker)
        self._is_named = False

    def alarm(self, broker: str, reason: str, connection: Reported) -> None:
        """Log that the broker blocks the publishers of a connection, or with an empty reason that it no longer does."""
        if not connection.is_news("alarm", reason):
            return
        if reason:
            log.error("the broker at %s blocks publishers (%s): their messages wait in the spool", broker, reason)
        else:
            log.log(INFO, "the broker at %s no longer blocks publishers", broker)


def all_of(failures: Mapping[str, BusError], urls: Sequence[str]) -> str:
    """Return the errors of a round in the order of the settings: a round may begin with any address, but the text must stay the same."""
    return "; ".join(str(failures[url]) for url in urls if url in failures)
