"""The objects that a channel needs on the broker: its exchange, its stream if it uses replay, and their bindings."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from aio_pika import exceptions

from wsbridge.bus.exchange import ExchangeSettings
from wsbridge.bus.rabbitmq.amqpchannel import AmqpChannel
from wsbridge.bus.rabbitmq.report import channel_log
from wsbridge.bus.rabbitmq.tuning import SEGMENT_BYTES
from wsbridge.logs import INFO

CHECK_SECONDS = 0.2
"""Seconds between two checks for a missing object. A starting broker needs some tenths of a second until it has its queues again."""
CHECKS = 10
"""Maximum checks of a stream that another process may be creating, which takes some hundredths of a second."""
NOT_YET = re.compile("inaccessible|INTERNAL_ERROR|Stream not found")
"""Matches RabbitMQ 3.10's errors for a queue that it has not loaded yet, and for a stream that it has not created yet."""
IDENTITY = "x-initial-cluster-size"
"""The argument of a stream that holds its identity. A number larger than the cluster means all nodes, as does no number."""
IDENTITY_BITS = 60
KEYS = ("", "wsbridge")
"""Routing keys. Each key makes its own binding, so a binding remains when another is removed by hand.

A fanout exchange ignores the key, so two bindings deliver no message twice. An exchange that another application declared gets
only the first key. It may send messages to each new binding (x-recent-history), and would send them twice.
"""
IS_ANOTHER = re.compile(rf"inequivalent arg '{IDENTITY}' for .* current is (?:the value )?(?:'(\d+)'|none)")
"""Matches RabbitMQ's refusal (406) to redeclare a stream that has another identity. RabbitMQ compares the identity last of all
declared properties."""
BRINGS_ALL = ("fanout", "x-recent-history", "x-delayed-message")
"""Exchange types that deliver each message to every queue, whatever its routing key. For x-delayed-message, that depends on its
own arguments."""
IMPOSSIBLE = {"alternate-exchange": 0}
"""An invalid argument, since its value must be a name. With it, RabbitMQ compares the declaration with an existing exchange, but
never creates an exchange."""
OTHER_TYPE = re.compile(r"inequivalent arg 'type' for .* current is '(\S+)'")

Temporary = Callable[[], AbstractAsyncContextManager[AmqpChannel]]
"""Opens a channel for the duration of a block: the broker closes a channel with each refusal."""


def is_not_yet(error: Exception) -> bool:
    """Whether the object that the broker reports as missing may exist soon."""
    return NOT_YET.search(str(error)) is not None


class Topology:
    """The exchange and the stream of one channel; `stream` is the name of the stream."""

    def __init__(self, settings: ExchangeSettings, exchange: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._settings = settings
        self._segment_bytes = segment_bytes
        self._exchange = exchange
        self._log = channel_log(exchange)
        self.stream = f"wsbridge.{exchange}"

    async def check_type(self, temporary: Temporary) -> None:
        """Check that an existing exchange, used with `passive`, delivers every message. Raises the broker's error for another type.

        A passive declaration does not report the type. An invalid declaration does: the broker's refusal (406) contains it. The
        declaration needs the permission to configure the exchange.
        """
        if not self._settings.passive:
            return
        try:
            async with temporary() as channel:
                await channel.declare_exchange(self._exchange, arguments=IMPOSSIBLE)
        except exceptions.ChannelPreconditionFailed as error:
            other = OTHER_TYPE.search(str(error))
            if other is not None and other[1] not in BRINGS_ALL:
                raise
        except exceptions.ChannelClosed as error:
            if "ACCESS_REFUSED" not in str(error):
                raise
            self._log.log(INFO, "assuming a fanout exchange: the user has no permission to configure it, so wsbridge cannot query its type")

    async def declare(self, channel: AmqpChannel) -> None:
        """Declare the exchange; an existing exchange stays unchanged."""
        passive = self._settings.passive
        durable = self._settings.durable and not passive
        await channel.declare_exchange(self._exchange, durable=durable, passive=passive)

    async def identify_stream(self, temporary: Temporary) -> str:
        """Declare the stream, and return its identity; empty for a stream that other software declared.

        A stream that is deleted and declared again counts from 0 like the first, and may hold the same bodies. AMQP 0-9-1 has no
        name for a stream's incarnation, so each declaration contains a number that is used once. An existing stream refuses
        another number, and the refusal contains its own.
        """
        number = 1 << IDENTITY_BITS | secrets.randbits(IDENTITY_BITS)
        try:
            async with temporary() as channel:
                await channel.declare_queue(self.stream, durable=True, arguments=self._arguments(number))
        except exceptions.ChannelPreconditionFailed as error:
            refusal = IS_ANOTHER.search(str(error))
            if refusal is None:
                raise
            there = int(refusal[1] or 0)
            return f"{there:x}" if there >> IDENTITY_BITS else ""
        return f"{number:x}"

    async def bind(self, channel: AmqpChannel, queue: str | None) -> None:
        """Bind the stream; without replay, bind the queue of a consumer, if there is one. Raises if the stream or queue does not
        exist."""
        bound = self.stream if self._settings.replay else queue
        if bound is not None:
            await channel.declare_queue(bound, passive=True)
            for key in KEYS[:1] if self._settings.passive else KEYS:
                await channel.bind_queue(bound, self._exchange, key)

    def _arguments(self, number: int) -> dict[str, object]:
        return {
            "x-queue-type": "stream",
            "x-max-length-bytes": self._settings.replay_bytes,
            "x-stream-max-segment-size-bytes": self._segment_bytes,
            IDENTITY: number,
        }

    async def wait_made(self, temporary: Temporary) -> None:
        """Wait until the stream is usable: while another process creates it, its declaration succeeds, but its consumers fail.

        A node of a cluster may have no replica of the stream at all. Then its consumers fail, but publishers can use it. So this
        returns after CHECKS checks in any case.
        """
        if not self._settings.replay:
            return
        for _ in range(CHECKS):
            if await self.is_made(temporary):
                return
            await asyncio.sleep(CHECK_SECONDS)

    async def is_made(self, temporary: Temporary) -> bool:
        """Return whether the stream can be read.

        The result is also True if the user may not read the stream: that user may still publish.
        """
        try:
            async with temporary() as channel:
                # Ignore messages that arrive during the check; the reader gets them again.
                await channel.consume(self.stream, _ignore, prefetch=1, arguments={"x-stream-offset": "next"})
        except exceptions.ChannelPreconditionFailed:
            return False
        except exceptions.ChannelClosed:
            pass
        return True


def _ignore(*delivery: object) -> None:
    """Ignore a delivery."""
