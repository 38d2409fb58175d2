"""Launching: from a command line and an environment to a Child that is watched and logged.

The spawn server starts the programs that requests need: `start` returns before the program runs. `launch` starts a program
directly, for a channel. A channel starts its program once, and needs no additional process for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from wsbridge.errors import ProgramError
from wsbridge.framing import Decoder, Encoder
from wsbridge.logs import LogFields
from wsbridge.process.child import Child
from wsbridge.process.descendants import Descendants
from wsbridge.process.spawn import NO_STDIO, Spawner, Started, Stdio, explain, open_stdio
from wsbridge.process.spawnserver import SpawnServer
from wsbridge.process.stderr import logged
from wsbridge.process.termination import Step
from wsbridge.settings import TerminalSize


class Launcher:
    """Launches children that share a termination ladder and the tracking of their descendants."""

    def __init__(
        self,
        spawner: Spawner,
        descendants: Descendants,
        ladder: Sequence[Step] = (),
        *,
        loop: asyncio.AbstractEventLoop,
        server: SpawnServer | None = None,
    ) -> None:
        self._spawner = spawner
        self._server = server
        self._descendants = descendants
        self._ladder = ladder
        self._loop = loop

    def with_ladder(self, ladder: Sequence[Step]) -> Launcher:
        """Return a launcher that differs only in its ladder."""
        return Launcher(self._spawner, self._descendants, ladder, loop=self._loop, server=self._server)

    def launch(
        self,
        argv: tuple[str, ...],
        environment: Mapping[str, str],
        *,
        decoder: Decoder,
        encoder: Encoder,
        fields: LogFields,
        pty: TerminalSize | None = None,
        last_error: Callable[[str], None] | None = None,
    ) -> Child:
        """Start a program, and return when it runs. Raises ProgramError.

        The newest line of its stderr also goes to `last_error`.
        """
        try:
            stdio = open_stdio(pty)
        except OSError as error:
            raise ProgramError(explain(argv[0], error)) from None
        try:
            started = self._spawner.spawn(argv, environment, stdio)
        except ProgramError:
            stdio.close_ours()
            raise
        child = self._child(stdio, decoder, encoder, fields, last_error=last_error)
        child.attach(started)
        return child

    @property
    def has_room(self) -> bool:
        """Whether another program should be started now."""
        return self._server is None or self._server.has_room

    async def room(self) -> None:
        """Wait until another program should be started; callers continue in the order of their calls."""
        if self._server is not None:
            await self._server.room()

    def start(
        self,
        argv: tuple[str, ...],
        environment: Mapping[str, str],
        *,
        decoder: Decoder,
        encoder: Encoder,
        fields: LogFields,
        error_decoder: Decoder | None = None,
        pty: TerminalSize | None = None,
        cwd: str | None = None,
    ) -> tuple[Child, asyncio.Future[Started]]:
        """Start a program without waiting for it; the future raises ProgramError.

        The child gets the result before any callback that is added to the future later.
        """
        assert self._server is not None
        stdio, starting = NO_STDIO, self._loop.create_future()
        try:
            stdio = open_stdio(pty)
        except OSError as error:
            starting.set_exception(ProgramError(explain(argv[0], error)))
        else:
            starting = self._server.spawn(argv, environment, stdio, cwd=cwd)
        child = self._child(stdio, decoder, encoder, fields, error_decoder=error_decoder)
        child.follow(starting)
        return child, starting

    def _child(
        self,
        stdio: Stdio,
        decoder: Decoder,
        encoder: Encoder,
        fields: LogFields,
        *,
        error_decoder: Decoder | None = None,
        last_error: Callable[[str], None] | None = None,
    ) -> Child:
        return Child(
            stdio,
            decoder=decoder,
            encoder=encoder,
            errors=logged(fields, last_error),
            error_decoder=error_decoder,
            ladder=self._ladder,
            descendants=self._descendants,
            fields=fields,
            loop=self._loop,
        )
