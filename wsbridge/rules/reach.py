"""Where clients reach a server: the lines about it at the start, from what the machine says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

WILDCARDS = ("", "0.0.0.0", "[::]")
"""Hosts that stand for every address of the machine; `0.0.0.0` for the IPv4 ones alone."""
MOST = 8
"""Addresses that are named; a machine may have hundreds."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How others reach this machine: its addresses in the network, IPv6 without brackets, and its name by multicast DNS."""

    addresses: tuple[str, ...] = ()
    mdns_name: str = ""
    """`raspberrypi.local`; empty where no service answers for it."""


def reachable(scheme: str, host: str, port: int, machine: Machine) -> Iterator[tuple[str, str]]:
    """Yield pairs of from where and with which URL a listener can be reached; none for one address, which says it already."""
    if host not in WILDCARDS:
        return
    for name in ("localhost", *filter(None, (machine.mdns_name,)), *_matching(host, machine.addresses)):
        yield "From this machine" if name == "localhost" else "From the network", f"{scheme}://{name}:{port}/"


def _matching(host: str, addresses: tuple[str, ...]) -> list[str]:
    shown = [f"[{address}]" if ":" in address else address for address in addresses if host != "0.0.0.0" or ":" not in address]
    return shown[:MOST]
