"""The part of a broadcast that survives a change of its settings: the bus, the ring with the history, and the subscribers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NamedTuple

from wsbridge.bus.base import Bus
from wsbridge.bus.broker import rabbit_bus
from wsbridge.bus.exchange import ExchangeSettings, exchange_settings
from wsbridge.bus.memory import MemoryBus
from wsbridge.channel.ring import Channel
from wsbridge.endpoints.base import Services
from wsbridge.flow import NULL_SOURCE, Source
from wsbridge.sessions.fanin import FanIn
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.registry import Registry
from wsbridge.sessions.relay import Relay, Through
from wsbridge.sessions.supervisor import Supervisor
from wsbridge.settings import BroadcastSettings, BrokerSettings, Input, Role


def new_mark() -> str:
    """Return a name that is used only once, ever: for an epoch of a channel, or for a producer."""
    return f"{int.from_bytes(secrets.token_bytes(10)):020x}"


class Identity(NamedTuple):
    """The settings that make a channel: with others, it is another channel."""

    exchange: str
    at_broker: ExchangeSettings | None
    is_through: bool
    """Whether a program stands between the bus and the ring."""


class LiveChannel:
    """One channel; `open` begins to deliver what the bus carries into the ring, or with `through` to the program."""

    def __init__(self, settings: BroadcastSettings, services: Services, registry: Registry) -> None:
        channel, metrics = settings.channel, services.metrics
        self.identity = identity(settings, services.brokers)
        self.registry = registry
        self.fanout = Fanout(
            Channel(
                new_mark(),
                queue_bytes=channel.queue,
                history=channel.history,
                history_bytes=channel.history_size,
                slow=channel.slow,
            ),
            metrics=metrics,
            loop=services.loop,
        )
        self.bus = self._make_bus(settings, services)
        self.through = Through(self.fanout, metrics=metrics) if settings.role is Role.THROUGH else None
        self._relay = Relay(self.fanout, new_epoch=new_mark, metrics=metrics)
        self.fan_in = FanIn()

    async def open(self) -> None:
        """Open the bus. Raises BusError."""
        await self.bus.open(self.through or self._relay)
        self._relay.is_live = True

    def change(self, settings: BroadcastSettings) -> None:
        """Apply other settings of the same channel. Messages and subscribers stay."""
        channel = settings.channel
        self.fanout.bound(queue_bytes=channel.queue, history=channel.history, history_bytes=channel.history_size, slow=channel.slow)
        self.registry.limiter.limit = settings.channel.max_clients

    def connect(self, supervisor: Supervisor | None, input: Input) -> None:
        """Join the bus, the program if there is one, and the messages of the clients. A later call replaces these connections."""
        program: Source = supervisor or NULL_SOURCE
        if supervisor is not None and self.through is not None:
            self.through.program = supervisor
            supervisor.source = self.bus
            supervisor.hold()
        # With `through`, the program publishes into the ring, and a full bus must not pause it.
        publisher = NULL_SOURCE if self.through is not None else program
        match input:
            case Input.PROGRAM if supervisor is not None:
                self.fan_in.direct(supervisor.write)
                supervisor.source = self.fan_in
            case Input.EXCHANGE:
                self.fan_in.direct(self.bus.publish, beside=publisher)
                publisher = self.fan_in
            case _:
                self.fan_in.direct(None)
        self.bus.source = publisher

    @staticmethod
    def _make_bus(settings: BroadcastSettings, services: Services) -> Bus:
        channel, exchange = settings.channel, exchange_of(settings, services.brokers)
        if exchange is None:
            return MemoryBus(new_mark())
        return rabbit_bus()(
            exchange,
            channel.exchange,
            producer=new_mark(),
            history=channel.history,
            # A program must not receive messages that it, or its predecessor, may already have received.
            begin="next" if settings.role is Role.THROUGH else None,
            max_message_bytes=settings.program.max_program_message,
            connections=services.connections(),
            metrics=services.metrics,
            loop=services.loop,
        )


def identity(settings: BroadcastSettings, brokers: Mapping[str, BrokerSettings]) -> Identity:
    """Return the identity of the channel that these settings describe."""
    return Identity(settings.channel.exchange, exchange_of(settings, brokers), settings.role is Role.THROUGH)


def exchange_of(settings: BroadcastSettings, brokers: Mapping[str, BrokerSettings]) -> ExchangeSettings | None:
    """Return the settings of the channel's exchange; None for a channel without a broker."""
    name = settings.channel.broker
    return exchange_settings(brokers[name], settings.channel) if name else None
