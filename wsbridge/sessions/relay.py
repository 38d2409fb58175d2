"""From the bus into the hub: each message once, and in the place of those that the bus has lost, word of it."""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.bus.base import Body, now
from wsbridge.hub.dedup import Dedup, Verdict
from wsbridge.metrics import Metrics
from wsbridge.sessions.hub import Hub
from wsbridge.sessions.keeper import Keeper


class News:
    """What is news of what a bus brings: repeats are dropped and counted, and so is what is missing."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._dedup = Dedup()

    def missing(self, body: Body) -> int | None:
        """Return how many messages were lost before this body and with it, or None when it is no news."""
        count = len(body.batch.messages)
        lost = count if body.is_lost else 0
        if not body.producer:
            return None if body.is_past else lost
        missing = self._dedup.take(body.producer, body.first, count)
        if body.is_past:
            return None
        if isinstance(missing, Verdict):
            self._metrics.bus_repeats += count
            return None
        self._metrics.bus_lost += missing + lost
        return missing + lost


class Relay:
    """The receiver of a bus. `new_epoch` makes names for epochs of the channel, each of which is used once, ever."""

    def __init__(self, hub: Hub, *, new_epoch: Callable[[], str], metrics: Metrics, clock: Callable[[], int] = now) -> None:
        self._hub = hub
        self._clock = clock
        self.is_live = False
        """Whether what comes now is new, so that one without a time was published now: a bus first brings its history."""
        self._new_epoch = new_epoch
        self._news = News(metrics)

    def receive(self, body: Body) -> None:
        missing = self._news.missing(body)
        if missing is None:
            if body.mark is not None:
                self._hub.channel.repeat(body.mark)
            return
        if missing:
            self._hub.lose(missing)
        if not body.is_lost:
            at = body.at
            if at is None and (self.is_live or body.mark is None):
                at = self._clock()
            self._hub.publish(body.batch, body.mark, at)

    def renewed(self, mark: str | None = None) -> None:
        # Repeats are told by what was heard before, so that is kept; a gap across this is told twice, which harms nobody.
        self._hub.renew(mark or self._new_epoch())

    def lost(self, messages: int) -> None:
        self._hub.lose(messages)

    def connected(self, is_connected: bool) -> None:
        self._hub.say(is_connected)


class Through:
    """The receiver of a bus whose messages a program takes; what it prints goes into the hub past this."""

    def __init__(self, program: Keeper, hub: Hub, *, metrics: Metrics) -> None:
        self._program = program
        self._hub = hub
        self._news = News(metrics)

    def receive(self, body: Body) -> None:
        if self._news.missing(body) is not None and not body.is_lost:
            self._program.write(body.batch)

    def renewed(self, mark: str | None = None) -> None:
        """The positions of this channel are its own: what was lost before the program is seen in the counts alone."""

    def lost(self, messages: int) -> None:
        """That, too."""

    def connected(self, is_connected: bool) -> None:
        self._hub.say(is_connected)
