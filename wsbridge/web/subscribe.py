"""A channel's door: from a request to a subscription, over a WebSocket or as an event stream."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from wsbridge.errors import Refused
from wsbridge.hub.channel import Join
from wsbridge.hub.position import Position, parse_position
from wsbridge.logs import ACCESS, Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.rules.methods import check_method
from wsbridge.rules.origins import Rules
from wsbridge.rules.request import Request
from wsbridge.sessions.hub import Hub
from wsbridge.sessions.inlet import Inlet
from wsbridge.sessions.registry import Registry
from wsbridge.sessions.subscription import Subscription
from wsbridge.settings import ClientSettings
from wsbridge.web.answers import SNIFF, protect
from wsbridge.web.events import EventStream
from wsbridge.web.gate import Admission, Gate
from wsbridge.web.greeting import Upgradable
from wsbridge.web.handshake import TAKEN, Handshake
from wsbridge.wire.events import Events
from wsbridge.wire.subscribed import SUBPROTOCOL, Plain, Positioned, Wire

EVENTS_PATH = "/events"
EVENTS_TYPE = "text/event-stream"
EVENTS_METHODS = ("GET", "OPTIONS")
"""What an event stream takes: it has no length and no end that HEAD could tell of."""
RETRY_MS = (500, 3000)
"""Between these lies the time after which a browser makes a lost event stream again; of its own it would be 3 s for all."""
FULL_MS = (2000, 8000)
"""The same for one who finds no place."""
TIMES = "times"
"""The parameter of a query that asks for the times at which messages were published."""
STATUS_PATH = "/status"
SCRIPTS = ("wsbridge.js", "wsbridge.mjs")
"""The client for pages: a plain script, and the same as a module."""

log = logger("session")


class Subscribing:
    """Begins subscriptions. `inlet` takes what clients send, where something does."""

    def __init__(
        self,
        *,
        gate: Gate,
        origins: Rules,
        handshake: Handshake,
        client: ClientSettings,
        hub: Hub,
        join: Join,
        inlet: Inlet | None,
        status: Callable[[], Mapping[str, object]] | None,
        registry: Registry,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.admit = gate.admit
        self.locate = gate.locate
        self.asks_disk = gate.asks_disk
        self.turn_away = handshake.turn_away
        self._gate = gate
        self._origins = origins
        self._handshake = handshake
        self._client = client
        self._hub = hub
        self._join = join
        self._inlet = inlet
        self._status = status
        self._registry = registry
        self._metrics = metrics
        self._loop = loop
        assets = files("wsbridge.web").joinpath("assets")
        self._scripts = {f"/{name}": assets.joinpath(name).read_bytes() for name in SCRIPTS}
        self._wire = cache(_make_wire)
        self._events = Events()

    @property
    def has_room(self) -> bool:
        return True

    async def room(self) -> None:
        """Return at once: a subscriber needs no program."""

    def begin(self, connection: Upgradable, request: Request, admission: Admission, pairs: Pairs, remote_host: str) -> None:
        """Answer 101 and begin the subscription."""
        with self._registry.slots.returned_on_error():
            begin = self._place(_query(request, "since"))
            client = self._handshake.accept(connection, request, admission.accept, admission.subprotocol, pairs)
            bits = client.deflate.parameters.server_bits if client.deflate else 0
            wire = self._wire(admission.subprotocol == SUBPROTOCOL, bits, _query(request, TIMES) is not None)
            early = connection.take_over(client)
            session = Subscription(client, self._hub, wire, inlet=self._inlet, registry=self._registry, pairs=pairs)
        self._begun(pairs)
        client.join(session.start(begin), session.hung_up)
        client.hear(early)

    def is_events(self, request: Request) -> bool:
        """Whether a plain request asks for the channel as an event stream."""
        return request.path == EVENTS_PATH or EVENTS_TYPE in _accepted(request)

    def stream(self, raw: web.BaseRequest, request: Request, pairs: Pairs, headers: tuple[tuple[str, str], ...]) -> web.StreamResponse:
        """Answer with an event stream without end. Raises Refused."""
        self._check(request)
        with self._registry.slots.returned_on_error():
            client, session = self._accept_stream(raw, request, pairs, headers)
            begin = self._place(request.header("last-event-id") or _query(request, "since"))
        self._begun(pairs)
        client.join(session.start(begin))
        return TAKEN

    def _accept_stream(
        self, raw: web.BaseRequest, request: Request, pairs: Pairs, headers: tuple[tuple[str, str], ...]
    ) -> tuple[EventStream, Subscription]:
        """Answer 200 and take the connection over. Raises Refused."""
        connection: Any = raw.protocol
        origin = request.header("origin")
        lines = [
            ("Content-Type", EVENTS_TYPE),
            ("Cache-Control", "no-cache, no-transform"),
            ("X-Accel-Buffering", "no"),
            (SNIFF, "nosniff"),
            *headers,
        ]
        # Whom the rules let open a WebSocket may read this as well.
        lines += _readers(origin, headers).items()
        head = "".join(f"{name}: {value}\r\n" for name, value in [*lines, ("Connection", "close")])
        transport = connection.transport
        if transport is None or transport.is_closing():
            raise Refused(400, "the client has gone")
        client = EventStream(transport, settings=self._client, metrics=self._metrics, pairs=pairs, loop=self._loop)
        connection.take_over(client)
        # All who lose a server would come back at once; a browser waits as long as it was told.
        retry_ms = random.randint(*RETRY_MS)
        client.take(f"HTTP/1.1 200 OK\r\n{head}\r\nretry: {retry_ms}\n\n".encode("utf-8", "surrogateescape"))
        return client, Subscription(client, self._hub, self._events, inlet=None, registry=self._registry, pairs=pairs)

    def come_back(self, request: Request, headers: tuple[tuple[str, str], ...]) -> web.Response | None:
        """Return what makes an EventSource come back that was one too many: a status of an error would end it for good.

        None for anybody else, to whom the status says more. `headers` is what is still added to it.
        """
        if EVENTS_TYPE not in _accepted(request):
            return None
        wait_ms = random.randint(*FULL_MS)
        text = f"retry: {wait_ms}\n: {self._gate.full}\n\n"
        own = {"Cache-Control": "no-store", **_readers(request.header("origin"), headers)}
        response = web.Response(text=text, content_type=EVENTS_TYPE, charset="utf-8", headers=own)
        response.headers[SNIFF] = "nosniff"
        response.force_close()
        return response

    def resource(self, request: Request, headers: tuple[tuple[str, str], ...]) -> web.Response | None:
        """Return what there is beside the channel: the script for pages, and how the channel is; None for anything else.

        `headers` is what is still added to it. Raises Refused.
        """
        if request.path == STATUS_PATH and self._status is not None:
            self._check_reader(request)
            body, kind, age = json.dumps(self._status()).encode(), "application/json", "no-store"
        elif request.path in self._scripts:
            body, kind, age = self._scripts[request.path], "text/javascript", "no-cache"
        else:
            return None
        # The scripts hold nothing of the channel's.
        origin = request.header("origin") if request.path == STATUS_PATH else "*"
        own = {"Cache-Control": age, **_readers(origin, headers)}
        response = web.Response(body=body, content_type=kind, charset="utf-8", headers=own)
        protect(response)
        return response

    def _check(self, request: Request) -> None:
        """Take a slot for who may have an event stream. Raises Refused."""
        check_method(request.method, EVENTS_METHODS)
        self._check_reader(request)
        if not self._registry.slots.take():
            raise Refused(503, self._gate.full, headers={"Retry-After": "5"})

    def _check_reader(self, request: Request) -> None:
        """Raises Refused for a page that may not open the channel: it may not read it in another way either."""
        if refusal := self._origins.refusal(_origin(request), request.peer):
            raise Refused(403, refusal)

    def _begun(self, pairs: Pairs) -> None:
        self._metrics.sessions += 1
        log.log(ACCESS, "CONNECT", extra=extra(pairs))

    def _place(self, since: str | None) -> Join | Position | None:
        """Return where a subscriber begins: behind the position that it brings, or where all begin that bring none."""
        return parse_position(since) if since else self._join


def _origin(request: Request) -> str | None:
    """Return the origin of the page that asks. To its own a browser names none, but tells it otherwise.

    Over TLS and to localhost it says that it is the same (Fetch Metadata); elsewhere the page's URL says where that is from,
    which a foreign page can leave out, but not make up.
    """
    origin, site = request.header("origin"), request.header("sec-fetch-site")
    if origin is not None:
        return origin
    if site is None:
        return request.header("referer")
    return f"{request.peer.url_scheme}://{request.peer.host}" if site == "same-origin" else None


def _readers(origin: str | None, headers: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return the headers that let the pages of an origin read, unless `headers` say whose may: a browser takes one such and no more.

    An origin is ASCII (RFC 6454, section 6.2); other bytes in the header name none.
    """
    if not origin or not origin.isascii() or any(name.lower() == "access-control-allow-origin" for name, _ in headers):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _make_wire(is_positioned: bool, bits: int, times: bool) -> Wire:
    """Return a wire; who share one share what is encoded, so there is to be one of each."""
    return Positioned(bits, times=times) if is_positioned else Plain(bits)


def _accepted(request: Request) -> list[str]:
    return [part.partition(";")[0].strip().lower() for part in (request.header("accept") or "").split(",")]


def _query(request: Request, name: str) -> str | None:
    """Return a parameter of the request's query."""
    return parse_qs(request.query).get(name, [None])[0]
