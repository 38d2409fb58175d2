"""`wsbridge subscribe`: prints the messages of a channel, from the broker or from another wsbridge.

    broker    bus ──> relay ──> fanout ──> stdout, a subscriber like any browser, with the same positions as on any node
    --url     server ──> stdout; after a lost connection, the client reconnects and continues after the last message

A slow stdout applies backpressure to the bus or the server. Losses are reported on stderr.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from wsbridge.bus.base import Body, Bus
from wsbridge.bus.broker import rabbit_bus
from wsbridge.bus.exchange import exchange_settings
from wsbridge.channel.position import Position, offset_of, parse_position
from wsbridge.channel.ring import Channel, Join, Slow
from wsbridge.closecodes import TOO_BIG
from wsbridge.errors import RemoteError
from wsbridge.flow import Batch, End, Kind
from wsbridge.framing import Encoder, make_framing
from wsbridge.logs import INFO, RepeatFilter, logger
from wsbridge.mentions import written
from wsbridge.metrics import Metrics
from wsbridge.pipes.run import STDOUT_DRAIN_SECONDS, Ending, Lifetime, count_messages, settle
from wsbridge.rules.backoff import Backoff
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.relay import Relay
from wsbridge.settings import PipeSettings
from wsbridge.stdio import StdoutWriter
from wsbridge.wire.positioned import SUBPROTOCOL, Wire

if TYPE_CHECKING:
    from wsbridge.bus.rabbitmq.bus import RabbitBus

QUEUE_BYTES = 1024 * 1024
"""Bytes before the newest body that the fanout stores. Backpressure stops the bus before stdout lags so far."""
SILENCE_SECONDS = 3.0
"""Seconds without any bytes from the stream after which the position of `--since` counts as lost. Even a slow link delivers bytes."""
SEARCH_SECONDS = 30.0
"""Maximum duration of the search for that position, because an active stream that was recreated never delivers it."""

log = logger("subscribe")


async def subscribe(settings: PipeSettings, life: Lifetime, metrics: Metrics) -> Ending:
    """Print a channel until a signal, or until `-n` messages are printed. Raises BusError and RemoteError."""
    _, encoder = make_framing(settings.framing, limit=settings.max_message)
    output = StdoutWriter(1, failed=life.output_failed, loop=asyncio.get_running_loop())
    printer = Printer(encoder, count=settings.count, show_position=settings.show_position, on_count=lambda: life.end(Ending()))
    try:
        if settings.url:
            await _from_server(settings, printer, output)
        else:
            await _from_broker(settings, printer, output, metrics)
    except asyncio.CancelledError:
        with suppress(TimeoutError):
            async with asyncio.timeout(STDOUT_DRAIN_SECONDS if life.ending != Ending() else None):
                await output.drain()
        raise
    finally:
        output.close()
    return Ending()


class Printer:
    """The wire to stdout: it works like the wires to browsers, but has one subscriber, so it can count messages."""

    name = "printed"

    def __init__(self, encoder: Encoder, *, count: int, show_position: bool, on_count: Callable[[], None]) -> None:
        self._encoder = encoder
        self._remaining: int | None = count or None
        """Number of messages still to print; None for no limit."""
        self._show_position = show_position
        self._on_count = on_count

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        messages = batch.messages
        if self._show_position:
            head = mark.encode()
            messages = [b"".join((b"%b%d " % (head, number), message)) for number, message in enumerate(messages, first + 1)]
        return self.encoded(Batch(batch.kind, messages))

    def encode_positioned(self, batch: Batch, positions: Sequence[bytes | bytearray]) -> bytes:
        """Return the bytes of messages that arrived with their positions."""
        if not self._show_position:
            return self.encoded(batch)
        pairs = zip(positions, batch.messages, strict=True)
        return self.encoded(Batch(batch.kind, [b" ".join(pair) for pair in pairs]))

    def encoded(self, batch: Batch) -> bytes:
        """Return the bytes of messages, up to the number of messages still to print."""
        if self._remaining is not None:
            if len(batch.messages) >= self._remaining:
                batch = Batch(batch.kind, batch.messages[: self._remaining])
                self._on_count()
            self._remaining -= len(batch.messages)
            if not batch.messages:
                return b""
        return self._encoder.encode(batch)

    def published(self, at: int | None) -> bytes:
        return b""

    def lost(self, messages: int | None, mark: str = "", number: int = 0) -> bytes:
        """Report on stderr that messages were lost."""
        if messages is None:
            log.error("some messages were lost")
        else:
            log.error("%s lost", count_messages(messages))
        return b""

    def joined(self, mark: str, number: int) -> bytes:
        return b""

    def broker(self, is_connected: bool) -> bytes:
        # The bus logs the state of the connection.
        return b""


# From the broker


async def _from_broker(settings: PipeSettings, printer: Printer, output: StdoutWriter, metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    channel = Channel(secrets.token_hex(10), queue_bytes=QUEUE_BYTES, history=0, history_bytes=0, slow=Slow.DROP_OLDEST)
    fanout = Fanout(channel, metrics=metrics, loop=loop)
    since = parse_position(settings.since)
    bus = _make_bus(settings, since, metrics)
    screen = Screen(printer, output, fanout, bus)
    relay = Relay(fanout, new_epoch=lambda: secrets.token_hex(10), metrics=metrics)
    search = Search(relay, screen, fanout, since) if since is not None else None
    try:
        has_history = settings.channel.replay
        if not has_history:
            # The queue holds messages from its binding on, and the broker may deliver the first of them before `open` returns.
            fanout.join(screen, channel.join(Join.NONE))
        await bus.open(search or relay)
        if search is not None:
            await search.wait(bus.received_at)
        elif has_history:
            fanout.join(screen, channel.join(Join.NONE))
        await loop.create_future()
    finally:
        fanout.leave(screen)
        await bus.close(0)


def _make_bus(settings: PipeSettings, since: Position | None, metrics: Metrics) -> RabbitBus:
    assert settings.broker is not None
    return rabbit_bus()(
        exchange_settings(settings.broker, settings.channel),
        settings.channel.exchange,
        producer=secrets.token_hex(10),
        history=0,
        max_message_bytes=settings.max_message,
        start=since.offset or 0 if since is not None else None,
        metrics=metrics,
        loop=asyncio.get_running_loop(),
    )


class Screen:
    """Stdout as a subscriber of the fanout; when it is full, it pauses the bus."""

    def __init__(self, wire: Printer, output: StdoutWriter, fanout: Fanout, bus: Bus) -> None:
        self.wire: Wire = wire
        self.send: Callable[[bytes], object] = self._send
        self._output = output
        self._fanout = fanout
        self._bus = bus
        output.source = self

    def _send(self, data: bytes) -> None:
        if not self._output.write(data):
            self._bus.pause()
            self._fanout.full(self)

    def deliver(self, data: bytes) -> bool:
        has_room = self._output.write(data)
        if not has_room:
            self._bus.pause()
        return has_room

    def end(self, reason: End) -> None:
        """Do nothing: the fanout closes only a subscriber that is too slow, and stdout pauses the bus instead."""

    def pause(self) -> None:
        """Do nothing: the result of each write shows whether stdout is full."""

    def resume(self) -> None:
        """Serve stdout again, because it has room."""
        self._fanout.ready(self)
        if self._output.has_room:
            self._bus.resume()


class Search:
    """The receiver of a bus until the position of `--since` arrives; then the fanout serves stdout."""

    def __init__(self, relay: Relay, screen: Screen, fanout: Fanout, since: Position, *, silence: float = SILENCE_SECONDS) -> None:
        """`silence` is the time without any bytes after which the position counts as lost."""
        self.renewed = relay.renewed
        self.lost = relay.lost
        self.connected = relay.connected
        self._relay = relay
        self._screen = screen
        self._fanout = fanout
        self._since = since
        self._silence = silence
        self._offset = since.offset or 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self, received_at: Callable[[], float]) -> None:
        """Join stdout to the fanout when the position arrives, or when it counts as lost.

        `received_at` returns the time at which the last bytes arrived, on the loop's clock.
        """
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        # An empty stream delivers no bytes.
        remaining = remaining_seconds(started_at, received_at(), started_at, silence=self._silence) if self._fanout.channel.end else 0
        while remaining > 0 and not self._over.done():
            await asyncio.wait((self._over,), timeout=remaining)
            remaining = remaining_seconds(started_at, received_at(), loop.time(), silence=self._silence)
        self.join()

    def receive(self, body: Body) -> None:
        self._relay.receive(body)
        if not self._over.done() and body.mark is not None and (offset_of(body.mark) or 0) >= self._offset:
            self.join()

    def join(self) -> None:
        """Serve stdout from the position on, or report a loss of unknown size first."""
        if not self._over.done():
            self._over.set_result(None)
            self._fanout.join(self._screen, self._fanout.channel.resume(self._since))


def remaining_seconds(started_at: float, received_at: float, now: float, *, silence: float = SILENCE_SECONDS) -> float:
    """Return the remaining seconds of the search; 0 or less if the search is over.

    The search started at `started_at`, and the last bytes arrived at `received_at`.
    """
    return min(max(started_at, received_at) + silence, started_at + SEARCH_SECONDS) - now


# From a server


class Pausable(Protocol):
    """A source that can be paused."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


async def _from_server(settings: PipeSettings, printer: Printer, output: StdoutWriter) -> None:
    from wsbridge.peers.wsclient import connect
    from wsbridge.rules.urls import shown

    loop = asyncio.get_running_loop()
    where = shown(settings.url)
    backoff = Backoff()
    position = settings.since
    is_first = True
    failures = RepeatFilter(log)
    while True:
        reader = Reader(printer, output, position, loop.create_future())
        started_at = loop.time()
        try:
            remote = await connect(
                settings.url,
                reader,
                subprotocol=SUBPROTOCOL,
                since=position,
                limit=settings.max_message,
                pings=True,
                loop=loop,
            )
        except RemoteError as error:
            if is_first:
                raise
            failures.error(str(error), loop.time())
        else:
            if not is_first:
                log.log(INFO, "reconnected to %s", where)
            is_first = False
            failures = RepeatFilter(log)
            reader.attach(remote)
            try:
                reason = await reader.ended
            finally:
                reader.stop()
                await remote.close()
            position = reader.position
            backoff.ran(loop.time() - started_at)
            if reason.code == TOO_BIG:
                # The server would send this message again. The messages before it must still be printed.
                await output.drain()
                limit = settings.max_message
                remedy = written("raise the limit with <max_program_message>")
                raise RemoteError(f"{where} sent a message over the limit of {limit} bytes; {remedy}")
            close = f"{reason.code} {reason.reason}".rstrip()
            log.error("disconnected from %s (%s); reconnecting", where, close)
        await asyncio.sleep(backoff.next(random.random()))


class Reader:
    """The sink of one connection: messages with their positions, and control records between them."""

    def __init__(self, printer: Printer, output: StdoutWriter, position: str, ended: asyncio.Future[End]) -> None:
        self._printer = printer
        self._output = output
        self._source: Pausable | None = None
        self._is_over = False
        self._position: bytes | bytearray = position.encode()
        self.ended = ended

    @property
    def position(self) -> str:
        """The position after the last received record, at which the next connection resumes."""
        return self._position.decode("ascii", "replace")

    def attach(self, source: Pausable) -> None:
        """Set the source that the reader pauses when stdout is full; stdout may be full already."""
        self._source = source
        self._output.source = source
        if not self._output.has_room:
            source.pause()

    def stop(self) -> None:
        """Stop printing."""
        self._is_over = True

    def write(self, batch: Batch) -> None:
        if self._is_over:
            return
        messages, positions = self._read(batch)
        if not messages:
            return
        data = self._printer.encode_positioned(Batch(batch.kind, messages), positions)
        if data and not self._output.write(data) and self._source is not None:
            self._source.pause()

    def end(self, reason: End) -> None:
        settle(self.ended, reason)

    def _read(self, batch: Batch) -> tuple[list[bytes | bytearray], list[bytes | bytearray]]:
        messages: list[bytes | bytearray] = []
        positions: list[bytes | bytearray] = []
        is_text = batch.kind is Kind.TEXT
        for message in batch.messages:
            position, _, payload = message.partition(b"\n")
            if is_text and position[:1] == b"!":
                self._handle_control(bytes(position).decode("utf-8", "replace")[1:].split(" "))
                continue
            messages.append(payload)
            positions.append(position)
            self._position = position
        return messages, positions

    def _handle_control(self, words: list[str]) -> None:
        """Process a control record; ignore an unknown record, which a later version of the server sends."""
        match words:
            case ["at", position]:
                self._position = position.encode()
            case ["lost", position, count]:
                self._position = position.encode()
                self._printer.lost(int(count) if count.isdecimal() else None)
            case ["broker", where]:
                state = "is connected to its broker again" if where == "here" else "is not connected to its broker"
                log.log(INFO, "the server %s", state)
