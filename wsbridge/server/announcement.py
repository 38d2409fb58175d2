"""The lines of the start log: at which addresses the server listens, and the URLs of its endpoints."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from wsbridge.mentions import written
from wsbridge.net.hostinfo import machine
from wsbridge.rules.origins import Rules
from wsbridge.rules.reach import WILDCARDS, reachable
from wsbridge.rules.request import quote_path
from wsbridge.settings import BroadcastSettings, ConsoleSettings, EndpointSettings, ListenSettings, ServerSettings

OPEN = "Every machine that reaches this port and every web page in its browsers may connect; see <address>, <same_origin> and <origins>"


def announcement(settings: ServerSettings, listening: Sequence[tuple[ListenSettings, Sequence[str]]]) -> Iterator[str]:
    """Yield the lines for the open listeners, each with its actual addresses."""
    for listen, addresses in listening:
        for address in addresses:
            if address.startswith(("/", "@")):
                yield f"Starting WebSocket server   : unix socket at {address}"
            else:
                yield from _of_address(settings, listen, address)
    if settings.names_urls and any(is_open(listen, settings.endpoints) for listen, _ in listening):
        yield written(OPEN)


def _of_address(settings: ServerSettings, listen: ListenSettings, address: str) -> Iterator[str]:
    secure = "s" if listen.tls else ""
    host, _, port = address.rpartition(":")
    yield f"Starting WebSocket server   : ws{secure}://{address}/"
    for endpoint in settings.endpoints:
        if (page := _page_of(endpoint)) and (place := _place_of(endpoint, address)):
            name, within = page
            yield f"{name:<28}: http{secure}://{place}{quote_path(endpoint.path.rstrip('/'))}/{within}"
    if settings.names_urls:
        scheme = f"http{secure}" if any(map(_has_page, settings.endpoints)) else f"ws{secure}"
        for where, url in reachable(scheme, _bound_host(listen, host), int(port), machine()):
            yield f"{where:<28}: {url}"
    if listen.redirect_port:
        yield f"Starting redirect server    : http://{host}:{listen.redirect_port}/"


def _bound_host(listen: ListenSettings, host: str) -> str:
    """Return the host that a listener is bound to; empty for every address. `host` is the host of its actual address."""
    if listen.is_tcp:
        return listen.host
    # The address of an inherited socket shows the name of the machine if the socket is bound to every address.
    return "" if host == socket.gethostname() else host


def _place_of(endpoint: EndpointSettings, address: str) -> str:
    """Return the host and the port in the URL of an endpoint; empty if the endpoint has patterns for its hosts only."""
    _, _, port = address.rpartition(":")
    names = [f"{name}:{port}" for name in endpoint.host_names if not name.startswith("*")]
    return names[0] if names else "" if endpoint.hosts else address


def _page_of(endpoint: EndpointSettings) -> tuple[str, str] | None:
    """Return the name of an endpoint's page and its path below the endpoint; None without such a page."""
    http = endpoint.http
    # With files, the root belongs to the files; the page is at every path without a file.
    within = "console" if http.files and http.console else ""
    if isinstance(endpoint, ConsoleSettings):
        return "Developer console", ""
    if isinstance(endpoint, BroadcastSettings):
        return ("Live channel", within) if http.page else None
    return ("Developer console", within) if http.console else None


def _has_page(endpoint: EndpointSettings) -> bool:
    return endpoint.http.page or _page_of(endpoint) is not None


def is_open(listen: ListenSettings, endpoints: Sequence[EndpointSettings]) -> bool:
    """Whether an endpoint accepts clients from every address, without a certificate, for pages of any origin."""
    everywhere = listen.is_tcp and listen.host in WILDCARDS
    is_certified = listen.tls is not None and listen.tls.client_ca is not None
    return everywhere and not is_certified and any(endpoint.access.rules == Rules() for endpoint in endpoints)
