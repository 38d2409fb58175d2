"""Starts a subscription to a channel: a request becomes a session over a WebSocket or an event stream."""

from __future__ import annotations

import asyncio
import random
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from wsbridge.channel.position import Position, parse_position
from wsbridge.channel.ring import Join
from wsbridge.errors import Refused
from wsbridge.http.admission import Admission, Gate
from wsbridge.http.answers import SNIFF
from wsbridge.http.endpoint import EVENTS_METHODS
from wsbridge.http.handshake import DETACHED, UNSENT_BYTES, Handshake
from wsbridge.http.newconnection import Upgradable
from wsbridge.http.status import check_reader
from wsbridge.logs import ACCESS, LogFields, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.peers.eventstream import EventStream
from wsbridge.rules.methods import check_method
from wsbridge.rules.origins import Rules, cors_headers
from wsbridge.rules.request import Request
from wsbridge.sessions.fanin import FanIn
from wsbridge.sessions.fanout import Fanout
from wsbridge.sessions.registry import Registry
from wsbridge.sessions.subscription import Subscription
from wsbridge.settings import ClientSettings
from wsbridge.wire.eventstream import Events
from wsbridge.wire.positioned import SUBPROTOCOL, PlainWire, Positioned, Wire

EVENTS_PATH = "/events"
EVENTS_TYPE = "text/event-stream"
RETRY_MS = (500, 3000)
"""The range of the delay, in milliseconds, after which a browser reopens a lost event stream. Without it, every browser would wait
3 s."""
FULL_MS = (2000, 8000)
"""The same range for a client without a free slot."""
TIMES = "times"
"""The query parameter that requests the publication times of messages."""

log = logger("session")


class Wires:
    """The wires of a channel, one of each kind: subscribers with the same wire share encoded messages."""

    def __init__(self) -> None:
        self.events = Events()
        self.websocket = cache(_make_wire)


class SubscriptionFactory:
    """Starts subscriptions; `fan_in` receives the clients' messages if the channel accepts messages."""

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
        wires: Wires,
        registry: Registry,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.gate = gate
        self.handshake = handshake
        self._origins = origins
        self._client = client
        self._fanout = fanout
        self._join = join
        self._fan_in = fan_in
        self._registry = registry
        self._metrics = metrics
        self._loop = loop
        self._wires = wires

    @property
    def has_room(self) -> bool:
        return True

    async def room(self) -> None:
        """Return at once: a subscriber needs no program."""

    def start(self, connection: Upgradable, request: Request, admission: Admission, fields: LogFields, remote_host: str) -> None:
        """Send the 101 response and start the subscription."""
        with self._registry.limiter.released_on_error():
            start_at = self._start_position(_query(request, "since"))
            client = self.handshake.accept(connection, request, admission.accept, admission.subprotocol, fields)
            bits = client.deflate.parameters.server_bits if client.deflate else 0
            wire = self._wires.websocket(admission.subprotocol == SUBPROTOCOL, bits, _query(request, TIMES) is not None)
            early = connection.detach(client)
            session = Subscription(client, self._fanout, wire, fan_in=self._fan_in, registry=self._registry, fields=fields)
        self._log_start(fields)
        client.join(session.start(start_at), session.hung_up)
        client.feed(early)

    def is_events(self, request: Request) -> bool:
        """Whether a plain request is for the channel as an event stream."""
        return request.path == EVENTS_PATH or EVENTS_TYPE in _accepted(request)

    def stream(self, raw: web.BaseRequest, request: Request, fields: LogFields, headers: tuple[tuple[str, str], ...]) -> web.StreamResponse:
        """Answer with an event stream, which does not end by itself. Raises Refused."""
        self._check(request)
        with self._registry.limiter.released_on_error():
            client, session = self._accept_stream(raw, request, fields, headers)
            start_at = self._start_position(request.header("last-event-id") or _query(request, "since"))
        self._log_start(fields)
        client.join(session.start(start_at))
        return DETACHED

    def _accept_stream(
        self, raw: web.BaseRequest, request: Request, fields: LogFields, headers: tuple[tuple[str, str], ...]
    ) -> tuple[EventStream, Subscription]:
        """Send the 200 response and detach the connection from aiohttp. Raises Refused."""
        connection: Any = raw.protocol
        origin = request.header("origin")
        lines = [
            ("Content-Type", EVENTS_TYPE),
            ("Cache-Control", "no-cache, no-transform"),
            ("X-Accel-Buffering", "no"),
            (SNIFF, "nosniff"),
            *headers,
        ]
        # A page that may open a WebSocket may also read this stream.
        lines += cors_headers(origin, headers).items()
        head = "".join(f"{name}: {value}\r\n" for name, value in [*lines, ("Connection", "close")])
        transport = connection.transport
        if transport is None or transport.is_closing():
            raise Refused(400, "the client has disconnected")
        client = EventStream(
            transport, settings=self._client, unsent_bytes=UNSENT_BYTES, metrics=self._metrics, fields=fields, loop=self._loop
        )
        connection.detach(client)
        # Without a random delay, all clients of a lost server would reconnect at once; a browser waits for the time in `retry`.
        retry_ms = random.randint(*RETRY_MS)
        client.deliver(f"HTTP/1.1 200 OK\r\n{head}\r\nretry: {retry_ms}\n\n".encode("utf-8", "surrogateescape"))
        return client, Subscription(client, self._fanout, self._wires.events, fan_in=None, registry=self._registry, fields=fields)

    def retry_response(self, request: Request, headers: tuple[tuple[str, str], ...]) -> web.Response | None:
        """Return a response after which an EventSource without a slot retries. After an error status it would never retry.

        Return None for any other client, to which the error status is more useful. `headers` are the headers that the caller adds.
        """
        if EVENTS_TYPE not in _accepted(request):
            return None
        wait_ms = random.randint(*FULL_MS)
        text = f"retry: {wait_ms}\n: {self._registry.limiter.full}\n\n"
        own = {"Cache-Control": "no-store", **cors_headers(request.header("origin"), headers)}
        response = web.Response(text=text, content_type=EVENTS_TYPE, charset="utf-8", headers=own)
        response.headers[SNIFF] = "nosniff"
        response.force_close()
        return response

    def _check(self, request: Request) -> None:
        """Check a request for an event stream, and reserve a slot for it. Raises Refused."""
        check_method(request.method, EVENTS_METHODS)
        check_reader(request, self._origins)
        if not self._registry.limiter.acquire():
            raise Refused(503, self._registry.limiter.full, headers={"Retry-After": "5"})

    def _log_start(self, fields: LogFields) -> None:
        self._metrics.sessions += 1
        log.log(ACCESS, "CONNECT", extra=extra(fields))

    def _start_position(self, since: str | None) -> Join | Position | None:
        """Return the position that a subscriber sends, or else the channel's default.

        None stands for a text that is not a position.
        """
        return parse_position(since) if since else self._join


def _make_wire(is_positioned: bool, bits: int, times: bool) -> Wire:
    """Return a new wire for WebSockets."""
    return Positioned(bits, times=times) if is_positioned else PlainWire(bits)


def _accepted(request: Request) -> list[str]:
    return [part.partition(";")[0].strip().lower() for part in (request.header("accept") or "").split(",")]


def _query(request: Request, name: str) -> str | None:
    """Return a parameter of the request's query, or None."""
    return parse_qs(request.query).get(name, [None])[0]
