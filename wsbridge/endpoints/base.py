"""What every kind of endpoint has in common, and the parts that several kinds build in the same way.

An endpoint is made of its settings and the services of its server. It opens its parts, answers requests through its `app`, and ends.
The server owns the order: open, put into the site, begin; then remove from the site, finish, drain the sessions.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

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
from wsbridge.rules.paths import Look, looker
from wsbridge.sessions.limiter import Limiter
from wsbridge.sessions.registry import Ids, Registry
from wsbridge.settings import EndpointSettings


@dataclass(frozen=True, slots=True)
class Services:
    """What a server lends to its endpoints."""

    launcher: Launcher
    metrics: Metrics
    hangups: Hangups
    limiter: Limiter
    """The slots of the whole server."""
    ids: Ids
    names: Names | None
    """Looks up the names of clients; None without a reverse lookup."""
    private: PrivateFiles
    software: str
    loop: asyncio.AbstractEventLoop


class Endpoint(Protocol):
    """One thing that is served at a path."""

    settings: EndpointSettings
    registry: Registry

    @property
    def app(self) -> App:
        """Answers the requests, once the endpoint is open."""

    async def open(self) -> None:
        """Build all parts. Raises WsbridgeError; then `finish` releases what has been opened."""

    def begin(self) -> None:
        """Begin the work that needs no request; from now on, clients can connect."""

    def succeed(self, settings: EndpointSettings) -> Endpoint | None:
        """Return an endpoint with other settings that takes over what this one serves, its sessions included; None if none can.

        When the successor begins, it ends this endpoint.
        """

    async def finish(self, force: asyncio.Event) -> None:
        """End the work, before the sessions end; `force` asks to do so at once. A further call does nothing."""

    def served(self) -> Iterator[str]:
        """Yield the lines of the start log that say what the endpoint serves."""


class Parts:
    """Builds the parts of one endpoint from its settings. The files and CGI scripts of the settings belong to every kind."""

    def __init__(self, settings: EndpointSettings, services: Services, *, registry: Registry | None = None) -> None:
        """`registry` is that of an endpoint whose sessions this one takes over."""
        self._settings = settings
        self._services = services
        self.registry = (
            registry
            if registry is not None
            else Registry(max_sessions=settings.access.max_sessions, metrics=services.metrics, beyond=services.limiter, ids=services.ids)
        )
        self.launcher = services.launcher.with_ladder(make_ladder(settings.program.close_ms))

    def served(self) -> Iterator[str]:
        """Yield the lines of the start log for files and CGI scripts."""
        http = self._settings.http
        if http.cgi_directory:
            yield f"Serving CGI scripts from    : {http.cgi_directory}"
        if http.static_directory:
            yield f"Serving static content from : {http.static_directory}"

    def gate(
        self,
        *,
        argv: tuple[str, ...] = (),
        subprotocols: tuple[str, ...] = (),
        limit_flag: str = "maxforks",
    ) -> Gate:
        access = self._settings.access
        return Gate(
            registry=self.registry,
            origins=access.origins,
            subprotocols=(*subprotocols, *access.subprotocols),
            argv=argv,
            scripts=self._scripts(),
            busy_close=access.busy_close,
            limit_flag=limit_flag,
        )

    def _scripts(self) -> tuple[str, Look] | None:
        directory = self._settings.program.directory
        if not directory:
            return None
        return os.path.realpath(directory), looker(directory, dotfiles=self._settings.http.dotfiles)

    def handshake(self, *, is_shared: bool = False) -> Handshake:
        access, services = self._settings.access, self._services
        return Handshake(
            is_shared=is_shared,
            client=self._settings.client,
            headers=access.headers + access.headers_ws,
            hangups=services.hangups,
            metrics=services.metrics,
            loop=services.loop,
        )

    def app(self, **parts: Any) -> App:
        """Return the App, with the files and CGI scripts of the settings beside the given parts."""
        access, http, services = self._settings.access, self._settings.http, self._services
        timeout = ResponseTimeout(self._settings.client.send_timeout, services.metrics)
        static = None
        if http.static_directory:
            hidden = HiddenFiles(services.private, dotfiles=http.dotfiles)
            static = StaticFiles(http.static_directory, hidden=hidden, timeout=timeout)
        return App(
            is_strict=access.hosts.is_strict,
            headers=access.headers,
            headers_http=access.headers_http,
            registry=self.registry,
            metrics=services.metrics,
            names=services.names,
            cgi=self._cgi(http.cgi_directory, timeout) if http.cgi_directory else None,
            static=static,
            page_everywhere=http.page_everywhere,
            has_icon=http.introduces,
            **parts,
        )

    def _cgi(self, directory: str, timeout: ResponseTimeout) -> CgiScripts:
        http, services = self._settings.http, self._services
        return CgiScripts(
            directory,
            dotfiles=http.dotfiles,
            software=services.software,
            passed=self._settings.access.passed,
            limiter=self.registry.limiter if http.max_scripts is None else Limiter(http.max_scripts, beyond=services.limiter),
            registry=self.registry,
            launcher=self.launcher,
            metrics=services.metrics,
            timeout=timeout,
            drain_seconds=self._settings.program.drain_ms / 1000,
            body_seconds=http.body_seconds,
            max_body_bytes=http.max_body_bytes,
        )


def pages(file: str, name: str, facts: Mapping[str, str], *, wanted: bool) -> Page | None:
    """Return a page of wsbridge, if it is wanted."""
    return Page(file, name, facts) if wanted else None
