"""The broadcast server: one program, any number of browsers, on any number of nodes.

producer          program ──> bus ──> relay ──> fanout ──> browsers
through           bus ──> program ──> fanout ──> browsers
no program        bus ──> relay ──> fanout ──> browsers
--input           browsers ──> fan-in ──> the program's stdin, or the bus
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator, Mapping

from wsbridge.bus.base import Bus, now
from wsbridge.bus.broker import rabbit_bus
from wsbridge.bus.exchange import exchange_settings
from wsbridge.bus.memory import MemoryBus
from wsbridge.channel.ring import Channel
from wsbridge.endpoints.channel import ChannelEndpoint
from wsbridge.framing import make_framing
from wsbridge.http.admission import Gate
from wsbridge.http.app import App
from wsbridge.http.endpoint import Resource
from wsbridge.http.javascript import Scripts
from wsbridge.http.page import Page
from wsbridge.http.status import StatusPage
from wsbridge.logs import LogFields
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.launch import Launcher
from wsbridge.process.terminal import terminal_environment
from wsbridge.rules.restarts import Restarts
from wsbridge.server.base import Server
from wsbridge.sessions.fanin import FanIn
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.relay import Relay, Through
from wsbridge.sessions.supervisor import Supervisor
from wsbridge.settings import BroadcastSettings, Busy, Input, Role, ServerSettings
from wsbridge.wire.positioned import SUBPROTOCOL

FLUSH_SECONDS = 5.0
"""Seconds that the bus has at shutdown to send what was published."""
ERROR_CHARACTERS = 500
"""The most characters of the program's last stderr line in the status."""


def new_mark() -> str:
    """Return a name that is used only once, ever: for an epoch of a channel, or for a producer."""
    return f"{int.from_bytes(secrets.token_bytes(10)):020x}"


class BroadcastServer(Server):
    """Serves one channel until a signal."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        served = settings.endpoints[0]
        assert isinstance(served, BroadcastSettings)
        self._broadcast = served
        super().__init__(settings, metrics)
        channel = served.channel
        self._fanout = Fanout(
            Channel(
                new_mark(),
                queue_bytes=channel.queue,
                history=channel.history,
                history_bytes=channel.history_size,
                slow=channel.slow,
            ),
            metrics=metrics,
            loop=self._loop,
        )
        self._bus = self._make_bus()
        self._supervisor: Supervisor | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._has_finished = False
        self._last_error: str | None = None

    @property
    def _max_sessions(self) -> int:
        return self._broadcast.channel.max_clients

    @property
    def _page_name(self) -> str:
        return "Live channel" if self._broadcast.http.page else ""

    @property
    def _page_everywhere(self) -> bool:
        return self._broadcast.http.console

    def _make_bus(self) -> Bus:
        channel = self._broadcast.channel
        if not channel.broker:
            return MemoryBus(new_mark())
        return rabbit_bus()(
            exchange_settings(self._settings.brokers[channel.broker], channel),
            channel.exchange,
            producer=new_mark(),
            history=channel.history,
            # A program must not receive messages that it, or its predecessor, may already have received.
            begin="next" if self._broadcast.role is Role.THROUGH else None,
            max_message_bytes=self._broadcast.program.max_program_message,
            metrics=self._metrics,
            loop=self._loop,
        )

    async def _open(self, launcher: Launcher) -> App:
        served, channel, access = self._broadcast, self._broadcast.channel, self._broadcast.access
        relay = Relay(self._fanout, new_epoch=new_mark, metrics=self._metrics)
        receiver: Relay | Through = relay
        if served.role is not Role.NONE:
            self._supervisor = supervisor = self._make_supervisor(launcher)
            if served.role is Role.THROUGH:
                receiver = Through(supervisor, self._fanout, metrics=self._metrics)
                supervisor.source = self._bus
                supervisor.hold()
            else:
                self._bus.source = supervisor
        fan_in = self._make_fan_in()
        await self._bus.open(receiver)
        relay.is_live = True
        endpoint = ChannelEndpoint(
            gate=Gate(
                registry=self._registry,
                origins=access.rules,
                subprotocols=(SUBPROTOCOL, *access.subprotocols),
                argv=(),
                scripts=None,
                busy_close=access.busy is Busy.CLOSE,
                limit_flag="maxclients",
            ),
            origins=access.rules,
            handshake=self._handshake(is_shared=True),
            client=served.client,
            fanout=self._fanout,
            join=channel.join,
            fan_in=fan_in,
            registry=self._registry,
            metrics=self._metrics,
            loop=self._loop,
        )
        page = Page("channel.html", "PAGE", {"exchange": channel.exchange, "input": channel.input.value}) if served.http.page else None
        resources: tuple[Resource, ...] = (Scripts(),)
        if served.http.status:
            resources = (StatusPage(self._status, access.rules), *resources)
        return self._app(launcher, endpoint, page, ("exchange", channel.exchange), events=endpoint, resources=resources)

    def _make_supervisor(self, launcher: Launcher) -> Supervisor:
        program, channel = self._broadcast.program, self._broadcast.channel
        make_decoder, encoder = make_framing(program.framing, limit=program.max_program_message)
        fields: LogFields = {"exchange": channel.exchange, "command": program.command[0]}
        # The program inherits the server's environment, except wsbridge's settings: they may contain a password.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WSBRIDGE_")}
        # The variables of the server's own terminal do not apply to the terminal of the program.
        terminal = program.terminal
        environment |= terminal_environment(terminal)

        def say(line: str) -> None:
            self._last_error = line[:ERROR_CHARACTERS]

        # Strangers may read the status, so it contains the program's stderr only with `--devconsole`, for the user who tests the
        # program.
        said = say if self._broadcast.http.console else None

        def launch() -> Child:
            return launcher.launch(
                program.command, environment, decoder=make_decoder(), encoder=encoder, fields={**fields}, pty=terminal, last_error=said
            )

        is_through = self._broadcast.role is Role.THROUGH
        return Supervisor(
            launch,
            (lambda batch: self._fanout.publish(batch, at=now())) if is_through else self._bus.publish,
            reads=is_through or channel.input is Input.PROGRAM,
            restarts=Restarts(channel.restart),
            drain_seconds=program.drain,
            fields=fields,
            metrics=self._metrics,
            loop=self._loop,
        )

    def _make_fan_in(self) -> FanIn | None:
        match self._broadcast.channel.input:
            case Input.PROGRAM:
                assert self._supervisor is not None
                self._supervisor.source = fan_in = FanIn(self._supervisor.write)
                return fan_in
            case Input.EXCHANGE:
                self._bus.source = fan_in = FanIn(self._bus.publish, beside=self._bus.source)
                return fan_in
            case Input.NONE:
                return None

    async def _begin(self) -> None:
        if self._supervisor is not None:
            self._keeping = self._loop.create_task(self._supervisor.run(), name="the channel's program")

    async def _finish(self) -> None:
        """End the program and deliver its remaining output, then close the bus; the server closes the clients after that."""
        if self._has_finished:
            return
        self._has_finished = True
        if self._supervisor is not None and self._keeping is not None:
            self._supervisor.stop()
            if not await self._done_before_force(self._keeping):
                self._supervisor.kill()
                await self._keeping
        closing = self._loop.create_task(self._bus.close(FLUSH_SECONDS), name="bus: last words")
        if await self._done_before_force(closing):
            closing.result()
        else:
            closing.cancel()
            await asyncio.wait((closing,))
            await self._bus.close(0)
        self._fanout.flush()

    async def _done_before_force(self, task: asyncio.Task[None]) -> bool:
        """Wait for a task or for a second signal; return whether the task is done."""
        forcing = self._loop.create_task(self._force.wait(), name="force")
        await asyncio.wait((task, forcing), return_when=asyncio.FIRST_COMPLETED)
        forcing.cancel()
        return task.done()

    def _status(self) -> Mapping[str, object]:
        alarm = self._bus.alarm
        broker = None if not self._broadcast.channel.broker else "away" if not self._fanout.is_connected else "blocked" if alarm else "here"
        mark, number = self._fanout.channel.place(self._fanout.channel.end)
        return {
            "exchange": self._broadcast.channel.exchange,
            "viewers": len(self._fanout),
            "position": f"{mark}{number}",
            "messages": self._fanout.channel.end,
            "broker": broker,
            "broker_alarm": alarm or None,
            "broker_address": None if broker in (None, "away") else str(self._bus),
            "input": self._broadcast.channel.input.value,
            "program": self._supervisor and self._supervisor.state.value,
            "program_exit": self._supervisor and self._supervisor.last_exit,
            "program_restarts": self._metrics.program_restarts,
            **({"program_stderr": self._last_error} if self._broadcast.http.console else {}),
            "counts": dict(self._metrics.counts()),
        }

    def _served(self) -> Iterator[str]:
        program, channel = self._broadcast.program, self._broadcast.channel
        if program.command:
            yield f"{self._role_line}: {' '.join(program.command)}"
        yield f"Broadcasting exchange       : {channel.exchange}"
        if channel.broker:
            yield f"Broker                      : {self._bus}"

    @property
    def _role_line(self) -> str:
        return "Passing through application " if self._broadcast.role is Role.THROUGH else "Publishing application      "
