"""An AMQP channel on a connection that other AMQP channels share: requests, publishes with confirms, and one consumer.

The channels of aiormq suit a connection that ends with its first fault. On a shared connection, such a fault ends all
channels: the broker closes the connection for a frame on a closed channel (504). aiormq

    sends publishes behind its answer to Channel.Close; in a test, each of ten such faults ended the connection
    omits that answer while its write queue is full
    sends Channel.Close a second time when the answer to the first is late
    stops reading the connection when ten frames wait for a channel that has ended

This class uses only the connection of aiormq, which passes each frame to `frames.put` of its channel. It handles the frame at
once, and writes to the transport at once. So no frame is sent after its channel has ended, and a cancelled request leaves only an
answer to ignore.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol

from aio_pika import exceptions
from pamqp import body, commands, frame, header
from pamqp.base import Frame
from pamqp.constants import REPLY_SUCCESS

from wsbridge.logs import logger

Properties = commands.Basic.Properties
OnDelivery = Callable[[int, Properties, bytes], None]
"""Gets each delivery: its tag, its properties and its body."""
Outcome = commands.Basic.Ack | commands.Basic.Nack | commands.Basic.Return
"""The broker's answer to a published body: it has the body, it refuses the body, or no queue is bound."""

FRAME_OVERHEAD = 8
"""Bytes of a frame besides its payload (AMQP 0-9-1, 4.2.3)."""
ERRORS = {404: exceptions.ChannelNotFoundEntity, 406: exceptions.ChannelPreconditionFailed}
"""Exceptions for the reply codes with which a broker closes a channel; every other code gives ChannelClosed."""

log = logger("bus")


class Carrier(Protocol):
    """The connection of a channel."""

    frame_bytes: int
    """Maximum bytes of a frame."""

    def write(self, data: bytes) -> None:
        """Send bytes. At the end of the connection they are dropped, and `connection_lost` of each channel follows."""

    def route(self, channel: AmqpChannel) -> None:
        """Pass the frames of the channel's number to it, until a Channel.Close or Channel.CloseOk has arrived."""

    async def turn(self) -> None:
        """Let other tasks run, if many frames have arrived at once."""


class State(Enum):
    OPEN = "open"
    CLOSING = "Channel.Close was sent, and the broker has not answered it"
    CLOSED = "closed"


class AmqpChannel:
    """A channel with a `number`. `failed` gets the reason, once, if the broker ends the channel or its consumer.

    At the end of the channel or of its connection, all requests and publishes that wait get the error, and further calls raise it.
    """

    def __init__(self, carrier: Carrier, number: int, *, owner: object = None, failed: Callable[[str], None] | None = None) -> None:
        self.number = number
        self.owner = owner
        self.received_at = self.delivered_at = 0.0
        """When the broker last sent a frame on this channel, and a frame of a delivery, by the loop's clock."""
        self._loop = asyncio.get_running_loop()
        self._carrier = carrier
        self._failed = failed
        self._state = State.OPEN
        self._error: Exception | None = None
        self._over = asyncio.Event()
        """Set when the broker has answered Channel.Close, or can no longer answer it."""
        self._requests: deque[tuple[Frame, asyncio.Future[Any]]] = deque()
        """Requests without an answer; the broker answers in order."""
        self._published = 0
        self._unconfirmed: dict[int, tuple[str | None, asyncio.Future[Outcome]]] = {}
        """The message id of each publish without a confirm, in the order of the tags."""
        self._on_delivery: OnDelivery | None = None
        self._content: _Content | None = None
        carrier.route(self)

    @property
    def frames(self) -> AmqpChannel:
        """The object that aiormq uses as the queue of this channel."""
        return self

    @property
    def is_open(self) -> bool:
        return self._state is State.OPEN

    @property
    def is_asking(self) -> bool:
        """Whether a request waits for its answer."""
        return any(not answer.done() for _, answer in self._requests)

    # Requests

    async def open(self, *, confirms: bool = False) -> None:
        """Open the channel on the broker; with `confirms` the broker confirms each publish."""
        await self.request(commands.Channel.Open())
        if confirms:
            await self.request(commands.Confirm.Select())

    async def request(self, method: Frame) -> Any:
        """Send a method, and return the broker's answer. A caller may be cancelled; the channel then ignores the answer."""
        data = self._marshalled(method)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._requests.append((method, answer))
        self._carrier.write(data)
        return await answer

    async def declare_exchange(
        self, name: str, *, passive: bool = False, durable: bool = False, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Declare a fanout exchange."""
        await self.request(
            commands.Exchange.Declare(exchange=name, exchange_type="fanout", passive=passive, durable=durable, arguments=_table(arguments))
        )

    async def declare_queue(
        self,
        name: str,
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """Declare a queue; return its name, which the broker chooses if `name` is empty."""
        declared = await self.request(
            commands.Queue.Declare(
                queue=name,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=_table(arguments),
            )
        )
        return str(declared.queue)

    async def bind_queue(self, queue: str, exchange: str, key: str) -> None:
        await self.request(commands.Queue.Bind(queue=queue, exchange=exchange, routing_key=key))

    def delete_queue(self, name: str) -> None:
        """Delete a queue, without an answer. A queue that does not exist is no error."""
        if self.is_open:
            self._carrier.write(self._marshalled(commands.Queue.Delete(queue=name, nowait=True)))

    async def consume(self, queue: str, on_delivery: OnDelivery, *, prefetch: int, arguments: Mapping[str, Any] | None = None) -> str:
        """Consume from a queue; return the tag of the consumer. `on_delivery` may get deliveries before this returns."""
        await self.request(commands.Basic.Qos(prefetch_count=prefetch))
        self._on_delivery = on_delivery
        consuming = await self.request(commands.Basic.Consume(queue=queue, arguments=_table(arguments)))
        return str(consuming.consumer_tag)

    async def cancel(self, consumer: str) -> None:
        """Stop consuming; deliveries in flight still arrive."""
        await self.request(commands.Basic.Cancel(consumer_tag=consumer))

    async def drain(self) -> None:
        """Wait until all earlier frames of the broker on this channel have arrived: the broker sends its answer after them."""
        await self.request(commands.Channel.Flow(active=True))

    def acknowledge(self, tag: int) -> None:
        """Acknowledge all deliveries up to a tag."""
        if self.is_open:
            self._carrier.write(self._marshalled(commands.Basic.Ack(delivery_tag=tag, multiple=True)))

    # Publishing

    def publish(self, exchange: str, data: bytes, properties: Properties, *, mandatory: bool) -> asyncio.Future[Outcome]:
        """Send a body at once; the result is known when the broker confirms it.

        With `mandatory`, the broker returns a body for which no queue is bound.
        """
        size = self._carrier.frame_bytes - FRAME_OVERHEAD
        frames = self._marshalled(
            commands.Basic.Publish(exchange=exchange, mandatory=mandatory),
            header.ContentHeader(body_size=len(data), properties=properties),
            *(body.ContentBody(data[start : start + size]) for start in range(0, len(data), size)),
        )
        self._published += 1
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._unconfirmed[self._published] = properties.message_id, outcome
        self._carrier.write(frames)
        return outcome

    # The end

    def close_nowait(self) -> None:
        """Close the channel without waiting for the broker. Further calls do nothing."""
        self._close(exceptions.ChannelClosed("wsbridge has closed the channel"))

    async def close(self) -> None:
        """Close the channel, and wait for the broker's answer. A caller may be cancelled; the channel then closes all the same."""
        self.close_nowait()
        await self._over.wait()

    def connection_lost(self, error: Exception) -> None:
        """Record the end of the connection."""
        self._end(State.CLOSED, error)

    def _close(self, error: Exception) -> None:
        if self.is_open:
            close = self._marshalled(commands.Channel.Close(REPLY_SUCCESS, "", 0, 0))
            self._end(State.CLOSING, error)
            self._carrier.write(close)

    def _end(self, state: State, error: Exception) -> None:
        self._state = state
        self._error = self._error or error
        if state is State.CLOSED:
            self._over.set()
        waiting = [answer for _, answer in self._requests] + [outcome for _, outcome in self._unconfirmed.values()]
        self._requests.clear()
        self._unconfirmed.clear()
        self._on_delivery = self._content = None
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def _fail(self, why: str) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(why)

    # Frames

    async def put(self, item: tuple[int, Any]) -> None:
        """Handle a frame; aiormq passes it with the number of its bytes."""
        self.received_at = self._loop.time()
        self._handle(item[1])
        await self._carrier.turn()

    def _handle(self, part: Any) -> None:
        match part:
            case commands.Channel.Close():
                self._closed(part)
            case commands.Channel.CloseOk():
                self._end(State.CLOSED, exceptions.ChannelClosed("the channel is closed"))
            case _ if not self.is_open:
                """The broker sent the frame before it read our Channel.Close."""
            case commands.Basic.Deliver() | commands.Basic.Return():
                self._content = _Content(part)
            case header.ContentHeader() | body.ContentBody():
                self._collect(part)
            case commands.Basic.Ack() | commands.Basic.Nack():
                self._confirm(part)
            case commands.Basic.Cancel():
                self._fail("the broker cancelled the consumer")
            case _:
                self._answer(part)

    def _closed(self, close: commands.Channel.Close) -> None:
        self._carrier.write(frame.marshal(commands.Channel.CloseOk(), self.number))
        if self._state is State.CLOSING:
            # Both sides have closed the channel at once. The broker still answers our Channel.Close, and until then a new channel
            # of this number would get that answer.
            self._carrier.route(self)
            return
        error = ERRORS.get(close.reply_code or 0, exceptions.ChannelClosed)
        self._end(State.CLOSED, error(close.reply_text))
        self._fail(f"the broker closed the channel: {close.reply_text}")

    def _answer(self, answer: Any) -> None:
        if not self._requests:
            return
        method, future = self._requests[0]
        if answer.name not in method.valid_responses:
            why = f"the broker answers {method.name} with {answer.name}"
            self._close(exceptions.InvalidFrameError(why))
            self._fail(why)
            return
        self._requests.popleft()
        if not future.done():
            future.set_result(answer)

    def _collect(self, part: header.ContentHeader | body.ContentBody) -> None:
        self.delivered_at = self.received_at
        content = self._content
        if content is None or not content.add(part):
            return
        self._content = None
        match content.method:
            case commands.Basic.Return():
                self._returned(content.method, content.properties)
            case commands.Basic.Deliver() if self._on_delivery is not None:
                try:
                    self._on_delivery(content.method.delivery_tag or 0, content.properties, content.data)
                except Exception:
                    # aiormq would end the connection.
                    log.exception("internal error in a consumer")

    def _returned(self, method: commands.Basic.Return, properties: Properties) -> None:
        # The confirm follows, and removes the publish.
        for message_id, outcome in self._unconfirmed.values():
            if message_id == properties.message_id and not outcome.done():
                outcome.set_result(method)

    def _confirm(self, confirm: commands.Basic.Ack | commands.Basic.Nack) -> None:
        last = confirm.delivery_tag or 0
        tags = [tag for tag in self._unconfirmed if tag <= last] if confirm.multiple else [last]
        for tag in tags:
            _, outcome = self._unconfirmed.pop(tag, (None, None))
            if outcome is not None and not outcome.done():
                outcome.set_result(confirm)

    def _marshalled(self, *frames: Any) -> bytes:
        if self._error is not None:
            raise self._error
        return b"".join([frame.marshal(value, self.number) for value in frames])


class _Content:
    """A delivered or returned message: its method, and the frames received so far."""

    def __init__(self, method: commands.Basic.Deliver | commands.Basic.Return) -> None:
        self.method = method
        self.properties = Properties()
        self._remaining = 0
        self._parts: list[bytes] = []

    @property
    def data(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def add(self, part: header.ContentHeader | body.ContentBody) -> bool:
        """Add the next frame; return whether it is the last."""
        if isinstance(part, header.ContentHeader):
            self.properties, self._remaining = part.properties, part.body_size
        else:
            self._parts.append(part.value)
            self._remaining -= len(part.value)
        return self._remaining <= 0


def _table(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(arguments or {})
