"""The addresses and the name under which other machines reach this machine, read from Linux without a library.

This module sends nothing and waits for nothing; it omits facts that it cannot read.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator

from wsbridge.rules.hosts import own_names
from wsbridge.rules.reach import Machine

SIOCGIFFLAGS, SIOCGIFADDR = 0x8913, 0x8915
IFREQ = struct.Struct("16s24x")
"""netdevice(7): the interface name, and space for the result."""
RUNNING = 0x1 | 0x40
"""IFF_UP and IFF_RUNNING: the interface is enabled and has a link."""
LOOPBACK = 0x8
INSIDE = ("docker", "br-", "veth", "virbr", "lxc", "vnet")
"""Name prefixes of interfaces that lead to containers and virtual machines on this machine, not into a network."""

IF_INET6 = "/proc/net/if_inet6"
GLOBAL_SCOPE = 0x00
UNUSABLE = 0x01 | 0x20 | 0x40
"""IFA_F_TEMPORARY, _DEPRECATED and _TENTATIVE: an address that will soon change, or that is not usable yet."""
HOSTS_FILE = "/etc/hosts"
HOSTS_FILE_CHARACTERS = 64 * 1024
"""Megabytes of entries that block advertisements may follow the names of this machine."""
AVAHI_SOCKET = "/run/avahi-daemon/socket"


def machine() -> Machine:
    """Return the addresses and the mDNS name of this machine."""
    names = [name for _, name in socket.if_nameindex() if not name.startswith(INSIDE)]
    mdns_name = f"{socket.gethostname().partition('.')[0]}.local" if os.path.exists(AVAHI_SOCKET) else ""
    return Machine((*_ipv4(names), *_ipv6(names)), mdns_name)


def host_names() -> frozenset[str]:
    """Return the names of this machine that it resolves by itself."""
    try:
        with open(HOSTS_FILE, encoding="utf-8", errors="replace") as file:
            text = file.read(HOSTS_FILE_CHARACTERS)
    except OSError:
        text = ""
    return own_names(socket.gethostname(), text)


def _ipv4(names: list[str]) -> Iterator[str]:
    """Yield the first IPv4 address of each interface that has a link."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name in names:
            # An interface without an address returns EADDRNOTAVAIL.
            with contextlib.suppress(OSError):
                request = IFREQ.pack(os.fsencode(name))
                (flags,) = struct.unpack_from("h", fcntl.ioctl(sock, SIOCGIFFLAGS, request), 16)
                if flags & RUNNING == RUNNING and not flags & LOOPBACK:
                    yield socket.inet_ntoa(fcntl.ioctl(sock, SIOCGIFADDR, request)[20:24])


def _ipv6(names: list[str]) -> Iterator[str]:
    """Yield the IPv6 addresses that other machines can use: neither link-local nor about to change."""
    with contextlib.suppress(OSError), open(IF_INET6, encoding="ascii") as table:
        for line in table:
            address, _, _, scope, flags, name = line.split()
            if name in names and name != "lo" and int(scope, 16) == GLOBAL_SCOPE and not int(flags, 16) & UNUSABLE:
                yield str(ipaddress.IPv6Address(bytes.fromhex(address)))
