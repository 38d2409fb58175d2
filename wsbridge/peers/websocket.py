"""A connected WebSocket client: the protocol of its transport after the upgrade, and both a source and a sink.

aiohttp has parsed the request and is no longer involved. The transport passes received bytes straight to the frame reader, and
batches go straight to the transport. A client that reads slowly pauses its source (backpressure). wsbridge disconnects a client
that accepts no data for `write_timeout` seconds.

NEXT is the transition table of the closing handshake (RFC 6455, section 7). It does not contain backpressure: either side can be
paused in any state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

from wsbridge.closecodes import ABNORMAL, TOO_BIG
from wsbridge.flow import NULL_SOURCE, Batch, End, Sink, Source
from wsbridge.logs import LogFields, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.net.hangup import Hangups
from wsbridge.net.transports import (
    acknowledged_bytes,
    end_output,
    end_secure,
    limit_unsent,
    outstanding_bytes,
    resume_reading,
    socket_of,
    waiting_bytes,
)
from wsbridge.net.writetimeout import WriteTimeout
from wsbridge.rules.heartbeat import Beat, Heartbeat
from wsbridge.settings import ClientSettings
from wsbridge.wire import frames
from wsbridge.wire.deflate import Deflate
from wsbridge.wire.reader import Event as FrameEvent
from wsbridge.wire.reader import FrameReader, Mask, Ping, Violation

CLOSE_WAIT = 2.0
"""Seconds for the client to answer the close frame and to receive the last bytes; then wsbridge aborts the connection."""
FOR_EVER = 365 * 86400.0
"""The write timeout of a closing connection with `--send-timeout=0`, in seconds."""
PROBE_SECONDS = 2.0
"""Seconds between two unsolicited pongs to a client while wsbridge does not read from it; see `_probe`."""
PONGS = 16
"""The most pongs that wsbridge sends for the pings of one read: those for the last pings. A single pong would do (RFC 6455, section
5.5.3), but a client that sends a few pings at once may count the pongs."""
PING = frames.ping()
PONG = frames.pong(b"")

log = logger("websocket")


class State(Enum):
    """The state of the closing handshake."""

    OPEN = "open"
    DISCONNECTED = "disconnected"
    """The client has disconnected without a close frame."""
    CLOSING = "closing"
    """wsbridge has sent its close frame first, and reads on until the client answers."""
    HANDSHAKE_DONE = "handshake done"
    """wsbridge has sent its close frame, and the client sends no more."""
    REFUSED = "refused"
    """The client has violated the protocol, and wsbridge has sent a close frame. wsbridge ignores further data."""


class Event(Enum):
    """Events that change the state."""

    DISCONNECTED = "disconnected"
    """The client has ended its output or the connection is lost, and all bytes from before that are processed."""
    CLOSE_SENT = "close sent"
    """The session has ended the connection."""
    CLOSE_RECEIVED = "close received"
    """The client has sent a close frame, which wsbridge answers at once."""
    VIOLATION = "violation"


NEXT: dict[State, dict[Event, State]] = {
    State.OPEN: {
        Event.DISCONNECTED: State.DISCONNECTED,
        Event.CLOSE_SENT: State.CLOSING,
        Event.CLOSE_RECEIVED: State.HANDSHAKE_DONE,
        Event.VIOLATION: State.REFUSED,
    },
    State.CLOSING: {
        Event.DISCONNECTED: State.HANDSHAKE_DONE,
        Event.CLOSE_RECEIVED: State.HANDSHAKE_DONE,
        Event.VIOLATION: State.REFUSED,
    },
    State.DISCONNECTED: {},
    State.HANDSHAKE_DONE: {},
    State.REFUSED: {},
}
"""The state after each event. An event that a state does not name changes nothing."""

SENDING = (State.OPEN, State.DISCONNECTED)
"""The states without a close frame of wsbridge: only then may it send frames."""


class WebSocketPeer(asyncio.Protocol):
    """One client, from the 101 to the end of its connection.

    Its sink receives batches and then one `end` with the client's close code, or 1006 if no close frame came. `join` attaches the
    sink.
    """

    __slots__ = (
        "_acknowledged_at_beat",
        "_close_wait",
        "_closed",
        "_early",
        "_fields",
        "_hangups",
        "_heartbeat",
        "_heartbeat_timer",
        "_loop",
        "_metrics",
        "_next_turn",
        "_on_hangup",
        "_outstanding_at_beat",
        "_paused",
        "_paused_since",
        "_pending_end",
        "_pending_pong",
        "_probe_timer",
        "_reader",
        "_sink",
        "_state",
        "_timeout",
        "_transport",
        "_watched",
        "_write_timeout",
        "_writing_paused",
        "_written",
        "deflate",
        "received",
        "sent",
        "source",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        settings: ClientSettings,
        unsent_bytes: int = 0,
        close_wait: float = CLOSE_WAIT,
        mask: Mask,
        deflate: Deflate | None,
        hangups: Hangups,
        metrics: Metrics,
        fields: LogFields,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._transport: asyncio.Transport | None = transport
        self._reader = FrameReader(limit=settings.max_client_message, mask=mask, deflate=deflate)
        self.deflate = deflate
        self._timeout = settings.write_timeout
        self._close_wait = close_wait
        self._hangups = hangups
        self._metrics = metrics
        self._fields = fields
        self._loop = loop
        self._sink: Sink | None = None
        self._on_hangup: Callable[[], None] = self.close
        self.source: Source = NULL_SOURCE
        self.received = self.sent = 0
        self._state = State.OPEN
        self._paused = self._writing_paused = False
        self._watched = -1
        self._written = self._acknowledged_at_beat = self._outstanding_at_beat = 0
        self._pending_pong: bytes | None = None
        self._early = b""
        self._pending_end: End | None = None
        self._closed: asyncio.Future[None] | None = None
        self._next_turn: asyncio.Handle | None = None
        self._paused_since = 0.0
        self._probe_timer: asyncio.TimerHandle | None = None
        self._write_timeout: WriteTimeout | None = None
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._heartbeat: Heartbeat | None = None
        # With a limit of 0, asyncio's TLS transport treats an empty buffer as full.
        transport.set_write_buffer_limits(high=max(1, settings.send_buffer))
        if unsent_bytes:
            limit_unsent(transport, unsent_bytes)
        if settings.ping > 0:
            interval, now = settings.ping, loop.time()
            self._heartbeat = Heartbeat(interval, now)
            self._heartbeat_timer = loop.call_at(now + interval, self._beat)

    def join(self, sink: Sink, on_hangup: Callable[[], None]) -> None:
        """Attach the sink of the client's messages, and the function to call if the client disconnects before all of them are read."""
        self._sink = sink
        self._on_hangup = on_hangup
        if self._writing_paused:
            self.source.pause()

    # From the client

    def feed(self, early: bytes) -> None:
        """Process the bytes that arrived after the request, at once or when the client is no longer paused."""
        self._early = early
        if early:
            self._read_on()

    def data_received(self, data: bytes) -> None:
        if self._heartbeat is not None:
            self._heartbeat.received_at = self._loop.time()
        pings: list[bytes] = []
        for event in self._reader.feed(data):
            if type(event) is Batch:
                self.received += len(event.messages)
                if self._sink is not None:
                    self._sink.write(event)
            elif type(event) is Ping:
                pings.append(event.payload)
            else:
                self._answer(pings)
                self._handle_end(event)
        self._answer(pings)
        if self._reader.has_more:
            # A few bytes can contain many messages, or inflate to many. The rest waits until the loop has served other clients, and
            # until the sink has room.
            if self._transport is not None:
                self._transport.pause_reading()
            self._read_on_soon()

    def _read_on_soon(self) -> None:
        if self._next_turn is None:
            self._next_turn = self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._next_turn = None
        if self._paused:
            return
        if self._has_unread:
            early, self._early = self._early, b""
            self.data_received(early)
        if self._has_unread or self._paused:
            return
        if self._pending_end is not None:
            self._end_sink(Event.DISCONNECTED, self._pending_end)
        elif self._transport is not None:
            resume_reading(self._transport, self._loop)

    @property
    def _has_unread(self) -> bool:
        """Whether received bytes are still unprocessed."""
        return self._reader.has_more or bool(self._early)

    def eof_received(self) -> bool:
        """Treat a half-close by the client as a disconnect: the transport closes."""
        self._disconnected(End(ABNORMAL))
        # A TCP transport with nothing left to send closes at once; a TLS transport may wait for its peer.
        if self._transport is not None and (waiting_bytes(self._transport) or not self._transport.can_write_eof()):
            self._limit_writing(self._close_seconds())
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._unwatch()
        self._transport = None
        for timer in (self._heartbeat_timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        if self._write_timeout is not None:
            self._write_timeout.stop()
        self._disconnected(End(ABNORMAL, str(error or "")))
        # The program's remaining output has no receiver, so it must not wait for room.
        self.source.resume()
        self.source = NULL_SOURCE
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _disconnected(self, reason: End) -> None:
        """Record that the client has disconnected; the sink still receives the messages that arrived before."""
        if not self._has_unread:
            self._end_sink(Event.DISCONNECTED, reason)
        elif self._pending_end is None:
            self._pending_end = reason
            self._on_hangup()

    def pause(self) -> None:
        if self._paused:
            return
        self._paused = True
        self._paused_since = self._loop.time()
        if self._transport is not None:
            self._transport.pause_reading()
            if self._heartbeat is not None:
                self._heartbeat.rest()
            if (sock := socket_of(self._transport)) is not None:
                self._watched = sock.fileno()
                self._hangups.watch(self._watched, self._hung_up)
            if self._probe_timer is None:
                self._probe_timer = self._loop.call_later(PROBE_SECONDS, self._probe)

    def resume(self) -> None:
        if not self._paused:
            return
        self._paused = False
        self._unwatch()
        if self._heartbeat is not None:
            self._heartbeat.wake(self._loop.time())
        if self._has_unread or self._pending_end is not None:
            self._read_on_soon()
        elif self._transport is not None:
            resume_reading(self._transport, self._loop)

    def _probe(self) -> None:
        """Send an unsolicited pong (RFC 6455, section 5.5.3) to a client that wsbridge has not read from for PROBE_SECONDS.

        While the receive buffer is full, the client's FIN cannot arrive, but data that wsbridge sends to a closed socket causes a
        reset. The timer keeps running across `resume`: checking the clock here costs less than setting a timer for each pause.
        """
        self._probe_timer = None
        if not self._paused or self._transport is None:
            return
        remaining = self._paused_since + PROBE_SECONDS - self._loop.time()
        if remaining <= 0 and not self._writing_paused:
            self._send(PONG)
        self._probe_timer = self._loop.call_later(remaining if remaining > 0 else PROBE_SECONDS, self._probe)

    def _answer(self, pings: list[bytes]) -> None:
        """Answer pings with pongs, and clear the list."""
        if not pings:
            return
        if self._writing_paused:
            # Only the last of several pings needs a pong (RFC 6455, section 5.5.3), so pings cannot fill the send buffer.
            self._pending_pong = pings[-1]
        else:
            self._send(b"".join(map(frames.pong, pings[-PONGS:])))
        pings.clear()

    def _handle_end(self, event: FrameEvent) -> None:
        match event:
            case Violation(code, reason):
                log.debug("closing with code %d: %s", code, reason, extra=extra(self._fields))
                if code == TOO_BIG:
                    self._metrics.messages_too_long += 1
                else:
                    self._metrics.protocol_errors += 1
                self._send(frames.close(End(code, reason)))
                self._end_sink(Event.VIOLATION, End(code, reason))
            case End():
                # The server echoes the close code at once, without the reason (RFC 6455, section 5.5.1).
                answers_ours = self._state is State.CLOSING
                self._send(frames.close(End(event.code)))
                self._end_sink(Event.CLOSE_RECEIVED, event)
                if answers_ours:
                    self.close()

    def _end_sink(self, event: Event, reason: End) -> None:
        """Go to the state after an event with which the client ends; the sink gets the reason, once."""
        if self._handle(event) and self._sink is not None:
            self._sink.end(reason)

    def _handle(self, event: Event) -> bool:
        """Go to the state after an event; return whether there is one."""
        state = NEXT[self._state].get(event)
        if state is None:
            return False
        self._state = state
        return True

    def _hung_up(self) -> None:
        self._unwatch()
        self._on_hangup()

    def _unwatch(self) -> None:
        if self._watched >= 0:
            self._hangups.unwatch(self._watched, self._hung_up)
            self._watched = -1

    # To the client

    def write(self, batch: Batch) -> None:
        if self._transport is not None and self._state in SENDING:
            self.sent += len(batch.messages)
            data = frames.encode(batch, self.deflate)
            self._written += len(data)
            self._transport.write(data)

    @property
    def send(self) -> Callable[[bytes], object]:
        """The function that sends encoded frames, at no more cost than the transport's own; do not use it after the disconnect."""
        assert self._transport is not None
        return self._transport.write

    def deliver(self, data: bytes) -> bool:
        """Send encoded frames; return whether there is room for more."""
        self._send(data)
        return not self._writing_paused

    def end(self, reason: End) -> None:
        """Send a close frame after all written data; close when the client has answered it or has timed out."""
        if self._transport is None:
            return
        if self._state not in (State.OPEN, State.CLOSING):
            self._close_transport()
            return
        self._send(frames.close(reason))
        self._handle(Event.CLOSE_SENT)
        self._limit_writing(self._close_seconds())

    def close(self) -> None:
        """Close without a close frame; the transport still sends written data, within the write timeout."""
        if self._transport is not None:
            self._close_transport()

    def abort(self) -> None:
        """Abort the connection; unsent data is lost."""
        if self._transport is not None:
            # Unwatch before the socket is closed: over TLS, connection_lost comes only after that.
            self._unwatch()
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed; at most one task may wait.

        The timeouts of a closing connection bound the wait.
        """
        if self._transport is not None:
            self._closed = self._loop.create_future()
            await self._closed

    def pause_writing(self) -> None:
        self._writing_paused = True
        self.source.pause()
        self._limit_writing(self._timeout)

    def resume_writing(self) -> None:
        is_closing = self._state not in SENDING or self._transport is None or self._transport.is_closing()
        if self._write_timeout is not None and not is_closing:
            self._write_timeout.stop()
        self._writing_paused = False
        if self._pending_pong is not None:
            payload, self._pending_pong = self._pending_pong, None
            self._send(frames.pong(payload))
        self.source.resume()

    def _send(self, data: bytes) -> None:
        if self._transport is not None and self._state in SENDING:
            self._written += len(data)
            self._transport.write(data)

    def _close_transport(self) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            if self._write_timeout is None or not self._write_timeout.is_running:
                self._limit_writing(self._close_seconds())
            return
        self._unwatch()
        seconds = self._close_seconds()
        if self._state is not State.REFUSED:
            self._transport.close()
        elif self._transport.can_write_eof():
            # wsbridge reads the client's further data, and ignores it: with unread data, the close frame would become a reset.
            end_output(self._transport)
            resume_reading(self._transport, self._loop)
        else:
            end_secure(self._transport, self._loop)
        self._limit_writing(seconds)

    def _close_seconds(self) -> float:
        """Return the timeout of a closing connection: the write timeout while bytes wait to be sent, else `close_wait`."""
        return self._timeout or FOR_EVER if self._has_waiting() else self._close_wait

    def _limit_writing(self, seconds: float) -> None:
        """Start the write timeout; most clients never need one."""
        if self._write_timeout is None:
            self._write_timeout = WriteTimeout(
                accepted=self._accepted,
                abort=self.abort,
                waits=self._has_waiting,
                again=lambda seconds: self._close_seconds() if self._state not in SENDING else seconds,
                log=log,
                metrics=self._metrics,
                fields=self._fields,
                loop=self._loop,
            )
        self._write_timeout.start(seconds)

    def _accepted(self) -> int | None:
        return acknowledged_bytes(self._transport, self._written) if self._transport is not None else None

    def _has_waiting(self) -> bool:
        return self._transport is not None and waiting_bytes(self._transport) > 0

    # The heartbeat

    def _beat(self) -> None:
        assert self._heartbeat is not None
        assert self._transport is not None
        acknowledged = acknowledged_bytes(self._transport, self._written)
        if self._outstanding_at_beat and acknowledged > self._acknowledged_at_beat:
            # The client accepts the data that waits for it, and its pong to a ping may come only after all of that data.
            self._heartbeat.received_at = self._loop.time()
        self._acknowledged_at_beat, self._outstanding_at_beat = acknowledged, outstanding_bytes(self._transport)
        due, again = self._heartbeat.beat(self._loop.time())
        if due is Beat.TIMEOUT:
            self._metrics.clients_timed_out += 1
            log.info("closing: the client sent no data for two ping intervals", extra=extra(self._fields))
            self.abort()
            return
        if due is Beat.PING and not self._writing_paused:
            self._send(PING)
        self._heartbeat_timer = self._loop.call_at(again, self._beat)
