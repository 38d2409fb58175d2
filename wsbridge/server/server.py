"""The server: it builds its parts, connects them, and shuts them down in the reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from wsbridge.endpoints.base import Endpoint, Services
from wsbridge.endpoints.bridge import BridgeEndpoint
from wsbridge.endpoints.kinds import make_endpoint
from wsbridge.http.app import App
from wsbridge.http.connection import HttpServer
from wsbridge.http.hiddenfiles import PrivateFiles, files_of_command, holds_private_key, keys_in_url
from wsbridge.http.redirect import redirect_server
from wsbridge.http.site import Site
from wsbridge.logs import INFO, logger
from wsbridge.metrics import Metrics
from wsbridge.net.acceptor import Acceptor
from wsbridge.net.activation import inherited_sockets
from wsbridge.net.hangup import Hangups
from wsbridge.net.listeners import Listeners
from wsbridge.net.reverselookup import Names
from wsbridge.process.descendants import Descendants
from wsbridge.process.guard import Guard, NoGuard, Watch
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import Spawner
from wsbridge.process.spawnserver import SpawnServer
from wsbridge.process.termination import make_ladder
from wsbridge.rules.hosts import Hosts
from wsbridge.rules.routes import Routes
from wsbridge.server.announcement import announcement
from wsbridge.server.once import Once
from wsbridge.sessions.ending import LINGER, end_sessions
from wsbridge.sessions.limiter import Limiter
from wsbridge.sessions.registry import SHUTTING_DOWN, Ids, Registry
from wsbridge.settings import EndpointSettings, ServerSettings

THREADS = 32
"""The most threads that read the disk. A slow disk soon blocks all threads of the loop's own number, six on two processors."""

log = logger("server")
http_log = logger("http")


class Server:
    """A server, from its first listener to the end of its last child; create it inside the event loop that runs it."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._limiter = Limiter(settings.max_sessions)
        self._hangups = Hangups(self._loop)
        self._routes: Routes[App] = Routes()
        self._endpoints: list[Endpoint] = []
        self._close_listeners: Callable[[], None] = lambda: None
        self._once: Once | None = None

    async def run(self) -> int:
        """Serve until a signal or `stop`; return the exit status. Raises ListenError, and the errors of the endpoints."""
        loop = self._loop
        loop.set_exception_handler(report)
        loop.set_default_executor(ThreadPoolExecutor(THREADS, "disk"))
        async with AsyncExitStack() as stack:
            services, spawn_server = self._services(stack)
            with self._signals():
                stack.push_async_callback(self._finish)
                if not await self._open_unless_stopped(services):
                    return self._status
                site = Site(
                    self._routes, nowhere=self._nowhere(), hosts=self._hosts(), trusted=self._settings.trusted, metrics=self._metrics
                )
                timings = self._settings.timings
                factory = HttpServer(
                    site, error_page=site.error_page, on_upgrade=site.upgrade, hangups=self._hangups, timings=timings, loop=loop
                )
                redirect = partial(redirect_server, timings=timings, loop=loop)
                inherited = inherited_sockets(os.environ, os.getpid()) if self._settings.listen.inherited is not None else {}
                opener = Listeners(factory, self._acceptor(spawn_server), self._metrics, loop, redirect=redirect, inherited=inherited)
                with closing(opener) as listeners:
                    self._close_listeners = listeners.close
                    listener = await listeners.open(self._settings.listen)
                    self._announce(listener.addresses)
                    for endpoint in self._endpoints:
                        endpoint.begin()
                    await self._stop.wait()
                    listeners.close()
                    await self._finish()
                    await self._end(factory)
        return self._status

    def stop(self) -> None:
        """Shut down gracefully; a second call forces the shutdown."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    @property
    def _status(self) -> int:
        return self._once.status if self._once is not None else 0

    # Opening

    def _services(self, stack: AsyncExitStack) -> tuple[Services, SpawnServer | None]:
        """Return what the endpoints need of the server, and the spawn server; `stack` gets what releases them."""
        settings, metrics, loop = self._settings, self._metrics, self._loop
        spawner = Spawner()
        watch = self._watch()
        stack.callback(watch.close)
        stack.callback(self._hangups.close)
        server: SpawnServer | None = None
        descendants = Descendants(
            watch, metrics, loop=loop, spared=lambda pid: pid == watch.pid or (server is not None and pid == server.pid)
        )
        stack.callback(descendants.close)
        if any(map(starts_programs, settings.endpoints)):
            server = SpawnServer(spawner, metrics, loop=loop)
            # This runs while this process is still a subreaper: it becomes the parent of the programs that the spawn server is
            # starting.
            stack.callback(server.close)
        services = Services(
            launcher=Launcher(spawner, descendants, loop=loop, server=server),
            metrics=metrics,
            hangups=self._hangups,
            limiter=self._limiter,
            ids=Ids(),
            names=Names(metrics) if settings.reverse_lookup else None,
            private=self._private(),
            software=settings.software,
            loop=loop,
        )
        return services, server

    def _watch(self) -> Watch:
        programs = [endpoint for endpoint in self._settings.endpoints if endpoint.program.argv or starts_programs(endpoint)]
        if not self._settings.guard or not programs:
            return NoGuard()
        # The guard ends the programs of all endpoints by the ladder of the most patient one.
        return Guard(make_ladder(max(endpoint.program.close_ms for endpoint in programs)), self._metrics, loop=self._loop)

    def _private(self) -> PrivateFiles:
        """Return the programs and secrets that no endpoint serves as files."""
        private = PrivateFiles()
        for endpoint in self._settings.endpoints:
            private.hide(
                files_of_command(endpoint.program.argv),
                cgi_directory=endpoint.http.cgi_directory,
                script_directory=endpoint.program.directory,
            )
            for url in endpoint.broker.urls if endpoint.broker is not None else ():
                private.hide(keys_in_url(url))
        if (tls := self._settings.listen.tls) is not None:
            private.hide((tls.key, *filter(holds_private_key, filter(None, (tls.certificate, tls.client_ca)))))
        return private

    def _nowhere(self) -> App:
        """Return the App for requests without an endpoint; it answers them with 404."""
        registry = Registry(max_sessions=1, metrics=self._metrics)
        return App(is_strict=False, headers=(), headers_http=(), registry=registry, metrics=self._metrics, has_icon=True)

    def _hosts(self) -> Hosts:
        """Return the names that the server answers to."""
        endpoints = self._settings.endpoints
        hosts = next((endpoint.access.hosts for endpoint in endpoints), Hosts())
        return replace(hosts, served=tuple(host for endpoint in endpoints for host in endpoint.hosts))

    def _acceptor(self, server: SpawnServer | None) -> Acceptor:
        if server is None:
            return Acceptor(self._metrics, loop=self._loop)
        acceptor = Acceptor(self._metrics, loop=self._loop, has_room=lambda: server.has_room)
        server.on_room = acceptor.room
        return acceptor

    async def _open_unless_stopped(self, services: Services) -> bool:
        """Open the endpoints; return False at a signal: the answer of a broker may come late."""
        opening = self._loop.create_task(self._open(services), name="open")
        stopping = self._loop.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                return True
            opening.cancel()
            await asyncio.wait((opening,))
            return False
        finally:
            opening.cancel()
            stopping.cancel()

    async def _open(self, services: Services) -> None:
        """Open all endpoints at the same time, and put them into the site. Raises the first error, in the order of the settings."""
        self._endpoints = [make_endpoint(settings, services) for settings in self._settings.endpoints]
        for result in await asyncio.gather(*(endpoint.open() for endpoint in self._endpoints), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        for endpoint in self._endpoints:
            self._routes.put(endpoint.settings.hosts, endpoint.settings.path, endpoint.app)
        if self._settings.once:
            only = next(endpoint for endpoint in self._endpoints if isinstance(endpoint, BridgeEndpoint))
            self._once = Once(only, close=lambda: self._close_listeners(), stop=self.stop)

    def _announce(self, addresses: list[str]) -> None:
        for endpoint in self._endpoints:
            for line in endpoint.served():
                log.log(INFO, "%s", line)
        for line in announcement(self._settings, addresses):
            log.log(INFO, "%s", line)

    # Shutdown

    async def _finish(self) -> None:
        """End the work of the endpoints, before their sessions end. The server calls this again at its exit."""
        await asyncio.gather(*(endpoint.finish(self._force) for endpoint in self._endpoints))

    async def _end(self, factory: HttpServer) -> None:
        """End all sessions: gracefully, then by force after the time of the ladder or at a second signal."""
        patience = max(patience_of(endpoint) for endpoint in self._settings.endpoints)
        await end_sessions([endpoint.registry for endpoint in self._endpoints], SHUTTING_DOWN, patience=patience, force=self._force)
        # Connections that wait for a next request close at once; responses in progress have time to finish.
        factory.pre_shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._force.is_set() else LINGER):
                await factory.shutdown(LINGER)

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


def patience_of(endpoint: EndpointSettings) -> float:
    """Return the time of the ladder of an endpoint's programs, in seconds."""
    return sum(step.grace for step in make_ladder(endpoint.program.close_ms))


def starts_programs(endpoint: EndpointSettings) -> bool:
    """Whether a request to an endpoint can start a program."""
    program = endpoint.program
    is_bridge = endpoint.kind != "broadcast" and bool(program.argv or program.directory)
    return is_bridge or endpoint.http.cgi_directory is not None


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that no code has caught.

    A broken connection or handshake is the client's fault, so its log line is at DEBUG.
    """
    error = context.get("exception")
    if isinstance(error, OSError):
        http_log.debug("%s: %s", context["message"], error)
    else:
        log.error("%s: %r", context["message"], error, exc_info=error)
