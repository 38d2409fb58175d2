"""The URLs at which clients reach a server, for the start log; derived from addresses and names of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

WILDCARDS = ("", "0.0.0.0", "[::]")
"""Hosts that stand for every address of the machine; `0.0.0.0` stands for only the IPv4 addresses."""
MOST = 8
"""Addresses that the start log lists; a machine may have hundreds."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How other machines reach this machine: its addresses in the network, IPv6 without brackets, and its name in multicast DNS."""

    addresses: tuple[str, ...] = ()
    mdns_name: str = ""
    """For example `raspberrypi.local`; empty if no service answers for it."""


def reachable(scheme: str, host: str, port: int, machine: Machine) -> Iterator[tuple[str, str]]:
    """Yield pairs of a place and the URL at which the listener is reachable from there.

    A listener on a single address yields none: the log shows that address already.
    """
    if host not in WILDCARDS:
        return
    for name in ("localhost", *filter(None, (machine.mdns_name,)), *_matching(host, machine.addresses)):
        yield "From this machine" if name == "localhost" else "From the network", f"{scheme}://{name}:{port}/"


def _matching(host: str, addresses: tuple[str, ...]) -> list[str]:
    shown = [f"[{address}]" if ":" in address else address for address in addresses if host != "0.0.0.0" or ":" not in address]
    return shown[:MOST]
