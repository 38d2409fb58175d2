"""From a request to a session: the 101, the client, the child, and the two joined.

The 101 is written by hand, so that every header of it is ours, and so is the answer to an offer of compression. What
fails after it is told by a close code.
"""

from __future__ import annotations

import asyncio
from functools import partial

from aiohttp import web

from wsbridge.closecodes import INTERNAL_ERROR, TRY_LATER
from wsbridge.errors import ProgramError
from wsbridge.flow import End
from wsbridge.framing import make_framing
from wsbridge.framing.envelope import Decoder as Envelope
from wsbridge.logs import ACCESS, Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.process.child import Child
from wsbridge.process.launch import Launcher
from wsbridge.rules.request import Request
from wsbridge.sessions.bridge import Bridge
from wsbridge.sessions.registry import Registry
from wsbridge.settings import ClientSettings, ProgramSettings
from wsbridge.web.client import Client
from wsbridge.web.connection import MASK, Connection
from wsbridge.web.gate import Admission
from wsbridge.web.hangup import Hangups
from wsbridge.wire.deflate import Deflate, Parameters, negotiate

BUSY = End(TRY_LATER, "all sessions are taken; try again later")
FRAMED_BY_HAND = frozenset({"sec-websocket-protocol"})

log = logger("session")


class Taken(web.Response):
    """What aiohttp is given as the answer to a request whose connection it no longer has: nothing is sent."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


TAKEN = Taken()


class Upgrader:
    """Begins sessions."""

    def __init__(
        self,
        *,
        program: ProgramSettings,
        client: ClientSettings,
        headers: tuple[tuple[str, str], ...],
        registry: Registry,
        launcher: Launcher,
        hangups: Hangups,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._program = program
        self._client = client
        self._headers = headers
        self._registry = registry
        self._launcher = launcher
        self._hangups = hangups
        self._metrics = metrics
        self._loop = loop
        self._make_decoder, self._encoder = make_framing(program.framing, limit=program.max_message_bytes)

    def begin(
        self, connection: Connection, request: Request, admission: Admission, environment: dict[str, str], pairs: Pairs
    ) -> Bridge | None:
        """Answer 101 and begin the session; None when the program cannot be started. The slot is the session's from here."""
        log.log(ACCESS, "CONNECT", extra=extra(pairs))
        opening = self._encoder.opening(partial(_details, request, pairs, admission.subprotocol))
        # The program is started before the 101 leaves: it is loaded by one processor while the other does the rest.
        try:
            child = self._launch(admission, environment, pairs)
        except ProgramError as error:
            self._fail(connection, request, admission, error, pairs)
            return None
        except BaseException:
            self._registry.give_slot()
            raise
        try:
            client = self._accept(connection, request, admission.accept, admission.subprotocol, pairs)
            early = connection.take_over(client)
        except BaseException:
            self._registry.run(self._abandon(child), "end of a program without a session")
            raise
        session = Bridge(client, child, registry=self._registry, pairs=pairs, drain_seconds=self._program.drain_ms / 1000, loop=self._loop)
        client.join(session.start(), session.hung_up)
        self._metrics.sessions += 1
        child.send(opening)
        client.data_received(early)
        return session

    async def _abandon(self, child: Child) -> None:
        try:
            child.kill()
            child.close_input(End(INTERNAL_ERROR))
            await child.end()
        finally:
            self._registry.give_slot()

    def _fail(self, connection: Connection, request: Request, admission: Admission, error: ProgramError, pairs: Pairs) -> None:
        self._metrics.launch_failures += 1
        self._registry.give_slot()
        log.error("%s", error, extra=extra(pairs))
        client = self._accept(connection, request, admission.accept, admission.subprotocol, pairs)
        client.end(End(INTERNAL_ERROR, "could not launch process"))
        client.data_received(connection.take_over(client))
        log.log(ACCESS, "DISCONNECT", extra=extra(pairs))

    def turn_away(self, connection: Connection, request: Request, accept: str, pairs: Pairs) -> None:
        """Answer 101 and close with 1013, so that a browser can see why."""
        self._metrics.refused[TRY_LATER] += 1
        client = self._accept(connection, request, accept, None, pairs)
        client.end(BUSY)
        client.data_received(connection.take_over(client))

    def _accept(self, connection: Connection, request: Request, accept: str, subprotocol: str | None, pairs: Pairs) -> Client:
        transport = connection.transport
        assert transport is not None
        agreed = negotiate(request.header("sec-websocket-extensions") or "") if self._client.compress else None
        transport.write(self._head(accept, subprotocol, agreed))
        return Client(
            transport,
            settings=self._client,
            mask=MASK,
            deflate=Deflate(agreed) if agreed else None,
            hangups=self._hangups,
            metrics=self._metrics,
            pairs=pairs,
            loop=self._loop,
        )

    def _head(self, accept: str, subprotocol: str | None, agreed: Parameters | None) -> bytes:
        headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept), *self._headers]
        if subprotocol is not None and not any(name.lower() in FRAMED_BY_HAND for name, _ in self._headers):
            headers.append(("Sec-WebSocket-Protocol", subprotocol))
        if agreed is not None:
            headers.append(("Sec-WebSocket-Extensions", agreed.header()))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode("utf-8", "surrogateescape")

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
