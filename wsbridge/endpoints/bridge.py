"""Kind `bridge`: each WebSocket connection has its own process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

from wsbridge.endpoints.base import Endpoint, Parts, Services, pages
from wsbridge.endpoints.newsession import BridgeSessionFactory
from wsbridge.process.terminal import terminal_environment
from wsbridge.rules.urls import hidden
from wsbridge.settings import BridgeSettings, EndpointSettings


class BridgeEndpoint:
    """Serves a program, or every program of a directory; `sessions` starts their sessions."""

    def __init__(self, settings: BridgeSettings, services: Services) -> None:
        self.settings = settings
        self._parts = parts = Parts(settings, services)
        self.registry = parts.registry
        program = settings.program
        self.sessions = BridgeSessionFactory(
            gate=parts.gate(argv=program.command),
            handshake=parts.handshake(),
            program=program,
            software=services.software,
            passed={**terminal_environment(program.terminal), **parts.passed},
            registry=self.registry,
            launcher=parts.launcher,
            metrics=services.metrics,
            loop=services.loop,
        )

    def start(self) -> None:
        """Do nothing: all work begins with a request."""

    def succeed(self, settings: EndpointSettings, services: Services) -> Endpoint | None:
        """Return None: the sessions end with the endpoint."""

    async def finish(self, force: asyncio.Event) -> None:
        """Do nothing: all work belongs to a session."""

    async def open(self) -> None:
        http, program = self.settings.http, self.settings.program
        command = program.command[0] if program.command else ""
        facts = {"program": os.path.basename(command)}
        self.app = self._parts.app(
            sessions=self.sessions,
            page=pages("console.html", "DEVCONSOLE", facts, wanted=http.console),
            introduction=pages("info.html", "INTRODUCTION", facts, wanted=http.page),
            subject=("command", command),
        )

    def served(self) -> Iterator[str]:
        program = self.settings.program
        if program.command:
            yield f"Serving using application   : {' '.join(map(hidden, program.command))}"
        if program.scripts:
            yield f"Serving from directory      : {program.scripts}"
        yield from self._parts.served()
