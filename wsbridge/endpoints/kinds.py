"""The kinds of endpoint, by the type of their settings. A server imports only the kinds that it serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsbridge.endpoints.base import Endpoint, Services
from wsbridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    CgiSettings,
    ConsoleSettings,
    EndpointSettings,
    FilesSettings,
    register_kind,
)

Make = Callable[[Any, Services], Endpoint]
"""Makes an endpoint of a kind from its settings."""


def _bridge() -> Make:
    from wsbridge.endpoints.bridge import BridgeEndpoint

    return BridgeEndpoint


def _broadcast() -> Make:
    from wsbridge.endpoints.broadcast import BroadcastEndpoint

    return BroadcastEndpoint


def _files() -> Make:
    from wsbridge.endpoints.files import FilesEndpoint

    return FilesEndpoint


def _console() -> Make:
    from wsbridge.endpoints.console import ConsoleEndpoint

    return ConsoleEndpoint


KINDS: dict[type[EndpointSettings], Callable[[], Make]] = {
    BridgeSettings: _bridge,
    BroadcastSettings: _broadcast,
    FilesSettings: _files,
    CgiSettings: _files,
    ConsoleSettings: _console,
}


def register(name: str, struct: type[EndpointSettings], load: Callable[[], Make]) -> None:
    """Add a kind of endpoint: its name, its settings, and a function that returns its class.

    Raises ValueError if two of its settings have one name.
    """
    register_kind(name, struct)
    KINDS[struct] = load


def make_endpoint(settings: EndpointSettings, services: Services) -> Endpoint:
    """Return a new endpoint of a registered kind. Raises KeyError for any other kind."""
    return KINDS[type(settings)]()(settings, services)
