"""The interface of every kind of endpoint, and the parts that several kinds build in the same way.

An endpoint is made of its settings and the services of its server. It opens its parts, answers requests through its `app`, and ends.
The server owns the order: open, put into the site, start; then remove from the site, finish, drain the sessions.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from wsbridge.http.admission import Gate
from wsbridge.http.app import App
from wsbridge.http.cgi import CgiScripts
from wsbridge.http.handshake import Handshake
from wsbridge.http.hiddenfiles import HiddenFiles, PrivateFiles
from wsbridge.http.page import Page
from wsbridge.http.responsetimeout import ResponseTimeout
from wsbridge.http.static import StaticFiles
from wsbridge.metrics import Metrics
from wsbridge.net.hangup import Hangups
from wsbridge.net.reverselookup import Names
from wsbridge.process.launch import Launcher
from wsbridge.process.termination import make_ladder
from wsbridge.rules.environ import passed_on
from wsbridge.rules.paths import Lookup, make_lookup
from wsbridge.sessions.limiter import Limiter
from wsbridge.sessions.registry import Ids, Registry
from wsbridge.settings import BrokerSettings, Busy, EndpointSettings
from wsbridge.settings.access import parse_headers

if TYPE_CHECKING:
    from wsbridge.bus.rabbitmq.connections import Connections


@dataclass(frozen=True, slots=True)
class Services:
    """The objects of a server that its endpoints use."""

    launcher: Launcher
    metrics: Metrics
    hangups: Hangups
    limiter: Limiter
    """The slots of the whole server."""
    ids: Ids
    names: Names | None
    """Looks up the names of clients; None without a reverse lookup."""
    private: PrivateFiles
    environ: Mapping[str, str]
    """The variables of the server."""
    brokers: Mapping[str, BrokerSettings]
    connections: Callable[[], Connections]
    """Returns the connections to brokers, which all channels share."""
    software: str
    loop: asyncio.AbstractEventLoop


class Endpoint(Protocol):
    """One thing that is served at a path."""

    @property
    def settings(self) -> EndpointSettings:
        """Its settings."""

    @property
    def registry(self) -> Registry:
        """Its sessions."""

    @property
    def app(self) -> App:
        """Answers the requests, once the endpoint is open."""

    async def open(self) -> None:
        """Build all parts. Raises WsbridgeError; then `finish` releases the opened parts."""

    def start(self) -> None:
        """Start the work that needs no request; from now on, clients can connect."""

    def succeed(self, settings: EndpointSettings, services: Services) -> Endpoint | None:
        """Return an endpoint with other settings that takes over what this one serves, its sessions included; None if none can.

        When the successor starts, it ends this endpoint.
        """

    async def finish(self, force: asyncio.Event) -> None:
        """End the work, before the sessions end; `force` asks to do so at once. A further call does nothing."""

    def served(self) -> Iterator[str]:
        """Yield the lines of the start log that describe the endpoint."""


class Parts:
    """Builds the parts of one endpoint from its settings. The files and CGI scripts of the settings belong to every kind."""

    def __init__(
        self,
        settings: EndpointSettings,
        services: Services,
        *,
        max_clients: int | None = None,
        registry: Registry | None = None,
    ) -> None:
        """`max_clients` limits the sessions if `max_programs` limits only CGI scripts. `registry` is the registry of the endpoint
        whose sessions this endpoint takes over.
        """
        self._settings = settings
        self._services = services
        slots = (settings.access.max_programs, "max_programs") if max_clients is None else (max_clients, "max_clients")
        self.registry = registry if registry is not None else _registry(*slots, services)
        scripts = Limiter(settings.access.max_programs, parent=services.limiter)
        self._scripts_limiter = self.registry.limiter if max_clients is None else scripts
        self.launcher = services.launcher.with_ladder(make_ladder(settings.program.close_delay))
        self.passed = passed_on(settings.program.pass_environment, services.environ)
        """The variables of the server that the programs get."""

    def served(self) -> Iterator[str]:
        """Yield the lines of the start log for files and CGI scripts."""
        http = self._settings.http
        if http.cgi:
            yield f"Serving CGI scripts from    : {http.cgi}"
        if http.files:
            yield f"Serving static content from : {http.files}"

    def gate(
        self,
        *,
        argv: tuple[str, ...] = (),
        subprotocols: tuple[str, ...] = (),
    ) -> Gate:
        access = self._settings.access
        return Gate(
            registry=self.registry,
            origins=access.rules,
            subprotocols=(*subprotocols, *access.subprotocols),
            argv=argv,
            scripts=self._scripts(),
            busy_close=access.busy is Busy.CLOSE,
        )

    def _scripts(self) -> tuple[str, Lookup] | None:
        directory = self._settings.program.scripts
        if not directory:
            return None
        return os.path.realpath(directory), make_lookup(directory, dotfiles=self._settings.http.dotfiles)

    def handshake(self, *, is_shared: bool = False) -> Handshake:
        access, services = self._settings.access, self._services
        return Handshake(
            is_shared=is_shared,
            client=self._settings.client,
            headers=access.websocket_headers,
            hangups=services.hangups,
            metrics=services.metrics,
            loop=services.loop,
        )

    def app(self, **parts: Any) -> App:
        """Return the App, with the given parts, and with the files and CGI scripts of the settings."""
        access, http, services = self._settings.access, self._settings.http, self._services
        timeout = ResponseTimeout(self._settings.client.write_timeout, services.metrics)
        static = None
        if http.files:
            hidden = HiddenFiles(services.private, dotfiles=http.dotfiles)
            static = StaticFiles(http.files, hidden=hidden, timeout=timeout)
        return App(
            is_strict=access.same_origin,
            headers=parse_headers(access.headers),
            headers_http=access.http_headers,
            registry=self.registry,
            metrics=services.metrics,
            names=services.names,
            cgi=self._cgi(http.cgi, timeout) if http.cgi else None,
            static=static,
            has_icon=http.page,
            **parts,
        )

    def _cgi(self, directory: str, timeout: ResponseTimeout) -> CgiScripts:
        http, services = self._settings.http, self._services
        return CgiScripts(
            directory,
            dotfiles=http.dotfiles,
            software=services.software,
            passed=self.passed,
            limiter=self._scripts_limiter,
            registry=self.registry,
            launcher=self.launcher,
            metrics=services.metrics,
            timeout=timeout,
            drain_seconds=self._settings.program.drain,
            body_seconds=http.body_timeout,
            max_body_bytes=http.max_body,
        )


def _registry(max_sessions: int, setting: str, services: Services) -> Registry:
    return Registry(max_sessions=max_sessions, setting=setting, metrics=services.metrics, parent=services.limiter, ids=services.ids)


def pages(file: str, name: str, facts: Mapping[str, str], *, wanted: bool) -> Page | None:
    """Return a page of wsbridge, if it is wanted."""
    return Page(file, name, facts) if wanted else None
