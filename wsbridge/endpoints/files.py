"""Kinds `files` and `cgi`: files in a directory, CGI scripts, or both; the console, if it is enabled, fills the other paths."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from wsbridge.endpoints.base import Endpoint, Parts, Services, pages
from wsbridge.settings import CgiSettings, EndpointSettings, FilesSettings


class FilesEndpoint:
    """Serves files and CGI scripts, without a WebSocket."""

    def __init__(self, settings: FilesSettings | CgiSettings, services: Services) -> None:
        self.settings = settings
        self._parts = Parts(settings, services)
        self.registry = self._parts.registry

    async def open(self) -> None:
        console = pages("console.html", "DEVCONSOLE", {"program": ""}, wanted=self.settings.http.console)
        self.app = self._parts.app(page=console)

    def start(self) -> None:
        """Do nothing: all work begins with a request."""

    def succeed(self, settings: EndpointSettings, services: Services) -> Endpoint | None:
        """Return None: the sessions end with the endpoint."""

    async def finish(self, force: asyncio.Event) -> None:
        """Do nothing: all work belongs to a request."""

    def served(self) -> Iterator[str]:
        yield from self._parts.served()
