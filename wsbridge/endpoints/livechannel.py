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
from wsbridge.endpoints.newsubscription import Wires
from wsbridge.flow import NULL_SOURCE, Source
from wsbridge.sessions.fanin import FanIn
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.registry import Registry
from wsbridge.sessions.relay import Relay, Through
from wsbridge.sessions.supervisor import Supervisor
from wsbridge.settings import BroadcastSettings, BrokerSettings, Input, Role


def new_mark() -> str:
    """Return a new unique name for an epoch of a channel, or for a producer."""
    return f"{int.from_bytes(secrets.token_bytes(10)):020x}"


class Identity(NamedTuple):
    """The settings that identify a channel. If one of them changes, it is another channel."""

    exchange: str
    at_broker: ExchangeSettings | None
    is_through: bool
    """Whether a program filters the messages between the bus and the ring."""


class LiveChannel:
    """One channel; `open` starts the delivery of messages from the bus to the ring, or with `through`, to the program."""

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
        self.wires = Wires()
        self._input = Input.NONE
        self._publisher: Source = NULL_SOURCE

    async def open(self) -> None:
        """Open the bus. Raises BusError."""
        await self.bus.open(self.through or self._relay)
        self._relay.is_live = True

    def change(self, settings: BroadcastSettings) -> None:
        """Apply other settings of the same channel. Its messages and subscribers stay."""
        channel = settings.channel
        self.fanout.bound(queue_bytes=channel.queue, history=channel.history, history_bytes=channel.history_size, slow=channel.slow)
        self.registry.limiter.limit = channel.max_clients
        self.bus.max_message_bytes = settings.program.max_program_message

    def route(self, program: Supervisor | None, input: Input, *, previous: Supervisor | None = None) -> None:
        """Send the messages of clients to a new destination from now on; with `through`, also send the messages of the bus.

        `previous` is the previous program, which can be `program` itself. A new program need not run yet. It gets the messages that
        wait for the previous program. Until the new program runs, the server does not read more from the clients.
        """
        is_other = program is not previous
        source: Source = NULL_SOURCE
        match input:
            case Input.PROGRAM if program is not None:
                source = self.fan_in
                self.fan_in.accompany(NULL_SOURCE)
                self.fan_in.direct(program.write)
            case Input.EXCHANGE:
                self.fan_in.direct(self.bus.publish)
            case _:
                self.fan_in.direct(None)
        if self.through is not None and program is not None:
            source = self.bus
            self.through.program = program
        waiting = previous.leave(source) if previous is not None and is_other else []
        if input is not Input.PROGRAM and input is not self._input:
            self.fan_in.resume()
        self._input = input
        self._connect_bus()
        if program is not None and is_other:
            program.join(source, waiting)

    def set_publisher(self, program: Supervisor | None) -> None:
        """Set the program whose output goes to the bus; a full bus pauses it."""
        # With `through`, the program publishes into the ring, so a full bus must not pause it.
        self._publisher = NULL_SOURCE if program is None or self.through is not None else program
        self._connect_bus()

    def _connect_bus(self) -> None:
        if self._input is Input.EXCHANGE:
            self.fan_in.accompany(self._publisher)
            self.bus.source = self.fan_in
        else:
            self.bus.source = self._publisher

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
            start="next" if settings.role is Role.THROUGH else None,
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
