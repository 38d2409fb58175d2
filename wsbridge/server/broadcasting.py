"""The broadcast server: one program, any number of browsers, on any number of nodes.

    producer          program ──> bus ──> relay ──> hub ──> browsers
    through           bus ──> program ──> hub ──> browsers
    no program        bus ──> relay ──> hub ──> browsers
    --input           browsers ──> inlet ──> the program's stdin, or the bus
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator, Mapping

from wsbridge.bus.base import Bus, now
from wsbridge.bus.broker import rabbit_bus
from wsbridge.bus.memory import MemoryBus
from wsbridge.channel.ring import Channel
from wsbridge.framing import make_framing
from wsbridge.logs import Pairs
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.launch import Launcher
from wsbridge.process.terminal import terminal_environment
from wsbridge.rules.restarts import Restarts
from wsbridge.server.serving import Serving
from wsbridge.sessions.hub import Hub
from wsbridge.sessions.inlet import Inlet
from wsbridge.sessions.keeper import Keeper
from wsbridge.sessions.relay import Relay, Through
from wsbridge.settings import Input, Role, ServerSettings
from wsbridge.web.app import App
from wsbridge.web.gate import Gate
from wsbridge.web.page import Page
from wsbridge.web.subscribe import Subscribing
from wsbridge.wire.subscribed import SUBPROTOCOL

FLUSH_SECONDS = 5.0
"""Seconds that the bus has at shutdown to send what was published."""
ERROR_CHARACTERS = 500
"""The most characters of the program's last stderr line in the status."""


def new_mark() -> str:
    """Return a name that is used only once, ever: for an epoch of a channel, or for a producer."""
    return f"{int.from_bytes(secrets.token_bytes(10)):020x}"


class Broadcasting(Serving):
    """Serves one channel until a signal."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        super().__init__(settings, metrics)
        channel = settings.channel
        self._hub = Hub(
            Channel(
                new_mark(),
                queue_bytes=channel.queue_bytes,
                history=channel.history,
                history_bytes=channel.history_bytes,
                slow=channel.slow,
            ),
            metrics=metrics,
            loop=self._loop,
        )
        self._bus = self._make_bus()
        self._keeper: Keeper | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._has_finished = False
        self._last_error: str | None = None

    def _make_bus(self) -> Bus:
        broker = self._settings.broker
        if broker is None:
            return MemoryBus(new_mark())
        channel = self._settings.channel
        return rabbit_bus()(
            broker,
            channel.exchange,
            producer=new_mark(),
            history=channel.history,
            # A program must not receive messages that it, or its predecessor, may already have received.
            begin="next" if channel.role is Role.THROUGH else None,
            max_message_bytes=self._settings.program.max_message_bytes,
            metrics=self._metrics,
            loop=self._loop,
        )

    async def _open(self, launcher: Launcher) -> App:
        settings, channel = self._settings, self._settings.channel
        relay = Relay(self._hub, new_epoch=new_mark, metrics=self._metrics)
        receiver: Relay | Through = relay
        if channel.role is not Role.NONE:
            self._keeper = keeper = self._make_keeper(launcher)
            if channel.role is Role.THROUGH:
                receiver = Through(keeper, self._hub, metrics=self._metrics)
                keeper.source = self._bus
                keeper.hold()
            else:
                self._bus.source = keeper
        inlet = self._make_inlet()
        await self._bus.open(receiver)
        relay.is_live = True
        gate = settings.gate
        door = Subscribing(
            gate=Gate(
                registry=self._registry,
                origins=gate.origins,
                subprotocols=(SUBPROTOCOL, *gate.subprotocols),
                argv=(),
                scripts=None,
                busy_close=gate.busy_close,
                limit_flag="maxclients",
            ),
            origins=gate.origins,
            handshake=self._handshake(is_shared=True),
            client=settings.client,
            hub=self._hub,
            join=channel.join,
            inlet=inlet,
            status=self._status if settings.http.status else None,
            registry=self._registry,
            metrics=self._metrics,
            loop=self._loop,
        )
        page = Page("channel.html", "PAGE", {"exchange": channel.exchange, "input": channel.input.value}) if settings.http.page else None
        return self._app(launcher, door, page, ("exchange", channel.exchange), door)

    def _make_keeper(self, launcher: Launcher) -> Keeper:
        program, channel = self._settings.program, self._settings.channel
        make_decoder, encoder = make_framing(program.framing, limit=program.max_message_bytes)
        pairs: Pairs = {"exchange": channel.exchange, "command": program.argv[0]}
        # The program inherits the server's environment, except wsbridge's settings: they may contain a password.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WSBRIDGE_")}
        # The variables of the server's own terminal do not apply to the terminal of the program.
        environment |= terminal_environment(program.pty)

        def say(line: str) -> None:
            self._last_error = line[:ERROR_CHARACTERS]

        # Strangers may read the status, so it contains the program's stderr only with `--devconsole`, for the user who tests the
        # program.
        said = say if self._settings.http.page_everywhere else None

        def launch() -> Child:
            return launcher.launch(
                program.argv, environment, decoder=make_decoder(), encoder=encoder, pairs={**pairs}, pty=program.pty, last_error=said
            )

        is_through = channel.role is Role.THROUGH
        return Keeper(
            launch,
            (lambda batch: self._hub.publish(batch, at=now())) if is_through else self._bus.publish,
            reads=is_through or channel.input is Input.PROGRAM,
            restarts=Restarts(channel.restart),
            drain_seconds=program.drain_ms / 1000,
            pairs=pairs,
            metrics=self._metrics,
            loop=self._loop,
        )

    def _make_inlet(self) -> Inlet | None:
        match self._settings.channel.input:
            case Input.PROGRAM:
                assert self._keeper is not None
                self._keeper.source = inlet = Inlet(self._keeper.write)
                return inlet
            case Input.EXCHANGE:
                self._bus.source = inlet = Inlet(self._bus.publish, beside=self._bus.source)
                return inlet
            case Input.NONE:
                return None

    async def _begin(self) -> None:
        if self._keeper is not None:
            self._keeping = self._loop.create_task(self._keeper.run(), name="the channel's program")

    async def _finish(self) -> None:
        """End the program and deliver its remaining output, then close the bus; the server closes the clients after that."""
        if self._has_finished:
            return
        self._has_finished = True
        if self._keeper is not None and self._keeping is not None:
            self._keeper.stop()
            if not await self._done_before_the_hurry(self._keeping):
                self._keeper.kill()
                await self._keeping
        closing = self._loop.create_task(self._bus.close(FLUSH_SECONDS), name="bus: last words")
        if await self._done_before_the_hurry(closing):
            closing.result()
        else:
            closing.cancel()
            await asyncio.wait((closing,))
            await self._bus.close(0)
        self._hub.flush()

    async def _done_before_the_hurry(self, task: asyncio.Task[None]) -> bool:
        """Wait for a task or for a second signal; return whether the task is done."""
        hurrying = self._loop.create_task(self._hurry.wait(), name="hurry")
        await asyncio.wait((task, hurrying), return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        return task.done()

    def _status(self) -> Mapping[str, object]:
        alarm = self._bus.alarm
        broker = None if self._settings.broker is None else "away" if not self._hub.is_connected else "blocked" if alarm else "here"
        mark, number = self._hub.channel.place(self._hub.channel.end)
        return {
            "exchange": self._settings.channel.exchange,
            "viewers": len(self._hub),
            "position": f"{mark}{number}",
            "messages": self._hub.channel.end,
            "broker": broker,
            "broker_alarm": alarm or None,
            "broker_address": None if broker in (None, "away") else str(self._bus),
            "input": self._settings.channel.input.value,
            "program": self._keeper and self._keeper.state.value,
            "program_exit": self._keeper and self._keeper.last_exit,
            "program_restarts": self._metrics.program_restarts,
            **({"program_stderr": self._last_error} if self._settings.http.page_everywhere else {}),
            "counts": dict(self._metrics.counts()),
        }

    def _served(self) -> Iterator[str]:
        program, channel = self._settings.program, self._settings.channel
        if program.argv:
            yield f"{self._role_line}: {' '.join(program.argv)}"
        yield f"Broadcasting exchange       : {channel.exchange}"
        if self._settings.broker is not None:
            yield f"Broker                      : {self._bus}"

    @property
    def _role_line(self) -> str:
        return "Passing through application " if self._settings.channel.role is Role.THROUGH else "Publishing application      "
