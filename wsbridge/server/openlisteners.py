"""The listeners of a server while it runs: they open, change and close with its settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wsbridge.errors import ListenError
from wsbridge.logs import logger
from wsbridge.net.listeners import Listener, Listeners
from wsbridge.server.plan import Plan, make_plan
from wsbridge.settings import ListenSettings

log = logger("server")


class OpenListeners:
    """The open listeners, in the order of the settings."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._open: dict[ListenSettings, Listener] = {}

    @property
    def addresses(self) -> Sequence[tuple[ListenSettings, Sequence[str]]]:
        """The settings and the actual addresses of each listener."""
        return [(settings, listener.addresses) for settings, listener in self._open.items()]

    async def open(self, wanted: Iterable[ListenSettings]) -> None:
        """Open listeners. Raises ListenError; the caller then closes `Listeners`."""
        for settings in wanted:
            self._open[settings] = await self._listeners.open(settings)

    def close(self) -> None:
        """Close all listeners."""
        self._listeners.close()

    async def change(self, wanted: Sequence[ListenSettings]) -> Plan[ListenSettings]:
        """Change to other settings, and read the certificate of each listener again; return the steps. Raises ListenError.

        After an error, the listeners are as before; the log names those that cannot be. If a new address is free only after an old
        listener has closed, connections may be refused for a moment.
        """
        plan = make_plan(tuple(self._open), wanted, lambda settings: (settings.address, settings.redirect_port))
        for settings in plan.kept:
            self._open[settings].renew()
        added: dict[ListenSettings, Listener] = {}
        closed: list[ListenSettings] = []
        try:
            for settings in plan.added:
                added[settings] = await self._open_new(settings, plan.removed, closed)
            self._change_others(plan)
        except BaseException:
            for listener in added.values():
                listener.close()
            await self._reopen(closed)
            raise
        for settings in plan.removed:
            self._open[settings].close()
        before = self._open
        changed = {new: before[old] for old, new in plan.changed}
        self._open = {settings: added.get(settings) or changed.get(settings) or before[settings] for settings in wanted}
        return plan

    async def _open_new(self, settings: ListenSettings, removed: Iterable[ListenSettings], closed: list[ListenSettings]) -> Listener:
        """Open a new listener. If its address is in use, close the removed listeners first, and add them to `closed`."""
        try:
            return await self._listeners.open(settings)
        except ListenError:
            # A server opens an inherited socket only once.
            in_the_way = [old for old in removed if old.inherited is None and old not in closed]
            if not in_the_way:
                raise
            for old in in_the_way:
                self._open[old].close()
            closed += in_the_way
            return await self._listeners.open(settings)

    async def _reopen(self, closed: Iterable[ListenSettings]) -> None:
        """Open listeners again. The next change opens those that cannot be opened now."""
        for settings in closed:
            try:
                self._open[settings] = await self._listeners.open(settings)
            except ListenError as error:
                del self._open[settings]
                log.error("the listener at %s is closed: %s", settings.address, error)

    def _change_others(self, plan: Plan[ListenSettings]) -> None:
        """Apply the changes that keep an address: all of them, or none."""
        done: list[ListenSettings] = []
        try:
            for old, new in plan.changed:
                self._open[old].change(new)
                done.append(old)
        except BaseException:
            for old in done:
                self._change_back(old)
            raise

    def _change_back(self, old: ListenSettings) -> None:
        try:
            self._open[old].change(old)
        except ListenError as error:
            log.error("the listener at %s has its new settings already: %s", old.address, error)
