"""The objects of a server that its endpoints use. They include helper processes, which the server starts, and stops at its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import cache

from wsbridge.bus.broker import rabbit_connections
from wsbridge.endpoints.base import Services
from wsbridge.http.hiddenfiles import PrivateFiles, files_of_command, holds_private_key, keys_in_url
from wsbridge.metrics import Metrics
from wsbridge.net.hangup import Hangups
from wsbridge.net.reverselookup import Names
from wsbridge.process.descendants import Descendants
from wsbridge.process.guard import Guard, NoGuard, Watch
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import Spawner
from wsbridge.process.spawnserver import SpawnServer
from wsbridge.sessions.limiter import Limiter
from wsbridge.sessions.registry import Ids
from wsbridge.settings import BroadcastSettings, EndpointSettings, ServerSettings


def open_services(
    settings: ServerSettings, metrics: Metrics, stack: AsyncExitStack, *, may_change: bool, loop: asyncio.AbstractEventLoop
) -> tuple[Services, SpawnServer | None]:
    """Return the services, and the spawn server if requests can start programs; `stack` gets the callbacks that release them.

    With `may_change`, other endpoints may follow, so the helper processes run in any case.
    """
    programs = [endpoint for endpoint in settings.endpoints if runs_programs(endpoint)]
    spawner, hangups = Spawner(), Hangups(loop)
    watch: Watch = NoGuard()
    if settings.server.guard and (programs or may_change):
        watch = Guard(metrics, loop=loop)
    stack.callback(watch.close)
    stack.callback(hangups.close)
    server: SpawnServer | None = None
    descendants = Descendants(
        watch, metrics, loop=loop, is_excluded=lambda pid: pid == watch.pid or (server is not None and pid == server.pid)
    )
    stack.callback(descendants.close)
    if may_change or any(map(starts_programs, programs)):
        server = SpawnServer(spawner, metrics, loop=loop)
        # This runs while this process is still a subreaper: it becomes the parent of the programs that the spawn server is starting.
        stack.callback(server.close)
    services = Services(
        launcher=Launcher(spawner, descendants, loop=loop, server=server),
        metrics=metrics,
        hangups=hangups,
        limiter=Limiter(settings.server.max_sessions, setting="max_sessions"),
        ids=Ids(),
        names=Names(metrics) if settings.server.reverse_lookup else None,
        private=PrivateFiles(),
        environ=os.environ,
        brokers=settings.brokers,
        connections=cache(rabbit_connections),
        software=settings.software,
        loop=loop,
    )
    return services, server


def private_files(settings: ServerSettings, more: Iterable[str]) -> PrivateFiles:
    """Return the files that no endpoint serves: programs, keys, and `more`. Reads the disk."""
    private = PrivateFiles()
    private.hide(secrets=more)
    for endpoint in settings.endpoints:
        program, http = endpoint.program, endpoint.http
        private.hide(files_of_command(program.command), cgi_directory=http.cgi or None, script_directory=program.scripts or None)
    private.hide(secrets=[key for broker in settings.brokers.values() for url in broker.url for key in keys_in_url(url)])
    for listen in settings.listeners:
        if (tls := listen.tls) is not None:
            private.hide(secrets=(tls.key, *filter(holds_private_key, filter(None, (tls.certificate, tls.client_ca)))))
    return private


def starts_programs(endpoint: EndpointSettings) -> bool:
    """Whether a request to an endpoint can start a program."""
    program = endpoint.program
    is_bridge = not isinstance(endpoint, BroadcastSettings) and bool(program.command or program.scripts)
    return is_bridge or bool(endpoint.http.cgi)


def runs_programs(endpoint: EndpointSettings) -> bool:
    """Whether an endpoint can have a program."""
    return bool(endpoint.program.command) or starts_programs(endpoint)
