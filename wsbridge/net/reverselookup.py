"""`--reverselookup`: looks up the names of clients, in a bounded number of threads.

A name server may answer after minutes or never, and a call of the system's resolver cannot be cancelled. So each lookup has its own
thread, and the server does not wait for that thread when it exits. A client has at most one lookup at a time, however often it
connects.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from wsbridge.metrics import Metrics

LOOKUP_SECONDS = 2.0
"""Seconds that a session waits for the name of its client; after that, the address serves as the name."""
LOOKUPS = 16
"""The most lookups at the same time; beyond them, a client has no name."""

Resolve = Callable[[str], str]


def resolve(address: str) -> str:
    """Return the name of an address from the system's resolver; this may block for a long time. Raises OSError."""
    return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]


class Names:
    """Looks up names, at most `limit` at a time."""

    def __init__(self, metrics: Metrics, *, resolve: Resolve = resolve, limit: int = LOOKUPS, seconds: float = LOOKUP_SECONDS) -> None:
        self._metrics = metrics
        self._resolve = resolve
        self._limit = limit
        self._seconds = seconds
        self._under_way: dict[str, asyncio.Future[str]] = {}

    async def name(self, address: str) -> str:
        """Return the name of an address, or the address itself if the lookup finds no name in time."""
        lookup = self._under_way.get(address)
        if lookup is None:
            if len(self._under_way) >= self._limit:
                self._metrics.lookups_skipped += 1
                return address
            lookup = self._start(address)
        done, _ = await asyncio.wait((lookup,), timeout=self._seconds)
        return lookup.result() if done else address

    def _start(self, address: str) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[str] = loop.create_future()

        def finish(name: str) -> None:
            del self._under_way[address]
            lookup.set_result(name)

        def run() -> None:
            try:
                name = self._resolve(address)
            except OSError:
                name = address
            # The server's event loop may have ended.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, name)

        self._under_way[address] = lookup
        Thread(target=run, name="lookup", daemon=True).start()
        return lookup
