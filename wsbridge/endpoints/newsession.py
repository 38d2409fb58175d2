"""Starts a session of a bridge: a request becomes the 101, the client, the child with its own program, and the session that joins them.

The server sends the 101 while the program starts. It joins client and program before the program runs: the client's messages wait
in the pipe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from wsbridge.framing import make_framing
from wsbridge.framing.envelope import Decoder as Envelope
from wsbridge.http.admission import Admission, Gate
from wsbridge.http.handshake import Handshake
from wsbridge.http.newconnection import Upgradable
from wsbridge.logs import ACCESS, LogFields, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import Started
from wsbridge.rules.environ import session_environment
from wsbridge.rules.request import Request
from wsbridge.sessions.bridge import Bridge
from wsbridge.sessions.registry import Registry
from wsbridge.settings import ProgramSettings

log = logger("session")


class BridgeSessionFactory:
    """Starts the sessions of a bridge, each with a program of its own."""

    def __init__(
        self,
        *,
        gate: Gate,
        handshake: Handshake,
        program: ProgramSettings,
        software: str,
        passed: dict[str, str],
        registry: Registry,
        launcher: Launcher,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.gate = gate
        self.handshake = handshake
        self._program = program
        self._terminal = program.terminal
        self._software = software
        self._passed = passed
        self._registry = registry
        self._launcher = launcher
        self._metrics = metrics
        self._loop = loop
        self._make_decoder, self._encoder = make_framing(program.framing, limit=program.max_program_message)
        self.on_accept: Callable[[], None] = lambda: None
        """Called when the server has answered a client with 101."""
        self.on_session: Callable[[Bridge | None], None] = lambda _: None
        """Called with each session whose program runs, and with None if the program could not be started."""

    @property
    def has_room(self) -> bool:
        return self._launcher.has_room

    async def room(self) -> None:
        await self._launcher.room()

    def start(self, connection: Upgradable, request: Request, admission: Admission, fields: LogFields, remote_host: str) -> None:
        """Send the 101 and start the session. Raises Refused if the environment is too long for a program."""
        fields["command"] = admission.argv[0]
        with self._registry.limiter.released_on_error():
            environment = session_environment(
                request,
                admission.script,
                unique_id=fields["id"],
                remote_host=remote_host,
                software=self._software,
                passed=self._passed,
            )
            log.log(ACCESS, "CONNECT", extra=extra(fields))
            # The program starts before the server sends the 101: one processor loads it while the other does the rest.
            child, starting = self._start_program(admission.argv, environment, fields)
            try:
                client = self.handshake.accept(connection, request, admission.accept, admission.subprotocol, fields)
                early = connection.detach(client)
            except BaseException:
                child.abandon()
                raise
        self.on_accept()
        session = Bridge(client, child, registry=self._registry, fields=fields, drain_seconds=self._program.drain, loop=self._loop)
        client.join(session.start(), session.hung_up)
        child.send(self._encoder.opening(partial(_details, request, fields, admission.subprotocol)))
        starting.add_done_callback(partial(self._started, session, fields))
        client.feed(early)

    def _started(self, session: Bridge, fields: LogFields, starting: asyncio.Future[Started]) -> None:
        """Record that the program of a session runs, or that it could not be started."""
        if not starting.cancelled() and starting.exception() is None:
            self._metrics.sessions += 1
            self.on_session(session)
            return
        if not starting.cancelled():
            self._metrics.launch_failures += 1
            log.error("%s", starting.exception(), extra=extra(fields))
        session.failed()
        self.on_session(None)

    def _start_program(
        self, argv: tuple[str, ...], environment: Mapping[str, str], fields: LogFields
    ) -> tuple[Child, asyncio.Future[Started]]:
        program = self._program
        decoder, error_decoder = self._make_decoder(), None
        if program.pass_stderr:
            decoder = Envelope("stdout", limit=program.max_program_message)
            error_decoder = Envelope("stderr", limit=program.max_program_message)
        return self._launcher.start(
            argv, environment, decoder=decoder, encoder=self._encoder, fields=fields, error_decoder=error_decoder, pty=self._terminal
        )


def _details(request: Request, fields: LogFields, subprotocol: str | None) -> dict[str, object]:
    """Return the description of a client that a program with the framing json receives."""
    peer = request.peer
    return {
        "id": fields["id"],
        "url": request.url,
        "path": request.path,
        "query": request.query,
        "remote": {"address": peer.address, "port": peer.port},
        "headers": [[name, value] for name, value in request.headers],
        "subprotocol": subprotocol,
    }
