"""The bus over RabbitMQ: a fanout exchange, and for each process one queue, or one consumer of its stream.

The buses of a process share one connection to each broker (connections.py). A fault in one bus does not affect the other buses, unless
their connection is lost.

Published messages wait in a spool until the broker has confirmed them. Without replay, delivery is at most once: bodies in flight
at the loss of a link are counted as unconfirmed. With replay the bus publishes them again, and a receiver recognises a repeat by
its number.

    link       opened, used until it is lost, then opened again after increasing delays, for ever. Each attempt uses the next of the
               broker's addresses. If the connection still serves other buses, the first attempt uses the same address
    feeding    from the spool to the broker, with at most WINDOW bodies in flight
    consuming  from the broker to the receiver. During backpressure from the receiver, bodies wait in the backlog and are not
               acknowledged, so the broker sends no more than its prefetch
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Literal

from wsbridge.bus.backlog import Backlog
from wsbridge.bus.base import Body, Receiver
from wsbridge.bus.bodies import COUNT, FIRST, PRODUCER, OutgoingBody, unpack
from wsbridge.bus.encodings import decode
from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.rabbitmq.addresses import Addresses, Turn
from wsbridge.bus.rabbitmq.connections import Connections
from wsbridge.bus.rabbitmq.errors import PORTS
from wsbridge.bus.rabbitmq.link import PREFETCH, Delivery, Link, Past
from wsbridge.bus.rabbitmq.report import Report, all_of
from wsbridge.bus.rabbitmq.returns import Returns
from wsbridge.bus.rabbitmq.stream import StreamReader
from wsbridge.bus.rabbitmq.transport import within
from wsbridge.bus.rabbitmq.tuning import TUNING, Tuning
from wsbridge.bus.spool import WINDOW, Spool
from wsbridge.errors import BodyError, BodyTooLong, BusError, EncodedBody, LinkLost, MalformedBody, RefusedBody
from wsbridge.flow import NULL_SOURCE, Batch, Source
from wsbridge.logs import INFO, RepeatFilters
from wsbridge.mentions import written
from wsbridge.metrics import Metrics
from wsbridge.rules.backoff import SETTLED, Backoff
from wsbridge.rules.urls import shown

SMALL_BODIES = 2
"""Bodies in flight below which a small body is sent at once. A single body is never delayed, and many small bodies become few."""
ANSWERED_SECONDS = 0.1
"""Seconds. A broker that answered within this time does not block publishers, or has blocked them only since then."""


class RabbitBus:
    """The bus of one channel. `producer` is an id that is used once, ever.

    With `consumes` False it publishes, and does not consume. With replay it begins with the last `history` bodies. With `start`
    it begins at that offset of the stream, or with the `next` body. In that case `open` does not wait until all existing bodies
    have arrived. Buses with the same `connections` share them; without, the bus has its own.
    """

    def __init__(
        self,
        settings: ExchangeSettings,
        exchange: str,
        *,
        producer: str,
        history: int,
        max_message_bytes: int,
        consumes: bool = True,
        start: int | Literal["next"] | None = None,
        connections: Connections | None = None,
        tuning: Tuning = TUNING,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._settings = settings
        self._tuning = tuning
        self._exchange = exchange
        self._producer = producer
        self._consumes = consumes
        self.max_message_bytes = max_message_bytes
        """May change at any time."""
        self._metrics = metrics
        self._loop = loop
        self._spool = Spool(settings.spool_bytes)
        self._changed = asyncio.Event()
        """Set when the spool gets a batch, or the broker confirms a body."""
        self._sent = asyncio.Event()
        """Set when a body leaves the spool, or bodies in flight are dropped."""
        self._confirmed = self._returned = 0
        """The numbers after its last message that the broker has confirmed, and after its last message that was delivered back."""
        self._delivered_back = asyncio.Event()
        """Set when one of its messages was delivered back, or will not be."""
        self._answered_at = 0.0
        """When the broker last answered about bodies in flight, or when the first of them was sent."""
        self._next_report = 0.0
        """The earliest time of the next log line about refused bodies."""
        self._holds_source = False
        self._source: Source = NULL_SOURCE
        self._receiver: Receiver | None = None
        self._reported = False
        """The connection state that the receiver last got, or will get from the backlog."""
        self._backlog = Backlog()
        self._reader: StreamReader | None = None
        if settings.replay:
            self._reader = StreamReader(
                self._backlog,
                history=history,
                start=start,
                on_body=self._handle,
                learn=self._learn,
                renew=self._renew,
                on_arrival=self._on_arrival,
                tuning=tuning,
            )
        self._connections = Connections(f"wsbridge {exchange}") if connections is None else connections
        self._report = Report(exchange, self._connections.failures)
        self._log = self._report.log
        self._dropped = RepeatFilters(self._log)
        """Reasons to drop bodies: an external publisher may send thousands, for several reasons in turn."""
        self._past = Past()
        self._addresses = Addresses(settings.urls)
        self._returns = Returns()
        self._link: Link | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_closing = False

    def __str__(self) -> str:
        """Return the address of the current link, or of the last link, without user and password."""
        return shown(self._link.url if self._link is not None else self._settings.urls[0], PORTS)

    # The Bus protocol

    @property
    def source(self) -> Source:
        return self._source

    @source.setter
    def source(self, source: Source) -> None:
        self._source = source
        if self._holds_source:
            source.pause()

    async def open(self, receiver: Receiver) -> None:
        self._receiver = receiver
        failures: dict[str, BusError] = {}
        for turn in self._addresses.round():
            try:
                await self._start(await self._connect(turn))
            except BusError as error:
                failures[turn.url] = error
            else:
                self._failed(failures)
                return
        raise BusError(all_of(failures, self._settings.urls))

    async def _connect(self, turn: Turn) -> Link:
        """Open a link to one address. Raises BusError."""
        link = Link(self._settings, self._exchange, turn.url, self._connections, self._past, tuning=self._tuning)
        await link.open(others_wait=turn.others_wait)
        return link

    async def _start(self, link: Link) -> None:
        """Use the first link; return when the channel is ready. Raises BusError if the link could not be used."""
        ready: asyncio.Future[None] = self._loop.create_future()
        self._running = self._loop.create_task(self._run(link, ready), name="bus")
        try:
            await ready
        except asyncio.CancelledError:
            await self.close(0)
            raise

    def publish(self, batch: Batch) -> None:
        if self._is_closing:
            self._metrics.bus_unconfirmed += len(batch.messages)
            return
        self._spool.put(batch)
        self._changed.set()
        if not self._spool.is_full:
            return
        if self._settings.spool_drops:
            self._metrics.spool_dropped += self._spool.drop_oldest()
            if self._spool.is_empty:
                # The spool may have held only this batch.
                self._sent.set()
        elif not self._holds_source:
            self._holds_source = True
            self._source.pause()

    def received_at(self) -> float:
        """Return the loop time at which the last bytes arrived over the connection; 0 before the first. Heartbeats do not count."""
        return self._link.received_at() if self._link is not None else 0.0

    @property
    def alarm(self) -> str:
        return self._link.alarm.reason if self._link is not None and not self._link.is_lost else ""

    def pause(self) -> None:
        self._backlog.hold()

    def resume(self) -> None:
        self._backlog.release()

    async def close(self, seconds: float) -> None:
        if self._running is None:
            return
        await within(seconds, self._all_done())
        self._is_closing = True
        self._running.cancel()
        await asyncio.wait((self._running,))
        self._metrics.bus_unconfirmed += self._spool.abandon()
        if self._consumes and not self._settings.replay:
            self._metrics.bus_lost += max(0, self._confirmed - self._returned)
            self._confirmed = self._returned
        if self._link is not None:
            await self._link.close()

    async def _all_done(self) -> None:
        """Wait until all messages are sent and, if this bus consumes, delivered back: the receiver here must get the last messages too."""
        while not self._spool.is_empty:
            self._sent.clear()
            await self._sent.wait()
        while self._consumes and self._returned < self._confirmed:
            self._delivered_back.clear()
            await self._delivered_back.wait()

    # The link

    async def _run(self, link: Link, ready: asyncio.Future[None]) -> None:
        """Use one link after another. `ready` is done when the first link is in use, or fails with BusError."""
        backoff = Backoff(max_pause=self._tuning.max_pause)
        while True:
            start = self._loop.time()
            self._link = link
            # Run in a separate task: after a TaskGroup has failed, Python 3.11.2 continues to count its task as cancelled.
            why = await self._loop.create_task(self._use(link, ready), name="bus: use")
            ran = self._loop.time() - start
            # The address is good, unless the channel has failed at once: a node may accept connections and not serve the channel.
            is_good = link.has_lasting_connection and ran >= SETTLED
            lost = link.reported if link.is_connection_lost else None
            await link.close()
            if self._is_closing:
                # The loss of a link at the same moment may have hidden the cancellation by `close`.
                return
            if not ready.done():
                ready.set_exception(BusError(f"the broker at {self} cannot be used: {why}", exchange=self._exchange))
                return
            self._report.disconnected(str(self), why, lost=lost)
            self._addresses.lost(link.url, is_good=is_good)
            self._report_connected(False)
            self._salvage(link)
            backoff.ran(ran)
            link = await self._connect_again(backoff)

    async def _connect_again(self, backoff: Backoff) -> Link:
        """Return the next link: try all addresses in rounds, with a pause before each round."""
        while True:
            await asyncio.sleep(backoff.next(random.random()))
            failures: dict[str, BusError] = {}
            link = await self._first_that_opens(failures)
            self._failed(failures)
            if link is not None:
                return link

    async def _first_that_opens(self, failures: dict[str, BusError]) -> Link | None:
        """Return a link to the first reachable address of a round, or None. `failures` gets the error of each address that failed."""
        for turn in self._addresses.round():
            try:
                return await self._connect(turn)
            except BusError as error:
                failures[turn.url] = error
        return None

    def _failed(self, failures: Mapping[str, BusError]) -> None:
        """Log the addresses that failed, if any."""
        self._report.failed(failures, self._settings.urls, self._loop.time())

    async def _use(self, link: Link, ready: asyncio.Future[None]) -> str:
        """Consume and feed until the link is lost; return the reason.

        An internal error also ends the use of the link: it must not end the bus.
        """
        why = "an internal error occurred"
        is_first = not ready.done()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.wait_lost(), name="bus: link")
                group.create_task(link.acknowledge_deliveries(), name="bus: acknowledge")
                group.create_task(link.watch_confirms(), name="bus: confirm")
                group.create_task(self._watch_alarm(link), name="bus: alarm")
                if self._reader is not None:
                    group.create_task(self._reader.settle_gaps(link), name="bus: gaps")
                    group.create_task(self._watch_returns(link, self._reader), name="bus: returns")
                    group.create_task(self._reader.watch(link), name="bus: stall")
                # Each new link would deliver as many bodies again. During backpressure, one link after another would fill the
                # backlog without a bound.
                is_held_up = len(self._backlog) > PREFETCH
                if not is_held_up:
                    await self._attach(link, is_first=is_first)
                if not is_first:
                    self._metrics.broker_reconnects += 1
                    self._report.reconnected(str(self))
                elif not ready.done():
                    # If `ready` is done, the caller has cancelled `open`: the messages so far were enough.
                    ready.set_result(None)
                group.create_task(self._feed(link, group), name="bus: feed")
                group.create_task(self._watch_feeding(), name="bus: watch")
                group.create_task(link.watch_objects(self._is_answered), name="bus: bound")
                if is_held_up:
                    # Feeding has begun: publishing does not wait for the receiver.
                    await self._backlog.wait_empty()
                    await self._attach(link, is_first=is_first)
                self._report_connected(True)
        except* LinkLost as lost:
            why = str(lost.exceptions[0])
        except* Exception as faults:
            self._log.error("internal error in the bus", exc_info=faults)
        return why

    def _report_connected(self, is_connected: bool) -> None:
        """Report each change once: while the receiver applies backpressure, reconnects must not fill the backlog."""
        assert self._receiver is not None
        if self._reported is not is_connected:
            self._reported = is_connected
            self._backlog.do(partial(self._receiver.connected, is_connected))

    # Feeding

    async def _feed(self, link: Link, group: asyncio.TaskGroup) -> None:
        """Publish the waiting bodies.

        A body that may still grow waits while other bodies are in flight: the cost is per body.
        """
        spool = self._spool
        while True:
            while spool and spool.under_way < (WINDOW if spool.has_whole else SMALL_BODIES):
                if not spool.under_way:
                    self._answered_at = self._loop.time()
                group.create_task(self._send(link, spool.pop()), name="bus: publish")
            self._changed.clear()
            await self._changed.wait()

    async def _send(self, link: Link, body: OutgoingBody) -> None:
        try:
            await link.publish(body, self._producer)
        except RefusedBody:
            # Do not send the body again: the broker might refuse it again, and it would block the bodies behind it for ever.
            self._refused(body.messages)
        else:
            self._confirmed = max(self._confirmed, body.first + body.messages)
            if self._reader is not None and self._consumes:
                self._returns.confirmed(body, self._loop.time())
        self._answered_at = self._loop.time()
        self._spool.confirm(body)
        self._changed.set()
        self._sent.set()
        self._release_source()

    async def _watch_feeding(self) -> None:
        """Log when the broker stops confirming publishes without an alarm, and when it resumes."""
        while True:
            silent = self._loop.time() - self._answered_at if self._spool.under_way else 0.0
            if silent < self._tuning.confirm_silence or self.alarm:
                await asyncio.sleep(max(self._tuning.confirm_silence - silent, 0) or self._tuning.confirm_silence)
                continue
            self._log.error("the broker at %s is not confirming messages: %d bytes are waiting in the spool", self, self._spool.bytes)
            self._sent.clear()
            await self._sent.wait()
            self._log.log(INFO, "the broker at %s is confirming messages again", self)

    async def _watch_alarm(self, link: Link) -> None:
        """Log and count the alarms in which the broker blocks publishers."""
        while True:
            if reason := await link.alarm.changed():
                self._metrics.broker_alarms += 1
            self._report.alarm(str(self), reason, link.reported)

    def _is_answered(self) -> bool:
        """Whether the broker can answer a request now: no body is in flight, or it has just answered about a body in flight."""
        return not self.alarm and (not self._spool.under_way or self._loop.time() - self._answered_at < ANSWERED_SECONDS)

    def _release_source(self) -> None:
        if self._holds_source and self._spool.has_room:
            self._holds_source = False
            self._source.resume()

    def _refused(self, messages: int) -> None:
        """Count refused messages, and log them at intervals: the broker may refuse thousands."""
        self._metrics.bus_unconfirmed += messages
        if self._loop.time() >= self._next_report:
            self._next_report = self._loop.time() + self._tuning.confirm_silence
            total = self._metrics.bus_unconfirmed
            self._log.error("the broker at %s is refusing messages: %d messages are unconfirmed so far", self, total)

    def _salvage(self, link: Link) -> None:
        """Queue again, or count, the bodies that were in flight when the link was lost."""
        self._metrics.publish_timeouts += link.is_overdue
        if link.refused_bytes is not None:
            self._refused(self._spool.drop_under_way(link.refused_bytes))
        if self._settings.replay:
            self._spool.put_back(self._returns.pop_all() if link.lacks_ours else ())
        else:
            lost = self._spool.give_up()
            # Confirmed messages that were not delivered back do not arrive over another link.
            self._confirmed = self._returned
            self._delivered_back.set()
            if lost:
                self._metrics.bus_unconfirmed += lost
                self._log.error("messages in flight to the broker at %s that may be lost: %d", self, lost)
        self._release_source()
        self._changed.set()
        # If the spool is empty now, no other event wakes `_all_done`.
        self._sent.set()

    # Consuming

    async def _attach(self, link: Link, *, is_first: bool) -> None:
        """Begin to consume. Raises LinkLost."""
        if not self._consumes:
            return
        if self._reader is not None:
            await self._reader.attach(link)
            return
        if not is_first:
            self._renew(None)
        await link.consume_queue(lambda delivery: self._backlog.do(partial(self._handle, link, delivery, None)))

    def _renew(self, mark: str | None) -> None:
        """Begin a new epoch; only the first epoch of a stream has a mark."""
        if mark is None:
            self._metrics.bus_renewals += 1
        assert self._receiver is not None
        self._backlog.do(partial(self._receiver.renewed, mark))

    def _on_arrival(self, delivery: Delivery) -> None:
        """Record that the stream has delivered a body of this bus, before the backlog can delay it."""
        first, count = delivery.headers.get(FIRST), delivery.headers.get(COUNT)
        if delivery.headers.get(PRODUCER) == self._producer and isinstance(first, int) and isinstance(count, int):
            self._returns.returned(first + count)

    async def _watch_returns(self, link: Link, reader: StreamReader) -> None:
        """Raise LinkLost when the stream lacks a body that the broker has confirmed. The next link publishes the body again."""
        doubts = 0
        while True:
            await asyncio.sleep(self._tuning.return_timeout)
            since = self._loop.time() - self._tuning.return_timeout
            if self.alarm or not self._returns.is_missing(since) or not await reader.has_all(link):
                doubts = 0
                continue
            # The body may have arrived during the check.
            doubts = doubts + 1 if self._returns.is_missing(since) else 0
            if doubts > 1:
                link.lacks_ours = True
                why = "its binding was removed, or this node does not follow the other nodes"
                raise LinkLost(f"the stream lacks confirmed messages: {why}")

    def _handle(self, link: Link, delivery: Delivery, mark: str | None) -> None:
        self._deliver(delivery, mark)
        link.handled(delivery)

    def _learn(self, link: Link, delivery: Delivery) -> None:
        assert self._receiver is not None
        with suppress(BodyError):
            self._receiver.receive(self._unpacked(delivery)._replace(is_past=True))
        link.handled(delivery)

    def _unpacked(self, delivery: Delivery) -> Body:
        """Return the decoded body of an AMQP message. Raises BodyError."""
        data = decode(delivery.data, delivery.encoding, delivery.kind, self.max_message_bytes)
        return unpack(data, delivery.content_type, delivery.headers)

    def _count_dropped(self, error: BodyError) -> None:
        match error:
            case BodyTooLong():
                self._metrics.bus_too_long += 1
            case EncodedBody():
                self._metrics.bus_undecoded += 1
            case MalformedBody():
                self._metrics.bus_malformed += 1

    def _deliver(self, delivery: Delivery, mark: str | None) -> None:
        assert self._receiver is not None
        try:
            body = self._unpacked(delivery)
        except BodyError as error:
            self._count_dropped(error)
            self._dropped.error(f"dropped a body: {error}", self._loop.time())
            self._receiver.lost(1)
            return
        limit = self.max_message_bytes
        if limit and len(delivery.data) > limit and max(map(len, body.batch.messages)) > limit:
            self._metrics.bus_too_long += 1
            size = len(delivery.data)
            sentence = written("dropped a body of %d bytes: it holds a message longer than %d bytes (<max_program_message>)")
            self._log.error(sentence, size, limit)
            # Deliver its numbers: it may be the first body of its producer here, or arrive again.
            body = body._replace(is_lost=True)
        self._receiver.receive(body._replace(mark=mark, at=delivery.at))
        if body.producer == self._producer:
            self._returned = max(self._returned, body.first + len(body.batch.messages))
            self._delivered_back.set()
