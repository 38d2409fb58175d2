"""The AMQP connections of a process, which its links share: one connection to each URL, however many links there are.

The first link to a URL opens the connection, and the last link closes it. A link that joins during the opening waits for the same
attempt, and gets the same error if it fails.

The end of a connection ends all its links. The end of a link does not end the connection. The next link of the same bus
joins it again, with these exceptions:

    no answer in time    If no other link receives data, the connection is lost. Otherwise, only the link is lost. If the next
                         link of the same bus gets no answer on this connection, the connection accepts no further links: the
                         bus gets another connection, and the other links keep theirs
    connection error     The broker closes the connection because of an error in one request, such as INTERNAL_ERROR. It does not
                         name the AMQP channel. Each link that waited for an answer is a suspect, and the next link of its bus
                         opens a separate connection
    alarm                The connection accepts no further links until the alarm ends: the broker reads nothing from it
    channel_max          The connection accepts no further links while it has no room for their AMQP channels
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

import aio_pika
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPConnectionError

from wsbridge.bus.rabbitmq.alarm import Alarm
from wsbridge.bus.rabbitmq.amqpchannel import AmqpChannel
from wsbridge.bus.rabbitmq.errors import LINK_ERRORS, NoChannelLeft, is_refusal, why_closed
from wsbridge.bus.rabbitmq.report import Reported
from wsbridge.bus.rabbitmq.transport import CANCEL_SECONDS, Transport, within
from wsbridge.logs import RepeatFilters, logger

HEARTBEAT = 10
"""Heartbeat interval in seconds. A connection that is silent for slightly more than three intervals is lost."""
CHANNELS_A_LINK = 4
"""Channels for which a link needs room: one to publish on, one to consume on, and two for checks that run at the same time."""
FRAME_BYTES = 128 * 1024
"""Bytes of a frame if the broker sets no limit."""
MAX_CHANNELS = 65535
"""Channels of a connection if the broker sets no limit: the highest channel number (AMQP 0-9-1, 4.2.3)."""
QUIET_SECONDS = 5.0
"""Seconds within which each link receives data from a working broker: it checks its exchange every 2 s."""
FRAMES_A_TURN = 64
"""Frames after which other tasks run: up to 384 KiB of frames may have arrived in one turn of the loop."""


class User(Protocol):
    """The interface of a link that its connection uses."""

    alarm: Alarm

    def connection_lost(self, why: str, *, is_suspect: bool) -> None:
        """Record the end of the connection. `is_suspect`: a request of this link may be its cause."""


class Connection:
    """One AMQP connection and the links that use it. It begins to open when it is created."""

    def __init__(self, url: str, name: str, *, is_shared: bool = True) -> None:
        self.url = url
        self.alarm = Alarm()
        self.frame_bytes = 0
        self._name = name
        self._transport = Transport()
        self._connection: Any = None
        self._links: dict[User, None] = {}
        self._accepts = is_shared
        self._error: Exception | None = None
        self.reported = Reported()
        self._channels: dict[int, AmqpChannel] = {}
        """aiormq's own table: it passes each frame to the channel with its number, and removes a channel that the broker has closed."""
        self._last_number = 0
        self._channel_max = MAX_CHANNELS
        self._frames = 0
        self._opening = asyncio.get_running_loop().create_task(self._open(), name="bus: connect")
        self._opening.add_done_callback(self._opened)

    # Links

    @property
    def has_room(self) -> bool:
        """Whether another link may join."""
        if not self._accepts or self._error is not None or self.alarm.reason:
            return False
        return len(self._links) < self._capacity and len(self._channels) + CHANNELS_A_LINK <= self._channel_max

    @property
    def _capacity(self) -> int:
        return max(self._channel_max // CHANNELS_A_LINK, 1)

    def add(self, link: User) -> None:
        self._links[link] = None
        link.alarm.follow(self.alarm)

    def remove(self, link: User) -> bool:
        """Remove a link; return whether it was the last."""
        link.alarm.unfollow(self.alarm)
        self._links.pop(link, None)
        return not self._links

    def has_capacity(self, link: User) -> bool:
        """Whether a link that joined during the opening has room: `channel_max` was not known before."""
        return link in list(self._links)[: self._capacity]

    def is_shared_with_others(self, link: User) -> bool:
        """Whether it works, and has other links."""
        return self._error is None and any(other is not link for other in self._links)

    def report_timeout(self, link: User, seconds: float, *, is_again: bool) -> None:
        """Judge the connection: a link has waited for an answer of the broker for `seconds`. The time of an alarm does not count.

        `is_again` says whether the last link of the same bus has got no answer on this connection, either.
        """
        since = asyncio.get_running_loop().time() - max(seconds, QUIET_SECONDS)
        if self._opening.done() and self.alarm.over_at() <= since and not self._has_received(since, besides=link):
            self._transport.abort()
            self._end(AMQPConnectionError("the broker is silent"), "the broker is silent on all channels of the connection")
        elif not self._opening.done() or is_again:
            self._accepts = False

    def _has_received(self, since: float, *, besides: User) -> bool:
        return any(channel.received_at > since for channel in self._channels.values() if channel.owner is not besides)

    # Channels

    async def opened(self) -> None:
        """Wait until it is open. Raises the error of the attempt, to each link the same."""
        await asyncio.wait((self._opening,))
        if self._error is not None:
            raise self._error

    async def channel(self, link: object, *, confirms: bool = False, failed: Callable[[str], None] | None = None) -> AmqpChannel:
        """Open a channel. Raises NoChannelLeft."""
        if self._error is not None:
            raise self._error
        channel = AmqpChannel(self, self._free_number(), owner=link, failed=failed)
        try:
            await channel.open(confirms=confirms)
        except BaseException:
            channel.close_nowait()
            raise
        return channel

    @asynccontextmanager
    async def temporary(self, link: object) -> AsyncIterator[AmqpChannel]:
        """Open a channel for the duration of a block."""
        channel = await self.channel(link)
        try:
            yield channel
            await channel.close()
        finally:
            channel.close_nowait()

    def _free_number(self) -> int:
        # Use the numbers in turn: a late frame of a closed channel must not arrive at a new channel.
        for _ in range(self._channel_max):
            self._last_number = self._last_number % self._channel_max + 1
            if self._last_number not in self._channels:
                return self._last_number
        raise NoChannelLeft(self._channel_max)

    # The carrier of the channels

    def route(self, channel: AmqpChannel) -> None:
        self._channels[channel.number] = channel

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def turn(self) -> None:
        self._frames += 1
        if not self._frames % FRAMES_A_TURN:
            await asyncio.sleep(0)

    # State

    @property
    def is_closed(self) -> bool:
        """Whether it is closed, or was never open."""
        return self._connection is None or bool(self._connection.is_closed)

    @property
    def written(self) -> int:
        """How many bytes were sent so far."""
        return self._transport.written

    def accepted(self) -> int:
        """Return how many of the sent bytes the broker's machine has accepted; 0 if that is not known."""
        return self._transport.accepted()

    def received_at(self) -> float:
        """Return the loop time at which the last bytes arrived; 0 before the first. Heartbeats do not count."""
        return self._transport.received_at()

    # Its beginning and its end

    async def _open(self) -> None:
        url = make_url(with_heartbeat(self.url))
        connection: Any = aio_pika.Connection(url, client_properties={"connection_name": self._name})
        self._connection = connection
        # aio-pika has no argument for a transport factory, but passes unknown arguments on to aiormq.
        connection.kwargs["transport_factory"] = self._transport
        await connection.connect()
        amqp = connection.transport.connection
        self.frame_bytes = amqp.connection_tune.frame_max or FRAME_BYTES
        self._channels = amqp.channels
        self._channel_max = amqp.connection_tune.channel_max or MAX_CHANNELS
        self.alarm.watch(amqp)
        amqp.closing.add_done_callback(self._closed)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if opening.cancelled() else opening.exception()
        if error is not None:
            self._end(error, why_closed(error))

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self._end(error, why_closed(error))

    def _end(self, error: BaseException | None, why: str) -> None:
        if self._error is not None:
            return
        self._error = error if isinstance(error, Exception) else AMQPConnectionError("the connection was closed")
        channels = list(self._channels.values())
        suspects = {channel.owner for channel in channels if channel.is_asking} if is_refusal(self._error) else set()
        for link in list(self._links):
            link.connection_lost(why, is_suspect=link in suspects)
        for channel in channels:
            channel.connection_lost(self._error)

    async def close(self, seconds: float, *, at_once: bool = False) -> None:
        """Close it within `seconds`. With `at_once`, abort it: a regular close waits for the broker's answer."""
        if at_once or not self._opening.done():
            self._transport.abort()
            self._opening.cancel()
            await asyncio.wait((self._opening,), timeout=CANCEL_SECONDS)
        if self._connection is None:
            return
        with suppress(*LINK_ERRORS):
            await within(seconds, self._connection.close())
        self._transport.abort()
        # This call has nothing left to wait for. But without it, a connection whose close was cut short counts as open. The
        # garbage collector would then close it, in any thread.
        await self._connection.close()


class Connections:
    """The connections of one event loop. A server creates one object, and passes it to each bus; the broker shows `name`."""

    def __init__(self, name: str = "wsbridge") -> None:
        self._name = name
        self._connections: list[Connection] = []
        self.failures = RepeatFilters(logger("bus"))
        """The errors that the log has shown of attempts to connect."""

    def __len__(self) -> int:
        return len(self._connections)

    def join(self, link: User, url: str, *, alone: bool = False) -> Connection:
        """Return a connection to a URL for a link. It may still be opening. With `alone`, no other link joins it."""
        shared = (connection for connection in self._connections if connection.url == url and connection.has_room)
        connection = None if alone else next(shared, None)
        if connection is None:
            connection = Connection(url, self._name, is_shared=not alone)
            self._connections.append(connection)
        connection.add(link)
        return connection

    def leave(self, link: User, connection: Connection) -> bool:
        """Remove a link from its connection; return whether it was the last, which must close the connection."""
        is_last = connection.remove(link)
        if is_last:
            self._connections.remove(connection)
        return is_last


def with_heartbeat(url: str) -> str:
    """Return the URL with wsbridge's heartbeat interval, unless the URL sets one."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    return parts._replace(query=urlencode({"heartbeat": HEARTBEAT, **query})).geturl()
