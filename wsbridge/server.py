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
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, cast

from aiohttp import web

from wsbridge.errors import ListenError, Refused
from wsbridge.logs import INFO, logger
from wsbridge.metrics import Metrics
from wsbridge.process.guard import Guard, NoGuard, Watch
from wsbridge.process.ladder import LAST_WAIT, make_ladder
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import Spawner
from wsbridge.rules.paths import looker
from wsbridge.rules.request import encode_path, split_target
from wsbridge.sessions.bridge import Bridge
from wsbridge.sessions.registry import Live, Registry
from wsbridge.settings import ListenSettings, ServerSettings
from wsbridge.web.app import App
from wsbridge.web.cgi import CgiScripts
from wsbridge.web.connection import HEAD_SECONDS, Server
from wsbridge.web.console import Console
from wsbridge.web.gate import Gate
from wsbridge.web.hangup import Hangups
from wsbridge.web.static import StaticFiles
from wsbridge.web.tls import make_context
from wsbridge.web.upgrade import Upgrader

CANNOT_LAUNCH = 126
"""The exit status of `--once` when its program cannot be started, as of a shell."""
BACKLOG = 1024
"""Connections that the kernel keeps for us while we are busy."""
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
        use_fast_transports(loop)
        spawner = Spawner()
        async with AsyncExitStack() as stack:
            watch = self._watch(loop)
            stack.callback(watch.close)
            launcher = Launcher(spawner, watch, self._ladder, loop=loop)
            hangups = Hangups(loop)
            stack.callback(hangups.close)
            app = self._build(launcher, hangups, loop)
            factory = Server(app, error_page=app.error_page, loop=loop)
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
        cgi = None
        if http.cgi_directory:
            cgi = CgiScripts(
                http.cgi_directory,
                software=gate_settings.software,
                passed=gate_settings.passed,
                registry=registry,
                launcher=launcher,
                metrics=metrics,
                send_timeout=settings.client.send_timeout,
                hangups=hangups,
            )
        static = None
        if http.static_directory:
            static = StaticFiles(
                http.static_directory, cgi_directory=http.cgi_directory, script_directory=program.directory, programs=program.argv
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
        self._only = session
        if session is None:
            self.status = CANNOT_LAUNCH
            self.stop()

    def _ended(self, session: Live) -> None:
        if session is self._only and isinstance(session, Bridge):
            status = session.child.status or 0
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
                yield f"Developer console           : http{secure}://{address}/"
            if listen.redirect_port is not None and not address.startswith("/"):
                yield f"Starting redirect server    : http://{address.rpartition(':')[0]}:{listen.redirect_port}/"


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody was there to catch. A connection or a handshake that broke is a client's doing, no fault of ours."""
    error = context.get("exception")
    if isinstance(error, OSError):
        http_log.debug("%s: %s", context["message"], error)
    else:
        log.error("%s: %r", context["message"], error, exc_info=error)


def use_fast_transports(loop: asyncio.AbstractEventLoop) -> bool:
    """Use aiofastnet's transports where they are installed; return whether they are. WSBRIDGE_FASTNET=0 does without."""
    if os.environ.get("WSBRIDGE_FASTNET") == "0":
        return False
    try:
        import aiofastnet
    except ImportError:
        return False
    aiofastnet.patch_loop(loop)
    return True


Listeners = tuple[Callable[[], None], list[str]]
"""What closes every listener, and the addresses that they have."""


@asynccontextmanager
async def listening(settings: ListenSettings, factory: Server, loop: asyncio.AbstractEventLoop) -> AsyncIterator[Listeners]:
    """Open every listener, or none: yields them and the addresses they really have. Raises ListenError."""
    context = make_context(settings.tls) if settings.tls else None
    listeners: list[asyncio.AbstractServer] = []
    addresses: list[str] = []
    unix_path = settings.unix_path
    bound: tuple[int, int] | None = None

    def close() -> None:
        for listener in listeners:
            listener.close()
        # At once, and only if it is ours: our successor may have bound the path while we end our sessions.
        if unix_path is not None and bound is not None and _identity(unix_path) == bound:
            os.unlink(unix_path)

    try:
        for host in settings.hosts if settings.port is not None else ():
            port = settings.port
            listener = await _tcp(loop, factory, host, port or 0, context)
            listeners.append(listener)
            port = cast("asyncio.Server", listener).sockets[0].getsockname()[1]
            addresses.append(f"{host or socket.gethostname()}:{port}")
            if settings.redirect_port is not None:
                redirect = _Redirect(scheme="https" if context else "http", port=port)
                server = Server(redirect, error_page=redirect.error_page, loop=loop)
                listeners.append(await _tcp(loop, server, host, settings.redirect_port, None))
        if unix_path is not None:
            _clear_unix_path(unix_path)
            sock = _bind_unix(unix_path)
            bound = _identity(unix_path)
            options = _tls_options(context)
            listeners.append(await loop.create_unix_server(factory, sock=sock, backlog=BACKLOG, **options))
            addresses.append(os.path.abspath(unix_path))  # noqa: ASYNC240 (it asks no disk)
        yield close, addresses
    finally:
        close()


async def _tcp(loop: asyncio.AbstractEventLoop, factory: Callable[[], Any], host: str, port: int, context: Any) -> asyncio.AbstractServer:
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ListenError(f"cannot listen on {host}:{port}: write an IPv6 address in brackets, [{host}]")
    if not 0 <= port <= 65535:
        raise ListenError(f"cannot listen on {host}:{port}: a port is at most 65535")
    bare = host.strip("[]")
    options = _tls_options(context)
    try:
        if host or not socket.has_dualstack_ipv6():
            return await loop.create_server(factory, bare or None, port, backlog=BACKLOG, **options)
        sock = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        return await loop.create_server(factory, sock=sock, backlog=BACKLOG, **options)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


def _clear_unix_path(path: str) -> None:
    """Remove a socket that nobody listens on; refuse to touch anything else."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on {path}: there is something that is not a socket; it is left alone")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise ListenError(f"cannot listen on {path}: {error}") from None
        else:
            raise ListenError(f"cannot listen on {path}: another server does")


def _tls_options(context: ssl.SSLContext | None) -> dict[str, Any]:
    return {"ssl": context, "ssl_handshake_timeout": HEAD_SECONDS} if context else {}


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from None
    return sock


class _Redirect:
    """`--redirport`: answers every request with where to go, path and query kept."""

    def __init__(self, *, scheme: str, port: int) -> None:
        self._scheme = scheme
        self._port = port

    def error_page(self, status: int, detail: str) -> web.Response:
        return web.Response(status=status, text=f"{status} {detail}\n")

    async def __call__(self, raw: web.BaseRequest) -> web.StreamResponse:
        host = raw.headers.get("Host", "")
        name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        try:
            _, query, uri = split_target(raw.raw_path)
        except Refused as refused:
            return self.error_page(refused.status, refused.detail)
        path = uri.partition("?")[0]
        location = f"{self._scheme}://{name}:{self._port}{encode_path(path)}{'?' + query if query else ''}"
        return web.Response(status=301, headers={"Location": location})
