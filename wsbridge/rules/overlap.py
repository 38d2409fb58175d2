"""Which TCP addresses exclude each other, as far as that is known without asking the resolver.

Two sockets cannot listen on one port of one address. A socket on every address of a family excludes all others of this family on its
port. A name may stand for any address, so only the same name, or a socket on every address of both families, excludes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

EVERY_HOST = ("", "*")
LOCALHOST = "localhost"
ANY = ""


class Bound(NamedTuple):
    """A socket at one port: `family` is 4, 6, or 0 for an unknown address; `host` is empty for every address of the family."""

    family: int
    host: str


def bound_by(host: str) -> tuple[Bound, ...]:
    """Return the sockets that listen for a host, which may be empty, a name, or an address; IPv6 is in brackets."""
    if host in EVERY_HOST:
        return Bound(4, ANY), Bound(6, ANY), Bound(0, ANY)
    if host.lower() == LOCALHOST:
        # Some machines resolve this name to ::1 as well.
        return Bound(4, "127.0.0.1"), Bound(0, LOCALHOST)
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return (Bound(0, host.lower()),)
    family = 4 if isinstance(address, IPv4Address) else 6
    return (Bound(family, ANY if address.is_unspecified else str(address)),)


class Occupied(Generic[T]):
    """The claimed addresses, each with its owner."""

    def __init__(self) -> None:
        self._owners: dict[tuple[int, int], dict[str, T]] = {}
        """By port and family, the owners by host."""

    def claim(self, host: str, port: int, owner: T) -> T | None:
        """Claim an address; return the owner of an address that excludes it, if there is one."""
        found = next(self._excluding(host, port), None)
        for bound in bound_by(host):
            self._owners.setdefault((port, bound.family), {}).setdefault(bound.host, owner)
        return found

    def _excluding(self, host: str, port: int) -> Iterator[T]:
        for family, name in bound_by(host):
            owners = self._owners.get((port, family), {})
            # Every address of a family excludes any other, so the first owner is enough.
            yield from islice(owners.values(), 1) if name == ANY else (owners[key] for key in (name, ANY) if key in owners)
