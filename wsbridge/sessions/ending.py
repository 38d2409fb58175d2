"""The end of sessions: gracefully, then by force."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wsbridge.flow import End
from wsbridge.logs import logger
from wsbridge.process.termination import LAST_WAIT
from wsbridge.sessions.registry import Registry

LINGER = 2.0
"""Seconds at the end for clients to answer their close frame."""

log = logger("server")


async def end_sessions(registries: Sequence[Registry], reason: End, *, seconds: float, force: asyncio.Event) -> None:
    """End all sessions of some endpoints, for this reason.

    After `seconds`, the time of the ladder, or once `force` is set, the sessions end by force. Sessions that do not end even
    then are logged.
    """
    draining = asyncio.gather(*(registry.drain(reason) for registry in registries))
    forcing = asyncio.get_running_loop().create_task(force.wait(), name="force")
    try:
        await asyncio.wait((forcing, draining), timeout=seconds + LAST_WAIT + LINGER, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            for registry in registries:
                registry.force()
            await asyncio.wait((draining,), timeout=LAST_WAIT + LINGER)
    finally:
        forcing.cancel()
        draining.cancel()
    if remaining := sum(map(len, registries)):
        log.error("%d sessions did not end", remaining)
