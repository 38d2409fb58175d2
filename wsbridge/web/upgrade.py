"""The bridge's door: from a request to a session with a program of its own, the 101, the client, the child, and the two joined.

The 101 leaves while the program starts. What the client sends before the program runs is kept, within a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from wsbridge.closecodes import INTERNAL_ERROR
from wsbridge.flow import End
from wsbridge.framing import make_framing
from wsbridge.framing.envelope import Decoder as Envelope
from wsbridge.logs import ACCESS, Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.launch import Launcher
from wsbridge.process.spawn import Spawned
from wsbridge.rules.environ import session_environment
from wsbridge.rules.request import Request
from wsbridge.sessions.bridge import Bridge
from wsbridge.sessions.registry import Registry
from wsbridge.settings import ProgramSettings
from wsbridge.web.client import Client
from wsbridge.web.gate import Admission, Gate
from wsbridge.web.greeting import Upgradable
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
        self.on_begin: Callable[[], None] = lambda: None
        """Called when a client was answered with 101."""
        self.on_session: Callable[[Bridge | None], None] = lambda _: None
        """Called with each session whose program runs; with None when its program could not be started."""

    @property
    def has_room(self) -> bool:
        return self._launcher.has_room

    async def room(self) -> None:
        await self._launcher.room()

    def begin(self, connection: Upgradable, request: Request, admission: Admission, pairs: Pairs, remote_host: str) -> None:
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
            log.log(ACCESS, "CONNECT", extra=extra(pairs))
            # The program is started before the 101 leaves: it is loaded by one processor while the other does the rest.
            starting = self._launcher.spawn(admission.argv, environment, pty=self._program.pty)
            try:
                client = self._handshake.accept(connection, request, admission.accept, admission.subprotocol, pairs)
                client.hold(connection.take_over(client))
            except BaseException:
                starting.cancel()
                raise
        self.on_begin()
        opening = Opening(starting, client)
        self._registry.add(opening)
        starting.add_done_callback(partial(self._started, opening, request, admission, pairs))

    def _started(self, opening: Opening, request: Request, admission: Admission, pairs: Pairs, starting: asyncio.Future[Spawned]) -> None:
        """Join client and program, or tell the client that there is none."""
        client = opening.client
        session = None
        if starting.cancelled():
            client.abort()
            self._registry.slots.give()
        elif (error := starting.exception()) is not None:
            self._metrics.launch_failures += 1
            self._registry.slots.give()
            log.error("%s", error, extra=extra(pairs))
            client.end(End(INTERNAL_ERROR, "could not launch process"))
            client.release()
            log.log(ACCESS, "DISCONNECT", extra=extra(pairs))
        else:
            child = self._adopt(starting.result(), pairs)
            session = Bridge(
                client, child, registry=self._registry, pairs=pairs, drain_seconds=self._program.drain_ms / 1000, loop=self._loop
            )
            self._metrics.sessions += 1
            client.join(session.start(), session.hung_up)
            child.send(self._encoder.opening(partial(_details, request, pairs, admission.subprotocol)))
            client.release()
        self._registry.remove(opening)
        self.on_session(session)

    def _adopt(self, spawned: Spawned, pairs: Pairs) -> Child:
        program = self._program
        decoder, error_decoder = self._make_decoder(), None
        if program.pass_stderr:
            decoder = Envelope("stdout", limit=program.max_message_bytes)
            error_decoder = Envelope("stderr", limit=program.max_message_bytes)
        return self._launcher.adopt(spawned, decoder=decoder, encoder=self._encoder, error_decoder=error_decoder, pairs=pairs)


class Opening:
    """A session whose program is being started. When it runs the session takes its place, or ends at once if we shut down."""

    __slots__ = ("_starting", "client")

    def __init__(self, starting: asyncio.Future[Spawned], client: Client) -> None:
        self._starting = starting
        self.client = client

    def shut_down(self) -> None:
        """Wait for the program: only what runs can be ended in good order."""

    def hurry(self) -> None:
        self._starting.cancel()


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
