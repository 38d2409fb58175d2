"""Kind `broadcast`: one program, any number of browsers, across any number of nodes.

producer          program ──> bus ──> relay ──> fanout ──> browsers
through           bus ──> program ──> fanout ──> browsers
no program        bus ──> relay ──> fanout ──> browsers
--input           browsers ──> fan-in ──> the program's stdin, or the bus

At most one endpoint at a time owns a channel. NEXT is the transition table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from enum import Enum

from wsbridge.endpoints.base import Parts, Services, pages
from wsbridge.endpoints.channelprogram import ChannelProgram, determinants, done_before
from wsbridge.endpoints.livechannel import LiveChannel, identity
from wsbridge.endpoints.newsubscription import SubscriptionFactory
from wsbridge.http.endpoint import Resource
from wsbridge.http.javascript import Scripts
from wsbridge.http.status import StatusPage
from wsbridge.rules.urls import hidden
from wsbridge.sessions.registry import Registry
from wsbridge.settings import BroadcastSettings, EndpointSettings, Role
from wsbridge.wire.positioned import SUBPROTOCOL

FLUSH_SECONDS = 5.0
"""Seconds that the bus has at shutdown to send what was published."""


class State(Enum):
    """The relation of an endpoint to its channel."""

    CANDIDATE = "candidate"
    """The previous endpoint owns the channel."""
    OWNER = "owner"
    """This endpoint ends the program and closes the bus."""
    SUPERSEDED = "superseded"
    """A successor owns the channel."""
    FINISHED = "finished"


class Event(Enum):
    """The events that change the owner."""

    STARTED = "started"
    """The endpoint serves requests."""
    SUCCEEDED = "succeeded"
    """A successor has started."""
    FINISHED = "finished"
    """`finish` was called."""


NEXT: dict[State, dict[Event, State]] = {
    State.CANDIDATE: {Event.STARTED: State.OWNER},
    State.OWNER: {Event.SUCCEEDED: State.SUPERSEDED, Event.FINISHED: State.FINISHED},
    State.SUPERSEDED: {},
    State.FINISHED: {},
}
"""The state after each event. An event that a state does not name changes nothing. So only the owner releases the channel, and once."""


class BroadcastEndpoint:
    """Serves one channel. It takes over the channel of `previous`, an endpoint with other settings of the same channel."""

    def __init__(self, settings: BroadcastSettings, services: Services, previous: BroadcastEndpoint | None = None) -> None:
        self.settings = settings
        self._services = services
        self._parts = Parts(
            settings,
            services,
            max_clients=settings.channel.max_clients,
            registry=previous.registry if previous is not None else None,
        )
        self.registry: Registry = self._parts.registry
        self._previous = previous
        self._channel: LiveChannel = previous._channel if previous is not None else LiveChannel(settings, services, self.registry)
        # A program with unchanged settings continues to run.
        unchanged = previous._program if previous is not None and previous._program.determinants == determinants(settings) else None
        self._program: ChannelProgram = unchanged or ChannelProgram(settings, self._channel, self._parts.launcher, services)
        self._state = State.OWNER if previous is None else State.CANDIDATE

    def succeed(self, settings: EndpointSettings, services: Services) -> BroadcastEndpoint | None:
        """Return an endpoint that takes over the channel, or None if these settings describe another channel."""
        if isinstance(settings, BroadcastSettings) and identity(settings, services.brokers) == self._channel.identity:
            return BroadcastEndpoint(settings, services, self)
        return None

    async def open(self) -> None:
        settings, channel = self.settings, self._channel
        if self._state is State.OWNER:
            channel.route(self._program.supervisor, settings.channel.input)
            await channel.open()
        subscriptions = SubscriptionFactory(
            gate=self._parts.gate(subprotocols=(SUBPROTOCOL,)),
            origins=settings.access.rules,
            handshake=self._parts.handshake(is_shared=True),
            client=settings.client,
            fanout=channel.fanout,
            join=settings.channel.join,
            fan_in=channel.fan_in,
            wires=channel.wires,
            registry=self.registry,
            metrics=self._services.metrics,
            loop=self._services.loop,
        )
        facts = {"exchange": settings.channel.exchange, "input": settings.channel.input.value}
        resources: tuple[Resource, ...] = (Scripts(),)
        if settings.http.status:
            resources = (StatusPage(self._status, settings.access.rules), *resources)
        self.app = self._parts.app(
            sessions=subscriptions,
            events=subscriptions,
            resources=resources,
            page_everywhere=settings.http.console,
            page=pages("channel.html", "PAGE", facts, wanted=settings.http.page),
            subject=("exchange", settings.channel.exchange),
        )

    def start(self) -> None:
        previous, self._previous = self._previous, None
        self._handle(Event.STARTED)
        if previous is None:
            self._program.start(None)
            return
        previous._handle(Event.SUCCEEDED)
        self._channel.change(self.settings)
        self._channel.route(self._program.supervisor, self.settings.channel.input, previous=previous._program.supervisor)
        if self._program is not previous._program:
            self._program.start(previous._program)

    async def finish(self, force: asyncio.Event) -> None:
        """End the program and deliver its remaining output, then close the bus; the server disconnects the clients after that.

        Do nothing if another endpoint owns the channel: a successor, or the previous endpoint before `start`.
        """
        if not self._handle(Event.FINISHED):
            return
        await self._program.finish(force)
        bus = self._channel.bus
        closing = self._services.loop.create_task(bus.close(FLUSH_SECONDS), name="bus: close")
        if await done_before(force, closing):
            closing.result()
        else:
            closing.cancel()
            await asyncio.wait((closing,))
            await bus.close(0)
        self._channel.fanout.flush()

    def _handle(self, event: Event) -> bool:
        """Go to the state after an event; return whether the table has such a state."""
        state = NEXT[self._state].get(event)
        if state is None:
            return False
        self._state = state
        return True

    def _status(self) -> Mapping[str, object]:
        alarm, fanout = self._channel.bus.alarm, self._channel.fanout
        supervisor = self._program.supervisor
        broker = None if not self.settings.channel.broker else "away" if not fanout.is_connected else "blocked" if alarm else "here"
        mark, number = fanout.channel.place(fanout.channel.end)
        return {
            "exchange": self.settings.channel.exchange,
            "viewers": len(fanout),
            "position": f"{mark}{number}",
            "messages": fanout.channel.end,
            "broker": broker,
            "broker_alarm": alarm or None,
            "broker_address": None if broker in (None, "away") else str(self._channel.bus),
            "input": self.settings.channel.input.value,
            "program": supervisor and supervisor.shown_state,
            "program_exit": supervisor and supervisor.last_exit,
            "program_restarts": supervisor.restarted if supervisor is not None else 0,
            **({"program_stderr": self._program.last_error} if self.settings.http.console else {}),
            "counts": dict(self._services.metrics.counts()),
        }

    def served(self) -> Iterator[str]:
        program, channel = self.settings.program, self.settings.channel
        if program.command:
            yield f"{self._role_line}: {' '.join(map(hidden, program.command))}"
        yield f"Broadcasting exchange       : {channel.exchange}"
        if self.settings.channel.broker:
            yield f"Broker                      : {self._channel.bus}"
        yield from self._parts.served()

    @property
    def _role_line(self) -> str:
        return "Passing through application " if self.settings.role is Role.THROUGH else "Publishing application      "
