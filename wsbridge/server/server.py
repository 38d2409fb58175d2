"""The server: it builds its parts, connects them, changes them while it runs, and shuts them down in the reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from wsbridge.endpoints.base import Services
from wsbridge.endpoints.bridge import BridgeEndpoint
from wsbridge.errors import ShuttingDown
from wsbridge.http.app import App
from wsbridge.http.connection import HttpServer
from wsbridge.http.redirect import redirect_server
from wsbridge.http.site import Site
from wsbridge.logs import INFO, LEVELS, extra, logger, set_level
from wsbridge.metrics import Metrics
from wsbridge.net.acceptor import Acceptor
from wsbridge.net.activation import inherited_sockets
from wsbridge.net.hostinfo import host_names
from wsbridge.net.listeners import Factory, Listeners
from wsbridge.process.spawnserver import SpawnServer
from wsbridge.rules.hosts import Hosts
from wsbridge.rules.routes import Routes
from wsbridge.server.announcement import announcement
from wsbridge.server.changes import Changes, changes_of
from wsbridge.server.deployment import Deployment, Opened
from wsbridge.server.once import Once
from wsbridge.server.openlisteners import OpenListeners
from wsbridge.server.services import open_services, private_files
from wsbridge.sessions.ending import LINGER
from wsbridge.sessions.registry import Registry
from wsbridge.settings import HttpTimings, ListenSettings, ServerSettings

THREADS = 32
"""The most threads that read the disk. A slow disk soon blocks all threads of the loop's own number, six on two processors."""

log = logger("server")
http_log = logger("http")


class Server:
    """A server, from its first listener to the end of its last child; create it inside the event loop that runs it.

    With `may_change`, `change` may be called while it runs.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics, *, may_change: bool = False, private: Sequence[str] = ()) -> None:
        """`private` are files that no endpoint serves, besides programs and keys."""
        self._settings = settings
        self._at_start = settings.server
        self._private = private
        self._metrics = metrics
        self._may_change = may_change
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._routes: Routes[App] = Routes()
        self._deployment = Deployment(self._routes, force=self._force)
        self._once: Once | None = None
        self._changing: asyncio.Task[Changes] | None = None
        self._services: Services
        self._site: Site
        self._listeners: OpenListeners
        self.is_ready = asyncio.Event()
        """Set once clients can connect."""

    async def run(self) -> int:
        """Serve until a signal or `stop`; return the exit status. Raises ListenError, and the errors of the endpoints."""
        loop, settings, metrics = self._loop, self._settings, self._metrics
        loop.set_exception_handler(report)
        loop.set_default_executor(ThreadPoolExecutor(THREADS, "disk"))
        # A second signal must not interrupt the cleanup, either.
        with self._signals():
            async with AsyncExitStack() as stack:
                self._services, spawn_server = open_services(settings, metrics, stack, may_change=self._may_change, loop=loop)
                self._services.private.add(private_files(settings, self._private))
                stack.push_async_callback(self._deployment.finish)
                opened = await self._open_unless_stopped()
                if opened is None:
                    return self._status
                trusted = settings.server.trusted
                self._site = Site(self._routes, fallback=self._fallback(), hosts=self._hosts(), trusted=trusted, metrics=metrics)
                factory, acceptor = self._factory(), self._acceptor(spawn_server)
                inherited = inherited_sockets(os.environ, os.getpid())
                opener = Listeners(factory, acceptor, metrics, loop, redirect=self._redirect, inherited=inherited)
                with closing(opener) as listeners:
                    self._listeners = OpenListeners(listeners)
                    await self._listeners.open(settings.listeners)
                    self._announce()
                    self._deployment.start(opened)
                    self.is_ready.set()
                    await self._stop.wait()
                    listeners.close()
                    await self._end_change()
                    await self._deployment.finish()
                    await self._end(factory)
        return self._status

    def stop(self) -> None:
        """Shut down gracefully; a second call forces the shutdown."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    @property
    def addresses(self) -> Sequence[tuple[ListenSettings, Sequence[str]]]:
        """The settings and the actual addresses of each listener, once clients can connect."""
        return self._listeners.addresses

    async def change(self, settings: ServerSettings, *, private: Sequence[str] = ()) -> Changes:
        """Change to other settings while the server runs; return the differences. Raises WsbridgeError; then nothing has changed.

        A change does not affect the sessions of an unchanged endpoint. The caller waits for one change before it begins another. A
        shutdown cancels a change that is in progress; after that, a change raises ShuttingDown.
        """
        if self._stop.is_set():
            raise ShuttingDown
        self._changing = self._loop.create_task(self._change(settings, private), name="change of the settings")
        return await self._changing

    async def _change(self, settings: ServerSettings, private: Sequence[str]) -> Changes:
        services = replace(self._services, brokers=settings.brokers)
        hidden = await asyncio.to_thread(private_files, settings, private)
        plan = self._deployment.plan(settings)
        opened = await self._deployment.prepare(plan, services)
        try:
            listeners = await self._listeners.change(settings.listeners)
        except BaseException:
            await self._deployment.discard(opened)
            raise
        before, self._settings, self._services = self._settings, settings, services
        services.private.add(hidden)
        self._deployment.commit(plan, opened)
        self._deployment.start(opened)
        self._site.configure(hosts=self._hosts(), trusted=settings.server.trusted)
        services.limiter.limit = settings.server.max_sessions
        set_level(LEVELS[settings.server.log_level])
        return changes_of(before, settings, endpoints=plan, listeners=listeners, at_start=self._at_start)

    async def _end_change(self) -> None:
        if self._changing is not None and not self._changing.done():
            self._changing.cancel()
            await asyncio.wait((self._changing,))

    @property
    def _status(self) -> int:
        return self._once.status if self._once is not None else 0

    # Opening

    async def _open_unless_stopped(self) -> Opened | None:
        """Open the endpoints; return None at a signal: the answer of a broker may be late."""
        opening = self._loop.create_task(self._open(), name="open")
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

    async def _open(self) -> Opened:
        plan = self._deployment.plan(self._settings)
        opened = await self._deployment.prepare(plan, self._services)
        self._deployment.commit(plan, opened)
        if self._settings.once:
            only = next(endpoint for endpoint in opened.endpoints.values() if isinstance(endpoint, BridgeEndpoint))
            self._once = Once(only, close=lambda: self._listeners.close(), stop=self.stop)
        return opened

    def _factory(self) -> HttpServer:
        return HttpServer(
            self._site,
            error_page=self._site.error_page,
            on_upgrade=self._site.upgrade,
            hangups=self._services.hangups,
            timings=self._timings,
            loop=self._loop,
        )

    def _redirect(self, scheme: str, port: int) -> Factory:
        return redirect_server(scheme, port, headers=lambda: self._site.headers, timings=self._timings, loop=self._loop)

    @property
    def _timings(self) -> HttpTimings:
        return HttpTimings(keepalive_seconds=self._settings.server.keepalive_timeout)

    def _fallback(self) -> App:
        """Return the App for requests without an endpoint; it answers them with 404."""
        registry = Registry(max_sessions=1, metrics=self._metrics)
        return App(is_strict=False, headers=(), headers_http=(), registry=registry, metrics=self._metrics, has_icon=True)

    def _hosts(self) -> Hosts:
        """Return the names that the server answers to."""
        served = {host for endpoint in self._settings.endpoints for host in endpoint.host_names}
        return Hosts(self._settings.server.host_names, host_names(), frozenset(served))

    def _acceptor(self, server: SpawnServer | None) -> Acceptor:
        if server is None:
            return Acceptor(self._metrics, loop=self._loop)
        acceptor = Acceptor(self._metrics, loop=self._loop, has_room=lambda: server.has_room)
        server.on_room = acceptor.room
        return acceptor

    def _announce(self) -> None:
        for endpoint in self._deployment.endpoints:
            place = endpoint.settings.place
            fields = extra({"endpoint": place}) if place != "/" else None
            for line in endpoint.served():
                log.log(INFO, "%s", line, extra=fields)
        for line in announcement(self._settings, self._listeners.addresses):
            log.log(INFO, "%s", line)

    # Shutdown

    async def _end(self, factory: HttpServer) -> None:
        """End all sessions, then the connections."""
        await self._deployment.end_sessions()
        # Connections that wait for a next request close at once; responses in progress have time to finish.
        factory.pre_shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._force.is_set() else LINGER):
                await factory.shutdown(LINGER)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        handlers: dict[int, Callable[[], None]] = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop}
        for number, handler in handlers.items():
            self._loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                self._loop.remove_signal_handler(number)


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that no code has caught.

    A broken connection or handshake is the client's fault, so its log line is at DEBUG.
    """
    error = context.get("exception")
    if isinstance(error, OSError):
        http_log.debug("%s: %s", context["message"], error)
    else:
        log.error("%s: %r", context["message"], error, exc_info=error)
