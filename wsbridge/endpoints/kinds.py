"""The kinds of endpoint, by name. A server imports only the kinds that it serves."""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.endpoints.base import Endpoint, Services
from wsbridge.settings import EndpointSettings

Make = Callable[[EndpointSettings, Services], Endpoint]
"""Makes an endpoint of a kind."""


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


KINDS: dict[str, Callable[[], Make]] = {"bridge": _bridge, "broadcast": _broadcast, "files": _files, "cgi": _files, "console": _console}


def make_endpoint(settings: EndpointSettings, services: Services) -> Endpoint:
    """Return a new endpoint of a registered kind. Raises KeyError for any other kind."""
    return KINDS[settings.kind]()(settings, services)
