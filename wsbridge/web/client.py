"""A connected WebSocket client: the protocol of its transport from the upgrade on, a source and a sink in one.

aiohttp has read the request and is out of the way: what the transport receives goes straight to our frame reader, and
batches go straight to the transport. A client that does not take what it is sent holds up its source; one that takes
nothing for `send_timeout` seconds is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wsbridge.closecodes import ABNORMAL, TOO_BIG
from wsbridge.flow import STILL, Batch, End, Sink, Source
from wsbridge.logs import Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.rules.heartbeat import Beat, Heartbeat
from wsbridge.settings import ClientSettings
from wsbridge.web.hangup import Hangups
from wsbridge.web.transports import (
    end_output,
    end_secure,
    limit_unsent,
    outstanding_bytes,
    resume_reading,
    socket_of,
    taken_bytes,
    waiting_bytes,
)
from wsbridge.wire import frames
from wsbridge.wire.deflate import Deflate
from wsbridge.wire.frames import Event, FrameReader, Ping, Violation

CLOSE_WAIT = 2.0
"""Seconds for the client to answer our close frame and for the last bytes to leave; then the connection is cut."""
FOR_EVER = 365 * 86400.0
"""`--send-timeout=0`: seconds after which even the most patient look again."""
PROBE_SECONDS = 2.0
"""How often a client is spoken to while its own words wait for room, see `_probe`."""
PONGS = 16
"""Most pongs for the pings of one turn: those for the last of them. One would do (RFC 6455, section 5.5.3), but a client that sends
a few at once may count the answers."""
PING = frames.ping()
PONG = frames.pong(b"")

log = logger("websocket")


class Client(asyncio.Protocol):
    """One client, from the 101 to the end of its connection.

    Its sink gets batches and then one `end`: the client's close code, 1006 when it just went. Join it with `join`.
    """

    __slots__ = (
        "_close_sent",
        "_closed",
        "_early",
        "_gone",
        "_hangups",
        "_heartbeat",
        "_heartbeat_timer",
        "_left",
        "_lingers",
        "_loop",
        "_metrics",
        "_next_turn",
        "_on_hangup",
        "_owed_at_beat",
        "_owed_pong",
        "_pairs",
        "_paused",
        "_paused_since",
        "_probe_timer",
        "_reader",
        "_sink",
        "_stuck_timer",
        "_taken_at_beat",
        "_timeout",
        "_transport",
        "_watched",
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
        mask: frames.Mask,
        deflate: Deflate | None,
        hangups: Hangups,
        metrics: Metrics,
        pairs: Pairs,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._transport: asyncio.Transport | None = transport
        self._reader = FrameReader(limit=settings.max_frame_bytes, mask=mask, deflate=deflate)
        self.deflate = deflate
        self._timeout = settings.send_timeout
        self._hangups = hangups
        self._metrics = metrics
        self._pairs = pairs
        self._loop = loop
        self._sink: Sink | None = None
        self._on_hangup: Callable[[], None] = self.close
        self.source: Source = STILL
        self.received = self.sent = 0
        self._paused = self._writing_paused = self._close_sent = self._left = self._lingers = False
        self._watched = -1
        self._written = self._taken_at_beat = self._owed_at_beat = 0
        self._owed_pong: bytes | None = None
        self._early = b""
        self._gone: End | None = None
        self._closed: asyncio.Future[None] | None = None
        self._next_turn: asyncio.Handle | None = None
        self._paused_since = 0.0
        self._probe_timer: asyncio.TimerHandle | None = None
        self._stuck_timer: asyncio.TimerHandle | None = None
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._heartbeat: Heartbeat | None = None
        # asyncio's TLS, with a limit of 0, takes an empty buffer for a full one.
        transport.set_write_buffer_limits(high=max(1, settings.send_buffer_bytes))
        if settings.unsent_bytes:
            limit_unsent(transport, settings.unsent_bytes)
        if settings.ping_ms > 0:
            interval, now = settings.ping_ms / 1000, loop.time()
            self._heartbeat = Heartbeat(interval, now)
            self._heartbeat_timer = loop.call_at(now + interval, self._beat)

    def join(self, sink: Sink, on_hangup: Callable[[], None]) -> None:
        """Say who takes what the client says, and who is told when it went while it was held up."""
        self._sink = sink
        self._on_hangup = on_hangup
        if self._writing_paused:
            self.source.pause()

    # From the client

    def hear(self, early: bytes) -> None:
        """Take what came behind the request, now, or when the client is no longer held up."""
        self._early = early
        if early:
            self._read_on()

    def data_received(self, data: bytes) -> None:
        if self._heartbeat is not None:
            self._heartbeat.heard = self._loop.time()
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
                self._take(event)
        self._answer(pings)
        if self._reader.has_more:
            # A little data can say much, or inflate to much: the rest of it waits until others have had their turn, and for room.
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
        if self._gone is not None:
            self._leave(self._gone)
        elif self._transport is not None:
            resume_reading(self._transport, self._loop)

    @property
    def _has_unread(self) -> bool:
        """Whether something that has come was not read out yet."""
        return self._reader.has_more or bool(self._early)

    def eof_received(self) -> bool:
        """A half-closed connection is a client that has gone: the transport closes."""
        self._go(End(ABNORMAL))
        # TCP with nothing left to send closes at once; TLS may wait for the other side.
        if self._transport is not None and (waiting_bytes(self._transport) or not self._transport.can_write_eof()):
            self._watch_stuck(self._close_patience())
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._unwatch()
        self._transport = None
        for timer in (self._heartbeat_timer, self._stuck_timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        self._go(End(ABNORMAL, str(error or "")))
        # What the program has yet to say to nobody must not wait for room.
        self.source.resume()
        self.source = STILL
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _go(self, reason: End) -> None:
        """The client has gone. What it said before and was not read out yet is still its word."""
        if not self._has_unread:
            self._leave(reason)
        elif self._gone is None:
            self._gone = reason
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
        if self._has_unread or self._gone is not None:
            self._read_on_soon()
        elif self._transport is not None:
            resume_reading(self._transport, self._loop)

    def _probe(self) -> None:
        """Send an unsolicited pong (RFC 6455, section 5.5.3) to a client that was not read from for PROBE_SECONDS.

        When our receive buffer is full its FIN cannot come in, but what we send to a socket that was closed brings a reset.
        The timer runs on across `resume`: it costs less to look at the clock here than to set a timer for each pause.
        """
        self._probe_timer = None
        if not self._paused or self._transport is None:
            return
        left = self._paused_since + PROBE_SECONDS - self._loop.time()
        if left <= 0 and not self._writing_paused:
            self._send(PONG)
        self._probe_timer = self._loop.call_later(left if left > 0 else PROBE_SECONDS, self._probe)

    def _answer(self, pings: list[bytes]) -> None:
        """Answer pings, and forget them."""
        if not pings:
            return
        if self._writing_paused:
            # Only the last of several needs an answer (RFC 6455, section 5.5.3): pings cannot fill our buffer.
            self._owed_pong = pings[-1]
        else:
            self._send(b"".join(map(frames.pong, pings[-PONGS:])))
        pings.clear()

    def _take(self, event: Event) -> None:
        match event:
            case Violation(code, reason):
                log.debug("close %d: %s", code, reason, extra=extra(self._pairs))
                if code == TOO_BIG:
                    self._metrics.messages_too_long += 1
                else:
                    self._metrics.protocol_errors += 1
                self._send_close(End(code, reason))
                self._lingers = True
                self._leave(End(code, reason))
            case End():
                # The same code goes back at once, without the reason (RFC 6455, section 5.5.1).
                answers_ours = self._close_sent
                self._send_close(End(event.code))
                self._leave(event)
                if answers_ours:
                    self._close_transport()

    def _leave(self, reason: End) -> None:
        if not self._left:
            self._left = True
            if self._sink is not None:
                self._sink.end(reason)

    def _hung_up(self) -> None:
        self._unwatch()
        self._on_hangup()

    def _unwatch(self) -> None:
        if self._watched >= 0:
            self._hangups.unwatch(self._watched, self._hung_up)
            self._watched = -1

    # To the client

    def write(self, batch: Batch) -> None:
        if self._transport is not None and not self._close_sent:
            self.sent += len(batch.messages)
            data = frames.encode(batch, self.deflate)
            self._written += len(data)
            self._transport.write(data)

    @property
    def send(self) -> Callable[[bytes], object]:
        """What sends bytes that are framed already, at no more cost than the transport's own; not to be used once it has left."""
        assert self._transport is not None
        return self._transport.write

    def take(self, data: bytes) -> bool:
        """Send bytes that are framed already; return whether there is room for more."""
        self._send(data)
        return not self._writing_paused

    def end(self, reason: End) -> None:
        """Send a close frame after all that was written, and close when the client has answered it or is too slow."""
        if self._transport is None:
            return
        if self._left:
            self._close_transport()
            return
        self._send_close(reason)
        self._watch_stuck(self._close_patience())

    def close(self) -> None:
        """Close without another word; what was written before still leaves, if it does so in time."""
        if self._transport is not None:
            self._close_transport()

    def abort(self) -> None:
        """Cut the connection; what was not sent yet is lost."""
        if self._transport is not None:
            # Before the socket is closed: over TLS, connection_lost comes after that.
            self._unwatch()
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, as one may; the patience with a client that is slow to close is bounded."""
        if self._transport is not None:
            self._closed = self._loop.create_future()
            await self._closed

    def pause_writing(self) -> None:
        self._writing_paused = True
        self.source.pause()
        self._watch_stuck(self._timeout)

    def resume_writing(self) -> None:
        if self._stuck_timer is not None and not (self._close_sent or self._transport is None or self._transport.is_closing()):
            self._stuck_timer.cancel()
            self._stuck_timer = None
        self._writing_paused = False
        if self._owed_pong is not None:
            owed, self._owed_pong = self._owed_pong, None
            self._send(frames.pong(owed))
        self.source.resume()

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._close_sent:
            self._written += len(data)
            self._transport.write(data)

    def _send_close(self, reason: End) -> None:
        self._send(frames.close(reason))
        self._close_sent = True

    def _close_transport(self) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            if self._stuck_timer is None:
                self._watch_stuck(self._close_patience())
            return
        self._unwatch()
        patience = self._close_patience()
        if not self._lingers:
            self._transport.close()
        elif self._transport.can_write_eof():
            # What the client is still sending is read, and has no meaning: unread, it would make of our last words a reset.
            end_output(self._transport)
            resume_reading(self._transport, self._loop)
        else:
            end_secure(self._transport, self._loop)
        self._watch_stuck(patience)

    def _close_patience(self) -> float:
        """How long nothing may move on a connection that closes: with bytes left to send, as long as at any other time."""
        waiting = waiting_bytes(self._transport) if self._transport is not None else 0
        return self._timeout or FOR_EVER if waiting else CLOSE_WAIT

    def _watch_stuck(self, patience: float) -> None:
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
        if self._transport is not None and patience > 0:
            self._stuck_timer = self._loop.call_later(patience, self._check_stuck, patience, self._taken())

    def _taken(self) -> int:
        return taken_bytes(self._transport, self._written) if self._transport is not None else 0

    def _check_stuck(self, patience: float, taken_before: int) -> None:
        """Give up a client that took nothing of what was waiting; one that is slow, but takes, has its time again."""
        if self._transport is None:
            return
        if self._taken() > taken_before:
            self._watch_stuck(self._close_patience() if self._close_sent else patience)
            return
        if waiting_bytes(self._transport):
            self._metrics.clients_timed_out += 1
            log.info("client took nothing for %g s and is cut off", patience, extra=extra(self._pairs))
        self.abort()

    # The heartbeat

    def _beat(self) -> None:
        assert self._heartbeat is not None
        assert self._transport is not None
        taken = self._taken()
        if self._owed_at_beat and taken > self._taken_at_beat:
            # It takes what was waiting for it, and an answer to a ping may come only behind all that.
            self._heartbeat.heard = self._loop.time()
        self._taken_at_beat, self._owed_at_beat = taken, outstanding_bytes(self._transport)
        due, again = self._heartbeat.beat(self._loop.time())
        if due is Beat.GONE:
            self._metrics.clients_timed_out += 1
            log.info("client said nothing for two pings and is given up", extra=extra(self._pairs))
            self.abort()
            return
        if due is Beat.PING and not self._writing_paused:
            self._send(PING)
        self._heartbeat_timer = self._loop.call_at(again, self._beat)
