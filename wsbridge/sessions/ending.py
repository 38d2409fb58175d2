"""The end of sessions: gracefully, then by force."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from wsbridge.flow import End
from wsbridge.logs import logger
from wsbridge.process.termination import LAST_WAIT
from wsbridge.sessions.registry import Registry

LINGER = 2.0
"""Seconds at the end for clients to answer their close frame."""

log = logger("server")


async def end_sessions(registries: Sequence[Registry], reason: End, *, patience: float, force: asyncio.Event) -> None:
    """End all sessions of some endpoints, for this reason.

    After `patience` seconds, the time of the ladder, or when `force` is set, the sessions end by force. Sessions that do not end even
    then are logged.
    """
    loop = asyncio.get_running_loop()
    for wait in (patience + LAST_WAIT + LINGER, LAST_WAIT + LINGER):
        forcing = loop.create_task(force.wait(), name="force")
        draining = asyncio.gather(*(registry.drain(reason) for registry in registries))
        await asyncio.wait((forcing, draining), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        forcing.cancel()
        if draining.done():
            break
        draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await draining
        force.clear()
        for registry in registries:
            registry.force()
    if left := sum(map(len, registries)):
        log.error("%d sessions did not end", left)
