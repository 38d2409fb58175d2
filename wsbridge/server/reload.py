"""Reload: on SIGHUP, or when a file has changed, the server reads its configuration again and applies the differences."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from wsbridge.errors import InvalidConfiguration, ListenError, ShuttingDown, WsbridgeError
from wsbridge.logs import INFO, logger
from wsbridge.server.changes import Changes
from wsbridge.server.server import Server
from wsbridge.server.watch import Found, Watch
from wsbridge.settings import ServerSettings

WATCH_SECONDS = 1.0
"""Poll interval in seconds for the files. A check costs one call of the kernel for each file."""
SETTLE_SECONDS = 0.25
"""Seconds after which a change of the files counts as complete."""

log = logger("server")


class Configuration(NamedTuple):
    """A configuration that was read."""

    settings: ServerSettings
    files: Sequence[str]
    """The files and folders to watch."""
    private: Sequence[str]
    """The files that no endpoint serves: the files of the configuration, and its secrets."""
    hint: Callable[[ListenError], str]
    """Returns the remedy for an address that cannot be bound, or an empty string. It may look for a free port."""


Load = Callable[[], Configuration]
"""Reads the configuration; this reads the disk. Raises InvalidConfiguration."""


class Reloader:
    """Changes a server to the settings that `load` returns. An invalid configuration changes nothing."""

    def __init__(
        self, server: Server, load: Load, *, name: str, files: Sequence[str], watches: bool, hung_up: Callable[[], bool] = lambda: False
    ) -> None:
        """`name` is the name of the configuration in the log. `files` are the files that have been read already.

        `hung_up` returns whether a signal has come before `reloading`.
        """
        self._server = server
        self._load = load
        self._name = name
        self._watches = watches
        self._hung_up = hung_up
        self._wanted = asyncio.Event()
        self._watch = Watch(files)

    @asynccontextmanager
    async def reloading(self) -> AsyncIterator[None]:
        """Reload on demand while the block runs. A signal that arrives before the server is ready leads to a reload then."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._wanted.set)
        if self._hung_up():
            self._wanted.set()
        task = loop.create_task(self._run(), name="reload")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))
            loop.remove_signal_handler(signal.SIGHUP)
            # The process has only its log to write; the signal must not end it before.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def _run(self) -> None:
        await self._server.is_ready.wait()
        while True:
            await self._wait()
            try:
                await self._reload()
            except Exception as fault:
                log.error("internal error during a reload: %r", fault, exc_info=fault)

    async def _wait(self) -> None:
        """Wait for a signal or for a change of a file."""
        found = Found.NOTHING
        while not self._wanted.is_set() and found is not Found.CHANGED:
            pause = SETTLE_SECONDS if found is Found.CHANGING else WATCH_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause if self._watches else None):
                    await self._wanted.wait()
            if self._watches:
                found = await asyncio.to_thread(self._watch.check)
        self._wanted.clear()

    async def _reload(self) -> None:
        await asyncio.to_thread(self._watch.record)
        try:
            configuration = await asyncio.to_thread(self._load)
            await asyncio.to_thread(self._watch.follow, configuration.files)
            changes = await self._change(configuration)
        except InvalidConfiguration as error:
            # The files of the present configuration stay watched: they are used.
            await asyncio.to_thread(self._watch.follow, error.files, all_of_before=True)
            for fault in error.faults:
                log.error("%s", fault)
            log.error("not reloaded: %s is invalid; the server keeps its current configuration", self._name)
        except ShuttingDown:
            log.log(INFO, "not reloaded: the server is shutting down")
        except WsbridgeError as error:
            log.error("not reloaded: %s; the server keeps its current configuration", error)
        else:
            log.log(INFO, "reloaded %s: %s", self._name, changes)
            if changes.restart:
                log.error("restart the server to apply the changes to [server]: %s", ", ".join(changes.restart))

    async def _change(self, configuration: Configuration) -> Changes:
        """Change the server. The error for an address that cannot be bound contains the remedy."""
        try:
            return await self._server.change(configuration.settings, private=configuration.private)
        except ListenError as error:
            raise ListenError(f"{error}{await asyncio.to_thread(configuration.hint, error)}") from error
