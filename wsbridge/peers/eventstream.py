"""An event stream (HTML, section 9.2): the protocol of its transport after the response head. Its client only receives.

A browser's EventSource reconnects by itself when the connection ends, so an end only closes the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wsbridge.closecodes import ABNORMAL
from wsbridge.flow import NULL_SOURCE, End, Sink, Source
from wsbridge.logs import LogFields, logger
from wsbridge.metrics import Metrics
from wsbridge.net.transports import acknowledged_bytes, limit_unsent, waiting_bytes
from wsbridge.net.writetimeout import WriteTimeout
from wsbridge.settings import ClientSettings

CLOSE_WAIT = 2.0
"""The write timeout of a closing stream, in seconds: wsbridge aborts the connection if the client accepts nothing for this long."""
COMMENT = b":\n\n"
"""A comment line, which browsers ignore: it keeps proxies from closing an idle stream."""
log = logger("http")


class EventStream(asyncio.Protocol):
    """One client of an event stream; its sink receives one `end` when the client disconnects."""

    __slots__ = (
        "_closed",
        "_fields",
        "_loop",
        "_metrics",
        "_ping",
        "_sink",
        "_timeout",
        "_timer",
        "_transport",
        "_write_timeout",
        "_writing_paused",
        "received",
        "source",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        settings: ClientSettings,
        unsent_bytes: int = 0,
        metrics: Metrics,
        fields: LogFields,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._transport: asyncio.Transport | None = transport
        self._timeout = settings.write_timeout
        self._ping = settings.ping
        self._metrics = metrics
        self._fields = fields
        self._loop = loop
        self._sink: Sink | None = None
        self._writing_paused = False
        self._closed: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._write_timeout: WriteTimeout | None = None
        self.source: Source = NULL_SOURCE
        self.received = 0
        # With a limit of 0, asyncio's TLS transport treats an empty buffer as full.
        transport.set_write_buffer_limits(high=max(1, settings.send_buffer))
        if unsent_bytes:
            limit_unsent(transport, unsent_bytes)
        if self._ping > 0:
            self._timer = loop.call_later(self._ping, self._comment)

    def join(self, sink: Sink) -> None:
        """Attach the sink that receives `end` when the client disconnects."""
        self._sink = sink
        if self._writing_paused:
            self.source.pause()

    @property
    def send(self) -> Callable[[bytes], object]:
        """The function that sends events; do not use it after the client has disconnected."""
        assert self._transport is not None
        return self._transport.write

    def deliver(self, data: bytes) -> bool:
        """Send events; return whether there is room for more."""
        if self._transport is not None:
            self._transport.write(data)
        return not self._writing_paused

    def end(self, reason: End) -> None:
        """Close the connection: an event stream cannot carry the reason."""
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._limit_writing(CLOSE_WAIT)
            if self._timer is not None:
                # A comment may fill the transport, and the write timeout would replace CLOSE_WAIT.
                self._timer.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed; at most one task may wait."""
        if self._transport is not None:
            self._closed = self._loop.create_future()
            await self._closed

    def pause(self) -> None:
        """Do nothing: an event stream has no input to pause."""

    def resume(self) -> None:
        """Do nothing: an event stream has no input to resume."""

    # Called by the transport

    def data_received(self, data: bytes) -> None:
        """Ignore all data after the request of the client."""

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._write_timeout is not None:
            self._write_timeout.stop()
        if self._sink is not None:
            self._sink.end(End(ABNORMAL))
        self.source = NULL_SOURCE
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._writing_paused = True
        self.source.pause()
        self._limit_writing(self._timeout)

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._write_timeout is not None and self._transport is not None and not self._transport.is_closing():
            self._write_timeout.stop()
        self.source.resume()

    def _comment(self) -> None:
        assert self._transport is not None
        if not self._writing_paused:
            self._transport.write(COMMENT)
        self._timer = self._loop.call_later(self._ping, self._comment)

    def _limit_writing(self, seconds: float) -> None:
        """Start the write timeout; most clients never need one."""
        if self._write_timeout is None:
            self._write_timeout = WriteTimeout(
                accepted=self._accepted,
                abort=self.abort,
                waits=lambda: self._transport is not None and waiting_bytes(self._transport),
                log=log,
                metrics=self._metrics,
                fields=self._fields,
                loop=self._loop,
            )
        self._write_timeout.start(seconds)

    def _accepted(self) -> int | None:
        # The fanout adds no messages while data waits, so only the client changes the number.
        return acknowledged_bytes(self._transport, 0) if self._transport is not None else None
