"""The bridge server: each WebSocket connection has its own process."""

from __future__ import annotations

import os
from collections.abc import Iterator

from wsbridge.endpoints.bridge import BridgeEndpoint
from wsbridge.http.admission import Gate
from wsbridge.http.app import App
from wsbridge.http.page import Page
from wsbridge.metrics import Metrics
from wsbridge.process.launch import Launcher
from wsbridge.process.terminal import terminal_environment
from wsbridge.rules.paths import looker
from wsbridge.server.base import Server
from wsbridge.sessions.bridge import Bridge
from wsbridge.sessions.registry import Live
from wsbridge.settings import Busy, ServerSettings

CANNOT_LAUNCH = 126
"""The exit status of `--once` when its program cannot be started, as in a shell."""


class BridgeServer(Server):
    """Serves until a signal; with `once`, until its only session has ended."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        super().__init__(settings, metrics)
        self._only: Bridge | None = None

    @property
    def _starts_programs(self) -> bool:
        program = self._served_endpoint.program
        return bool(program.command or program.scripts) or super()._starts_programs

    async def _open(self, launcher: Launcher) -> App:
        http, program = self._served_endpoint.http, self._served_endpoint.program
        endpoint = self._endpoint(launcher) if program.command or program.scripts else None
        command = program.command[0] if program.command else ""
        facts = {"program": os.path.basename(command)}
        page = Page("console.html", "DEVCONSOLE", facts) if http.console else None
        introduction = Page("info.html", "INTRODUCTION", facts) if http.page and endpoint is not None else None
        return self._app(launcher, endpoint, page, ("command", command), introduction=introduction)

    def _endpoint(self, launcher: Launcher) -> BridgeEndpoint:
        access, program = self._served_endpoint.access, self._served_endpoint.program
        scripts = None
        if program.scripts:
            scripts = os.path.realpath(program.scripts), looker(program.scripts, dotfiles=self._served_endpoint.http.dotfiles)
        endpoint = BridgeEndpoint(
            gate=Gate(
                registry=self._registry,
                origins=access.rules,
                subprotocols=access.subprotocols,
                argv=program.command,
                scripts=scripts,
                busy_close=access.busy is Busy.CLOSE,
            ),
            handshake=self._handshake(),
            program=program,
            software=self._settings.software,
            passed={**terminal_environment(program.terminal), **self._passed},
            registry=self._registry,
            launcher=launcher,
            metrics=self._metrics,
            loop=self._loop,
        )
        if self._settings.once:
            endpoint.on_begin = self._only_one
            endpoint.on_session = self._only_begun
            self._registry.on_end = self._ended
        return endpoint

    def _only_one(self) -> None:
        self._close_listeners()
        self._registry.limiter.bar()

    def _only_begun(self, session: Bridge | None) -> None:
        self._only = session
        if session is None:
            self.status = CANNOT_LAUNCH
            self.stop()

    def _ended(self, session: Live) -> None:
        if session is self._only and isinstance(session, Bridge):
            status = session.child.group.status or 0
            self.status = status if status >= 0 else 128 - status
            self.stop()

    def _served(self) -> Iterator[str]:
        program = self._served_endpoint.program
        if program.command:
            yield f"Serving using application   : {' '.join(program.command)}"
        if program.scripts:
            yield f"Serving from directory      : {program.scripts}"
