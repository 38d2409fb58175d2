"""Subscriptions to a channel: from a request to a session, over a WebSocket or an event stream."""

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

from wsbridge.channel.position import Position, parse_position
from wsbridge.channel.ring import Join
from wsbridge.errors import Refused
from wsbridge.logs import ACCESS, Pairs, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.peers.eventstream import EventStream
from wsbridge.rules.methods import check_method
from wsbridge.rules.origins import Rules
from wsbridge.rules.request import Request
from wsbridge.sessions.fanin import FanIn
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.registry import Registry
from wsbridge.sessions.subscription import Subscription
from wsbridge.settings import ClientSettings
from wsbridge.web.answers import SNIFF, protect
from wsbridge.web.gate import Admission, Gate
from wsbridge.web.greeting import Upgradable
from wsbridge.web.handshake import TAKEN, Handshake
from wsbridge.wire.events import Events
from wsbridge.wire.subscribed import SUBPROTOCOL, Plain, Positioned, Wire

EVENTS_PATH = "/events"
EVENTS_TYPE = "text/event-stream"
EVENTS_METHODS = ("GET", "OPTIONS")
"""The methods of an event stream: it has no length and no end that a response to HEAD could report."""
RETRY_MS = (500, 3000)
"""The range of the delay, in milliseconds, after which a browser reopens a lost event stream. Without it, every browser would wait
3 s."""
FULL_MS = (2000, 8000)
"""The same range for a client that finds no free slot."""
TIMES = "times"
"""The query parameter that requests the publication times of messages."""
STATUS_PATH = "/status"
SCRIPTS = ("wsbridge.js", "wsbridge.mjs")
"""The JavaScript client for pages: a plain script, and the same client as a module."""

log = logger("session")


class Subscribing:
    """Begins subscriptions; `fan_in` receives the clients' messages, if the channel accepts any."""

    def __init__(
        self,
        *,
        gate: Gate,
        origins: Rules,
        handshake: Handshake,
        client: ClientSettings,
        fanout: Fanout,
        join: Join,
        fan_in: FanIn | None,
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
        self._fanout = fanout
        self._join = join
        self._fan_in = fan_in
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
        """Send the 101 and begin the subscription."""
        with self._registry.limiter.returned_on_error():
            begin = self._place(_query(request, "since"))
            client = self._handshake.accept(connection, request, admission.accept, admission.subprotocol, pairs)
            bits = client.deflate.parameters.server_bits if client.deflate else 0
            wire = self._wire(admission.subprotocol == SUBPROTOCOL, bits, _query(request, TIMES) is not None)
            early = connection.take_over(client)
            session = Subscription(client, self._fanout, wire, fan_in=self._fan_in, registry=self._registry, pairs=pairs)
        self._begun(pairs)
        client.join(session.start(begin), session.hung_up)
        client.hear(early)

    def is_events(self, request: Request) -> bool:
        """Whether a plain request asks for the channel as an event stream."""
        return request.path == EVENTS_PATH or EVENTS_TYPE in _accepted(request)

    def stream(self, raw: web.BaseRequest, request: Request, pairs: Pairs, headers: tuple[tuple[str, str], ...]) -> web.StreamResponse:
        """Answer with an event stream, which does not end by itself. Raises Refused."""
        self._check(request)
        with self._registry.limiter.returned_on_error():
            client, session = self._accept_stream(raw, request, pairs, headers)
            begin = self._place(request.header("last-event-id") or _query(request, "since"))
        self._begun(pairs)
        client.join(session.start(begin))
        return TAKEN

    def _accept_stream(
        self, raw: web.BaseRequest, request: Request, pairs: Pairs, headers: tuple[tuple[str, str], ...]
    ) -> tuple[EventStream, Subscription]:
        """Send the 200 and take the connection over. Raises Refused."""
        connection: Any = raw.protocol
        origin = request.header("origin")
        lines = [
            ("Content-Type", EVENTS_TYPE),
            ("Cache-Control", "no-cache, no-transform"),
            ("X-Accel-Buffering", "no"),
            (SNIFF, "nosniff"),
            *headers,
        ]
        # A page that the rules allow to open a WebSocket may read this as well.
        lines += _readers(origin, headers).items()
        head = "".join(f"{name}: {value}\r\n" for name, value in [*lines, ("Connection", "close")])
        transport = connection.transport
        if transport is None or transport.is_closing():
            raise Refused(400, "the client has gone")
        client = EventStream(transport, settings=self._client, metrics=self._metrics, pairs=pairs, loop=self._loop)
        connection.take_over(client)
        # Without a random delay, all clients of a lost server would reconnect at once; a browser waits as long as `retry` says.
        retry_ms = random.randint(*RETRY_MS)
        client.take(f"HTTP/1.1 200 OK\r\n{head}\r\nretry: {retry_ms}\n\n".encode("utf-8", "surrogateescape"))
        return client, Subscription(client, self._fanout, self._events, fan_in=None, registry=self._registry, pairs=pairs)

    def come_back(self, request: Request, headers: tuple[tuple[str, str], ...]) -> web.Response | None:
        """Return a response after which an EventSource without a slot retries; an error status would make it stop for good.

        Return None for any other client, to which the error status is more useful. `headers` are the headers that the caller adds.
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
        """Return the client script for pages or the channel's status, or None for any other path. Raises Refused.

        `headers` are the headers that the caller adds.
        """
        if request.path == STATUS_PATH and self._status is not None:
            self._check_reader(request)
            body, kind, age = json.dumps(self._status()).encode(), "application/json", "no-store"
        elif request.path in self._scripts:
            body, kind, age = self._scripts[request.path], "text/javascript", "no-cache"
        else:
            return None
        # The scripts contain no data of the channel.
        origin = request.header("origin") if request.path == STATUS_PATH else "*"
        own = {"Cache-Control": age, **_readers(origin, headers)}
        response = web.Response(body=body, content_type=kind, charset="utf-8", headers=own)
        protect(response)
        return response

    def _check(self, request: Request) -> None:
        """Check a request for an event stream, and reserve a slot for it. Raises Refused."""
        check_method(request.method, EVENTS_METHODS)
        self._check_reader(request)
        if not self._registry.limiter.acquire():
            raise Refused(503, self._gate.full, headers={"Retry-After": "5"})

    def _check_reader(self, request: Request) -> None:
        """Raise Refused for a page that may not open the channel: it may not read the channel in another way either."""
        if refusal := self._origins.refusal(_origin(request), request.peer):
            raise Refused(403, refusal)

    def _begun(self, pairs: Pairs) -> None:
        self._metrics.sessions += 1
        log.log(ACCESS, "CONNECT", extra=extra(pairs))

    def _place(self, since: str | None) -> Join | Position | None:
        """Return where a subscriber begins: after the position that it brings, or else at the channel's default.

        None stands for a text that was never a position.
        """
        return parse_position(since) if since else self._join


def _origin(request: Request) -> str | None:
    """Return the origin of the page that sends a request.

    A browser sends no Origin to the page's own server, but other headers identify the page. Over TLS and to localhost,
    Sec-Fetch-Site says that the origin is the same (Fetch Metadata). Elsewhere the Referer contains the page's URL, which a foreign
    page can omit but not forge.
    """
    origin, site = request.header("origin"), request.header("sec-fetch-site")
    if origin is not None:
        return origin
    if site is None:
        return request.header("referer")
    return f"{request.peer.url_scheme}://{request.peer.host}" if site == "same-origin" else None


def _readers(origin: str | None, headers: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return the headers that let the pages of an origin read a response, unless `headers` already decide that.

    A browser accepts only one such header. An origin is ASCII (RFC 6454, section 6.2); a header with other bytes names no origin.
    """
    if not origin or not origin.isascii() or any(name.lower() == "access-control-allow-origin" for name, _ in headers):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _make_wire(is_positioned: bool, bits: int, times: bool) -> Wire:
    """Return a wire; subscribers with the same wire share encoded messages, so each kind should exist only once."""
    return Positioned(bits, times=times) if is_positioned else Plain(bits)


def _accepted(request: Request) -> list[str]:
    return [part.partition(";")[0].strip().lower() for part in (request.header("accept") or "").split(",")]


def _query(request: Request, name: str) -> str | None:
    """Return a parameter of the request's query, or None."""
    return parse_qs(request.query).get(name, [None])[0]
