"""Builds every part, hands each what it needs, and takes them down again.

    listeners, aiohttp, transports   ->  App  ->  Gate, Upgrader  ->  sessions  ->  children
                                              ->  CGI, static files, console

One process, one loop. SIGTERM and SIGINT shut down in good order, a second one forces it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from wsbridge.logs import INFO, logger
from wsbridge.metrics import Metrics
from wsbridge.process.guard import Guard, NoGuard, Watch
from wsbridge.process.ladder import LAST_WAIT, make_ladder
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import Spawner
from wsbridge.rules.paths import looker
from wsbridge.sessions.bridge import Bridge
from wsbridge.sessions.registry import Live, Registry
from wsbridge.settings import ServerSettings
from wsbridge.web.app import App
from wsbridge.web.cgi import CgiScripts
from wsbridge.web.connection import Server
from wsbridge.web.console import Console
from wsbridge.web.gate import Gate
from wsbridge.web.hangup import Hangups
from wsbridge.web.listeners import listening
from wsbridge.web.patience import Patience
from wsbridge.web.static import StaticFiles
from wsbridge.web.upgrade import Upgrader

CANNOT_LAUNCH = 126
"""The exit status of `--once` when its program cannot be started, as of a shell."""
LINGER = 2.0
"""Seconds at the end for clients to answer their close frame."""

log = logger("server")
http_log = logger("http")


class Bridging:
    """The server, from its first listener to the end of its last child. Make it inside the loop that runs it."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._registry = Registry(max_forks=settings.gate.max_forks, metrics=metrics)
        self._ladder = make_ladder(settings.program.close_ms)
        self._only: Bridge | None = None
        self._close_listeners: Callable[[], None] = lambda: None
        self.status = 0
        """The exit status, when it is over."""

    async def run(self) -> int:
        """Serve until a signal, or with `once` until the one session is over; return the exit status. Raises ListenError."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report)
        spawner = Spawner()
        async with AsyncExitStack() as stack:
            watch = self._watch(loop)
            stack.callback(watch.close)
            launcher = Launcher(spawner, watch, self._ladder, loop=loop)
            hangups = Hangups(loop)
            stack.callback(hangups.close)
            app = self._build(launcher, hangups, loop)
            factory = Server(app, error_page=app.error_page, on_upgrade=app.upgrade, loop=loop)
            async with listening(self._settings.listen, factory, loop) as (close, addresses):
                self._close_listeners = close
                app.on_session = self._begun
                self._registry.on_end = self._ended
                with self._signals(loop):
                    for line in self._announcement(addresses):
                        log.log(INFO, "%s", line)
                    await self._stop.wait()
                    close()
                    await self._end(factory)
        return self.status

    def stop(self) -> None:
        """Shut down in good order; called again, at once."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _end(self, factory: Server) -> None:
        patience = sum(step.grace for step in self._ladder) + LAST_WAIT + LINGER
        for wait in (patience, LAST_WAIT + LINGER):
            hurrying = asyncio.get_running_loop().create_task(self._hurry.wait(), name="hurry")
            draining = asyncio.get_running_loop().create_task(self._registry.drain(), name="drain")
            await asyncio.wait((hurrying, draining), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            hurrying.cancel()
            if draining.done():
                break
            draining.cancel()
            self._hurry.clear()
            self._registry.hurry()
        if len(self._registry):
            log.error("%d sessions did not end and are left behind", len(self._registry))
        # Connections that only wait for a next request are closed at once, answers that are under way have their time.
        factory.pre_shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._hurry.is_set() else LINGER):
                await factory.shutdown(LINGER)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> Watch:
        settings = self._settings
        runs_programs = settings.program.argv or settings.program.directory or settings.http.cgi_directory
        if not settings.guard or not runs_programs:
            return NoGuard()
        return Guard(self._ladder, self._metrics, loop=loop)

    def _build(self, launcher: Launcher, hangups: Hangups, loop: asyncio.AbstractEventLoop) -> App:
        settings, registry, metrics = self._settings, self._registry, self._metrics
        gate_settings, http, program = settings.gate, settings.http, settings.program
        gate = upgrader = None
        if program.argv or program.directory:
            scripts = (os.path.realpath(program.directory), looker(program.directory)) if program.directory else None
            gate = Gate(
                registry=registry,
                origins=gate_settings.origins,
                subprotocols=gate_settings.subprotocols,
                argv=program.argv,
                scripts=scripts,
                busy_close=gate_settings.busy_close,
            )
            upgrader = Upgrader(
                program=program,
                client=settings.client,
                headers=gate_settings.headers + gate_settings.headers_ws,
                registry=registry,
                launcher=launcher,
                hangups=hangups,
                metrics=metrics,
                loop=loop,
            )
        patience = Patience(settings.client.send_timeout, metrics)
        cgi = None
        if http.cgi_directory:
            cgi = CgiScripts(
                http.cgi_directory,
                software=gate_settings.software,
                passed=gate_settings.passed,
                registry=registry,
                launcher=launcher,
                metrics=metrics,
                patience=patience,
                hangups=hangups,
                drain_seconds=program.drain_ms / 1000,
            )
        static = None
        if http.static_directory:
            static = StaticFiles(
                http.static_directory,
                patience=patience,
                cgi_directory=http.cgi_directory,
                script_directory=program.directory,
                programs=program.argv,
            )
        return App(
            settings=gate_settings,
            registry=registry,
            metrics=metrics,
            gate=gate,
            upgrader=upgrader,
            cgi=cgi,
            static=static,
            console=Console() if http.console else None,
            command=program.argv[0] if program.argv else "",
        )

    def _begun(self, session: Bridge | None) -> None:
        if not self._settings.once:
            return
        self._close_listeners()
        self._registry.bar()
        self._only = session
        if session is None:
            self.status = CANNOT_LAUNCH
            self.stop()

    def _ended(self, session: Live) -> None:
        if session is self._only and isinstance(session, Bridge):
            status = session.child.group.status or 0
            self.status = status if status >= 0 else 128 - status
            self.stop()

    @contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _announcement(self, addresses: list[str]) -> Iterator[str]:
        program, http, listen = self._settings.program, self._settings.http, self._settings.listen
        if program.argv:
            yield f"Serving using application   : {' '.join(program.argv)}"
        if program.directory:
            yield f"Serving from directory      : {program.directory}"
        if http.cgi_directory:
            yield f"Serving CGI scripts from    : {http.cgi_directory}"
        if http.static_directory:
            yield f"Serving static content from : {http.static_directory}"
        secure = "s" if listen.tls else ""
        for address in addresses:
            if address.startswith("/"):
                yield f"Starting WebSocket server   : unix:{address}"
            else:
                yield f"Starting WebSocket server   : ws{secure}://{address}/"
            if http.console and not address.startswith("/"):
                # Files have the root, and the console every path where there is none.
                yield f"Developer console           : http{secure}://{address}/{'console' if http.static_directory else ''}"
            if listen.redirect_port is not None and not address.startswith("/"):
                yield f"Starting redirect server    : http://{address.rpartition(':')[0]}:{listen.redirect_port}/"


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody was there to catch. A connection or a handshake that broke is a client's doing, no fault of ours."""
    error = context.get("exception")
    if isinstance(error, OSError):
        http_log.debug("%s: %s", context["message"], error)
    else:
        log.error("%s: %r", context["message"], error, exc_info=error)
