"""`wsbridge publish`: sends messages from stdin to a channel, through the broker or to another wsbridge.

It never reads more than it can store: while the spool or the socket is full, it stops reading stdin. It ends when the broker has
confirmed all messages, or when the server has answered the close frame after the last message.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial

from wsbridge.bus.base import Body
from wsbridge.bus.broker import rabbit_bus
from wsbridge.bus.exchange import exchange_settings
from wsbridge.closecodes import NO_CODE, NORMAL, UNSUPPORTED_DATA
from wsbridge.errors import BusError, ProgramError, RemoteError
from wsbridge.flow import Batch, End
from wsbridge.framing import make_framing
from wsbridge.logs import logger
from wsbridge.metrics import Metrics
from wsbridge.pipes.run import Ending, Lifetime, count_messages, input_ending, settle
from wsbridge.settings import PipeSettings
from wsbridge.stdio import StdinReader

FLUSH_SECONDS = 5.0
"""Seconds for the broker to confirm the messages that were read, after a signal."""
FOR_EVER = 365 * 86400.0

log = logger("publish")

How = End | ProgramError | OSError


async def publish(settings: PipeSettings, life: Lifetime, metrics: Metrics) -> Ending:
    """Publish stdin until it ends. Raises BusError and RemoteError."""
    return await (_to_server(settings) if settings.url else _to_broker(settings, metrics))


def _make_input(settings: PipeSettings, write: Callable[[Batch], None], over: asyncio.Future[How]) -> StdinReader:
    make_decoder, _ = make_framing(settings.framing, limit=settings.max_message)
    return StdinReader(0, make_decoder(), write=write, over=partial(settle, over), loop=asyncio.get_running_loop())


async def _to_broker(settings: PipeSettings, metrics: Metrics) -> Ending:
    loop = asyncio.get_running_loop()
    assert settings.broker is not None
    bus = rabbit_bus()(
        exchange_settings(settings.broker, settings.channel),
        settings.channel.exchange,
        producer=secrets.token_hex(10),
        history=0,
        max_message_bytes=settings.max_message,
        consumes=False,
        metrics=metrics,
        loop=loop,
    )
    over: asyncio.Future[How] = loop.create_future()
    bus.source = stdin = _make_input(settings, bus.publish, over)
    await bus.open(_NullReceiver())
    try:
        stdin.start()
        how = await over
        # Without a time limit: the broker may be unreachable for a while.
        await bus.close(FOR_EVER)
    except asyncio.CancelledError:
        stdin.stop()
        await bus.close(FLUSH_SECONDS)
        if metrics.bus_unconfirmed:
            log.error("%s", _unconfirmed(metrics))
        raise
    if metrics.bus_unconfirmed:
        return Ending(BusError.exit_status, _unconfirmed(metrics))
    return Ending() if isinstance(how, End) else input_ending(how)


def _unconfirmed(metrics: Metrics) -> str:
    return f"{count_messages(metrics.bus_unconfirmed)} not confirmed by the broker, and may be lost"


async def _to_server(settings: PipeSettings) -> Ending:
    from wsbridge.peers.wsclient import connect
    from wsbridge.rules.urls import shown

    loop = asyncio.get_running_loop()
    over: asyncio.Future[How] = loop.create_future()
    listener = _Listener(loop.create_future())
    remote = await connect(settings.url, listener, limit=0, pings=False, loop=loop)
    remote.source = stdin = _make_input(settings, remote.write, over)
    where = shown(settings.url)
    how: How | None = None
    try:
        stdin.start()
        await asyncio.wait((over, listener.ended), return_when=asyncio.FIRST_COMPLETED)
        if over.done():
            how = over.result()
            remote.end(how if isinstance(how, End) else End(NORMAL))
        reason = await listener.ended
    except asyncio.CancelledError:
        stdin.stop()
        unsent = await remote.close()
        if not _has_received_all(listener.reason, how):
            more = f"{unsent} bytes were not sent, and " if unsent else ""
            log.error("%s did not acknowledge all messages: %sthe last messages may be lost", where, more)
        raise
    finally:
        stdin.stop()
        await remote.close()
    if reason.code == UNSUPPORTED_DATA:
        raise RemoteError(f"the channel at {where} accepts no messages; start its server with --input")
    if how is None or not _has_received_all(reason, how):
        close = f"{reason.code} {reason.reason}".rstrip()
        raise RemoteError(f"disconnected from {where} ({close}); the last messages may be lost")
    return Ending() if isinstance(how, End) else input_ending(how)


def _has_received_all(reason: End | None, how: How | None) -> bool:
    """Return whether the server closed as if it had read the close frame of this process, and thus all messages before it."""
    return reason is not None and reason.code in (NORMAL, NO_CODE, how.code if isinstance(how, End) else NORMAL)


class _Listener:
    """The sink of a connection on which this process only sends."""

    def __init__(self, ended: asyncio.Future[End]) -> None:
        self.ended = ended
        self.reason: End | None = None

    def write(self, batch: Batch) -> None:
        """Drop a batch of the channel: `publish` does not print messages."""

    def end(self, reason: End) -> None:
        self.reason = reason
        settle(self.ended, reason)


class _NullReceiver:
    """The receiver of a bus that delivers nothing."""

    def receive(self, body: Body) -> None:
        """Do nothing: no body arrives."""

    def renewed(self, mark: str | None = None) -> None:
        """Do nothing: no body arrived before."""

    def lost(self, messages: int) -> None:
        """Do nothing: no message can be lost on its way here."""

    def connected(self, is_connected: bool) -> None:
        """Do nothing: the bus logs this."""
