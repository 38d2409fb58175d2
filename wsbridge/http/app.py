"""The requests of one endpoint, in this order: WebSocket or event stream, CGI script, static file, a page of wsbridge, 404."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any

from aiohttp import web

from wsbridge.errors import Busy, Refused
from wsbridge.http.admission import is_upgrade
from wsbridge.http.answers import add_headers, protect
from wsbridge.http.cgi import CgiScripts
from wsbridge.http.endpoint import EVENTS_METHODS, EventStreams, Resource, SessionFactory
from wsbridge.http.handshake import DETACHED
from wsbridge.http.newconnection import Upgradable
from wsbridge.http.page import Page, icon
from wsbridge.http.static import StaticFiles, in_a_thread
from wsbridge.logs import ACCESS, ERROR, TRACE, LogFields, extra, logger
from wsbridge.metrics import Metrics
from wsbridge.net.reverselookup import Names
from wsbridge.rules.forwarded import UNIX_PEER
from wsbridge.rules.methods import KNOWN, READ, check_method
from wsbridge.rules.request import Headers, Peer, Request
from wsbridge.sessions.registry import Registry

ICON_PATH = "/favicon.ico"
"""The path at which browsers look for an icon when a page names none."""

http_log = logger("http")
session_log = logger("session")


class App:
    """Answers the requests of one endpoint, whose paths count from its mount.

    `sessions` is None if the endpoint has no WebSocket. `subject` is the key and value that name the program or channel in the log.
    `headers` are the headers of responses that refuse an upgrade, and `headers_http` those of responses to plain requests. With
    `is_strict`, the Host header must name this server on every address, not only on a loopback address. `names` looks up the
    clients' names; None: the log and the programs get their addresses.
    """

    def __init__(
        self,
        *,
        is_strict: bool,
        headers: Headers,
        headers_http: Headers,
        registry: Registry,
        metrics: Metrics,
        names: Names | None = None,
        sessions: SessionFactory | None = None,
        events: EventStreams | None = None,
        resources: tuple[Resource, ...] = (),
        cgi: CgiScripts | None = None,
        static: StaticFiles | None = None,
        page: Page | None = None,
        page_everywhere: bool = True,
        introduction: Page | None = None,
        has_icon: bool = False,
        subject: tuple[str, str] = ("command", ""),
    ) -> None:
        self.is_strict = is_strict
        self._headers = headers
        self.headers_plain = headers_http
        """The headers of responses to plain requests."""
        self._registry = registry
        self._metrics = metrics
        self._names = names
        self._sessions = sessions
        self._events = events
        self._resources = resources
        self._cgi = cgi
        self._static = static
        self._own_page = page
        self._page_everywhere = page_everywhere
        self._introduction = introduction
        self._has_icon = has_icon
        self._subject, self._name = subject

    async def __call__(self, raw: web.BaseRequest, request: Request) -> web.StreamResponse | Request:
        """Answer one request from aiohttp, or return the request of a CGI script's local redirect."""
        upgrading = self.upgrades(request)
        try:
            if upgrading:
                return await self._open(raw, request)
            if self._events is not None and request.method != "OPTIONS" and self._events.is_events(request):
                return self._stream(self._events, raw, request)
            if not request.path:
                # Relative links, as in a page, count from the directory of the mount.
                return self.redirect(request.location(request.mount + "/"))
            return await self._serve(raw, request)
        except Refused as refused:
            # The bytes that follow may be the rest of a body, or frames.
            return self.refuse(refused, request.url, is_upgrade=upgrading, closes=upgrading or refused.status in (408, 413))

    def upgrade(self, connection: Upgradable, request: Request) -> bool:
        """Start a session at once if nothing prevents it; return whether it has started."""
        sessions = self._sessions
        if sessions is None or self._names is not None or sessions.gate.asks_disk or not sessions.has_room:
            return False
        if not is_upgrade(request):
            return False
        try:
            fields = self._fields(request)
            sessions.start(connection, request, sessions.gate.admit(request), fields, request.peer.address)
        except (Refused, Busy):
            return False
        return True

    def upgrades(self, request: Request) -> bool:
        """Whether a request is for a WebSocket, and the endpoint has a WebSocket."""
        return self._sessions is not None and is_upgrade(request)

    def answer_for_all(self, request: Request) -> web.Response:
        """Answer a request without a resource: CONNECT, which is for proxies, and `OPTIONS *` (RFC 9110, section 9.3.7)."""
        try:
            if request.method != "OPTIONS":
                check_method(request.method)
                raise Refused(400, "the request target * is valid only with OPTIONS")
        except Refused as refused:
            return self.refuse(refused, request.url, is_upgrade=False, closes=False)
        response = _options(tuple(sorted(KNOWN - {"CONNECT"})) if self._cgi is not None else READ)
        add_headers(response, self.headers_plain)
        return response

    def redirect(self, location: str, *, is_upgrade: bool = False) -> web.Response:
        """Return a permanent redirect."""
        headers = self._headers if is_upgrade else self.headers_plain
        return self._error(301, "", (*headers, ("Location", location)))

    def error_page(self, status: int, detail: str) -> web.Response:
        """Return the error page for a request that could not be parsed or that failed."""
        self._metrics.refused[status] += 1
        return self._error(status, detail, self.headers_plain)

    def refuse(self, refused: Refused, url: str, *, is_upgrade: bool, closes: bool) -> web.Response:
        """Return the response to a refused request, and count it. With `closes`, the connection closes after it."""
        self._metrics.refused[refused.status] += 1
        headers = self._headers if is_upgrade else self.headers_plain
        response = self._error(refused.status, refused.detail, (*headers, *refused.headers.items()), body=refused.body)
        if closes:
            response.force_close()
        return response

    # WebSocket

    async def _open(self, raw: web.BaseRequest, request: Request) -> web.StreamResponse:
        sessions = self._sessions
        assert sessions is not None
        connection: Any = raw.protocol
        fields = self._fields(request)
        await sessions.room()
        try:
            gate = sessions.gate
            admission = gate.admit(request, await in_a_thread(gate.locate, request) if gate.asks_disk else None)
        except Busy as busy:
            session_log.error("%s", busy, extra=extra(fields))
            sessions.handshake.reject(connection, request, busy, fields)
            return DETACHED
        except Refused as refused:
            self._log_refusal(refused, fields)
            raise
        with self._registry.limiter.released_on_error():
            remote_host = await self._remote_host(request.peer)
            if self._names is not None:
                fields["remote"] = remote_host
            if connection.transport is None or connection.transport.is_closing():
                raise Refused(400, "the client has disconnected")
        sessions.start(connection, request, admission, fields, remote_host)
        return DETACHED

    def _stream(self, events: EventStreams, raw: web.BaseRequest, request: Request) -> web.StreamResponse:
        fields = self._fields(request)
        try:
            return events.stream(raw, request, fields, self.headers_plain)
        except Refused as refused:
            self._log_refusal(refused, fields)
            if refused.status == 503 and (answer := events.retry_response(request, self.headers_plain)) is not None:
                self._metrics.refused[503] += 1
                return self._with_headers(answer)
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
        if self._names is None or peer.address == UNIX_PEER:
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

    async def _serve(self, raw: web.BaseRequest, request: Request) -> web.StreamResponse | Request:
        fields = {"url": request.url}
        if self._cgi is not None and (script := await in_a_thread(self._cgi.find, request.path)) is not None:
            http_log.log(ACCESS, "CGI", extra=extra({**fields, "cgiscript": script.file}))
            # The script itself decides what each method means.
            return await self._cgi.run(raw, request, script, self.headers_plain)
        # An open page requests the channel's status every two seconds, so the server logs that request at TRACE.
        methods, category, found = await self._find(request)
        http_log.log(TRACE if category in ("CHANNEL", "ICON") else ACCESS, category, extra=extra(fields))
        if found is None:
            if request.method not in KNOWN:
                check_method(request.method)
            raise Refused(404, "nothing is served here", body="404 page not found\n")
        check_method(request.method, methods)
        return self._with_headers(found if request.method != "OPTIONS" else _options(methods))

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
            if (found := resource.find(request, self.headers_plain)) is not None:
                return READ, "CHANNEL", found
        if self._has_icon and request.path == ICON_PATH:
            return READ, "ICON", icon()
        if self._own_page is not None and self._page_everywhere and request.path != ICON_PATH:
            return READ, self._own_page.name, self._own_page.page()
        if self._introduction is not None and is_root and _is_browser(request):
            return READ, self._introduction.name, self._introduction.page()
        return READ, "NOT FOUND", None

    async def _has_index(self) -> bool:
        return self._static is not None and await self._static.has_index()

    # Responses

    @staticmethod
    def _error(status: int, detail: str, headers: Headers, *, body: str | None = None) -> web.Response:
        if body is None:
            body = f"{status} {HTTPStatus(status).phrase}\n" + (f"{detail}\n" if detail else "")
        # A detail may contain the name of a file, which need not be UTF-8.
        body = body.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        response = web.Response(status=status, text=body)
        protect(response)
        add_headers(response, headers)
        return response

    def _with_headers(self, response: web.StreamResponse) -> web.StreamResponse:
        add_headers(response, self.headers_plain)
        return response


def _is_browser(request: Request) -> bool:
    """Whether the client accepts an HTML page; other clients get 404 at a path without content."""
    return request.method in ("GET", "HEAD") and "text/html" in (request.header("accept") or "").lower()


def _options(methods: tuple[str, ...]) -> web.Response:
    return web.Response(status=204, headers={"Allow": ", ".join(methods)})
