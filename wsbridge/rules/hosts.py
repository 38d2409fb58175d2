"""Which names the server answers to: the check of the Host header against DNS rebinding.

A page of evil.example can point its own name at 127.0.0.1 or at an address of the LAN. For the browser, the server then belongs
to the page's origin: `--sameorigin` passes, and the page reads files, CGI output and `/status`. The page cannot change the Host
header, which still names evil.example. An IP address cannot be rebound, nor can a name that this machine resolves by itself.
Every other name must be given by `--host`.

The check stops browsers only: any other program can send any Host header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from wsbridge.rules.request import Peer

NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\Z")
OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = re.compile(rf"{OCTET}(?:\.{OCTET}){{3}}\Z")
PORT = re.compile(r":[0-9]*\Z")
LOCALHOST = "localhost"
ANY = "*"


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names that the server answers to."""

    given: tuple[str, ...] = ()
    """From `--host`: names, `*.name` for all names below a name, `*` for any name."""
    own: frozenset[str] = frozenset()
    """The names of this machine."""
    served: frozenset[str] = frozenset()
    """The names of endpoints, and `*.name`. Unlike `given`, they pass wherever the server checks, and make it check nowhere else."""
    is_strict: bool = False
    """Whether to check connections to all addresses (`--sameorigin`), not only to a loopback address."""

    def refused(self, peer: Peer) -> str | None:
        """Return the host that the server does not answer to, or None.

        With `--host`, both the Host header and the host that a trusted proxy reports must pass. Without it, a trusted proxy
        decides by itself which names it serves. A request without Host does not come from a browser, so it passes.
        """
        if ANY in self.given or not (peer.is_loopback or self.is_strict or self.given):
            return None
        if peer.proxied_host is not None and not self.given:
            return None
        return next((host for host in (peer.proxied_host, peer.host) if host and not self._is_ours(host)), None)

    def _is_ours(self, host: str) -> bool:
        name = name_of(host)
        if is_address(name):
            return True
        if name == LOCALHOST or name.endswith("." + LOCALHOST) or name in self.own or name in self.given:
            return True
        if name in self.served:
            return True
        patterns = (*self.given, *self.served)
        return any(entry.startswith("*.") and name.endswith(entry[1:]) and not name.startswith(".") for entry in patterns)


def parse_hosts(values: Iterable[str]) -> tuple[str, ...]:
    """Parse host names: `*.name` or `*`, separated by commas. Raises ValueError for an invalid name; the sentence may mention <address>."""
    return tuple(_parse(entry) for value in values for entry in map(str.strip, value.split(",")) if entry)


def _parse(entry: str) -> str:
    name = entry.lower().removesuffix(".")
    if name == ANY:
        return name
    if name == LOCALHOST or is_address(entry):
        raise ValueError(f"{entry} is always accepted; to listen on that address only, write <address>={entry}")
    check_name(entry)
    return name


def check_name(host: str) -> None:
    """Check a name, or `*.name`, that a user gives. Raises ValueError."""
    if not host.isascii():
        raise ValueError(f"{host}: write the name as browsers send it, in its ASCII form (xn--…)")
    if not NAME.match(host.lower().removesuffix(".")):
        raise ValueError(f"{host} is not a host name; write it without scheme, port and path: a.example.com or *.example.com")


def own_names(hostname: str, hosts_file: str) -> frozenset[str]:
    """Return the names of this machine that it resolves by itself: NAME, NAME.local, and its other names in /etc/hosts."""
    hostname = hostname.lower().removesuffix(".")
    if not NAME.match(hostname):
        return frozenset()
    short = hostname.partition(".")[0]
    names = {hostname, short, f"{short}.local"}
    for line in hosts_file.lower().splitlines():
        _, *listed = line.partition("#")[0].split()[:20] or [""]
        if not names.isdisjoint(listed):
            names.update(name for name in listed if NAME.match(name) and "*" not in name)
    return frozenset(names)


def name_of(host: str) -> str:
    """Return the name in a Host header: in lower case, without port and without a dot at its end."""
    return PORT.sub("", host).lower().removesuffix(".")


def normal_name(host: str) -> str:
    """Return a host that a user gives in the form of `name_of`, an IPv6 address in brackets."""
    if ":" not in host:
        return name_of(host)
    return f"[{ip_address(host.strip('[]'))}]"


def is_address(name: str) -> bool:
    """Return whether a host is an IP address, IPv6 with or without its brackets."""
    if IPV4.match(name):
        # Most requests have an IPv4 address; this test needs a tenth of the time.
        return True
    if ":" not in name:
        return False
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True
