"""Launching: from a command line and an environment to a Child that is watched and logged.

Programs that a request asks for are started by the spawn server: `spawn`, then `adopt`. `launch` does both directly, for the program
of a channel, which is started once and needs no process more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from wsbridge.framing import Decoder, Encoder
from wsbridge.logs import Pairs
from wsbridge.process.child import Child
from wsbridge.process.descendants import Descendants
from wsbridge.process.ladder import Step
from wsbridge.process.spawn import Spawned, Spawner
from wsbridge.process.spawnserver import SpawnServer
from wsbridge.process.stderr import logged
from wsbridge.settings import TerminalSize


class Launcher:
    """Launches children that share a way to end, and what looks after their descendants."""

    def __init__(
        self,
        spawner: Spawner,
        descendants: Descendants,
        ladder: Sequence[Step],
        *,
        loop: asyncio.AbstractEventLoop,
        server: SpawnServer | None = None,
    ) -> None:
        self._spawner = spawner
        self._server = server
        self._descendants = descendants
        self._ladder = ladder
        self._loop = loop

    def launch(
        self,
        argv: tuple[str, ...],
        environment: Mapping[str, str],
        *,
        decoder: Decoder,
        encoder: Encoder,
        pairs: Pairs,
        pty: TerminalSize | None = None,
        last_error: Callable[[str], None] | None = None,
    ) -> Child:
        """Start a program, and return when it runs; the newest line of its stderr goes to `last_error` too. Raises ProgramError."""
        spawned = self._spawner.spawn(argv, environment, pty=pty)
        return self.adopt(spawned, decoder=decoder, encoder=encoder, pairs=pairs, last_error=last_error)

    @property
    def has_room(self) -> bool:
        """Whether another program should be started now."""
        return self._server is None or self._server.has_room

    async def room(self) -> None:
        """Wait until another program should be started, in the order of the calls."""
        if self._server is not None:
            await self._server.room()

    def spawn(
        self, argv: tuple[str, ...], environment: Mapping[str, str], *, pty: TerminalSize | None = None, cwd: str | None = None
    ) -> asyncio.Future[Spawned]:
        """Start a program; what the future brings is to be adopted. It raises ProgramError."""
        assert self._server is not None
        return self._server.spawn(argv, environment, pty=pty, cwd=cwd)

    def abandon(self, starting: asyncio.Future[Spawned]) -> None:
        """End a program that nobody waits for any more, as soon as it runs."""
        if not starting.cancel() and not starting.cancelled() and starting.exception() is None:
            assert self._server is not None
            self._server.abandon(starting.result())

    def adopt(
        self,
        spawned: Spawned,
        *,
        decoder: Decoder,
        encoder: Encoder,
        pairs: Pairs,
        error_decoder: Decoder | None = None,
        last_error: Callable[[str], None] | None = None,
    ) -> Child:
        """Watch a process that was started; its pid joins the pairs, and its stderr goes to the log."""
        pairs["pid"] = str(spawned.pid)
        return Child(
            spawned,
            decoder=decoder,
            encoder=encoder,
            errors=logged(pairs, last_error),
            error_decoder=error_decoder,
            ladder=self._ladder,
            descendants=self._descendants,
            pairs=pairs,
            loop=self._loop,
        )
