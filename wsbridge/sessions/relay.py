"""The relay from the bus into the fanout: it publishes each message once, and reports lost messages in their place."""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.bus.base import Body, now
from wsbridge.channel.dedup import Dedup, Verdict
from wsbridge.metrics import Metrics
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.supervisor import Supervisor


class DuplicateFilter:
    """Separates new bodies of a bus from repeats; it drops and counts repeats, and counts missing messages."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._dedup = Dedup()

    def missing(self, body: Body) -> int | None:
        """Return how many messages were lost before this body and with it, or None if the body is not new."""
        count = len(body.batch.messages)
        lost = count if body.is_lost else 0
        if not body.producer:
            return None if body.is_past else lost
        missing = self._dedup.check(body.producer, body.first, count)
        if body.is_past:
            return None
        if isinstance(missing, Verdict):
            self._metrics.bus_repeats += count
            return None
        self._metrics.bus_lost += missing + lost
        return missing + lost


class Relay:
    """Receives the bodies of a bus and publishes them in the fanout.

    `new_epoch` returns names for epochs of the channel; each name is used only once, ever.
    """

    def __init__(self, fanout: Fanout, *, new_epoch: Callable[[], str], metrics: Metrics, clock: Callable[[], int] = now) -> None:
        self._fanout = fanout
        self._clock = clock
        self.is_live = False
        """Whether arriving bodies are new, so that a body without a time was published now. A bus first delivers its history."""
        self._new_epoch = new_epoch
        self._filter = DuplicateFilter(metrics)

    def receive(self, body: Body) -> None:
        missing = self._filter.missing(body)
        if missing is None:
            if body.mark is not None:
                self._fanout.channel.repeat(body.mark)
            return
        if missing:
            self._fanout.lose(missing)
        if not body.is_lost:
            at = body.at
            if at is None and (self.is_live or body.mark is None):
                at = self._clock()
            self._fanout.publish(body.batch, body.mark, at)

    def renewed(self, mark: str | None = None) -> None:
        # The fanout recognizes repeats by earlier bodies, so that state stays. A gap across this point is reported twice, which does
        # no harm.
        self._fanout.renew(mark or self._new_epoch())

    def lost(self, messages: int) -> None:
        self._fanout.lose(messages)

    def connected(self, is_connected: bool) -> None:
        self._fanout.set_connected(is_connected)


class Through:
    """Receives the bodies of a bus for a program; the program's output goes directly into the fanout."""

    def __init__(self, fanout: Fanout, *, metrics: Metrics) -> None:
        self.program: Supervisor
        """The program of the moment; set it before the bus is opened."""
        self._fanout = fanout
        self._filter = DuplicateFilter(metrics)

    def receive(self, body: Body) -> None:
        if self._filter.missing(body) is not None and not body.is_lost:
            self.program.write(body.batch)

    def renewed(self, mark: str | None = None) -> None:
        """Do nothing: this channel has its own positions, so only the counters show messages that were lost before the program."""

    def lost(self, messages: int) -> None:
        """Do nothing, for the same reason."""

    def connected(self, is_connected: bool) -> None:
        self._fanout.set_connected(is_connected)
