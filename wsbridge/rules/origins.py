"""Which pages may connect: the check of the Origin header against the allowed origins.

A browser sends the origin of the page that opens the WebSocket, and the page cannot change it. Other clients can send any origin.
The rules therefore protect users from foreign pages, not the server from clients.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

from wsbridge.rules.cache import remembered
from wsbridge.rules.environ import split_host
from wsbridge.rules.request import Peer, Request

DEFAULT_PORTS = {"http": "80", "https": "443"}
ENTRY = re.compile(r"((?P<scheme>[^:/?#]*)://)?(?P<host>\[[^]]*\]|[^][:/?#@\s]*)(:(?P<port>[^/?#@\s]*))?/?\Z")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z")
HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?\Z")
NUMERIC = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)\.?\Z")
"""For browsers, a host whose last label is a number is an IPv4 address, which they send as four numbers."""
ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1f\x7f]*\Z")


@dataclass(frozen=True, slots=True)
class Origin:
    """An origin, or a pattern of origins: in an allowed entry, an empty scheme or port stands for any."""

    scheme: str
    host: str
    port: str

    @property
    def effective_port(self) -> str:
        return self.port or DEFAULT_PORTS.get(self.scheme, "")


NO_ORIGIN = Origin("file", "", "")
"""The value for a client without an Origin."""
NULL = Origin("null", "", "")
"""The value that browsers send for pages opened from a file, and for sandboxed frames from any site."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The allowed origins; `allowed` None stands for any origin."""

    same: bool = False
    allowed: tuple[Origin, ...] | None = None

    def refusal(self, header: str | None, peer: Peer) -> str | None:
        """Return the reason that the server refuses a request with this Origin header, or None if the request may pass."""
        try:
            origin = parse(header)
        except ValueError:
            return f"Origin {header!r} is not a URI"
        if self.same and not _is_same(origin, peer):
            return "Same origin policy mismatch"
        if self.allowed is not None and not any(_matches(entry, origin) for entry in self.allowed):
            return "Origin is not listed in allowed list"
        return None


def parse(header: str | None) -> Origin:
    """Parse an Origin header; path and user information are ignored. Raises ValueError if it is not a URI.

    None and an empty header match only `file://`. `null` matches only `file://` and `null` itself.
    """
    if not header:
        return NO_ORIGIN
    return NULL if header == "null" else _parse(header)


@remembered
def _parse(header: str) -> Origin:
    if not ABSOLUTE.match(header):
        raise ValueError(header)
    parts = urlsplit(header)
    return Origin(parts.scheme.lower(), (parts.hostname or "").lower(), str(parts.port) if parts.port is not None else "")


def parse_allowed(value: str) -> tuple[Origin, ...] | None:
    """Parse a list of origins: `[scheme://]host[:port]`, separated by commas; None stands for any origin. An empty entry matches nothing.

    The host may be `*.name`, which is every name below a name, or `*`, which is every host. `file://` stands for pages opened from a file
    and for clients without Origin; `null` stands only for such pages. Raises ValueError for an entry that can never match.
    """
    entries = [entry for entry in map(str.strip, value.split(",")) if entry]
    if "*" in entries:
        return None
    return tuple(map(_parse_entry, entries))


def _parse_entry(entry: str) -> Origin:
    if entry.lower() == "null":
        return NULL
    found = ENTRY.match(entry.lower())
    if found is None:
        raise _never(entry, "separate entries by commas" if re.search(r"\s", entry) else "an origin has no user, path or query")
    scheme, host, port = found["scheme"], found["host"], found["port"]
    if scheme == "file" and not host and port is None:
        return NO_ORIGIN
    if reason := _wrong_scheme(scheme) or _wrong_host(host) or _wrong_port(port):
        raise _never(entry, reason)
    return Origin(scheme or "", _canonical(host), str(int(port)) if port else "")


def _never(entry: str, reason: str) -> ValueError:
    return ValueError(f"{entry!r} cannot match any origin: {reason}; write [scheme://]host[:port]")


def _wrong_scheme(scheme: str | None) -> str:
    if scheme in ("ws", "wss"):
        return f"an origin has the scheme of the page: write {'https' if scheme == 'wss' else 'http'}://"
    if scheme is not None and not SCHEME.match(scheme):
        return "omit the scheme to allow any scheme"
    return ""


def _wrong_host(host: str) -> str:
    if not host:
        return "it has no host"
    if not host.isascii():
        return "write the name as browsers send it, in its ASCII form (xn--…)"
    if host.startswith("["):
        return "" if _address(host) else "its host is not an IPv6 address"
    if host == "*":
        return ""
    if not HOST.match(host):
        is_pattern = host[0] in ".*" or "*" in host
        return "a wildcard stands for whole names, as in *.example.com" if is_pattern else "its host is not a host name"
    return "its host is not an IP address" if NUMERIC.search(host) and not _address(host) else ""


def _wrong_port(port: str | None) -> str:
    if port is None or (port.isdecimal() and port.isascii() and 0 < int(port) < 65536):
        return ""
    if port in ("", "*"):
        return "omit the port to allow any port"
    return "use a port from 1 to 65535, and write IPv6 addresses in brackets"


def _canonical(host: str) -> str:
    """Return a host in the form that browsers send: IPv6 addresses in their shortest form, without brackets."""
    return str(_address(host)) if host.startswith("[") else host


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except ValueError:
        return None


def page_origin(request: Request) -> str | None:
    """Return the origin of the page that sends a request.

    A browser sends no Origin to the page's own server, but other headers identify the page. Over TLS and to localhost,
    Sec-Fetch-Site states that the origin is the same (Fetch Metadata). Elsewhere the Referer contains the page's URL, which a foreign
    page can omit but not forge.
    """
    origin, site = request.header("origin"), request.header("sec-fetch-site")
    if origin is not None:
        return origin
    if site is None:
        return request.header("referer")
    return f"{request.peer.url_scheme}://{request.peer.host}" if site == "same-origin" else None


def cors_headers(origin: str | None, headers: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return the headers that let the pages of an origin read a response, unless `headers` already decide that.

    A browser accepts only one such header. An origin is ASCII (RFC 6454, section 6.2); a header with other bytes names no origin.
    """
    if not origin or not origin.isascii() or any(name.lower() == "access-control-allow-origin" for name, _ in headers):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def schemeless(allowed: Sequence[Origin]) -> list[str]:
    """Return the entries without a scheme: with TLS, they admit pages that were not loaded over TLS."""
    return [entry.host for entry in allowed if not entry.scheme]


def admits_null(allowed: Sequence[Origin]) -> bool:
    """Return whether pages opened from a file may connect.

    If so, sandboxed frames from any site may connect too: browsers give both the origin `null`.
    """
    return NO_ORIGIN in allowed or NULL in allowed


def _is_same(origin: Origin, peer: Peer) -> bool:
    """Return whether scheme, host and port are those of the server (RFC 6454, section 5)."""
    name, port = split_host(peer.host, is_tls=peer.is_tls)
    ours = (peer.url_scheme, name.strip("[]").lower(), port)
    return bool(origin.host) and (origin.scheme, origin.host, origin.effective_port) == ours


def _matches(entry: Origin, origin: Origin) -> bool:
    if entry in (NULL, NO_ORIGIN):
        return origin in (NULL, entry)
    if not _host_matches(entry.host, origin.host):
        return False
    return (not entry.scheme or entry.scheme == origin.scheme) and (not entry.port or entry.port == origin.effective_port)


def _host_matches(entry: str, host: str) -> bool:
    if entry == "*":
        return bool(host)
    if entry.startswith("*."):
        return host.endswith(entry[1:]) and len(host) > len(entry) - 1
    return bool(host) and host == entry
