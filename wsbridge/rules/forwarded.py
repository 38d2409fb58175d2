"""The headers in which a reverse proxy describes its clients; the server trusts it only from the proxies of `--trust-proxy`.

`--trust-proxy=10.0.0.0/8,unix` names networks, and with `unix` every peer on the Unix socket. From any other peer the headers are
ignored, because any client could send them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from wsbridge.rules.request import HOST, Headers, Peer

UNIX_PEER = "unix-socket"
"""REMOTE_ADDR of a client on the Unix socket."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """The proxies whose headers the server trusts."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    def __contains__(self, address: str) -> bool:
        if address == UNIX_PEER:
            return self.unix
        parsed = _address(address)
        return parsed is not None and any(parsed in network for network in self.networks if network.version == parsed.version)


NOBODY = Trusted()

BRACKETED = re.compile(r"\[([^]]*)\](?::(.*))?")
PORT = re.compile(r"[0-9]{1,5}")
SCOPE = re.compile(r"[A-Za-z0-9._~-]+")
"""The name or number of a network interface (RFC 6874, section 2)."""


def parse_trusted(value: str) -> Trusted:
    """Parse the trusted proxies: networks as CIDR or single addresses, and `unix`, separated by commas. Raises ValueError."""
    entries = [entry for entry in map(str.strip, value.split(",")) if entry]
    try:
        networks = tuple(ip_network(entry, strict=False) for entry in entries if entry != "unix")
    except ValueError as error:
        raise ValueError(f"{error}; write networks such as 10.0.0.0/8, or unix") from None
    return Trusted(networks, "unix" in entries)


def seen_through(peer: Peer, headers: Headers, trusted: Trusted) -> Peer:
    """Return the client that a trusted proxy reports, or the peer itself.

    In X-Forwarded-For, the last address that does not belong to a trusted proxy counts: a client may have written the addresses
    before it. Scheme and host are those that the nearest proxy reports (X-Forwarded-Proto, X-Forwarded-Host). An invalid host is
    ignored, because it would reach programs and the log. The standard Forwarded header (RFC 7239) is not read: proxies that set
    X-Forwarded-For pass on a Forwarded header that a client made up.
    """
    if trusted == NOBODY or peer.address not in trusted:
        return peer
    hops = _hops(headers)
    if not hops:
        return peer
    address, port = peer.address, peer.port
    for hop in reversed(hops):
        reported = _address(hop.address)
        if reported is None:
            break
        address, port = str(reported), hop.port
        if address not in trusted:
            break
    nearest = hops[-1]
    is_tls = nearest.scheme in ("https", "wss") if nearest.scheme else peer.is_tls
    return Peer(address, port, nearest.host or peer.host, is_tls, peer.is_loopback, proxied_host=peer.host)


@dataclass(frozen=True, slots=True)
class _Hop:
    address: str = ""
    port: str = ""
    scheme: str = ""
    host: str = ""


def _values(headers: Headers, name: str) -> list[str]:
    return [part.strip() for key, value in headers if key.lower() == name for part in value.split(",")]


def _hops(headers: Headers) -> list[_Hop]:
    scheme = (_values(headers, "x-forwarded-proto") or [""])[-1].lower()
    host = (_values(headers, "x-forwarded-host") or [""])[-1]
    if not HOST.fullmatch(host):
        host = ""
    addresses = _values(headers, "x-forwarded-for")
    if not addresses and not scheme and not host:
        return []
    hops = [_Hop(*_split_port(address)) for address in addresses] or [_Hop()]
    last = hops[-1]
    return [*hops[:-1], _Hop(last.address, last.port, scheme, host)]


def _split_port(address: str) -> tuple[str, str]:
    """Split an address as proxies report it: IPv4 or IPv6, with or without a port. IPv6 with a port has brackets.

    An invalid port counts as unknown. Any other text after an address counts as part of it, and makes it invalid.
    """
    if bracketed := BRACKETED.fullmatch(address):
        return bracketed[1], _port(bracketed[2])
    name, colon, port = address.partition(":")
    return (name, _port(port)) if colon and ":" not in port else (address, "")


def _port(text: str | None) -> str:
    return str(int(text)) if text and PORT.fullmatch(text) and 0 < int(text) < 65536 else ""


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address, or None if it is invalid. An IPv6 address loses its scope, which names an interface of another machine."""
    address, _, scope = text.partition("%")
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if "%" in text and (parsed.version == 4 or not SCOPE.fullmatch(scope)):
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
