"""Reads an exchange's stream, over one link after another.

After each reconnect the reader continues where it stopped. It recognises the stream by its identity, which is created when the
stream is declared and is part of each body's fingerprint. A stream that other software declared has no identity; only wsbridge's
own bodies identify it.

Skipped offsets alone are not a loss, because RabbitMQ stores its own records at some offsets. One record begins each segment, and
a native client of the stream writes one or more when it stores its read position. Skipped offsets are a loss only when the stream
has dropped the last body before them. Then the content of the gap is unknown.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import Literal

from wsbridge.bus.backlog import Backlog
from wsbridge.bus.bodies import fingerprint, is_ours, stream_fingerprint
from wsbridge.bus.rabbitmq.link import Delivery, Link
from wsbridge.bus.rabbitmq.tail import Place, Relation, Tail
from wsbridge.bus.rabbitmq.tuning import TUNING, Tuning
from wsbridge.bus.spool import WINDOW
from wsbridge.channel.position import stream_mark
from wsbridge.errors import LinkLost

MAX_PERIODS = 60
"""A history may take this many times `history_timeout` while its bytes arrive."""
NOTES = 256
"""Maximum offsets before the first body of a stream that count as RabbitMQ's own records. With more, the stream has dropped
bodies, and was not empty: its first answer came too late."""


class StreamReader:
    """Passes each new body of the stream to `on_body`, with its mark, when the backlog permits it.

    It begins with the last `history` bodies. With `start` it begins at that offset, or with the `next` body, and
    `attach` does not wait for all existing bodies.

    The WINDOW bodies before the beginning go to `learn`. After a lost link a producer sends as many bodies again, and a repeat of
    an earlier body must not count as new.

    `renew` gets each epoch: the first with its mark, later epochs with None. `on_arrival` gets each body at once, whether or not the
    backlog is on hold.
    """

    def __init__(
        self,
        backlog: Backlog,
        *,
        history: int,
        start: int | Literal["next"] | None,
        on_body: Callable[[Link, Delivery, str], None],
        learn: Callable[[Link, Delivery], None],
        renew: Callable[[str | None], None],
        on_arrival: Callable[[Delivery], None],
        tuning: Tuning = TUNING,
    ) -> None:
        self._tuning = tuning
        self._backlog = backlog
        self._history = max(history, 1)
        self._start = start
        self._on_body = on_body
        self._learn = learn
        self._renew = renew
        self._on_arrival = on_arrival
        self._tail = Tail()
        self._identity = self._salt = ""
        """The identity of the stream, and the salt of fingerprints. Without an identity, each link gets a random salt, since each
        link may read another stream."""
        self._last_is_ours = False
        self._has_attached = False
        self._wanted = 0
        """The offset of the first wanted body, at the start."""
        self._has_epoch = False
        self._epoch_start: int | None = None
        """The offset at which the receiver's epoch begins, until a body of it has arrived."""
        self._arrived = asyncio.Event()
        """Set when a body has arrived since the last `attach`."""
        self._deliveries = 0
        self._held: list[Delivery] = []
        """Bodies that wait until it is known whether the offsets before them are a loss; at most the broker's prefetch."""
        self._is_in_doubt = asyncio.Event()

    async def attach(self, link: Link) -> None:
        """Continue where the reader stopped; the first time, begin where the wanted history begins. Raises LinkLost."""
        self._arrived = asyncio.Event()
        self._held.clear()
        self._is_in_doubt.clear()
        self._identify(await link.identity())
        if not self._has_attached:
            await self._attach_first(link)
            self._has_attached = True
            self._wanted = 0
        elif not await self._read_on(link):
            self._start_epoch(0)
            await self._consume(link, "first")

    async def settle_gaps(self, link: Link) -> None:
        """Determine whether gaps in the offsets are a loss, for as long as the link lasts. Raises LinkLost."""
        while True:
            await self._is_in_doubt.wait()
            self._is_in_doubt.clear()
            # The answer does not apply to bodies that arrive during the request.
            known = len(self._held)
            oldest = await link.find("first", self._tuning.history_timeout)
            held, self._held = self._held, []
            for number, delivery in enumerate(held):
                if self._held:
                    self._held.append(delivery)
                else:
                    self._judge(link, delivery, oldest if number < known else None)

    async def watch(self, link: Link) -> None:
        """Raise LinkLost when the link delivers nothing more although the stream holds more."""
        deliveries = doubts = 0
        while True:
            await asyncio.sleep(self._tuning.stall_interval)
            is_waiting = deliveries == self._deliveries and not self._backlog and self._tail.last is not None
            if not is_waiting or await self.has_all(link) or deliveries != self._deliveries:
                deliveries, doubts = self._deliveries, 0
                continue
            # At the first check, the newest body may still be in flight.
            doubts += 1
            if doubts > 1:
                raise LinkLost("the broker delivers no further bodies, although the stream holds more")

    async def has_all(self, link: Link) -> bool:
        """Return whether every body that the stream holds has arrived. Raises LinkLost."""
        newest = await link.find("last", self._tuning.probe_timeout)
        last = self._tail.last
        return not self._held and (newest is None or (last is not None and last.offset >= newest))

    def _identify(self, identity: str) -> None:
        is_other = identity != self._identity
        # If the first link was lost during the history, it is also known which stream that link read.
        is_unsure = self._has_attached and not identity and not self._last_is_ours
        self._identity, self._salt = identity, identity or secrets.token_hex(8)
        if is_other or is_unsure:
            self._tail.forget()
            self._epoch_start = None

    async def _attach_first(self, link: Link) -> None:
        if self._start == "next":
            await self._consume(link, "next")
            return
        newest = await link.find("last", self._tuning.probe_timeout)
        if newest is None:
            self._start_epoch(0)
            await self._consume(link, "first")
            return
        # At an offset past the end, RabbitMQ delivers no body and reports no error. The bodies show whether this is a different stream.
        self._wanted, start = await self._find_start(link, newest)
        await self._consume(link, start)
        delivery = self._arrived.wait() if self._start is not None else self._tail.reach(newest)
        if not await link.wait_delivered(self._tuning.history_timeout, delivery, max_periods=MAX_PERIODS):
            raise LinkLost("the broker did not deliver all requested messages of the stream")

    async def _find_start(self, link: Link, newest: int) -> tuple[int, int]:
        """Return the offset of the first wanted body, and the offset of the body that lies WINDOW bodies before it."""
        if isinstance(self._start, int):
            wanted = min(self._start, newest)
            before = await self._last_offsets(link, wanted - 1, WINDOW)
            return wanted, min(before, default=wanted)
        if newest < self._history:
            return 0, 0
        offsets = await self._last_offsets(link, newest, self._history + WINDOW)
        return offsets[-self._history :][0], offsets[0]

    async def _last_offsets(self, link: Link, end: int, count: int) -> list[int]:
        """Return the offsets of the last `count` bodies up to `end`, or of all bodies if there are fewer."""
        span = count
        while True:
            start = max(0, end - span + 1)
            offsets = await link.offsets(start, end, self._tuning.history_timeout, max_periods=MAX_PERIODS) if end >= 0 else []
            if len(offsets) >= count or not start:
                return offsets[-count:]
            span *= 2

    async def _read_on(self, link: Link) -> bool:
        """Continue after the last body; return False if the stream has been recreated or is empty."""
        last = self._tail.last
        if last is None:
            if self._start != "next" or self._has_epoch:
                return False
            # No body has arrived yet that would show the place.
            self._renew(None)
            await self._consume(link, "next")
            return True
        self._tail.expect_last()
        await self._consume(link, last.offset)
        if await link.wait_delivered(self._tuning.probe_timeout, self._arrived.wait(), max_periods=MAX_PERIODS):
            return True
        # At an offset past the end, RabbitMQ delivers no body and reports no error. The stream is then a different, shorter
        # stream, unless it is only slow.
        await link.stop_consuming()
        newest = await link.find("last", self._tuning.probe_timeout)
        # The body found is the first of the last chunk; the last body that arrived here may come later in that chunk.
        if newest is not None and (newest >= last.offset or await link.has(last.offset, newest, self._tuning.history_timeout)):
            raise LinkLost("the broker did not deliver all requested messages of the stream")
        self._tail.forget()
        return False

    async def _consume(self, link: Link, offset: int | str) -> None:
        await link.consume_stream(partial(self._arrive, link, self._arrived), offset)

    def _arrive(self, link: Link, arrived: asyncio.Event, delivery: Delivery) -> None:
        assert delivery.offset is not None
        if delivery.offset < self._wanted:
            self._backlog.do(partial(self._learn, link, delivery))
            return
        self._deliveries += 1
        arrived.set()
        if link.is_lost:
            # The next link delivers the body again. If the stream was recreated, the body would be mistaken for its beginning.
            return
        if self._held:
            self._held.append(delivery)
        else:
            self._judge(link, delivery, None)

    def _judge(self, link: Link, delivery: Delivery, oldest: int | None) -> None:
        """Pass on a new body.

        `oldest` is the offset of the oldest body in the stream when this body had arrived, or None if that is not known.
        """
        assert delivery.offset is not None
        self._on_arrival(delivery)
        place = Place(delivery.offset, self._fingerprint(delivery))
        match self._tail.classify(place, oldest):
            case Relation.KNOWN:
                self._backlog.do(partial(link.handled, delivery))
                return
            case Relation.OTHER:
                self._tail.forget()
                link.lose("the stream was recreated")
                return
            case Relation.DOUBT:
                self._held.append(delivery)
                self._is_in_doubt.set()
                return
            case Relation.FIRST if self._epoch_start is not None and delivery.offset - self._epoch_start <= NOTES:
                """The current epoch begins with this body: the offsets before it hold no bodies."""
            case Relation.FIRST | Relation.GAP:
                self._start_epoch(delivery.offset)
            case Relation.NEXT:
                pass
        self._epoch_start = None
        self._last_is_ours = is_ours(delivery.headers)
        self._backlog.do(partial(self._on_body, link, delivery, str(place)))

    def _fingerprint(self, delivery: Delivery) -> str:
        # No two streams hold the same body from wsbridge. They may hold the same body from an external publisher.
        salt = self._identity if is_ours(delivery.headers) else self._salt
        return fingerprint(delivery.data, delivery.headers, salt)

    def _start_epoch(self, offset: int) -> None:
        """Begin an epoch: the next body is at `offset`, and has no relation to earlier bodies."""
        if self._epoch_start == offset:
            return
        self._epoch_start = offset
        # A later epoch has no mark: in the stream before it, the same mark named another place.
        self._renew(None if self._has_epoch else stream_mark(offset, stream_fingerprint(self._salt)))
        self._has_epoch = True
