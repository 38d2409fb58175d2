"""The common parts of every shape of server: listeners, signals, HTTP beside the WebSocket, and the shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

from wsbridge.http.app import App, Reception
from wsbridge.http.cgi import CgiScripts
from wsbridge.http.connection import HttpServer
from wsbridge.http.endpoint import Endpoint, EventsEndpoint, Resource
from wsbridge.http.handshake import Handshake
from wsbridge.http.hiddenfiles import HiddenFiles, files_of_command, holds_private_key, keys_in_url
from wsbridge.http.page import Page
from wsbridge.http.redirect import redirect_server
from wsbridge.http.responsetimeout import ResponseTimeout
from wsbridge.http.static import StaticFiles
from wsbridge.logs import INFO, logger
from wsbridge.metrics import Metrics
from wsbridge.net.acceptor import Acceptor
from wsbridge.net.hangup import Hangups
from wsbridge.net.hostinfo import host_names, machine
from wsbridge.net.listeners import listening
from wsbridge.process.descendants import Descendants
from wsbridge.process.guard import Guard, NoGuard, Watch
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import Spawner
from wsbridge.process.spawnserver import SpawnServer
from wsbridge.process.termination import LAST_WAIT, make_ladder
from wsbridge.rules.environ import passed_on
from wsbridge.rules.hosts import Hosts
from wsbridge.rules.origins import Rules
from wsbridge.rules.reach import WILDCARDS, reachable
from wsbridge.sessions.limiter import Limiter
from wsbridge.sessions.registry import Registry
from wsbridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    CgiSettings,
    FilesSettings,
    HttpTimings,
    ListenSettings,
    ServerSettings,
)
from wsbridge.settings.access import parse_headers

THREADS = 32
"""The most threads that read the disk. A slow disk soon blocks all threads of the loop's own number, six on two processors."""
LINGER = 2.0
"""Seconds at the end for clients to answer their close frame."""

OPEN = "Every machine that reaches this port and every web page in its browsers may connect; see --address, --sameorigin and --origin"

log = logger("server")
http_log = logger("http")


class Server(ABC):
    """A server, from its first listener to the end of its last child; create it inside the event loop that runs it."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._settings = settings
        served = settings.endpoints[0]
        assert isinstance(served, BridgeSettings | BroadcastSettings | FilesSettings | CgiSettings)
        self._served_endpoint = served
        self._timings = HttpTimings(
            keepalive_seconds=settings.server.keepalive_timeout,
            body_seconds=served.http.body_timeout,
        )
        self._passed = passed_on(served.program.pass_environment, os.environ)
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._registry = Registry(max_sessions=self._max_sessions, metrics=metrics)
        self._ladder = make_ladder(round(served.program.close_delay * 1000))
        self._hangups = Hangups(self._loop)
        self._close_listeners: Callable[[], None] = lambda: None
        self.status = 0
        """The exit status, once the server has ended."""

    @property
    def _max_sessions(self) -> int:
        """The limit of sessions; 0 for no limit."""
        return self._served_endpoint.access.max_programs

    @property
    def _page_name(self) -> str:
        """The name of wsbridge's own page in the log; empty without such a page."""
        return "Developer console" if self._served_endpoint.http.console else ""

    @property
    def _page_everywhere(self) -> bool:
        """Whether that page is served at every path without other content, not only at a root without an index."""
        return True

    @abstractmethod
    async def _open(self, launcher: Launcher) -> App:
        """Build the parts that only this shape of server has. Raises WsbridgeError."""

    async def _begin(self) -> None:
        """Begin the work of this shape; from now on, clients can connect."""

    async def _finish(self) -> None:
        """Begin the shutdown, before the sessions end.

        The server calls this again at its exit, and also after an incomplete startup.
        """

    @abstractmethod
    def _served(self) -> Iterator[str]:
        """Yield the log lines that say what the server serves."""

    async def run(self) -> int:
        """Serve until a signal or `stop`; return the exit status. Raises ListenError, and the errors of the shape."""
        loop = self._loop
        loop.set_exception_handler(report)
        loop.set_default_executor(ThreadPoolExecutor(THREADS, "disk"))
        spawner = Spawner()
        async with AsyncExitStack() as stack:
            watch = self._watch()
            stack.callback(watch.close)
            stack.callback(self._hangups.close)
            server: SpawnServer | None = None
            descendants = Descendants(
                watch, self._metrics, loop=loop, spared=lambda pid: pid == watch.pid or (server is not None and pid == server.pid)
            )
            stack.callback(descendants.close)
            server = self._spawn_server(spawner)
            if server is not None:
                # This runs while this process is still a subreaper: it becomes the parent of the programs that the spawn server is
                # starting.
                stack.callback(server.close)
            launcher = Launcher(spawner, descendants, self._ladder, loop=loop, server=server)
            with self._signals():
                stack.push_async_callback(self._finish)
                app = await self._open_unless_stopped(launcher)
                if app is None:
                    return self.status
                factory = HttpServer(
                    app,
                    error_page=app.error_page,
                    on_upgrade=app.upgrade,
                    hangups=self._hangups,
                    timings=self._timings,
                    loop=loop,
                )
                acceptor = self._acceptor(server)
                headers = self._served_endpoint.access.http_headers
                redirect = partial(redirect_server, headers=headers, timings=self._timings, loop=loop)
                listeners = listening(self._settings.listeners, factory, acceptor, self._metrics, loop, redirect=redirect)
                async with listeners as (close, addresses):
                    self._close_listeners = close
                    for line in self._announcement(addresses):
                        log.log(INFO, "%s", line)
                    await self._begin()
                    await self._stop.wait()
                    close()
                    await self._finish()
                    await self._end(factory)
        return self.status

    @property
    def _starts_programs(self) -> bool:
        """Whether a request can start a program."""
        return bool(self._served_endpoint.http.cgi)

    def stop(self) -> None:
        """Shut down gracefully; a second call forces the shutdown."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    async def _open_unless_stopped(self, launcher: Launcher) -> App | None:
        """Build the parts of this shape, or return None at a signal: the answer of a broker may come late."""
        opening = self._loop.create_task(self._open(launcher), name="open")
        stopping = self._loop.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                return opening.result()
            opening.cancel()
            await asyncio.wait((opening,))
            return None
        finally:
            opening.cancel()
            stopping.cancel()

    async def _end(self, factory: HttpServer) -> None:
        patience = sum(step.grace for step in self._ladder) + LAST_WAIT + LINGER
        for wait in (patience, LAST_WAIT + LINGER):
            forcing = self._loop.create_task(self._force.wait(), name="force")
            draining = self._loop.create_task(self._registry.drain(), name="drain")
            await asyncio.wait((forcing, draining), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            forcing.cancel()
            if draining.done():
                break
            draining.cancel()
            self._force.clear()
            self._registry.force()
        if len(self._registry):
            log.error("%d sessions did not end", len(self._registry))
        # Connections that wait for a next request close at once; responses in progress have time to finish.
        factory.pre_shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._force.is_set() else LINGER):
                await factory.shutdown(LINGER)

    def _spawn_server(self, spawner: Spawner) -> SpawnServer | None:
        """Start a spawn server if requests can start programs."""
        return SpawnServer(spawner, self._metrics, loop=self._loop) if self._starts_programs else None

    def _acceptor(self, server: SpawnServer | None) -> Acceptor:
        if server is None:
            return Acceptor(self._metrics, loop=self._loop)
        acceptor = Acceptor(self._metrics, loop=self._loop, has_room=lambda: server.has_room)
        server.on_room = acceptor.room
        return acceptor

    def _watch(self) -> Watch:
        program, http = self._served_endpoint.program, self._served_endpoint.http
        runs_programs = program.command or program.scripts or http.cgi
        if not self._settings.server.guard or not runs_programs:
            return NoGuard()
        return Guard(self._ladder, self._metrics, loop=self._loop)

    def _handshake(self, *, is_shared: bool = False) -> Handshake:
        return Handshake(
            is_shared=is_shared,
            client=self._served_endpoint.client,
            headers=self._served_endpoint.access.websocket_headers,
            hangups=self._hangups,
            metrics=self._metrics,
            loop=self._loop,
        )

    def _app(
        self,
        launcher: Launcher,
        endpoint: Endpoint | None,
        page: Page | None,
        subject: tuple[str, str],
        events: EventsEndpoint | None = None,
        resources: tuple[Resource, ...] = (),
        introduction: Page | None = None,
    ) -> App:
        settings, served = self._settings, self._served_endpoint
        http, program, access = served.http, served.program, served.access
        timeout = ResponseTimeout(served.client.write_timeout, self._metrics)
        cgi = None
        if http.cgi:
            cgi = CgiScripts(
                http.cgi,
                dotfiles=http.dotfiles,
                software=settings.software,
                passed=self._passed,
                limiter=Limiter(access.max_programs) if isinstance(served, BroadcastSettings) else self._registry.limiter,
                registry=self._registry,
                launcher=launcher,
                metrics=self._metrics,
                timeout=timeout,
                drain_seconds=program.drain,
                body_seconds=http.body_timeout,
                max_body_bytes=http.max_body,
            )
        static = None
        if http.files:
            hidden = HiddenFiles(
                (*files_of_command(program.command), *self._secrets()),
                cgi_directory=http.cgi or None,
                script_directory=program.scripts or None,
                dotfiles=http.dotfiles,
            )
            static = StaticFiles(http.files, hidden=hidden, timeout=timeout)
        return App(
            settings=Reception(
                hosts=Hosts(settings.server.host_names, host_names(), is_strict=access.same_origin),
                trusted=settings.server.trusted,
                reverse_lookup=settings.server.reverse_lookup,
                headers=parse_headers(access.headers),
                headers_http=access.http_headers,
            ),
            registry=self._registry,
            metrics=self._metrics,
            endpoint=endpoint,
            events=events,
            resources=resources,
            cgi=cgi,
            static=static,
            page=page,
            page_everywhere=self._page_everywhere,
            introduction=introduction,
            has_icon=http.page,
            subject=subject,
        )

    def _secrets(self) -> Iterator[str]:
        """Yield the files with private keys that the settings name."""
        for listen in self._settings.listeners:
            if (tls := listen.tls) is not None:
                yield tls.key
                yield from filter(holds_private_key, filter(None, (tls.certificate, tls.client_ca)))
        for broker in self._settings.brokers.values():
            for url in broker.url:
                yield from keys_in_url(url)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            self._loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                self._loop.remove_signal_handler(number)

    def _announcement(self, addresses: list[str]) -> Iterator[str]:
        yield from self._lines_of_the_start(addresses)
        settings, rules = self._settings, self._served_endpoint.access.rules
        if settings.names_urls and any(is_open(listen, rules) for listen in settings.listeners):
            yield OPEN

    def _lines_of_the_start(self, addresses: list[str]) -> Iterator[str]:
        http, listeners, page_name = self._served_endpoint.http, self._settings.listeners, self._page_name
        yield from self._served()
        if http.cgi:
            yield f"Serving CGI scripts from    : {http.cgi}"
        if http.files:
            yield f"Serving static content from : {http.files}"
        for address, listen in zip(addresses, listeners, strict=True):
            secure = "s" if listen.tls else ""
            if address.startswith("/"):
                yield f"Starting WebSocket server   : unix socket at {address}"
            else:
                yield f"Starting WebSocket server   : ws{secure}://{address}/"
            if page_name and not address.startswith("/"):
                # With static files, the root belongs to the files; the page is at every path without a file.
                where = f"http{secure}://{address}/{'console' if http.files and self._page_everywhere else ''}"
                yield f"{page_name:<28}: {where}"
            if self._settings.names_urls and not address.startswith("/"):
                host, _, port = address.rpartition(":")
                scheme = f"http{secure}" if page_name or http.page else f"ws{secure}"
                host = host if host == listen.host else ""
                for where, url in reachable(scheme, host, int(port), machine()):
                    yield f"{where:<28}: {url}"
            if listen.redirect_port and not address.startswith("/"):
                yield f"Starting redirect server    : http://{address.rpartition(':')[0]}:{listen.redirect_port}/"


def is_open(listen: ListenSettings, origins: Rules) -> bool:
    """Whether a server accepts clients from every address, without a certificate, for pages of any origin."""
    return listen.is_tcp and listen.host in WILDCARDS and origins == Rules() and (listen.tls is None or listen.tls.client_ca is None)


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that no code has caught.

    A broken connection or handshake is the client's fault, so its log line is at DEBUG.
    """
    error = context.get("exception")
    if isinstance(error, OSError):
        http_log.debug("%s: %s", context["message"], error)
    else:
        log.error("%s: %r", context["message"], error, exc_info=error)
