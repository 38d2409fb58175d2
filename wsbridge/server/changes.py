"""A change of the settings in words, for the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wsbridge.server.deployment import Served
from wsbridge.server.plan import Plan
from wsbridge.settings import ListenSettings, ProcessSettings

AT_THE_START = ("guard", "keepalive_timeout", "log_format", "reverse_lookup")
"""The settings of the process that a server reads only when it starts."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The places that changed: the paths of endpoints, and the addresses of listeners."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    restart: tuple[str, ...]
    """The settings whose new value needs a restart of the server."""

    def __str__(self) -> str:
        parts = [f"{name} {', '.join(places)}" for name, places in self._named() if places]
        return "; ".join(parts) or "no endpoint and no listener has changed"

    def _named(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield "added", self.added
        yield "changed", self.changed
        yield "removed", self.removed


def changes_of(endpoints: Plan[Served], listeners: Plan[ListenSettings], *, restart: tuple[str, ...]) -> Changes:
    """Return the changes of two plans."""
    return Changes(
        added=(*map(_place, endpoints.added), *_addresses(listeners.added)),
        changed=(*(_place(new) for _, new in endpoints.changed), *_addresses(new for _, new in listeners.changed)),
        removed=(*map(_place, endpoints.removed), *_addresses(listeners.removed)),
        restart=restart,
    )


def needs_restart(before: ProcessSettings, after: ProcessSettings) -> tuple[str, ...]:
    """Return the settings that differ, and that a running server does not change."""
    return tuple(name for name in AT_THE_START if getattr(before, name) != getattr(after, name))


def _place(served: Served) -> str:
    return served.settings.place


def _addresses(listeners: Iterable[ListenSettings]) -> Iterator[str]:
    return (f"listener {listen.address}" for listen in listeners)
