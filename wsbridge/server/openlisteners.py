"""The listeners of a server while it runs: they open, change and close with its settings."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from wsbridge.errors import ListenError
from wsbridge.logs import logger
from wsbridge.net.listeners import Listener, Listeners
from wsbridge.server.plan import Plan, make_plan
from wsbridge.settings import ListenSettings

log = logger("server")


class Numbered(NamedTuple):
    """The settings of a listener. Several listeners may have the same, if each asks for a free port: a number distinguishes them."""

    settings: ListenSettings
    number: int

    @property
    def place(self) -> tuple[str, int, int]:
        """A key that at most one listener has."""
        return self.settings.address, self.settings.redirect_port, self.number


class ListenerChanges(NamedTuple):
    """The result of a change of the listeners."""

    plan: Plan[ListenSettings]
    renewed: tuple[ListenSettings, ...]
    """Listeners that stay, and whose certificate files have changed."""


class OpenListeners:
    """The open listeners, in the order of the settings."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._open: dict[Numbered, Listener] = {}

    @property
    def addresses(self) -> Sequence[tuple[ListenSettings, Sequence[str]]]:
        """The settings and the actual addresses of each listener."""
        return [(key.settings, listener.addresses) for key, listener in self._open.items()]

    async def open(self, wanted: Iterable[ListenSettings]) -> None:
        """Open listeners. Raises ListenError; the caller then closes `Listeners`."""
        for key in _numbered(wanted):
            self._open[key] = await self._listeners.open(key.settings)

    def close(self) -> None:
        """Close all listeners."""
        self._listeners.close()

    async def change(self, wanted: Iterable[ListenSettings]) -> ListenerChanges:
        """Change to other settings, and use certificate files that have changed. Raises ListenError.

        After an error, the listeners are as before. If a new address is free only after an old listener has closed, connections may be
        refused for a moment.
        """
        keys = tuple(_numbered(wanted))
        plan = make_plan(tuple(self._open), keys, lambda key: key.place)
        renewals = {key: renewal for key in plan.kept if (renewal := self._open[key].renewal()) is not None}
        added: dict[Numbered, Listener] = {}
        closed: list[Numbered] = []
        try:
            for key in plan.added:
                added[key] = await self._open_one(key, plan.removed, closed)
            self._change_others(plan)
        except BaseException:
            for listener in added.values():
                listener.close()
            await self._reopen(closed)
            raise
        for key, renewal in renewals.items():
            self._open[key].renew(renewal)
        for key in plan.removed:
            self._open[key].close()
        before = self._open
        changed = {new: before[old] for old, new in plan.changed}
        self._open = {key: added.get(key) or changed.get(key) or before[key] for key in keys}
        return ListenerChanges(_without_numbers(plan), tuple(key.settings for key in renewals))

    async def _open_one(self, key: Numbered, removed: Sequence[Numbered], closed: list[Numbered]) -> Listener:
        """Open a listener. Close the listeners of `removed` that occupy its ports, and add them to `closed`."""
        while True:
            try:
                return await self._listeners.open(key.settings)
            except ListenError as error:
                obstacles = [old for old in removed if old not in closed and self._occupies(old, error)]
                if not obstacles:
                    raise
            for old in obstacles:
                self._open[old].close()
                closed.append(old)

    def _occupies(self, key: Numbered, error: ListenError) -> bool:
        """Whether an error means that a listener occupies a port. One that is inherited would be lost, as no other can be inherited."""
        if error.errno != errno.EADDRINUSE or error.path or not key.settings.is_tcp:
            return False
        ports = {int(address.rpartition(":")[2]) for address in self._open[key].addresses}
        return error.port in ports | {key.settings.redirect_port}

    async def _reopen(self, closed: Iterable[Numbered]) -> None:
        for key in closed:
            try:
                self._open[key] = await self._listeners.open(key.settings)
            except ListenError as error:
                # Without it in `_open`, the next change opens it as a new listener.
                del self._open[key]
                log.error("cannot reopen the listener %s: %s; it stays closed until the next reload", key.settings.address, error)

    def _change_others(self, plan: Plan[Numbered]) -> None:
        """Apply the changes that keep an address: all of them, or none."""
        done: list[tuple[Numbered, Listener]] = []
        try:
            for old, new in plan.changed:
                self._open[old].change(new.settings)
                done.append((old, self._open[old]))
        except BaseException:
            for old, listener in done:
                try:
                    listener.change(old.settings)
                except ListenError as error:
                    log.error("the listener %s keeps its new settings: %s; the next reload tries again", old.settings.address, error)
            raise


def _numbered(wanted: Iterable[ListenSettings]) -> Iterator[Numbered]:
    counts: Counter[tuple[str, int]] = Counter()
    for settings in wanted:
        place = settings.address, settings.redirect_port
        yield Numbered(settings, counts[place])
        counts[place] += 1


def _without_numbers(plan: Plan[Numbered]) -> Plan[ListenSettings]:
    return Plan(
        kept=tuple(key.settings for key in plan.kept),
        changed=tuple((old.settings, new.settings) for old, new in plan.changed),
        added=tuple(key.settings for key in plan.added),
        removed=tuple(key.settings for key in plan.removed),
    )
