"""Launching: from a command line and an environment to a Child that is watched and logged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from wsbridge.framing import Decoder, Encoder
from wsbridge.logs import Pairs
from wsbridge.process.child import Child
from wsbridge.process.guard import Watch
from wsbridge.process.ladder import Step
from wsbridge.process.spawn import Spawner
from wsbridge.process.stderr import logged


class Launcher:
    """Launches children that share a way to end and a guard."""

    def __init__(self, spawner: Spawner, watch: Watch, ladder: Sequence[Step], *, loop: asyncio.AbstractEventLoop) -> None:
        self._spawner = spawner
        self._watch = watch
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
        error_decoder: Decoder | None = None,
        pty: bool = False,
        cwd: str | None = None,
    ) -> Child:
        """Start a program; its pid joins the pairs, and its stderr goes to the log. Raises ProgramError."""
        spawned = self._spawner.spawn(argv, environment, pty=pty, cwd=cwd)
        pairs["pid"] = str(spawned.pid)
        return Child(
            spawned,
            decoder=decoder,
            encoder=encoder,
            errors=logged(pairs),
            error_decoder=error_decoder,
            ladder=self._ladder,
            watch=self._watch,
            pairs=pairs,
            loop=self._loop,
        )
