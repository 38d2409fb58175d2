"""The listeners of a server while it runs: they open, change and close with its settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from wsbridge.errors import ListenError
from wsbridge.net.listeners import Listener, Listeners
from wsbridge.server.plan import Plan, make_plan
from wsbridge.settings import ListenSettings


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

        After an error, the listeners are as before. If a new address is free only after an old listener has closed, connections may be
        refused for a moment.
        """
        plan = make_plan(tuple(self._open), wanted, lambda settings: (settings.address, settings.redirect_port))
        for settings in plan.kept:
            self._open[settings].renew()
        added, closed = await self._open_added(plan)
        try:
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

    async def _open_added(self, plan: Plan[ListenSettings]) -> tuple[dict[ListenSettings, Listener], tuple[ListenSettings, ...]]:
        """Open the new listeners; return them, and the settings of the old ones that had to close first."""
        added: dict[ListenSettings, Listener] = {}
        closed: tuple[ListenSettings, ...] = ()
        for settings in plan.added:
            try:
                try:
                    added[settings] = await self._listeners.open(settings)
                except ListenError:
                    if closed or not plan.removed:
                        raise
                    closed = plan.removed
                    for old in closed:
                        self._open[old].close()
                    added[settings] = await self._listeners.open(settings)
            except BaseException:
                for listener in added.values():
                    listener.close()
                await self._reopen(closed)
                raise
        return added, closed

    async def _reopen(self, closed: Iterable[ListenSettings]) -> None:
        for settings in closed:
            with suppress(ListenError):
                self._open[settings] = await self._listeners.open(settings)

    def _change_others(self, plan: Plan[ListenSettings]) -> None:
        """Apply the changes that keep an address: all of them, or none."""
        done: list[tuple[ListenSettings, Listener]] = []
        try:
            for old, new in plan.changed:
                self._open[old].change(new)
                done.append((old, self._open[old]))
        except BaseException:
            for old, listener in done:
                listener.change(old)
            raise
