"""The lines of the start log: what the server serves, and at which addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wsbridge.net.hostinfo import machine
from wsbridge.rules.origins import Rules
from wsbridge.rules.reach import WILDCARDS, reachable
from wsbridge.settings import EndpointSettings, ListenSettings, ServerSettings

OPEN = "Every machine that reaches this port and every web page in its browsers may connect; see --address, --sameorigin and --origin"


def announcement(settings: ServerSettings, addresses: Iterable[str]) -> Iterator[str]:
    """Yield the lines for the open listeners. `addresses` are their actual addresses."""
    for address in addresses:
        if address.startswith(("/", "@")):
            yield f"Starting WebSocket server   : unix socket at {address}"
        else:
            yield from _of_address(settings, address)
    if settings.listen.names_urls and is_open(settings.listen, settings.endpoints):
        yield OPEN


def _of_address(settings: ServerSettings, address: str) -> Iterator[str]:
    listen, endpoints = settings.listen, settings.endpoints
    secure = "s" if listen.tls else ""
    host, _, port = address.rpartition(":")
    yield f"Starting WebSocket server   : ws{secure}://{address}/"
    for endpoint in endpoints:
        if http_page := endpoint.http.page:
            # With static files, the root belongs to the files; the page is at every path without a file.
            within = "console" if endpoint.http.static_directory and endpoint.http.page_everywhere else ""
            yield f"{http_page:<28}: http{secure}://{address}{endpoint.path.rstrip('/')}/{within}"
    if listen.names_urls:
        scheme = f"http{secure}" if any(endpoint.http.page or endpoint.http.introduces for endpoint in endpoints) else f"ws{secure}"
        for where, url in reachable(scheme, host if host in listen.hosts else "", int(port), machine()):
            yield f"{where:<28}: {url}"
    if listen.redirect_port is not None:
        yield f"Starting redirect server    : http://{host}:{listen.redirect_port}/"


def is_open(listen: ListenSettings, endpoints: Iterable[EndpointSettings]) -> bool:
    """Whether an endpoint accepts clients from every address, without a certificate, for pages of any origin."""
    everywhere = listen.port is not None and listen.inherited is None and any(host in WILDCARDS for host in listen.hosts)
    is_certified = listen.tls is not None and listen.tls.client_ca is not None
    return everywhere and not is_certified and any(endpoint.access.origins == Rules() for endpoint in endpoints)
