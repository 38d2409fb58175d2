"""Kind `broadcast`: one program, any number of browsers, on any number of nodes.

producer          program ──> bus ──> relay ──> fanout ──> browsers
through           bus ──> program ──> fanout ──> browsers
no program        bus ──> relay ──> fanout ──> browsers
--input           browsers ──> fan-in ──> the program's stdin, or the bus
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping

from wsbridge.bus.base import now
from wsbridge.endpoints.base import Parts, Services, pages
from wsbridge.endpoints.livechannel import LiveChannel, identity
from wsbridge.endpoints.subscriptions import Subscriptions
from wsbridge.framing import make_framing
from wsbridge.http.endpoint import Resource
from wsbridge.http.javascript import Scripts
from wsbridge.http.status import StatusPage
from wsbridge.logs import LogFields
from wsbridge.process.child import Child
from wsbridge.process.terminal import terminal_environment
from wsbridge.rules.environ import inherited_environment
from wsbridge.rules.restarts import Restarts
from wsbridge.rules.urls import hidden
from wsbridge.sessions.registry import Registry
from wsbridge.sessions.supervisor import Supervisor
from wsbridge.settings import BroadcastSettings, EndpointSettings, Input, Role
from wsbridge.wire.positioned import SUBPROTOCOL

FLUSH_SECONDS = 5.0
"""Seconds that the bus has at shutdown to send what was published."""
ERROR_CHARACTERS = 500
"""The most characters of the program's last stderr line in the status."""


class BroadcastEndpoint:
    """Serves one channel. It takes over the channel of `previous`, an endpoint with other settings of the same channel."""

    def __init__(self, settings: BroadcastSettings, services: Services, previous: BroadcastEndpoint | None = None) -> None:
        self.settings = settings
        self._services = services
        self._parts = Parts(
            settings,
            services,
            max_sessions=settings.channel.max_clients,
            registry=previous.registry if previous is not None else None,
        )
        self.registry: Registry = self._parts.registry
        self._previous = previous
        self._channel: LiveChannel = previous._channel if previous is not None else LiveChannel(settings, services, self.registry)
        self._supervisor = self._make_supervisor() if settings.role is not Role.NONE else None
        self._keeping: asyncio.Task[None] | None = None
        self._has_finished = False
        self._is_superseded = False
        self._last_error: str | None = None

    def succeed(self, settings: EndpointSettings, services: Services) -> BroadcastEndpoint | None:
        """Return an endpoint that takes over the channel, or None if these settings describe another channel."""
        if isinstance(settings, BroadcastSettings) and identity(settings, services.brokers) == self._channel.identity:
            return BroadcastEndpoint(settings, services, self)
        return None

    async def open(self) -> None:
        settings, channel = self.settings, self._channel
        if self._previous is None:
            channel.connect(self._supervisor, settings.channel.input)
            await channel.open()
        subscriptions = Subscriptions(
            gate=self._parts.gate(subprotocols=(SUBPROTOCOL,), limit="max_clients"),
            origins=settings.access.rules,
            handshake=self._parts.handshake(is_shared=True),
            client=settings.client,
            fanout=channel.fanout,
            join=settings.channel.join,
            fan_in=channel.fan_in,
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

    def _make_supervisor(self) -> Supervisor:
        program, channel = self.settings.program, self.settings.channel
        make_decoder, encoder = make_framing(program.framing, limit=program.max_program_message)
        fields: LogFields = {"exchange": channel.exchange, "command": program.command[0]}
        # The variables of the server's own terminal do not apply to the terminal of the program.
        terminal = program.terminal
        environment = {**inherited_environment(os.environ), **terminal_environment(terminal)}

        def say(line: str) -> None:
            self._last_error = line[:ERROR_CHARACTERS]

        # Strangers may read the status, so it contains the program's stderr only with `--devconsole`, for the user who tests the
        # program.
        said = say if self.settings.http.console else None

        def launch() -> Child:
            return self._parts.launcher.launch(
                program.command,
                environment,
                decoder=make_decoder(),
                encoder=encoder,
                fields={**fields},
                pty=terminal,
                last_error=said,
            )

        is_through = self.settings.role is Role.THROUGH
        return Supervisor(
            launch,
            (lambda batch: self._channel.fanout.publish(batch, at=now())) if is_through else self._channel.bus.publish,
            reads=is_through or channel.input is Input.PROGRAM,
            restarts=Restarts(channel.restart),
            drain_seconds=program.drain,
            fields=fields,
            metrics=self._services.metrics,
            loop=self._services.loop,
        )

    def begin(self) -> None:
        previous, self._previous = self._previous, None
        if previous is not None:
            previous._is_superseded = True
            self._channel.change(self.settings)
        if previous is not None or self._supervisor is not None:
            self._keeping = self._services.loop.create_task(self._keep(previous), name="the channel's program")

    async def _keep(self, previous: BroadcastEndpoint | None) -> None:
        """Keep the program running. Two programs never run for one channel at the same time."""
        if previous is not None:
            await previous.finish(asyncio.Event())
            self._channel.connect(self._supervisor, self.settings.channel.input)
        if self._supervisor is not None:
            await self._supervisor.run()

    async def finish(self, force: asyncio.Event) -> None:
        """End the program and deliver its remaining output, then close the bus; the server closes the clients after that.

        The bus stays open if another endpoint has taken over the channel.
        """
        if self._has_finished:
            return
        self._has_finished = True
        loop, bus = self._services.loop, self._channel.bus
        if self._keeping is not None:
            if self._supervisor is not None:
                self._supervisor.stop()
            if not await _done_before(force, self._keeping):
                if self._supervisor is not None:
                    self._supervisor.kill()
                await self._keeping
        if self._is_superseded or self._previous is not None:
            return
        closing = loop.create_task(bus.close(FLUSH_SECONDS), name="bus: last words")
        if await _done_before(force, closing):
            closing.result()
        else:
            closing.cancel()
            await asyncio.wait((closing,))
            await bus.close(0)
        self._channel.fanout.flush()

    def _status(self) -> Mapping[str, object]:
        alarm, fanout = self._channel.bus.alarm, self._channel.fanout
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
            "program": self._supervisor and self._supervisor.state.value,
            "program_exit": self._supervisor and self._supervisor.last_exit,
            "program_restarts": self._supervisor.restarted if self._supervisor is not None else 0,
            **({"program_stderr": self._last_error} if self.settings.http.console else {}),
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


async def _done_before(force: asyncio.Event, task: asyncio.Task[None]) -> bool:
    """Wait for a task or for `force`; return whether the task is done."""
    forcing = asyncio.get_running_loop().create_task(force.wait(), name="force")
    await asyncio.wait((task, forcing), return_when=asyncio.FIRST_COMPLETED)
    forcing.cancel()
    return task.done()
