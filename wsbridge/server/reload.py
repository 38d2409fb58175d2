"""Reload: on SIGHUP, or when a file has changed, the server reads its configuration again and changes what differs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from wsbridge.errors import InvalidConfiguration, ShuttingDown, WsbridgeError
from wsbridge.logs import INFO, logger
from wsbridge.server.server import Server
from wsbridge.settings import ServerSettings

WATCH_SECONDS = 1.0
"""Seconds between two looks at the files. A look costs one call of the kernel for each file."""

log = logger("server")


class Configuration(NamedTuple):
    """A configuration that was read."""

    settings: ServerSettings
    files: Sequence[str]
    """The files and folders to watch."""
    private: Sequence[str]
    """The files that no endpoint serves: those of the configuration, and its secrets."""


Load = Callable[[], Configuration]
"""Reads the configuration; this reads the disk. Raises InvalidConfiguration."""


class Reloader:
    """Changes a server to what `load` returns. An invalid configuration changes nothing, and the next valid one is taken."""

    def __init__(self, server: Server, load: Load, *, name: str, files: Sequence[str], watches: bool) -> None:
        """`name` is the name of the configuration in the log. `files` are those that have been read already."""
        self._server = server
        self._load = load
        self._name = name
        self._watches = watches
        self._wanted = asyncio.Event()
        self._seen = {path: _look_at(path) for path in files}

    @asynccontextmanager
    async def reloading(self) -> AsyncIterator[None]:
        """Reload on demand while the block runs. A signal that arrives before the server is ready leads to a reload then."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._wanted.set)
        task = loop.create_task(self._run(), name="reload")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))
            loop.remove_signal_handler(signal.SIGHUP)
            # A reload that is requested too late must not end the process by the signal.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def _run(self) -> None:
        await self._server.is_ready.wait()
        while True:
            await self._wait()
            try:
                await self._reload()
            except Exception as fault:
                log.error("internal error at a reload: %r", fault, exc_info=fault)

    async def _wait(self) -> None:
        """Wait for a signal or for a change of a file."""
        while not self._wanted.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS if self._watches else None):
                    await self._wanted.wait()
            if self._watches and await asyncio.to_thread(self._has_changed):
                break
        self._wanted.clear()

    def _has_changed(self) -> bool:
        return any(_look_at(path) != seen for path, seen in self._seen.items())

    async def _reload(self) -> None:
        # Look at the files before they are read: a change while they are read leads to another reload.
        self._seen = await asyncio.to_thread(lambda: {path: _look_at(path) for path in self._seen})
        try:
            configuration = await asyncio.to_thread(self._load)
            self._seen = {path: self._seen.get(path) or _look_at(path) for path in configuration.files}
            changes = await self._server.change(configuration.settings, private=configuration.private)
        except InvalidConfiguration as error:
            self._seen |= {path: _look_at(path) for path in error.files if path not in self._seen}
            for fault in error.faults:
                log.error("%s", fault)
            log.error("not reloaded: %s is invalid; the server continues with its present configuration", self._name)
        except ShuttingDown:
            log.log(INFO, "not reloaded: the server is shutting down")
        except WsbridgeError as error:
            log.error("not reloaded: %s; the server continues with its present configuration", error)
        else:
            log.log(INFO, "reloaded %s: %s", self._name, changes)
            if changes.restart:
                log.error("restart the server to apply the changes of [server]: %s", ", ".join(changes.restart))


def _look_at(path: str) -> tuple[int, int, int] | None:
    """Return what changes with a file: its inode, its size, and its time of modification; None if it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
