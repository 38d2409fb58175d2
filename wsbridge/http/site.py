"""The site: it reads each request, finds the endpoint for its host and path, and passes the request to that endpoint's App.

aiohttp calls the site for each plain request. newconnection.py and connection.py first offer it each upgrade request (`upgrade`), so
that a session needs no task of aiohttp.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from aiohttp import HttpVersion, web
from aiohttp.http import RawRequestMessage

from wsbridge.errors import ForeignHost, Refused
from wsbridge.http.app import App
from wsbridge.http.newconnection import Upgradable
from wsbridge.logs import ACCESS, RateLimit, logger
from wsbridge.metrics import Metrics
from wsbridge.rules.forwarded import UNIX_PEER, Trusted, seen_through
from wsbridge.rules.hosts import Hosts, name_of
from wsbridge.rules.paths import clean
from wsbridge.rules.request import Headers, Peer, Request, by_name, check_framing, check_host, read_target
from wsbridge.rules.routes import Routes

REDIRECTS_INSIDE = 3
"""How many local redirects of CGI scripts the server follows for one request."""

log = logger("session")


class Site:
    """Answers requests. `routes` may change at any time; `fallback` answers requests without an endpoint."""

    def __init__(self, routes: Routes[App], *, fallback: App, hosts: Hosts, trusted: Trusted, metrics: Metrics) -> None:
        self._routes = routes
        self._fallback = fallback
        self._metrics = metrics
        self._foreign_hosts = RateLimit(log, ACCESS)
        self.configure(hosts=hosts, trusted=trusted)

    def configure(self, *, hosts: Hosts, trusted: Trusted) -> None:
        """Set the names that the server answers to, and the proxies that it trusts."""
        self._hosts, self._strict_hosts = replace(hosts, is_strict=False), replace(hosts, is_strict=True)
        self._trusted = trusted

    async def __call__(self, raw: web.BaseRequest) -> web.StreamResponse:
        """Answer one request from aiohttp."""
        self._metrics.requests += 1
        try:
            request = self._read(raw.method, raw.raw_path, raw.version, raw.headers, raw.transport)
        except Refused as refused:
            # The server cannot know where this request ends, so it closes the connection.
            return self._root.refuse(refused, raw.path_qs, is_upgrade=False, closes=True)
        app, mount = self._find(request)
        if (foreign := self._foreign(request, app)) is not None:
            upgrading = app.upgrades(request)
            return app.refuse(foreign, request.url, is_upgrade=upgrading, closes=upgrading)
        if request.method == "CONNECT" or raw.raw_path == "*":
            return self._root.answer_for_all(request)
        if (cleaned := clean(request.path)) != request.path:
            return app.redirect(request.location(cleaned), is_upgrade=app.upgrades(request))
        for _ in range(REDIRECTS_INSIDE + 1):
            answer = await app(raw, request.below(mount))
            if not isinstance(answer, Request):
                return answer
            request = answer
            app, mount = self._find(request)
            if (foreign := self._foreign(request, app)) is not None:
                return app.refuse(foreign, request.url, is_upgrade=False, closes=False)
        return app.refuse(Refused(500, "too many local redirects by CGI scripts"), request.url, is_upgrade=False, closes=False)

    def upgrade(self, connection: Upgradable, message: RawRequestMessage) -> bool:
        """Start a session at once if nothing prevents it; return whether it has started.

        A request that needs a lookup or an error response first is left to `__call__`, which runs a few loop iterations later.
        """
        try:
            request = self._read(message.method, message.path, message.version, message.headers, connection.transport)
        except Refused:
            return False
        if clean(request.path) != request.path:
            return False
        app, mount = self._find(request)
        if (self._strict_hosts if app.is_strict else self._hosts).refused(request.peer):
            return False
        if not app.upgrade(connection, request.below(mount)):
            return False
        self._metrics.requests += 1
        return True

    @property
    def headers(self) -> Headers:
        """The headers of responses that belong to no path, such as those of the redirect port."""
        return self._root.headers_plain

    def error_page(self, status: int, detail: str) -> web.Response:
        """Return the error page for a request that aiohttp could not parse or that failed."""
        return self._root.error_page(status, detail)

    @property
    def _root(self) -> App:
        """The App that answers requests without a path of an endpoint."""
        found = self._routes.find("", "/")
        return found[0] if found is not None else self._fallback

    def _find(self, request: Request) -> tuple[App, str]:
        return self._routes.find(name_of(request.peer.host), request.path) or (self._fallback, "")

    def _foreign(self, request: Request, app: App) -> Refused | None:
        """Return the refusal (403) of a host that is not the server's; after a 421, browsers may repeat the request."""
        host = (self._strict_hosts if app.is_strict else self._hosts).refused(request.peer)
        if host is None:
            return None
        refused = ForeignHost(host)
        fields = {"url": request.url, "remote": request.peer.address}
        self._foreign_hosts.log("foreign host", f"refused (403): {refused}", fields, time.monotonic())
        return refused

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
        peer = seen_through(peer, headers, self._trusted)
        return Request(method, found.path, found.query, found.uri, protocol, headers, peer, "", "", values)


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
