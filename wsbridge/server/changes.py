"""A change to the settings in words, for the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wsbridge.server.deployment import Served
from wsbridge.server.openlisteners import ListenerChanges
from wsbridge.server.plan import Plan, make_plan
from wsbridge.settings import ListenSettings, ProcessSettings, ServerSettings
from wsbridge.settings.declare import fields_of

AT_THE_START = ("guard", "keepalive_timeout", "log_format", "reverse_lookup")
"""The settings of the process that a server reads only when it starts."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The differences: the paths of endpoints, the addresses of listeners, the names of brokers, and settings of the process."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    restart: tuple[str, ...]
    """The settings whose new value needs a restart of the server."""

    def __str__(self) -> str:
        parts = [f"{name} {', '.join(places)}" for name, places in self._named() if places]
        return "; ".join(parts) or "nothing has changed"

    def _named(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield "added", self.added
        yield "changed", self.changed
        yield "removed", self.removed


def changes_of(
    before: ServerSettings,
    after: ServerSettings,
    *,
    endpoints: Plan[Served],
    listeners: ListenerChanges,
    at_start: ProcessSettings,
) -> Changes:
    """Return the changes between settings, with the steps that lead to them. The server began with the process settings `at_start`."""
    of_listeners, renewed = listeners
    brokers = make_plan([*before.brokers.items()], [*after.brokers.items()], lambda broker: broker[0])
    names = [field.name for field in fields_of(ProcessSettings)]
    live = [name for name in _different(names, before.server, after.server) if name not in AT_THE_START]
    return Changes(
        added=(*map(_place, endpoints.added), *_addresses(of_listeners.added), *(f"broker {name}" for name, _ in brokers.added)),
        changed=(
            *(_place(new) + (f" (was {_place(old)})" if old.place != new.place else "") for old, new in endpoints.changed),
            *_addresses(new for _, new in of_listeners.changed),
            *(f"certificate of {address}" for address in _addresses(renewed)),
            *(f"broker {name}" for _, (name, _) in brokers.changed),
            *(f"server.{name}" for name in live),
        ),
        removed=(*map(_place, endpoints.removed), *_addresses(of_listeners.removed), *(f"broker {name}" for name, _ in brokers.removed)),
        restart=tuple(_different(AT_THE_START, at_start, after.server)),
    )


def _different(names: Iterable[str], before: ProcessSettings, after: ProcessSettings) -> Iterator[str]:
    return (name for name in names if getattr(before, name) != getattr(after, name))


def _place(served: Served) -> str:
    return served.settings.place


def _addresses(listeners: Iterable[ListenSettings]) -> Iterator[str]:
    return (f"listener {listen.address}" for listen in listeners)
