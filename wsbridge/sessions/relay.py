"""From the bus into the hub: each message once, and in the place of those that the bus has lost, word of it."""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.flow import Batch
from wsbridge.hub.dedup import Dedup, Verdict
from wsbridge.metrics import Metrics
from wsbridge.sessions.hub import Hub


class Relay:
    """The receiver of a bus. `new_epoch` makes names for epochs of the channel, each of which is used once, ever."""

    def __init__(self, hub: Hub, *, new_epoch: Callable[[], str], metrics: Metrics) -> None:
        self._hub = hub
        self._new_epoch = new_epoch
        self._metrics = metrics
        self._dedup = Dedup()
        self.is_connected = False

    def receive(self, producer: str, first: int, batch: Batch) -> None:
        missing = self._dedup.take(producer, first, len(batch.messages))
        if isinstance(missing, Verdict):
            self._metrics.bus_repeats += len(batch.messages)
            return
        if missing:
            self._metrics.bus_lost += missing
            self._hub.lose(missing)
        self._hub.publish(batch)

    def renewed(self) -> None:
        # Repeats are told by what was heard before, so that is kept; a gap across this is told twice, which harms nobody.
        self._metrics.bus_renewals += 1
        self._hub.renew(self._new_epoch())

    def connected(self, is_connected: bool) -> None:
        self.is_connected = is_connected
