"""The program of a channel: it starts after the previous program has ended, and passes its output to the bus or the subscribers."""

from __future__ import annotations

import asyncio

from wsbridge.bus.base import now
from wsbridge.endpoints.base import Services
from wsbridge.endpoints.livechannel import LiveChannel
from wsbridge.framing import make_framing
from wsbridge.logs import LogFields, logger
from wsbridge.process.child import Child
from wsbridge.process.launch import Launcher
from wsbridge.process.terminal import terminal_environment
from wsbridge.rules.environ import inherited_environment
from wsbridge.rules.restarts import Restarts
from wsbridge.sessions.supervisor import Supervisor
from wsbridge.settings import BroadcastSettings, Input, Role

log = logger("program")

ERROR_CHARACTERS = 500
"""Maximum characters of the program's last stderr line in the status."""


def determinants(settings: BroadcastSettings) -> tuple[object, ...]:
    """Return the settings of the program; if they do not change, the program continues to run."""
    channel = settings.channel
    reads_clients = channel.input is Input.PROGRAM
    return settings.program, settings.role, channel.exchange, channel.restart, reads_clients, settings.http.console


class ChannelProgram:
    """One program or none. Without a program, `start` only ends the previous program."""

    def __init__(self, settings: BroadcastSettings, channel: LiveChannel, launcher: Launcher, services: Services) -> None:
        self.determinants = determinants(settings)
        self._channel = channel
        self._loop = services.loop
        self._task: asyncio.Task[None] | None = None
        self._forced = asyncio.Event()
        self.last_error: str | None = None
        """The last line of the program's stderr; None without the console. Other users may read the status, and the console is for
        tests of a program."""
        self.supervisor = self._supervise(settings, launcher, services) if settings.role is not Role.NONE else None

    def start(self, previous: ChannelProgram | None) -> None:
        """End the previous program, then start this one."""
        if previous is not None and previous.supervisor is not None:
            previous.supervisor.stop()
        if previous is not None or self.supervisor is not None:
            self._task = self._loop.create_task(self._run(previous), name="the channel's program")
            self._task.add_done_callback(_report)

    async def _run(self, previous: ChannelProgram | None) -> None:
        # Two programs never run for one channel at the same time.
        if previous is not None:
            await previous.finish(self._forced)
        self._channel.set_publisher(self.supervisor)
        if self.supervisor is not None:
            await self.supervisor.run()

    async def finish(self, force: asyncio.Event) -> None:
        """End the program and deliver its remaining output. Once `force` is set, kill it, and a previous program that still runs."""
        if self._task is None:
            return
        if self.supervisor is not None:
            self.supervisor.stop()
        if not await done_before(force, self._task):
            self._forced.set()
            if self.supervisor is not None:
                self.supervisor.kill()
            await self._task

    def _supervise(self, settings: BroadcastSettings, launcher: Launcher, services: Services) -> Supervisor:
        program, channel = settings.program, settings.channel
        make_decoder, encoder = make_framing(program.framing, limit=program.max_program_message)
        fields: LogFields = {"exchange": channel.exchange, "command": program.command[0]}
        # The variables of the server's own terminal do not apply to the terminal of the program.
        terminal = program.terminal
        environment = {**inherited_environment(services.environ), **terminal_environment(terminal)}

        def record_error(line: str) -> None:
            self.last_error = line[:ERROR_CHARACTERS]

        def launch() -> Child:
            return launcher.launch(
                program.command,
                environment,
                decoder=make_decoder(),
                encoder=encoder,
                fields={**fields},
                pty=terminal,
                last_error=record_error if settings.http.console else None,
            )

        is_through = settings.role is Role.THROUGH
        return Supervisor(
            launch,
            (lambda batch: self._channel.fanout.publish(batch, at=now())) if is_through else self._channel.bus.publish,
            reads=is_through or channel.input is Input.PROGRAM,
            restarts=Restarts(channel.restart),
            drain_seconds=program.drain,
            fields=fields,
            metrics=services.metrics,
            loop=services.loop,
        )


def _report(task: asyncio.Task[None]) -> None:
    """Log an internal error at once, because the server awaits the task only at the shutdown."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed", task.get_name(), exc_info=error)


async def done_before(force: asyncio.Event, task: asyncio.Task[None]) -> bool:
    """Wait for a task or for `force`; return whether the task is done."""
    forcing = asyncio.get_running_loop().create_task(force.wait(), name="force")
    await asyncio.wait((task, forcing), return_when=asyncio.FIRST_COMPLETED)
    forcing.cancel()
    return task.done()
