"""The bus over RabbitMQ: a fanout exchange, and for each process one connection and one queue, or one consumer of its stream.

What is published waits in a spool until the broker has confirmed it. Without replay that is at most once: what was on its way
when the link was lost is counted. With replay it is published again, and where it comes twice it is known by its number.

    link       made, used until it is lost, made anew with growing pauses, for ever
    feeding    from the spool to the broker, WINDOW bodies at a time on their way
    taking     from the broker to the receiver, or, while that holds us up, into what was kept; nothing is acknowledged then,
               and so the broker sends no more than its prefetch

With replay the stream is read from the place where it was left. Whether it is still the same stream shows in the fingerprint of
the last body that we had; one that was deleted and made again is a new epoch.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Literal

from wsbridge.bus.base import Receiver
from wsbridge.bus.bodies import MalformedBody, Parcel, fingerprint, unpack
from wsbridge.bus.link import PREFETCH, Arrival, Link, LinkLost, place, within
from wsbridge.bus.spool import Spool
from wsbridge.bus.tail import Found, Place, Tail
from wsbridge.errors import BusError
from wsbridge.flow import STILL, Batch, Source
from wsbridge.logs import INFO, logger
from wsbridge.metrics import Metrics
from wsbridge.rules.backoff import Backoff
from wsbridge.settings import BrokerSettings

WINDOW = 32
"""Bodies on their way to the broker at once: 4 MB at most, and more than any link here could hold."""
EAGER = 2
"""Bodies on their way beside which a small one is still sent: one alone is never held up, and many make few."""
HISTORY_SECONDS = 10.0
"""How long a stream may take to bring what it holds, at the start."""
PROBE_SECONDS = 1.0
"""How long a body that is there may take to come: a stream that brings nothing in this time has nothing there."""
STALLED_SECONDS = 5.0
"""Without a word from the broker about what was published: then it is worth a line in the log."""

log = logger("bus")


class RabbitBus:
    """One channel's bus. `producer` is an id that is used once, ever.

    With `consumes` False it publishes, and takes nothing. With replay it begins with the last `history` bodies; with `begin` at
    that offset of the stream, or with what comes `next`, and then `open` does not wait until all has come that is there.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        exchange: str,
        *,
        producer: str,
        history: int,
        max_message_bytes: int,
        consumes: bool = True,
        begin: int | Literal["next"] | None = None,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._settings = settings
        self._exchange = exchange
        self._producer = producer
        self._history = history
        self._consumes = consumes
        self._first = begin
        self._limit = max_message_bytes
        self._metrics = metrics
        self._loop = loop
        self._spool = Spool(settings.spool_bytes)
        self._news = asyncio.Event()
        """Something was put into the spool, or was confirmed."""
        self._sent = asyncio.Event()
        """Something has left it."""
        self._holds_source = False
        self.source: Source = STILL
        self._receiver: Receiver | None = None
        self._held = False
        self._kept: deque[Callable[[], None]] = deque()
        self._is_free = asyncio.Event()
        """Nothing is kept."""
        self._is_free.set()
        self._tail = Tail() if settings.replay else None
        self._has_begun = False
        self._begins: int | None = None
        """The offset that the receiver's epoch begins with, until something has come of it."""
        self._link: Link | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_closing = False

    def __str__(self) -> str:
        return place(self._settings.url)

    # The contract

    async def open(self, receiver: Receiver) -> None:
        self._receiver = receiver
        link = Link(self._settings, self._exchange)
        await link.open()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._running = self._loop.create_task(self._run(link, ready), name="bus")
        try:
            await ready
        except asyncio.CancelledError:
            await self.close(0)
            raise

    def publish(self, batch: Batch) -> None:
        self._spool.put(batch)
        self._news.set()
        if not self._spool.is_full:
            return
        if self._settings.spool_drops:
            self._metrics.spool_dropped += self._spool.drop_oldest()
        elif not self._holds_source:
            self._holds_source = True
            self.source.pause()

    def pause(self) -> None:
        self._held = True

    def resume(self) -> None:
        self._held = False
        while self._kept and not self._held:
            self._kept.popleft()()
        if not self._kept:
            self._is_free.set()

    async def close(self, patience: float) -> None:
        if self._running is None:
            return
        await within(patience, self._all_sent())
        self._is_closing = True
        self._running.cancel()
        await asyncio.wait((self._running,))
        self._metrics.bus_unconfirmed += self._spool.abandon()
        if self._link is not None:
            await self._link.close()

    async def _all_sent(self) -> None:
        while not self._spool.is_empty:
            self._sent.clear()
            await self._sent.wait()

    # The link

    async def _run(self, link: Link, ready: asyncio.Future[None]) -> None:
        """Use one link after the other. `ready` is done when the first is in use, or fails with BusError."""
        backoff = Backoff()
        while True:
            began = self._loop.time()
            self._link = link
            # In a task of its own: after a TaskGroup has failed, Python 3.11.2 goes on counting its task as one that is cancelled.
            why = await self._loop.create_task(self._use(link, ready), name="bus: use")
            await link.close()
            if self._is_closing:
                # A link that was lost in the same moment may have hidden that we were cancelled.
                return
            if not ready.done():
                ready.set_exception(BusError(f"the broker at {self}: {why}"))
                return
            log.error("the broker at %s is gone: %s", self, why)
            self._when_free(partial(self._tell, False))
            self._salvage()
            backoff.ran(self._loop.time() - began)
            link = await self._connect_again(backoff)

    async def _connect_again(self, backoff: Backoff) -> Link:
        while True:
            await asyncio.sleep(backoff.next(random.random()))
            link = Link(self._settings, self._exchange)
            try:
                await link.open()
            except BusError as error:
                log.error("%s", error)
            else:
                return link

    async def _use(self, link: Link, ready: asyncio.Future[None]) -> str:
        """Consume and feed until the link is lost; return why. A fault of ours loses it as well: it is not to end the bus."""
        why = "it could not be used"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.wait_lost(), name="bus: link")
                group.create_task(link.keep_acknowledging(), name="bus: acknowledge")
                await self._attach(link, is_first=not ready.done())
                if ready.done():
                    self._metrics.broker_reconnects += 1
                    log.log(INFO, "the broker at %s is here again", self)
                else:
                    ready.set_result(None)
                self._when_free(partial(self._tell, True))
                group.create_task(self._feed(link, group), name="bus: feed")
                group.create_task(self._watch_feeding(), name="bus: watch")
                group.create_task(link.keep_bound(lambda: not self._spool.under_way), name="bus: bound")
        except* LinkLost as lost:
            why = str(lost.exceptions[0])
        except* Exception as faults:
            log.error("the bus has failed", exc_info=faults)
        return why

    def _tell(self, is_connected: bool) -> None:
        assert self._receiver is not None
        self._receiver.connected(is_connected)

    # Feeding

    async def _feed(self, link: Link, group: asyncio.TaskGroup) -> None:
        """Publish what waits. A body that may still grow does so while others are on their way: a body is what costs."""
        spool = self._spool
        while True:
            while spool and spool.under_way < (WINDOW if spool.has_whole else EAGER):
                group.create_task(self._send(link, spool.take()), name="bus: publish")
            self._news.clear()
            await self._news.wait()

    async def _send(self, link: Link, parcel: Parcel) -> None:
        await link.publish(parcel, self._producer)
        self._spool.confirm(parcel)
        self._news.set()
        self._sent.set()
        self._let_source_go()

    async def _watch_feeding(self) -> None:
        """Say so when the broker has stopped to take what is published, as in an alarm, and when it goes on."""
        while True:
            self._sent.clear()
            await asyncio.sleep(STALLED_SECONDS)
            if self._sent.is_set() or not self._spool.under_way:
                continue
            log.error("the broker at %s takes nothing: %d bytes wait for it", self, self._spool.bytes)
            await self._sent.wait()
            log.log(INFO, "the broker at %s takes messages again", self)

    def _let_source_go(self) -> None:
        if self._holds_source and self._spool.has_room:
            self._holds_source = False
            self.source.resume()

    def _salvage(self) -> None:
        """See to what was on its way when the link was lost."""
        if self._settings.replay:
            self._spool.put_back()
        else:
            self._metrics.bus_unconfirmed += self._spool.give_up()
            self._let_source_go()
        self._news.set()

    # Taking

    async def _attach(self, link: Link, *, is_first: bool) -> None:
        """Begin to consume. Raises LinkLost."""
        if not self._consumes:
            return
        if len(self._kept) > PREFETCH:
            # Each link would bring as much again: one after the other, while the receiver holds us up, without a bound.
            await self._is_free.wait()
        if self._tail is not None:
            await self._attach_to_stream(link, self._tail, is_first=is_first)
        else:
            if not is_first:
                self._metrics.bus_renewals += 1
                self._when_free(self._renewed)
            await link.consume_queue(lambda arrival: self._when_free(partial(self._handle, link, arrival)))

    async def _attach_to_stream(self, link: Link, tail: Tail, *, is_first: bool) -> None:
        """Read on where we were, or at first from where the history begins that is wanted."""
        arrived = asyncio.Event()

        def take(arrival: Arrival) -> None:
            arrived.set()
            self._take_from_stream(link, tail, arrival)

        if is_first:
            if self._first == "next":
                await link.consume_stream(take, "next")
                return
            newest = await self._probe(link)
            if newest is None:
                self._begin_stream(0)
                await link.consume_stream(take, "first")
                return
            if self._first is not None:
                # Behind the end nothing would come, and no error either; that a stream is another one is told by its bodies.
                await link.consume_stream(take, min(self._first, newest))
                has_come = await within(HISTORY_SECONDS, arrived.wait())
            else:
                await link.consume_stream(take, max(0, newest - max(self._history, 1) + 1))
                has_come = await within(HISTORY_SECONDS, tail.reach(newest))
            if not has_come:
                raise LinkLost("its stream does not bring what it holds")
            return
        if tail.last is not None:
            tail.expect_last()
            await link.consume_stream(take, tail.last.offset)
            if await within(PROBE_SECONDS, arrived.wait()):
                return
            # An offset past the end brings nothing, and no error: the stream is another, and shorter, unless it is just slow.
            await link.stop_consuming()
            newest = await self._probe(link)
            if newest is not None and newest >= tail.last.offset:
                raise LinkLost("its stream does not bring what it holds")
            tail.forget()
        elif self._first == "next" and not self._has_begun:
            # Nothing has come by which the place would be known.
            self._metrics.bus_renewals += 1
            self._when_free(self._renewed)
            await link.consume_stream(take, "next")
            return
        self._begin_stream(0)
        await link.consume_stream(take, "first")

    async def _probe(self, link: Link) -> int | None:
        """Return the offset of one of the last bodies in the stream, or None when it is empty. Raises LinkLost."""
        offsets: list[int] = []
        found = asyncio.Event()

        def take(arrival: Arrival) -> None:
            link.taken(arrival)
            offsets.append(arrival.offset or 0)
            found.set()

        await link.consume_stream(take, "last")
        await within(PROBE_SECONDS, found.wait())
        await link.stop_consuming()
        return offsets[0] if offsets else None

    def _take_from_stream(self, link: Link, tail: Tail, arrival: Arrival) -> None:
        if link.is_lost:
            # It comes again over the next one; of a stream that was made anew this would be taken for the beginning.
            return
        assert arrival.offset is not None
        place_in_stream = Place(arrival.offset, fingerprint(arrival.data, arrival.headers))
        match tail.take(place_in_stream):
            case Found.KNOWN:
                self._when_free(partial(link.taken, arrival))
                return
            case Found.OTHER:
                tail.forget()
                link.lose("the stream was made anew")
                return
            case Found.FIRST | Found.GAP:
                self._begin_stream(arrival.offset)
            case Found.NEWS:
                pass
        self._begins = None
        self._when_free(partial(self._handle, link, arrival, str(place_in_stream)))

    def _begin_stream(self, offset: int) -> None:
        """What comes next is the body at this offset, and stands in no relation to what came before."""
        if self._begins == offset:
            return
        self._begins = offset
        if not self._has_begun:
            self._has_begun = True
            self._when_free(partial(self._renewed, str(offset)))
        else:
            # Without the mark, which in the stream before named another place.
            self._metrics.bus_renewals += 1
            self._when_free(self._renewed)

    def _renewed(self, mark: str | None = None) -> None:
        assert self._receiver is not None
        self._receiver.renewed(mark)

    def _when_free(self, work: Callable[[], None]) -> None:
        """Do what concerns the receiver, in order: when it holds us up, later."""
        if self._held or self._kept:
            self._kept.append(work)
            self._is_free.clear()
        else:
            work()

    def _handle(self, link: Link, arrival: Arrival, mark: str | None = None) -> None:
        self._deliver(arrival, mark)
        link.taken(arrival)

    def _deliver(self, arrival: Arrival, mark: str | None) -> None:
        assert self._receiver is not None
        try:
            body = unpack(arrival.data, arrival.content_type, arrival.headers)
        except MalformedBody as error:
            self._metrics.bus_malformed += 1
            log.error("a body is dropped: %s", error)
            self._receiver.lost(1)
            return
        if self._limit and len(arrival.data) > self._limit and max(map(len, body.batch.messages)) > self._limit:
            self._metrics.bus_too_long += 1
            log.error("a body of %d bytes is dropped: it holds a message longer than %d (--maxline)", len(arrival.data), self._limit)
            if not body.producer:
                self._receiver.lost(len(body.batch.messages))
            return
        self._receiver.receive(body._replace(mark=mark))
