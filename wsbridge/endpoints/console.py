"""Kind `console`: the developer console at a path of its own; it connects to another endpoint of the site."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Iterator
from urllib.parse import quote

from wsbridge.endpoints.base import Endpoint, Parts, Services, pages
from wsbridge.settings import ConsoleSettings, EndpointSettings


class ConsoleEndpoint:
    """Serves the console. The address field of its page initially contains the address of the endpoint at `target`."""

    def __init__(self, settings: ConsoleSettings, services: Services) -> None:
        self.settings = settings
        self._parts = Parts(settings, services)
        self.registry = self._parts.registry

    async def open(self) -> None:
        # A relative address is right below any prefix of a proxy as well. The page is at the path of the endpoint, with a slash.
        target = quote(posixpath.relpath(self.settings.target or self.settings.path, self.settings.path))
        facts = {"program": self.settings.target.strip("/"), "target": target}
        self.app = self._parts.app(page=pages("console.html", "DEVCONSOLE", facts, wanted=True))

    def start(self) -> None:
        """Do nothing: all work begins with a request."""

    def succeed(self, settings: EndpointSettings, services: Services) -> Endpoint | None:
        """Return None: the sessions end with the endpoint."""

    async def finish(self, force: asyncio.Event) -> None:
        """Do nothing: all work belongs to a request."""

    def served(self) -> Iterator[str]:
        yield from ()
