"""One link to RabbitMQ, from its opening to its loss: two channels of a connection that it shares with other links.

aio-pika connects, and aiormq keeps the connection alive. The channels are those of wsbridge; amqpchannel.py gives the reason.
Nothing here uses the robust connections of aio-pika. They declare an exclusive queue again under a name that the broker has not
released yet, and messages that are published meanwhile wait for ever.

Any fault loses the link: a closed channel, a cancelled consumer, a late answer, the loss of its connection. The owner of the link
then opens a new link, so that there is one recovery path for every fault. connections.py decides whether the connection is lost, too.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal

from aio_pika import exceptions
from pamqp import commands

from wsbridge.bus import base
from wsbridge.bus.bodies import TIME, OutgoingBody, time_of
from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.rabbitmq import decode, topology
from wsbridge.bus.rabbitmq.alarm import Alarm
from wsbridge.bus.rabbitmq.amqpchannel import AmqpChannel, Properties
from wsbridge.bus.rabbitmq.confirms import Confirms
from wsbridge.bus.rabbitmq.connections import Connection, Connections
from wsbridge.bus.rabbitmq.errors import LINK_ERRORS, explain
from wsbridge.bus.rabbitmq.report import Reported
from wsbridge.bus.rabbitmq.topology import Topology, is_not_yet
from wsbridge.bus.rabbitmq.transport import retrieve, within
from wsbridge.bus.rabbitmq.tuning import TUNING, Tuning
from wsbridge.errors import BusError, LinkLost, RefusedBody

MAX_TIMEOUTS = 6
"""How many timeouts an answer may take while other bytes arrive: on a slow link, earlier data delays it. After that, it counts as
lost."""
IDENTITY_SECONDS = 1.0
"""Seconds for which the identity of a stream stays valid: a consumer that starts within this time reads that stream."""
CHECK_SECONDS = 1.0
"""Seconds between two checks for an overdue publish; a quarter of the confirm timeout if that is less."""
PREFETCH = 200
"""Bodies that the broker sends ahead of acknowledgements."""
NODE_QUEUE_BYTES = 64 * 1024 * 1024
"""Bytes that the broker keeps for a node that does not consume them. The broker drops the oldest, and the receiver sees the gap."""

ACK_EVERY = PREFETCH // 2
ACK_SECONDS = 0.5
"""Longest delay of an acknowledgement, in seconds: the broker closes a channel whose acknowledgement is too late."""

TOO_LONG = re.compile(r"message size (\d+) is larger than")
"""Matches RabbitMQ's error for a body over its max_message_size. Only the size in it identifies the body."""

TRANSIENT = 1
"""The delivery mode of a message that need not survive a restart of the broker (AMQP 0-9-1, delivery-mode)."""

decode.install()

for noisy in ("aio_pika", "aiormq"):
    # wsbridge logs these events itself, once.
    logging.getLogger(noisy).addHandler(logging.NullHandler())
    logging.getLogger(noisy).propagate = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """A received AMQP message."""

    data: bytes
    content_type: str | None
    encoding: str | None
    """The property content-encoding."""
    kind: str | None
    """The property type."""
    headers: Mapping[str, object]
    tag: int
    offset: int | None
    """Its offset in the stream, if it comes from a stream."""
    at: int | None
    """When it was sent, in milliseconds since 1970; None if it carries no time."""


@dataclass(slots=True)
class Past:
    """The faults of the last link of a bus, by which the next link selects its connection."""

    timed_out_on: Connection | None = None
    """The connection on which it got no answer in time."""
    is_suspect: bool = False
    """Whether one of its requests may be the reason why the broker closed its connection."""


class Link:
    """A channel to publish on and one to consume on, over a connection to `url` of `connections`."""

    def __init__(
        self,
        settings: ExchangeSettings,
        exchange: str,
        url: str,
        connections: Connections | None = None,
        past: Past | None = None,
        *,
        tuning: Tuning = TUNING,
    ) -> None:
        self._tuning = tuning
        self.url = url
        self._settings = settings
        self._exchange = exchange
        self._connections = Connections() if connections is None else connections
        self._past = Past() if past is None else past
        self._topology = Topology(settings, exchange, segment_bytes=tuning.segment_bytes)
        self._connection: Connection | None = None
        self.alarm = Alarm()
        self._confirms = Confirms(settings.confirm_timeout)
        self._accepted = 0
        """How many bytes of the connection the broker had accepted at the last check."""
        self._progress_at = 0.0
        """When the broker was last seen to accept published bytes."""
        self.is_overdue = False
        """Whether the link was lost because a publish was not confirmed in time."""
        self.lacks_ours = False
        """Whether the link was lost because the stream lacks bodies that the broker has confirmed."""
        self._missing: Exception | None = None
        """The error about an object that was missing at the last check, and may exist soon."""
        self._channels: list[AmqpChannel] = []
        """The channel to publish on and the channel to consume on; empty before the opening and after the close."""
        self._consumer: str | None = None
        self._queue: str | None = None
        self._identity = ""
        self._identified_at = 0.0
        self._reads_stream = False
        self._why = ""
        self._lost = asyncio.Event()
        self.is_connection_lost = False
        """Whether its connection is lost, and with it all links of that connection."""
        self._timed_out_on: Connection | None = None
        self._is_suspect = False
        self._closing: asyncio.Task[None] | None = None
        self._last_tag = self._tag = self._acknowledged = 0
        """Delivery tags of the last messages that arrived, that were handled, and that were acknowledged. The broker counts tags
        from 1, and skips none."""
        self._ack_is_due = asyncio.Event()
        self._ack_timer: asyncio.TimerHandle | None = None
        self.refused_bytes: int | None = None
        """Bytes of a body that exceeded the broker's size limit, so that the broker closed the channel; None if there was none."""

    async def open(self, *, others_wait: bool = False) -> None:
        """Connect, and declare the exchange; with replay also the stream and its binding. Raises BusError.

        With `others_wait`, other addresses remain to be tried, so this attempt has half the timeout.
        """
        try:
            seconds = self._settings.timeout / 2 if others_wait else self._settings.timeout
            if not await within(seconds, self._open_when_started()):
                if self._missing is None:
                    self._report_timeout(seconds)
                raise self._missing or TimeoutError
        except Exception as error:
            is_of_this_channel = error is self._missing or (self._channels and not self.is_connection_lost)
            exchange = self._exchange if is_of_this_channel else ""
            await self.close(at_once=isinstance(error, TimeoutError))
            raise BusError(explain(error, self.url, self._exchange), exchange=exchange) from None
        except BaseException:
            await self.close(at_once=True)
            raise

    async def _open_when_started(self) -> None:
        while not await self._opened():
            await self._close(self._tuning.close_timeout)
            await asyncio.sleep(topology.CHECK_SECONDS)
            self._lost.clear()
            self.is_connection_lost = False

    async def _opened(self) -> bool:
        """Return whether all objects exist.

        A broker may not have its queues yet if it has just started, or has just been asked to declare them.
        """
        try:
            await self._open()
        except exceptions.AMQPError as error:
            if not is_not_yet(error):
                raise
            self._missing = error
            return False
        return True

    async def _open(self) -> None:
        connection = await self._connect()
        for confirms in (True, False):
            self._channels.append(await connection.channel(self, confirms=confirms, failed=self.lose))
        await self._topology.check_type(self._temporary)
        await self._topology.declare(self._publishing)
        if self._settings.replay:
            await self._identify()
        await self._topology.bind(self._publishing, None)
        await self._topology.wait_made(self._temporary)

    async def _connect(self) -> Connection:
        is_suspect = self._past.is_suspect or self._is_suspect
        while True:
            connection = self._connection = self._connections.join(self, self.url, alone=is_suspect)
            await connection.opened()
            if connection.has_capacity(self):
                return connection
            await self._close(self._tuning.close_timeout)

    @property
    def _publishing(self) -> AmqpChannel:
        return self._channels[0]

    @property
    def _consuming(self) -> AmqpChannel:
        return self._channels[1]

    def _temporary(self) -> AbstractAsyncContextManager[AmqpChannel]:
        """Return a channel for the duration of a block. If the broker refuses a request, it closes only this channel."""
        assert self._connection is not None
        return self._connection.temporary(self)

    async def _identify(self) -> None:
        self._identity = await self._topology.identify_stream(self._temporary)
        self._identified_at = asyncio.get_running_loop().time()

    async def identity(self) -> str:
        """Return the current identity of the stream, empty for a stream without an identity. Raises LinkLost."""
        if asyncio.get_running_loop().time() - self._identified_at > IDENTITY_SECONDS:
            await self._guarded(self._identify())
        return self._identity

    async def watch_objects(self, is_answered: Callable[[], bool]) -> None:
        """Check at intervals that all objects still exist: the broker does not notify a consumer whose exchange is deleted.

        It skips the check while `is_answered` returns False: a broker that blocks publishers answers nothing. Raises LinkLost.
        """
        while True:
            await asyncio.sleep(self._tuning.check_interval)
            if is_answered():
                await self._guarded(self._check_objects())

    async def _check_objects(self) -> None:
        await self._topology.declare(self._publishing)
        await self._topology.bind(self._publishing, self._queue)
        # RabbitMQ 3.10 does not cancel the consumers of a deleted replica: they just receive nothing more.
        if self._reads_stream and not await self._topology.is_made(self._temporary):
            raise LinkLost("this node of the broker no longer has a replica of the stream")

    # Publishing

    async def publish(self, body: OutgoingBody, producer: str) -> None:
        """Publish, and wait for the broker's confirm. Raises RefusedBody.

        Raises LinkLost if it is unknown whether the broker has the body.
        """
        properties = Properties(
            content_type=body.content_type,
            headers={**body.headers(producer), TIME: base.now()},
            delivery_mode=TRANSIENT,
            priority=0,
            message_id=f"{producer}-{body.first}",
        )
        assert self._connection is not None
        loop = asyncio.get_running_loop()
        try:
            outcome = self._publishing.publish(self._exchange, body.data, properties, mandatory=self._settings.replay)
            self._confirms.sent(body.first, loop.time(), self._connection.written)
            match await outcome:
                case commands.Basic.Nack():
                    raise RefusedBody
                case commands.Basic.Return() as returned:
                    # No queue is bound to the exchange: the exchange was deleted and declared again. The next link binds the
                    # stream again.
                    raise LinkLost(f"publishing failed: {returned.reply_text}")
        except LINK_ERRORS as error:
            raise LinkLost(f"publishing failed: {error}") from None
        finally:
            self._confirms.settled(body.first, loop.time())

    async def watch_confirms(self) -> None:
        """Check that the broker confirms each publish in time. During an alarm no timeout runs. Raises LinkLost."""
        loop = asyncio.get_running_loop()
        timeout = self._settings.confirm_timeout
        while True:
            await asyncio.sleep(min(CHECK_SECONDS, timeout / 4) or CHECK_SECONDS)
            assert self._connection is not None
            now = loop.time()
            before, self._accepted = self._accepted, self._connection.accepted()
            self._confirms.accepted(self._accepted, now)
            if self.alarm.reason:
                self._confirms.restart(now)
            elif before < self._accepted < self._connection.written:
                self._progress_at = now
            if self._confirms.is_overdue(now):
                self.is_overdue = True
                self._report_timeout(timeout)
                raise LinkLost(f"the broker did not confirm a publish within {timeout:g} s")

    # Consuming

    async def consume_queue(self, on_delivery: Callable[[Delivery], None]) -> None:
        """Pass each message of a queue of this process to `on_delivery`. The queue is bound when this returns. Raises LinkLost."""
        arguments = {"x-max-length-bytes": NODE_QUEUE_BYTES}

        async def consume() -> None:
            channel = self._consuming
            # The broker chooses a name that it never uses again, so this queue cannot be mistaken for the queue of an earlier link.
            self._queue = await channel.declare_queue("", exclusive=True, auto_delete=True, arguments=arguments)
            await self._topology.bind(channel, self._queue)
            await self._consume(self._queue, on_delivery, {})

        await self._guarded(consume())

    async def consume_stream(self, on_delivery: Callable[[Delivery], None], offset: int | str) -> None:
        """Consume from the stream, beginning at an offset, `first`, `last` or `next`. Raises LinkLost."""
        await self._guarded(self._consume(self._topology.stream, on_delivery, {"x-stream-offset": offset}))
        self._reads_stream = True

    async def find(self, where: Literal["first", "last"], seconds: float) -> int | None:
        """Return the offset of the oldest body of the stream, or of one of its last bodies. Raises LinkLost.

        The result is None if no body arrives.
        """
        offsets = await self._read(where, lambda offset: True, seconds)
        return offsets[0] if offsets else None

    async def offsets(self, start: int, end: int, seconds: float, *, max_periods: float) -> list[int]:
        """Return the offsets of all bodies of the stream from `start` up to `end`.

        The stream must hold a body at `end` or after it. Raises LinkLost.
        """
        offsets = await self._read(start, lambda offset: offset >= end, seconds, max_periods=max_periods)
        if not offsets or offsets[-1] < end:
            raise LinkLost("the broker did not deliver all requested messages of the stream")
        return [offset for offset in offsets if start <= offset <= end]

    async def has(self, offset: int, start: int, seconds: float) -> bool:
        """Return whether the stream delivers a body at `offset` when read from `start`. Raises LinkLost."""
        offsets = await self._read(start, lambda found: found >= offset, seconds)
        return offset in offsets

    async def _read(
        self, where: int | str, is_last: Callable[[int], bool], seconds: float, *, max_periods: float = MAX_TIMEOUTS
    ) -> list[int]:
        """Read the stream over a separate channel; return the offsets of its bodies, up to the last. Raises LinkLost.

        `is_last` decides by its offset whether a body is the last. The result is shorter if no more bodies arrive.
        """
        found: list[int] = []
        is_over = asyncio.Event()
        channels: list[AmqpChannel] = []

        def collect(tag: int, properties: Properties, data: bytes) -> None:
            if not is_over.is_set():
                found.append(_offset(properties.headers or {}) or 0)
                if is_last(found[-1]):
                    is_over.set()
                elif len(found) % ACK_EVERY == 0:
                    channels[0].acknowledge(tag)

        async def consume() -> None:
            assert self._connection is not None
            channels.append(await self._connection.channel(self))
            prefetch = 1 if isinstance(where, str) else PREFETCH
            await channels[0].consume(self._topology.stream, collect, prefetch=prefetch, arguments={"x-stream-offset": where})

        try:
            await self._guarded(consume())
            await self._wait_delivered(channels[0], seconds, is_over.wait(), max_periods=max_periods)
            await self._guarded(channels[0].close())
        finally:
            for channel in channels:
                channel.close_nowait()
        return found

    async def stop_consuming(self) -> None:
        """Stop consuming; messages in flight may still arrive. Raises LinkLost."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._guarded(self._consuming.cancel(consumer))

    def handled(self, delivery: Delivery) -> None:
        """Record that every message up to a delivery was handled; `acknowledge_deliveries` acknowledges it soon."""
        self._tag = delivery.tag
        if self._tag - self._acknowledged >= ACK_EVERY:
            self._ack_is_due.set()
        elif self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_SECONDS, self._ack_in_time)

    def _ack_in_time(self) -> None:
        self._ack_timer = None
        self._ack_is_due.set()

    async def acknowledge_deliveries(self) -> None:
        """Acknowledge handled messages for as long as the link lasts. Raises LinkLost."""
        while True:
            await self._ack_is_due.wait()
            self._ack_is_due.clear()
            if self._tag > self._acknowledged:
                self._acknowledged = self._tag
                # This never waits: during an alarm, a broker that blocks publishers does not read acknowledgements either.
                self._consuming.acknowledge(self._tag)

    async def _consume(self, queue: str, on_delivery: Callable[[Delivery], None], arguments: Mapping[str, object]) -> None:
        def pass_on(tag: int, properties: Properties, data: bytes) -> None:
            if tag != self._last_tag + 1:
                self.lose(f"{tag - self._last_tag - 1} deliveries of the broker were lost in transit")
            if self.is_lost:
                # Without the lost messages, later messages would look complete. The stream delivers them again, or the receiver
                # begins a new epoch.
                return
            self._last_tag = tag
            headers = properties.headers or {}
            on_delivery(
                Delivery(
                    data,
                    properties.content_type,
                    properties.content_encoding,
                    properties.message_type,
                    headers,
                    tag,
                    _offset(headers),
                    time_of(headers, properties.timestamp),
                )
            )

        self._consumer = await self._consuming.consume(queue, pass_on, prefetch=PREFETCH, arguments=arguments)

    def received_at(self) -> float:
        """Return the loop time at which the last bytes arrived over the connection; 0 before the first. Heartbeats do not count."""
        return self._connection.received_at() if self._connection is not None else 0.0

    async def wait_delivered(self, seconds: float, work: Coroutine[Any, Any, object], *, max_periods: float) -> bool:
        """Wait for `work` until the broker has delivered nothing for `seconds`; return whether the work finished.

        The time of an alarm does not count. Raises LinkLost if deliveries keep arriving and the work takes `max_periods` times `seconds`.
        """
        return await self._wait_delivered(self._consuming, seconds, work, max_periods=max_periods)

    async def _wait_delivered(self, channel: AmqpChannel, seconds: float, work: Coroutine[Any, Any, object], *, max_periods: float) -> bool:
        loop = asyncio.get_running_loop()
        start = loop.time()

        def last() -> float:
            return max(start, self.alarm.over_at()) + max_periods * seconds

        def until() -> float:
            return min(max(start, channel.delivered_at, self.alarm.over_at()) + seconds, last())

        async def listen() -> None:
            while True:
                remaining = until() - loop.time()
                if remaining > 0:
                    await asyncio.sleep(remaining)
                    continue
                if loop.time() >= last():
                    raise LinkLost(f"the broker did not deliver all bodies within {max_periods * seconds:g} s, although other data arrived")
                # Data of other channels may delay deliveries of this channel, for as long as it is in flight.
                before = channel.delivered_at
                await self._guarded(channel.drain())
                if channel.delivered_at == before:
                    return

        working, listening = tasks = [loop.create_task(each, name="bus: delivered") for each in (work, listen())]
        for task in tasks:
            task.add_done_callback(retrieve)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                listening.result()
                return False
            working.result()
            return True
        finally:
            for task in tasks:
                task.cancel()

    async def _guarded(self, work: Coroutine[Any, Any, object]) -> None:
        """Wait for the answer to a request. The broker sends it behind all data that is in flight on the connection.

        The time of an alarm does not count. Raises LinkLost if no bytes arrive for the timeout of the settings. If other bytes keep
        arriving, it raises LinkLost after MAX_TIMEOUTS timeouts.
        """
        loop = asyncio.get_running_loop()
        start, seconds = loop.time(), self._settings.timeout

        def last() -> float:
            return max(start, self.alarm.over_at()) + MAX_TIMEOUTS * seconds

        def until() -> float:
            # The request itself waits behind published data on the same connection, so progress with that data extends the wait.
            return min(max(start, self.received_at(), self._progress_at, self.alarm.over_at()) + seconds, last())

        try:
            if not await within(seconds, work, until=until):
                is_silent = loop.time() < last()
                self._report_timeout(seconds if is_silent else MAX_TIMEOUTS * seconds)
                why = f"for {seconds:g} s" if is_silent else f"for {MAX_TIMEOUTS * seconds:g} s, although other data arrived"
                raise LinkLost(f"the broker has not answered {why}")
        except LINK_ERRORS as error:
            raise LinkLost(str(error) or type(error).__name__) from None

    def _report_timeout(self, seconds: float) -> None:
        """Record that an answer of the broker is late. The connection may be lost, too."""
        if self._connection is not None and self._timed_out_on is None:
            self._timed_out_on = self._connection
            self._connection.report_timeout(self, seconds, is_again=self._past.timed_out_on is self._connection)

    # Loss and close

    def lose(self, why: str) -> None:
        """Mark the link as lost; `why` is the reason."""
        if not self._lost.is_set():
            if too_long := TOO_LONG.search(why):
                self.refused_bytes = int(too_long[1])
            self._why = why
            self._lost.set()

    def connection_lost(self, why: str, *, is_suspect: bool) -> None:
        self._is_suspect |= is_suspect
        self.is_connection_lost = True
        self.lose(why)

    @property
    def reported(self) -> Reported:
        """The events of its connection that the log has shown; use it between the opening and the close."""
        assert self._connection is not None
        return self._connection.reported

    @property
    def is_lost(self) -> bool:
        return self._lost.is_set()

    async def wait_lost(self) -> None:
        """Wait until the link is lost, then raise LinkLost."""
        await self._lost.wait()
        raise LinkLost(self._why)

    @property
    def has_lasting_connection(self) -> bool:
        """Whether its connection works and has other links, so that it stays when this link closes."""
        return self._connection is not None and self._connection.is_shared_with_others(self)

    async def close(self, *, at_once: bool = False) -> None:
        """Close the link, in bounded time. A cancellation during the close is raised after it.

        With `at_once` it does not wait for the broker's answer.
        """
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        if self._closing is None:
            self._past.timed_out_on, self._past.is_suspect = self._timed_out_on, self._is_suspect
            # Close in a separate task: a cancelled close of aio-pika waits for ever for the answer of a silent broker.
            self._closing = asyncio.get_running_loop().create_task(
                self._close(0 if at_once else self._tuning.close_timeout), name="bus: close"
            )
        cancelled: asyncio.CancelledError | None = None
        while not self._closing.done():
            try:
                await asyncio.wait((self._closing,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        self._closing.result()

    async def _close(self, seconds: float) -> None:
        """Close the channels, or the connection if no other link uses it; wait at most `seconds` for the broker."""
        connection, self._connection = self._connection, None
        channels, self._channels = self._channels, []
        queue, self._queue = self._queue, None
        if connection is None:
            return
        if self._connections.leave(self, connection):
            await connection.close(seconds, at_once=not seconds)
            return
        for channel in channels:
            if queue is not None:
                # The broker deletes the queue with its consumer, but a queue without one lasts as long as the connection.
                channel.delete_queue(queue)
            channel.close_nowait()
        await within(seconds, _all_closed(channels))


async def _all_closed(channels: list[AmqpChannel]) -> None:
    """Wait until the broker has closed the channels. Until then they ignore its frames, even if no caller waits any more."""
    for channel in channels:
        await channel.close()


def _offset(headers: Mapping[str, Any]) -> int | None:
    """Return the offset in its stream of a message, None for a message from a queue."""
    offset = headers.get("x-stream-offset")
    return offset if isinstance(offset, int) else None
