"""What a channel needs at the broker: its exchange, with replay the stream that keeps it, and what is bound to it."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any

from aio_pika import exceptions

from wsbridge.logs import INFO, logger
from wsbridge.settings import BrokerSettings

SEGMENT_BYTES = 16 * 1024 * 1024
"""What a stream drops at once of its oldest: RabbitMQ's own 500 MB would be all of it."""
LOOK_SECONDS = 0.2
"""Between two looks at what is not there yet: a broker that starts takes some tenths until it has its queues again."""
LOOKS = 10
"""So often is a stream looked at that somebody may be just making: that takes some hundredths of a second."""
NOT_YET = re.compile("inaccessible|INTERNAL_ERROR|Stream not found")
"""What RabbitMQ 3.10 says of a queue that it has not loaded yet, and of a stream that it has not made yet."""
IDENTITY = "x-initial-cluster-size"
"""The argument of a stream that holds its identity. Any number of nodes that a cluster does not have means all of them, as none does."""
IDENTITY_BITS = 60
KEYS = ("", "wsbridge")
"""Each makes a binding of its own, which brings no message twice: a fanout looks at no key. One that is removed by hand is not the last.

An exchange of others that sends something to each new binding (x-recent-history) would send it twice: it gets the first alone.
"""
IS_ANOTHER = re.compile(rf"inequivalent arg '{IDENTITY}' for .* current is (?:the value )?(?:'(\d+)'|none)")
"""How RabbitMQ refuses to declare a stream again that has another identity (406); it compares that last of what we declare."""
BRINGS_ALL = ("fanout", "x-recent-history", "x-delayed-message")
"""Types of exchanges that bring each message to every queue, whatever its routing key; of the last it depends on its own arguments."""
IMPOSSIBLE = {"alternate-exchange": 0}
"""With this argument, which must be a name, RabbitMQ compares an exchange that is there, and makes none that is not."""
OTHER_TYPE = re.compile(r"inequivalent arg 'type' for .* current is '(\S+)'")

log = logger("bus")


def is_not_yet(error: Exception) -> bool:
    """Whether what the broker refuses may be there before long."""
    return NOT_YET.search(str(error)) is not None


class Topology:
    """The exchange and the stream of one channel; `stream` is that one's name."""

    def __init__(self, settings: BrokerSettings, exchange: str) -> None:
        self._settings = settings
        self._exchange = exchange
        self.stream = f"wsbridge.{exchange}"

    async def check_type(self, connection: Any) -> None:
        """See to it that an exchange which is taken as it is brings every message. Raises what the broker says of another type.

        A passive declaration does not tell the type; one that cannot be fulfilled is refused with it (406). It is declared on a
        channel of its own, which the broker closes then, and it takes the right to configure the exchange.
        """
        if not self._settings.passive:
            return
        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        try:
            await channel.exchange_declare(self._exchange, exchange_type="fanout", arguments=dict(IMPOSSIBLE))
            await channel.close()
        except exceptions.ChannelPreconditionFailed as error:
            other = OTHER_TYPE.search(str(error))
            if other is not None and other[1] not in BRINGS_ALL:
                raise
        except exceptions.ChannelClosed as error:
            if "ACCESS_REFUSED" not in str(error):
                raise
            log.log(INFO, "exchange %s is taken for a fanout: the user may not configure it, nor ask for its type", self._exchange)

    async def declare(self, channel: Any) -> None:
        """Declare the exchange, which leaves alone what is there."""
        passive = self._settings.passive
        durable = self._settings.durable and not passive
        await channel.exchange_declare(self._exchange, exchange_type="fanout", durable=durable, passive=passive)

    async def identify_stream(self, connection: Any) -> str:
        """Declare the stream, and return its identity; empty for one that was declared by something else.

        A stream that is deleted and made again counts from 0 like the first, and may hold the same. AMQP 0-9-1 has no name for
        its incarnation, so that each is declared with a number that is used once. One that is there refuses another number, and
        says its own.
        """
        number = 1 << IDENTITY_BITS | secrets.randbits(IDENTITY_BITS)
        # On a channel of its own: the broker closes it when it refuses.
        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        try:
            await channel.queue_declare(self.stream, durable=True, arguments=self._arguments(number))
        except exceptions.ChannelPreconditionFailed as error:
            refusal = IS_ANOTHER.search(str(error))
            if refusal is None:
                raise
            there = int(refusal[1] or 0)
            return f"{there:x}" if there >> IDENTITY_BITS else ""
        await channel.close()
        return f"{number:x}"

    async def bind(self, channel: Any, queue: str | None) -> None:
        """Bind the stream; without replay the queue of a consumer, if there is one. Raises where it is not there."""
        bound = self.stream if self._settings.replay else queue
        if bound is not None:
            await channel.queue_declare(bound, passive=True)
            for key in KEYS[:1] if self._settings.passive else KEYS:
                await channel.queue_bind(bound, self._exchange, routing_key=key)

    def _arguments(self, number: int) -> dict[str, object]:
        return {
            "x-queue-type": "stream",
            "x-max-length-bytes": self._settings.replay_bytes,
            "x-stream-max-segment-size-bytes": SEGMENT_BYTES,
            IDENTITY: number,
        }

    async def wait_made(self, connection: Any) -> None:
        """Wait until the stream can be used: while another is just making it, it is declared, but whoever uses it fails.

        A node of a cluster may have no replica of it at all; then its consumers fail, but one can publish there.
        """
        if not self._settings.replay:
            return
        for _ in range(LOOKS):
            if await self.is_made(connection):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def is_made(self, connection: Any) -> bool:
        """Return whether the stream lets itself be read. Who may not read it is not told; he may still publish."""
        # On a channel of its own: the broker closes it when it refuses.
        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        try:
            await channel.basic_qos(prefetch_count=1)
            await channel.basic_consume(self.stream, _ignore, arguments={"x-stream-offset": "next"})
            await channel.close()
        except exceptions.ChannelPreconditionFailed:
            return False
        except exceptions.ChannelClosed:
            pass
        return True


async def _ignore(_: object) -> None:
    """What comes while it is looked at comes again to who reads."""
