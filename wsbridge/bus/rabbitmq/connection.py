"""One connection to RabbitMQ, from its opening to its loss. Only the files of this folder use aio-pika or pamqp.

aio-pika connects; this file then uses the aiormq channels beneath aio-pika's own. aio-pika's robust channels declare an exclusive
queue again, under a name that the broker has not released yet. They wait for ever with messages published in the meantime, and
cost one more task for each message. Any fault loses the whole link: a closed channel, a cancelled consumer, a late frame. The
link's owner then opens a new link, so that there is one recovery path for every fault.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import aio_pika
from aio_pika import exceptions
from aio_pika.connection import make_url

from wsbridge.bus import base
from wsbridge.bus.bodies import TIME, OutgoingBody, time_of
from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.rabbitmq import decode, topology
from wsbridge.bus.rabbitmq.alarm import Alarm
from wsbridge.bus.rabbitmq.confirms import Confirms
from wsbridge.bus.rabbitmq.errors import explain, why_closed
from wsbridge.bus.rabbitmq.topology import Topology, is_not_yet
from wsbridge.bus.rabbitmq.transport import Transport, within
from wsbridge.errors import BusError, LinkLost, RefusedBody

HEARTBEAT = 10
"""Heartbeat interval in seconds. A link that is silent for slightly more than three intervals is lost."""
CLOSE_SECONDS = 2.0
BOUND_SECONDS = 2.0
"""Seconds between two checks of the channel's objects at the broker. If a binding is removed, other publishers' messages are lost
for up to this long."""
LONGEST = 6
"""How many timeouts an answer may take while other bytes arrive: on a slow link, earlier data delays it. After that, it counts as
lost."""
IDENTITY_SECONDS = 1.0
"""Seconds for which the identity of a stream stays valid: a consumer that starts within this time reads that stream."""
LOOK_SECONDS = 1.0
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

TROUBLE = (*exceptions.CONNECTION_EXCEPTIONS, TimeoutError, EOFError)
"""Exceptions that aio-pika raises when a link fails."""

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


class Link:
    """A connection to `url`, with one channel to publish on and one to consume on."""

    def __init__(self, settings: ExchangeSettings, exchange: str, url: str) -> None:
        self.url = url
        self._settings = settings
        self._exchange = exchange
        self._topology = Topology(settings, exchange)
        self._connection: Any = None
        self._transport = Transport()
        self.alarm = Alarm()
        self._confirms = Confirms(settings.confirm_timeout)
        self._went_on_at = 0.0
        """When the broker was last seen to accept published bytes."""
        self.is_overdue = False
        """Whether the link was lost because a publish was not confirmed in time."""
        self.lacks_ours = False
        """Whether the link was lost because the stream lacks bodies that the broker has confirmed."""
        self._missing: Exception | None = None
        """The error about an object that was missing at the last check, and may exist soon."""
        self._publishing: Any = None
        self._consuming: Any = None
        self._consumer: str | None = None
        self._queue: str | None = None
        self._identity = ""
        self._identified_at = 0.0
        self._reads_stream = False
        self._why = ""
        self._lost = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._came = self._tag = self._acknowledged = 0
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
                raise self._missing or TimeoutError
        except BaseException as error:
            if isinstance(error, TimeoutError | asyncio.CancelledError):
                # Abort the connection: a regular close would wait for the broker's answer.
                self._transport.abort()
            await self.close()
            if isinstance(error, TROUBLE) or not _is_cancelled():
                raise BusError(explain(error, self.url, self._exchange)) from None
            raise

    async def _open_when_started(self) -> None:
        while not await self._opened():
            await self.close()
            await asyncio.sleep(topology.LOOK_SECONDS)
            self._lost.clear()

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
        url = with_heartbeat(self.url)
        connection: Any = aio_pika.Connection(make_url(url), client_properties={"connection_name": f"wsbridge {self._exchange}"})
        self._connection = connection
        # aio-pika has no argument for a transport factory, but passes unknown arguments on to aiormq.
        self._transport = connection.kwargs["transport_factory"] = Transport()
        await connection.connect()

        def closed(closing: asyncio.Future[Any]) -> None:
            error = None if closing.cancelled() else closing.exception()
            self._ended(connection, why_closed(error))

        connection.transport.connection.closing.add_done_callback(closed)
        self.alarm.watch(connection.transport.connection)
        self._publishing = await self._channel(connection, publisher_confirms=True, on_return_raises=True)
        self._consuming = await self._channel(connection, publisher_confirms=False)
        await self._topology.check_type(connection)
        await self._topology.declare(self._publishing)
        if self._settings.replay:
            await self._identify()
        await self._topology.bind(self._publishing, None)
        await self._topology.wait_made(connection)

    async def _identify(self) -> None:
        self._identity = await self._topology.identify_stream(self._connection)
        self._identified_at = asyncio.get_running_loop().time()

    async def identity(self) -> str:
        """Return the current identity of the stream, empty for a stream without an identity. Raises LinkLost."""
        if asyncio.get_running_loop().time() - self._identified_at > IDENTITY_SECONDS:
            await self._guarded(self._identify())
        return self._identity

    async def keep_bound(self, is_answered: Callable[[], bool]) -> None:
        """Check at intervals that all objects still exist: the broker does not notify a consumer whose exchange is deleted.

        It skips the check while `is_answered` returns False: a broker that blocks publishers answers nothing. Raises LinkLost.
        """
        while True:
            await asyncio.sleep(BOUND_SECONDS)
            if is_answered():
                await self._guarded(self._look())

    async def _look(self) -> None:
        await self._topology.declare(self._publishing)
        await self._topology.bind(self._publishing, self._queue)
        # RabbitMQ 3.10 does not cancel the consumers of a deleted replica: they just receive nothing more.
        if self._reads_stream and not await self._topology.is_made(self._connection):
            raise LinkLost("this node of the broker no longer has a replica of the stream")

    async def _channel(self, connection: Any, **options: Any) -> Any:
        channel = await (await connection.channel(**options)).get_underlay_channel()

        def closed(closing: asyncio.Future[Any]) -> None:
            error = None if closing.cancelled() else closing.exception()
            if too_long := TOO_LONG.search(str(error)):
                self.refused_bytes = int(too_long[1])
            self._ended(connection, f"the broker closed the channel: {error}" if error else "the channel was closed")

        channel.closing.add_done_callback(closed)
        channel.on_consumer_cancel_callbacks.add(lambda frame: self._ended(connection, "the broker cancelled the consumer"))
        return channel

    def _ended(self, connection: Any, why: str) -> None:
        # Ignore the end of an earlier connection: the link already uses another connection.
        if connection is self._connection:
            self.lose(why)

    # Publishing

    async def publish(self, body: OutgoingBody, producer: str) -> None:
        """Publish, and wait for the broker's confirm. Raises RefusedBody.

        Raises LinkLost if it is unknown whether the broker has the body.
        """
        message = aio_pika.Message(
            body.data,
            headers={**body.headers(producer), TIME: base.now()},
            content_type=body.content_type,
            message_id=f"{producer}-{body.first}",
            delivery_mode=aio_pika.DeliveryMode.NOT_PERSISTENT,
        )
        loop = asyncio.get_running_loop()
        self._confirms.sent(body.first, loop.time())
        try:
            await self._publishing.basic_publish(
                body.data,
                exchange=self._exchange,
                properties=message.properties,
                mandatory=self._settings.replay,
                wait=False,
            )
        except exceptions.PublishError as error:
            # No queue is bound to the exchange: the exchange was deleted and declared again. The next link binds the stream again.
            raise LinkLost(f"publishing failed: {error}") from None
        except exceptions.DeliveryError:
            raise RefusedBody from None
        except TROUBLE as error:
            raise LinkLost(f"publishing failed: {error}") from None
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise LinkLost("the connection closed during a publish") from None
        finally:
            self._confirms.settled(body.first, loop.time())

    async def keep_confirmed(self) -> None:
        """Check that the broker confirms each publish in time. During an alarm no timeout runs. Raises LinkLost."""
        loop = asyncio.get_running_loop()
        timeout = self._settings.confirm_timeout
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, timeout / 4) or LOOK_SECONDS)
            now = loop.time()
            if self.alarm.reason:
                self._confirms.restart(now)
            elif self._transport.goes_on():
                self._went_on_at = now
                self._confirms.progressed(now)
            if self._confirms.is_overdue(now):
                self.is_overdue = True
                raise LinkLost(f"the broker did not confirm a publish within {timeout:g} s")

    # Consuming

    async def consume_queue(self, take: Callable[[Delivery], None]) -> None:
        """Consume from a queue of this process. The queue is bound when this returns; `take` gets each message. Raises LinkLost."""
        arguments = {"x-max-length-bytes": NODE_QUEUE_BYTES}

        async def consume() -> None:
            channel = self._consuming
            declared = await channel.queue_declare("", exclusive=True, auto_delete=True, arguments=arguments)
            self._queue = declared.queue
            await self._topology.bind(channel, self._queue)
            await self._consume(self._queue, take, {})

        await self._guarded(consume())

    async def consume_stream(self, take: Callable[[Delivery], None], offset: int | str) -> None:
        """Consume from the stream, beginning at an offset, `first`, `last` or `next`. Raises LinkLost."""
        await self._guarded(self._consume(self._topology.stream, take, {"x-stream-offset": offset}))
        self._reads_stream = True

    async def find(self, where: Literal["first", "last"], seconds: float) -> int | None:
        """Return the offset of the oldest body of the stream, or of one of its last bodies. Raises LinkLost.

        The result is None if no body arrives.
        """
        offsets = await self._read(where, lambda offset: True, seconds)
        return offsets[0] if offsets else None

    async def offsets(self, start: int, end: int, seconds: float, *, longest: float) -> list[int]:
        """Return the offsets of all bodies of the stream from `start` up to `end`.

        The stream must hold a body at `end` or after it. Raises LinkLost.
        """
        offsets = await self._read(start, lambda offset: offset >= end, seconds, longest=longest)
        if not offsets or offsets[-1] < end:
            raise LinkLost("the stream does not deliver all bodies that it holds")
        return [offset for offset in offsets if start <= offset <= end]

    async def has(self, offset: int, start: int, seconds: float) -> bool:
        """Return whether the stream delivers a body at `offset` when read from `start`. Raises LinkLost."""
        offsets = await self._read(start, lambda found: found >= offset, seconds)
        return offset in offsets

    async def _read(self, where: int | str, is_last: Callable[[int], bool], seconds: float, *, longest: float = LONGEST) -> list[int]:
        """Read the stream over a separate channel; return the offsets of its bodies, up to the last. Raises LinkLost.

        `is_last` decides by its offset whether a body is the last. The result is shorter if no more bodies arrive.
        """
        found: list[int] = []
        is_over = asyncio.Event()
        channels: list[Any] = []

        async def take(message: Any) -> None:
            if not is_over.is_set():
                found.append(message.header.properties.headers["x-stream-offset"])
                if is_last(found[-1]):
                    is_over.set()
                elif len(found) % ACK_EVERY == 0:
                    await message.channel.basic_ack(message.delivery_tag, multiple=True, wait=False)

        async def begin() -> None:
            channels.append(await (await self._connection.channel(publisher_confirms=False)).get_underlay_channel())
            await channels[0].basic_qos(prefetch_count=1 if isinstance(where, str) else PREFETCH)
            await channels[0].basic_consume(self._topology.stream, take, arguments={"x-stream-offset": where})

        await self._guarded(begin())
        await self.patiently(seconds, is_over.wait(), longest=longest)
        await self._guarded(channels[0].close())
        return found

    async def stop_consuming(self) -> None:
        """Stop consuming; messages in flight may still arrive. Raises LinkLost."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._guarded(self._consuming.basic_cancel(consumer))

    def handled(self, delivery: Delivery) -> None:
        """Record that every message up to a delivery was handled; `keep_acknowledging` acknowledges it soon."""
        self._tag = delivery.tag
        if self._tag - self._acknowledged >= ACK_EVERY:
            self._ack_is_due.set()
        elif self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_SECONDS, self._ack_in_time)

    def _ack_in_time(self) -> None:
        self._ack_timer = None
        self._ack_is_due.set()

    async def keep_acknowledging(self) -> None:
        """Acknowledge handled messages for as long as the link lasts. Raises LinkLost."""
        while True:
            await self._ack_is_due.wait()
            self._ack_is_due.clear()
            if self._tag > self._acknowledged:
                self._acknowledged = self._tag
                # Do not wait: during an alarm, a broker that blocks publishers does not read acknowledgements either.
                await self._guarded(self._consuming.basic_ack(self._tag, multiple=True, wait=False))

    async def _consume(self, queue: str, take: Callable[[Delivery], None], arguments: Mapping[str, object]) -> None:
        await self._consuming.basic_qos(prefetch_count=PREFETCH)

        async def taken(message: Any) -> None:
            if message.delivery_tag != self._came + 1:
                self.lose(f"{message.delivery_tag - self._came - 1} deliveries of the broker were lost in transit")
            if self.is_lost:
                # Without the lost messages, later messages would look complete. The stream delivers them again, or the receiver
                # begins a new epoch.
                return
            self._came = message.delivery_tag
            properties = message.header.properties
            headers = properties.headers or {}
            offset = headers.get("x-stream-offset")
            take(
                Delivery(
                    message.body,
                    properties.content_type,
                    properties.content_encoding,
                    properties.message_type,
                    headers,
                    message.delivery_tag,
                    offset if isinstance(offset, int) else None,
                    time_of(headers, properties.timestamp),
                )
            )

        confirmed = await self._consuming.basic_consume(queue, taken, arguments=dict(arguments))
        self._consumer = confirmed.consumer_tag

    def heard(self) -> float:
        """Return when the last bytes arrived, by the loop's clock; 0 before the first. Heartbeats do not count."""
        return self._transport.heard()

    async def patiently(self, seconds: float, work: Coroutine[Any, Any, object], *, longest: float = LONGEST) -> bool:
        """Wait for `work` until nothing has arrived over the link for `seconds`; return whether the work finished.

        The time of an alarm does not count. Raises LinkLost if other bytes keep arriving and the work takes `longest` times `seconds`.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()

        def last() -> float:
            return max(began, self.alarm.over_at()) + longest * seconds

        def until() -> float:
            # A request waits behind published data on the same connection, so progress with that data extends the wait.
            return min(max(began, self._transport.heard(), self._went_on_at, self.alarm.over_at()) + seconds, last())

        has_come = await within(seconds, work, until=until)
        if not has_come and loop.time() >= last():
            raise LinkLost(f"the broker does not answer for {longest * seconds:g} s, although other data arrives")
        return has_come

    async def _guarded(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            # The broker answers this request after all data that is in flight.
            if not await self.patiently(self._settings.timeout, work):
                raise LinkLost(f"the broker does not answer for {self._settings.timeout:g} s")
        except TROUBLE as error:
            raise LinkLost(str(error) or type(error).__name__) from None
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise LinkLost("the connection was closed") from None

    # Loss and close

    def lose(self, why: str) -> None:
        """Mark the link as lost; `why` is the reason."""
        if not self._lost.is_set():
            self._why = why
            self._lost.set()

    @property
    def is_lost(self) -> bool:
        return self._lost.is_set()

    async def wait_lost(self) -> None:
        """Wait until the link is lost, then raise LinkLost."""
        await self._lost.wait()
        raise LinkLost(self._why)

    async def close(self) -> None:
        """Close the link, in bounded time. A cancellation during the close is raised after it."""
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            # Close in a separate task: a cancelled close of aio-pika waits for ever for the answer of a silent broker.
            self._closing = asyncio.get_running_loop().create_task(self._close(connection), name="bus: close")
        cancelled: asyncio.CancelledError | None = None
        while self._closing is not None and not self._closing.done():
            try:
                await asyncio.wait((self._closing,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        if self._closing is not None:
            self._closing.result()

    async def _close(self, connection: Any) -> None:
        with suppress(*TROUBLE):
            await within(CLOSE_SECONDS, connection.close())
        self._transport.abort()
        # This call has nothing left to wait for. But without it, a connection whose close was cut short counts as open. The
        # garbage collector would then close it, in any thread.
        await connection.close()


def _is_cancelled() -> bool:
    """Whether this task was cancelled: aio-pika also raises its own CancelledError when a connection ends during a call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def with_heartbeat(url: str) -> str:
    """Return the URL with wsbridge's heartbeat interval, unless it sets its own."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    return parts._replace(query=urlencode({"heartbeat": HEARTBEAT, **query})).geturl()
