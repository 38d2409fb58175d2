"""The bridge's door: from a request to a session with a program of its own, the 101, the client, the child, and the two joined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from wsbridge.closecodes import INTERNAL_ERROR
from wsbridge.errors import ProgramError
from wsbridge.flow import End
from wsbridge.framing import make_framing
from wsbridge.framing.envelope import Decoder as Envelope
from wsbridge.logs import ACCESS, Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.launch import Launcher
from wsbridge.rules.environ import session_environment
from wsbridge.rules.request import Request
from wsbridge.sessions.bridge import Bridge
from wsbridge.sessions.registry import Registry
from wsbridge.settings import ProgramSettings
from wsbridge.web.connection import Connection
from wsbridge.web.gate import Admission, Gate
from wsbridge.web.handshake import Handshake

log = logger("session")


class Upgrader:
    """Begins sessions."""

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
        self.admit = gate.admit
        self.turn_away = handshake.turn_away
        self._handshake = handshake
        self._program = program
        self._software = software
        self._passed = passed
        self._registry = registry
        self._launcher = launcher
        self._metrics = metrics
        self._loop = loop
        self._make_decoder, self._encoder = make_framing(program.framing, limit=program.max_message_bytes)
        self.on_session: Callable[[Bridge | None], None] = lambda _: None
        """Called with each session that begins; with None when its program could not be started."""

    def begin(self, connection: Connection, request: Request, admission: Admission, pairs: Pairs, remote_host: str) -> None:
        """Answer 101 and begin the session. Raises Refused when the variables are too long for a program."""
        pairs["command"] = admission.argv[0]
        with self._registry.slots.returned_on_error():
            environment = session_environment(
                request,
                admission.script,
                unique_id=pairs["id"],
                remote_host=remote_host,
                software=self._software,
                passed=self._passed,
            )
        self.on_session(self._begin(connection, request, admission, environment, pairs))

    def _begin(
        self, connection: Connection, request: Request, admission: Admission, environment: dict[str, str], pairs: Pairs
    ) -> Bridge | None:
        """Return the session, or None when its program cannot be started."""
        log.log(ACCESS, "CONNECT", extra=extra(pairs))
        with self._registry.slots.returned_on_error():
            opening = self._encoder.opening(partial(_details, request, pairs, admission.subprotocol))
        # The program is started before the 101 leaves: it is loaded by one processor while the other does the rest.
        try:
            child = self._launch(admission, environment, pairs)
        except ProgramError as error:
            self._fail(connection, request, admission, error, pairs)
            return None
        except BaseException:
            self._registry.slots.give()
            raise
        try:
            client = self._handshake.accept(connection, request, admission.accept, admission.subprotocol, pairs)
            early = connection.take_over(client)
        except BaseException:
            self._registry.run(self._abandon(child), "end of a program without a session")
            raise
        session = Bridge(client, child, registry=self._registry, pairs=pairs, drain_seconds=self._program.drain_ms / 1000, loop=self._loop)
        client.join(session.start(), session.hung_up)
        self._metrics.sessions += 1
        child.send(opening)
        client.hear(early)
        return session

    async def _abandon(self, child: Child) -> None:
        try:
            child.kill()
            child.close_input(End(INTERNAL_ERROR))
            await child.end()
        finally:
            self._registry.slots.give()

    def _fail(self, connection: Connection, request: Request, admission: Admission, error: ProgramError, pairs: Pairs) -> None:
        self._metrics.launch_failures += 1
        self._registry.slots.give()
        log.error("%s", error, extra=extra(pairs))
        client = self._handshake.accept(connection, request, admission.accept, admission.subprotocol, pairs)
        client.end(End(INTERNAL_ERROR, "could not launch process"))
        client.data_received(connection.take_over(client))
        log.log(ACCESS, "DISCONNECT", extra=extra(pairs))

    def _launch(self, admission: Admission, environment: dict[str, str], pairs: Pairs) -> Child:
        program = self._program
        decoder, error_decoder = self._make_decoder(), None
        if program.pass_stderr:
            decoder = Envelope("stdout", limit=program.max_message_bytes)
            error_decoder = Envelope("stderr", limit=program.max_message_bytes)
        return self._launcher.launch(
            admission.argv,
            environment,
            decoder=decoder,
            encoder=self._encoder,
            error_decoder=error_decoder,
            pairs=pairs,
            pty=program.pty,
        )


def _details(request: Request, pairs: Pairs, subprotocol: str | None) -> dict[str, object]:
    """What a program with the framing json is told of its client."""
    peer = request.peer
    return {
        "id": pairs["id"],
        "url": request.url,
        "path": request.path,
        "query": request.query,
        "remote": {"address": peer.address, "port": peer.port},
        "headers": [[name, value] for name, value in request.headers],
        "subprotocol": subprotocol,
    }
