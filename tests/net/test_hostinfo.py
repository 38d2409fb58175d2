"""The addresses of this machine, compared with the output of iproute2."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from wsbridge.net.hostinfo import INSIDE, machine


def test_addresses() -> None:
    """The result has the addresses of interfaces with a link, without loopback, link-local and temporary addresses."""
    found = json.loads(subprocess.run(["ip", "-j", "address"], check=True, capture_output=True, text=True).stdout)
    links = [link for link in found if "LOOPBACK" not in link["flags"] and not link["ifname"].startswith(INSIDE)]
    infos: list[dict[str, Any]] = [info for link in links for info in link["addr_info"]]
    there = {info["local"] for info in infos if info["scope"] == "global"}
    addresses = machine().addresses
    assert set(addresses) <= there
    running = [link for link in links if {"UP", "LOWER_UP"} <= set(link["flags"])]
    first = [next((info["local"] for info in link["addr_info"] if info["family"] == "inet"), None) for link in running]
    assert [address for address in addresses if ":" not in address] == [address for address in first if address]
