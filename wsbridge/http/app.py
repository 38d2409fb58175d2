"""Dispatch of requests, in this order: WebSocket or event stream, CGI script, static file, a page of wsbridge, 404."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion, web
from aiohttp.http import RawRequestMessage

from wsbridge.errors import Busy, ForeignHost, Refused
from wsbridge.http.admission import is_upgrade
from wsbridge.http.answers import dress, protect
from wsbridge.http.cgi import CgiScripts
from wsbridge.http.endpoint import EVENTS_METHODS, Endpoint, EventsEndpoint, Resource
from wsbridge.http.handshake import DETACHED
from wsbridge.http.newconnection import Upgradable
from wsbridge.http.page import Page, icon
from wsbridge.http.static import StaticFiles, in_a_thread
from wsbridge.logs import ACCESS, ERROR, TRACE, LogFields, RateLimit, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.net.reverselookup import Names
from wsbridge.rules.forwarded import UNIX_PEER, Trusted, seen_through
from wsbridge.rules.hosts import Hosts
from wsbridge.rules.methods import KNOWN, READ, check_method
from wsbridge.rules.paths import clean
from wsbridge.rules.request import Peer, Request, by_name, check_framing, check_host, encode_path, read_target
from wsbridge.sessions.registry import Registry

ICON_PATH = "/favicon.ico"
"""The path at which browsers look for an icon when a page names none."""
REDIRECTS_INSIDE = 3
"""How many local redirects of CGI scripts the server follows for one request."""

http_log = logger("http")
session_log = logger("session")


@dataclass(frozen=True, slots=True)
class Reception:
    """Which requests the server reads and answers, and the headers of its responses."""

    hosts: Hosts
    trusted: Trusted
    reverse_lookup: bool
    headers: tuple[tuple[str, str], ...]
    """Headers of every response."""
    headers_http: tuple[tuple[str, str], ...]
    """Headers of every response that is no upgrade; they begin with `headers`."""


class App:
    """Answers requests.

    `endpoint` is None if the server has no WebSocket endpoint. `subject` is the key and value that name the program or channel in the
    log.
    """

    def __init__(
        self,
        *,
        settings: Reception,
        registry: Registry,
        metrics: Metrics,
        endpoint: Endpoint | None,
        events: EventsEndpoint | None = None,
        resources: tuple[Resource, ...] = (),
        cgi: CgiScripts | None,
        static: StaticFiles | None,
        page: Page | None,
        page_everywhere: bool = True,
        introduction: Page | None = None,
        has_icon: bool = False,
        subject: tuple[str, str],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._metrics = metrics
        self._endpoint = endpoint
        self._events = events
        self._resources = resources
        self._cgi = cgi
        self._static = static
        self._own_page = page
        self._page_everywhere = page_everywhere
        self._introduction = introduction
        self._has_icon = has_icon
        self._subject, self._name = subject
        self._names = Names(metrics)
        self._headers_plain = settings.headers_http
        self._foreign_hosts = RateLimit(session_log, ACCESS)

    async def __call__(self, raw: web.BaseRequest) -> web.StreamResponse:
        """Answer one request from aiohttp."""
        self._metrics.requests += 1
        try:
            request = self._read(raw.method, raw.raw_path, raw.version, raw.headers, raw.transport)
        except Refused as refused:
            # The server cannot know where this request ends, so it closes the connection.
            return self._refuse(refused, raw.path_qs, upgrading=False, closes=True)
        upgrading = self._endpoint is not None and is_upgrade(request)
        try:
            self._check_host(request)
            if request.method == "CONNECT" or raw.raw_path == "*":
                return self._answer_for_all(request)
            if (cleaned := clean(request.path)) != request.path:
                return self._redirect(cleaned, request)
            if upgrading:
                return await self._open(raw, request)
            if self._events is not None and request.method != "OPTIONS" and self._events.is_events(request):
                return self._stream(self._events, raw, request)
            return await self._serve(raw, request)
        except Refused as refused:
            # The bytes that follow may be the rest of a body, or frames.
            return self._refuse(refused, request.url, upgrading=upgrading, closes=upgrading or refused.status in (408, 413))

    def upgrade(self, connection: Upgradable, message: RawRequestMessage) -> bool:
        """Begin a session at once if nothing prevents it; return whether it has begun.

        A request that needs a lookup or an error response first is left to `__call__`, which runs a few loop iterations later.
        """
        endpoint = self._endpoint
        if endpoint is None or self._settings.reverse_lookup or endpoint.asks_disk or not endpoint.has_room:
            return False
        try:
            request = self._read(message.method, message.path, message.version, message.headers, connection.transport)
            if not is_upgrade(request) or clean(request.path) != request.path or self._settings.hosts.refused(request.peer):
                return False
            fields = self._fields(request)
            endpoint.begin(connection, request, endpoint.admit(request), fields, request.peer.address)
        except (Refused, Busy):
            return False
        self._metrics.requests += 1
        return True

    def error_page(self, status: int, detail: str) -> web.Response:
        """Return the error page for a request that aiohttp could not parse or that failed."""
        self._metrics.refused[status] += 1
        return self._page(status, detail, self._settings.headers)

    def _check_host(self, request: Request) -> None:
        """Raise Refused (403) for a host that is not the server's; after a 421, browsers may repeat the request."""
        host = self._settings.hosts.refused(request.peer)
        if host is None:
            return
        refused = ForeignHost(host)
        fields = {"url": request.url, "remote": request.peer.address}
        self._foreign_hosts.say("foreign host", f"refused (403): {refused}", fields, time.monotonic())
        raise refused

    # WebSocket

    async def _open(self, raw: web.BaseRequest, request: Request) -> web.StreamResponse:
        endpoint = self._endpoint
        assert endpoint is not None
        connection: Any = raw.protocol
        fields = self._fields(request)
        await endpoint.room()
        try:
            admission = endpoint.admit(request, await in_a_thread(endpoint.locate, request) if endpoint.asks_disk else None)
        except Busy as busy:
            session_log.error("%s", busy, extra=extra(fields))
            endpoint.turn_away(connection, request, busy, fields)
            return DETACHED
        except Refused as refused:
            self._log_refusal(refused, fields)
            raise
        with self._registry.limiter.returned_on_error():
            remote_host = await self._remote_host(request.peer)
            if self._settings.reverse_lookup:
                fields["remote"] = remote_host
            if connection.transport is None or connection.transport.is_closing():
                raise Refused(400, "the client has disconnected")
        endpoint.begin(connection, request, admission, fields, remote_host)
        return DETACHED

    def _stream(self, events: EventsEndpoint, raw: web.BaseRequest, request: Request) -> web.StreamResponse:
        fields = self._fields(request)
        try:
            return events.stream(raw, request, fields, self._headers_plain)
        except Refused as refused:
            self._log_refusal(refused, fields)
            if refused.status == 503 and (answer := events.come_back(request, self._headers_plain)) is not None:
                self._metrics.refused[503] += 1
                return self._dressed(answer)
            raise

    def _fields(self, request: Request) -> LogFields:
        return {
            "url": request.url,
            "id": self._registry.new_id(time.time_ns()),
            "remote": request.peer.address,
            self._subject: self._name,
            "origin": request.header("origin") or "file:",
        }

    async def _remote_host(self, peer: Peer) -> str:
        if not self._settings.reverse_lookup or peer.address == UNIX_PEER:
            return peer.address
        return await self._names.name(peer.address)

    def _log_refusal(self, refused: Refused, fields: LogFields) -> None:
        if refused.status in (429, 503):
            http_log.log(ERROR, "%s", refused, extra=extra({"url": fields["url"]}))
        elif refused.status == 404:
            session_log.log(ACCESS, "NOT FOUND: script not found", extra=extra(fields))
        else:
            session_log.log(ACCESS, "Unable to upgrade (%d): %s", refused.status, refused, extra=extra(fields))

    # Plain HTTP

    async def _serve(self, raw: web.BaseRequest, request: Request) -> web.StreamResponse:
        fields = {"url": request.url}
        for _ in range(REDIRECTS_INSIDE + 1):
            if self._cgi is None or (script := await in_a_thread(self._cgi.find, request.path)) is None:
                break
            http_log.log(ACCESS, "CGI", extra=extra({**fields, "cgiscript": script.file}))
            # The script itself decides what each method means.
            answer = await self._cgi.run(raw, request, script, self._headers_plain)
            if isinstance(answer, web.StreamResponse):
                return answer
            request = answer
        else:
            raise Refused(500, "too many local redirects by CGI scripts")
        # An open page requests the channel's status every two seconds, so the server logs that request at TRACE.
        methods, category, found = await self._find(request)
        http_log.log(TRACE if category in ("CHANNEL", "ICON") else ACCESS, category, extra=extra(fields))
        if found is None:
            if request.method not in KNOWN:
                check_method(request.method)
            raise Refused(404, "nothing is served here", body="404 page not found\n")
        check_method(request.method, methods)
        return self._dressed(found if request.method != "OPTIONS" else _options(methods))

    async def _find(self, request: Request) -> tuple[tuple[str, ...], str, web.StreamResponse | None]:
        """Return the methods of the resource at a path, its category in the log, and the response to GET. Raises Refused.

        The response is None if there is no such resource.
        """
        is_root = request.path == "/"
        if self._own_page is not None and not self._page_everywhere and is_root and not await self._has_index():
            return READ, self._own_page.name, self._own_page.page()
        if self._static is not None and (file := await self._static.find(request)) is not None:
            return READ, "STATIC", file
        if self._events is not None and self._events.is_events(request):
            return EVENTS_METHODS, "CHANNEL", web.Response()
        for resource in self._resources:
            if (found := resource.find(request, self._headers_plain)) is not None:
                return READ, "CHANNEL", found
        if self._has_icon and request.path == ICON_PATH:
            return READ, "ICON", icon()
        if self._own_page is not None and self._page_everywhere and request.path != ICON_PATH:
            return READ, self._own_page.name, self._own_page.page()
        if self._introduction is not None and is_root and _is_browser(request):
            return READ, self._introduction.name, self._introduction.page()
        return READ, "NOT FOUND", None

    def _answer_for_all(self, request: Request) -> web.StreamResponse:
        """Answer a request without a resource: CONNECT, which is for proxies, and `OPTIONS *` (RFC 9110, section 9.3.7)."""
        if request.method != "OPTIONS":
            check_method(request.method)
            raise Refused(400, "the request target * is valid only with OPTIONS")
        return self._dressed(_options(tuple(sorted(KNOWN - {"CONNECT"})) if self._cgi is not None else READ))

    async def _has_index(self) -> bool:
        return self._static is not None and await self._static.has_index()

    def _redirect(self, cleaned: str, request: Request) -> web.Response:
        location = encode_path(cleaned.replace("%", "%25")) + ("?" + request.query if request.query else "")
        return self._page(301, "", (*self._settings.headers, ("Location", location)))

    # Responses

    def _refuse(self, refused: Refused, url: str, *, upgrading: bool, closes: bool) -> web.Response:
        self._metrics.refused[refused.status] += 1
        headers = self._settings.headers if upgrading else self._headers_plain
        response = self._page(refused.status, refused.detail, (*headers, *refused.headers.items()), body=refused.body)
        if closes:
            response.force_close()
        return response

    @staticmethod
    def _page(status: int, detail: str, headers: tuple[tuple[str, str], ...], *, body: str | None = None) -> web.Response:
        if body is None:
            body = f"{status} {HTTPStatus(status).phrase}\n" + (f"{detail}\n" if detail else "")
        # A detail may contain the name of a file, which need not be UTF-8.
        body = body.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        response = web.Response(status=status, text=body)
        protect(response)
        dress(response, headers)
        return response

    def _dressed(self, response: web.StreamResponse) -> web.StreamResponse:
        dress(response, self._headers_plain)
        return response

    def _read(
        self, method: str, target: str, version: HttpVersion, sent: Mapping[str, str], transport: asyncio.BaseTransport | None
    ) -> Request:
        """Convert the data of an aiohttp request into a Request. Raises Refused (400)."""
        headers = tuple((str(name), value) for name, value in sent.items())
        values = by_name(headers)
        protocol = f"HTTP/{version.major}.{version.minor}"
        check_framing(protocol, headers, values)
        found = read_target(target)
        peer = _peer(transport, found.authority or values.get("host", ""))
        check_host(peer.host)
        peer = seen_through(peer, headers, self._settings.trusted)
        return Request(method, found.path, found.query, found.uri, protocol, headers, peer, values)


def _is_browser(request: Request) -> bool:
    """Whether the client asks for an HTML page; other clients get 404 where nothing is served."""
    return request.method in ("GET", "HEAD") and "text/html" in (request.header("accept") or "").lower()


def _options(methods: tuple[str, ...]) -> web.Response:
    return web.Response(status=204, headers={"Allow": ", ".join(methods)})


def _peer(transport: asyncio.BaseTransport | None, host: str) -> Peer:
    name = transport.get_extra_info("peername") if transport is not None else None
    is_tls = transport is not None and transport.get_extra_info("sslcontext") is not None
    if isinstance(name, tuple):
        own = transport.get_extra_info("sockname") if transport is not None else None
        own_address = _plain(own[0]) if isinstance(own, tuple) else ""
        is_loopback = own_address.startswith("127.") or own_address == "::1"
        return Peer(_plain(name[0]), str(name[1]), host, is_tls, is_loopback=is_loopback)
    return Peer(UNIX_PEER, "", host, is_tls)


def _plain(address: str) -> str:
    """Return an IPv4-mapped IPv6 address, as a dual-stack socket reports it, in its IPv4 form."""
    return address.removeprefix("::ffff:")
