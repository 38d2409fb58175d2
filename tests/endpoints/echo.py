"""A kind of endpoint in one file: it returns each message to its client."""

import asyncio
from collections.abc import Iterator
from typing import Annotated

from wsbridge.endpoints.base import Endpoint, Parts, Services
from wsbridge.flow import CallbackSink, End
from wsbridge.http.admission import Admission
from wsbridge.http.newconnection import Upgradable
from wsbridge.logs import LogFields
from wsbridge.peers.websocket import WebSocketPeer
from wsbridge.rules.request import Request
from wsbridge.sessions.registry import SHUTTING_DOWN
from wsbridge.settings import AccessSettings, ClientSettings, EndpointSettings, HttpSettings, ProgramSettings
from wsbridge.settings.endpoint import Within


class EchoSettings(EndpointSettings, frozen=True, kw_only=True):
    """Settings of an endpoint that returns each message to its client."""

    kind = "echo"

    access: AccessSettings = AccessSettings()
    client: ClientSettings = ClientSettings()
    program: Annotated[ProgramSettings, Within(only=("drain",))] = ProgramSettings()
    http: Annotated[HttpSettings, Within(only=("page",))] = HttpSettings()


class Echo:
    """A session in which the client is its own upstream."""

    def __init__(self, client: WebSocketPeer, parts: Parts) -> None:
        self._client = client
        self._registry = parts.registry
        self._registry.add(self)

    def shut_down(self, reason: End = SHUTTING_DOWN) -> None:
        self._client.end(reason)
        self.ended(reason)

    def force(self) -> None:
        self._client.abort()

    def ended(self, reason: End) -> None:
        self._client.close()
        self._registry.limiter.release()
        self._registry.remove(self)


class EchoSessions:
    """The session factory of the endpoint."""

    has_room = True

    def __init__(self, parts: Parts) -> None:
        self.gate, self.handshake = parts.gate(), parts.handshake()
        self._parts = parts

    async def room(self) -> None:
        """Return at once."""

    def start(self, connection: Upgradable, request: Request, admission: Admission, fields: LogFields, remote_host: str) -> None:
        with self._parts.registry.limiter.released_on_error():
            client = self.handshake.accept(connection, request, admission.accept, admission.subprotocol, fields)
            early = connection.detach(client)
        echo = Echo(client, self._parts)
        client.join(CallbackSink(client.write, echo.ended), lambda: echo.ended(SHUTTING_DOWN))
        client.feed(early)


class EchoEndpoint:
    """The endpoint."""

    def __init__(self, settings: EchoSettings, services: Services) -> None:
        self.settings = settings
        self._parts = Parts(settings, services)
        self.registry = self._parts.registry

    async def open(self) -> None:
        self.app = self._parts.app(sessions=EchoSessions(self._parts))

    def start(self) -> None:
        """Do nothing."""

    def succeed(self, settings: EndpointSettings, services: Services) -> Endpoint | None:
        """Return None."""

    async def finish(self, force: asyncio.Event) -> None:
        """Do nothing."""

    def served(self) -> Iterator[str]:
        yield f"Echoing messages at         : {self.settings.path}"
