"""Which pages may connect: the Origin header against `--origin` and `--sameorigin`.

A browser sends the origin of the page that opens the WebSocket and does not let the page change it; other clients send
what they like, so these rules protect users from foreign pages, not the server from clients.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from wsbridge.errors import ConfigurationError
from wsbridge.rules.environ import split_host
from wsbridge.rules.request import Peer

DEFAULT_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}
ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1f\x7f]*\Z")


@dataclass(frozen=True, slots=True)
class Origin:
    """An origin, or what is known of one: an empty scheme or port of an allowed entry stands for any."""

    scheme: str
    host: str
    port: str

    @property
    def effective_port(self) -> str:
        return self.port or DEFAULT_PORTS.get(self.scheme, "")


NOWHERE = Origin("file", "", "")
"""What a client without an Origin counts as."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The allowed origins; `allowed` None stands for any."""

    same: bool = False
    allowed: tuple[Origin, ...] | None = None

    def refusal(self, header: str | None, peer: Peer) -> str | None:
        """Return why a request with this Origin header is refused, or None when it may pass."""
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
    """Read an Origin header; path and user information are ignored. Raises ValueError when it is no URI.

    None, an empty header and `null` are origins that match nothing but `file://`, `null` not even that.
    """
    if not header:
        return NOWHERE
    if header == "null":
        return Origin("null", "", "")
    if not ABSOLUTE.match(header):
        raise ValueError(header)
    parts = urlsplit(header)
    return Origin(parts.scheme.lower(), (parts.hostname or "").lower(), str(parts.port) if parts.port is not None else "")


def parse_allowed(value: str) -> tuple[Origin, ...]:
    """Read `--origin`: `[scheme://]host[:port]`, separated by commas. An empty entry matches nothing.

    Raises ConfigurationError for an entry that could never match.
    """
    entries = []
    for entry in filter(None, map(str.strip, value.split(","))):
        try:
            parts = urlsplit(entry if "://" in entry else f"//{entry}")
            port = str(parts.port) if parts.port is not None else ""
        except ValueError as error:
            raise ConfigurationError(f"--origin: {entry!r} cannot be read: {error}; write [scheme://]host[:port]") from None
        if parts.path.strip("/") or not (parts.hostname or parts.scheme == "file"):
            raise ConfigurationError(f"--origin: {entry!r} cannot match any origin; write [scheme://]host[:port]")
        entries.append(Origin(parts.scheme.lower(), (parts.hostname or "").lower(), port))
    return tuple(entries)


def schemeless(allowed: Sequence[Origin]) -> list[str]:
    """Return the entries without a scheme: with TLS, they let in pages that were not loaded over TLS."""
    return [entry.host for entry in allowed if not entry.scheme]


def _is_same(origin: Origin, peer: Peer) -> bool:
    name, port = split_host(peer.host, is_tls=peer.is_tls)
    return bool(origin.host) and (origin.host, origin.effective_port) == (name.strip("[]").lower(), port)


def _matches(entry: Origin, origin: Origin) -> bool:
    if entry.host != origin.host or (not entry.host and entry.scheme != "file"):
        return False
    return (not entry.scheme or entry.scheme == origin.scheme) and (not entry.port or entry.port == origin.effective_port)
