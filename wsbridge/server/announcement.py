"""The lines of the start log: at which addresses the server listens, and how to reach what it serves."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from wsbridge.net.hostinfo import machine
from wsbridge.rules.origins import Rules
from wsbridge.rules.reach import WILDCARDS, reachable
from wsbridge.rules.request import encode_path
from wsbridge.settings import BroadcastSettings, ConsoleSettings, EndpointSettings, HttpSettings, ListenSettings, ServerSettings

OPEN = "Every machine that reaches this port and every web page in its browsers may connect; see --address, --sameorigin and --origin"


def announcement(settings: ServerSettings, listening: Sequence[tuple[ListenSettings, Sequence[str]]]) -> Iterator[str]:
    """Yield the lines for the open listeners, each with its actual addresses."""
    for listen, addresses in listening:
        for address in addresses:
            if address.startswith(("/", "@")):
                yield f"Starting WebSocket server   : unix socket at {address}"
            else:
                yield from _of_address(settings, listen, address)
    if settings.names_urls and any(is_open(listen, settings.endpoints) for listen, _ in listening):
        yield OPEN


def _of_address(settings: ServerSettings, listen: ListenSettings, address: str) -> Iterator[str]:
    secure = "s" if listen.tls else ""
    host, _, port = address.rpartition(":")
    yield f"Starting WebSocket server   : ws{secure}://{address}/"
    for endpoint in settings.endpoints:
        if page := _page_of(endpoint):
            name, within = page
            yield f"{name:<28}: http{secure}://{address}{encode_path(endpoint.path.rstrip('/').replace('%', '%25'))}/{within}"
    if settings.names_urls:
        scheme = f"http{secure}" if any(map(_has_page, settings.endpoints)) else f"ws{secure}"
        for where, url in reachable(scheme, _bound_host(listen, host), int(port), machine()):
            yield f"{where:<28}: {url}"
    if listen.redirect_port:
        yield f"Starting redirect server    : http://{host}:{listen.redirect_port}/"


def _bound_host(listen: ListenSettings, host: str) -> str:
    """Return the host that a listener is bound to; empty for every address. `host` is that of its actual address."""
    if listen.is_tcp:
        return listen.host
    # The address of an inherited socket shows the name of the machine if the socket is bound to every address.
    return "" if host == socket.gethostname() else host


def _page_of(endpoint: EndpointSettings) -> tuple[str, str] | None:
    """Return the name of an endpoint's page and its path below the endpoint; None without such a page."""
    http = _http_of(endpoint)
    # With files, the root belongs to the files; the page is at every path without a file.
    within = "console" if http.files and http.console else ""
    if isinstance(endpoint, ConsoleSettings):
        return "Developer console", ""
    if isinstance(endpoint, BroadcastSettings):
        return ("Live channel", within) if http.page else None
    return ("Developer console", within) if http.console else None


def _has_page(endpoint: EndpointSettings) -> bool:
    return _http_of(endpoint).page or _page_of(endpoint) is not None


def _http_of(endpoint: EndpointSettings) -> HttpSettings:
    http = getattr(endpoint, "http", None)
    return http if isinstance(http, HttpSettings) else HttpSettings()


def is_open(listen: ListenSettings, endpoints: Sequence[EndpointSettings]) -> bool:
    """Whether an endpoint accepts clients from every address, without a certificate, for pages of any origin."""
    everywhere = listen.is_tcp and listen.host in WILDCARDS
    is_certified = listen.tls is not None and listen.tls.client_ca is not None
    return everywhere and not is_certified and any(_rules_of(endpoint) == Rules() for endpoint in endpoints)


def _rules_of(endpoint: EndpointSettings) -> Rules | None:
    access = getattr(endpoint, "access", None)
    return None if access is None else access.rules
