"""The URLs of a server, as values."""

from __future__ import annotations

import pytest

from wsbridge.rules.reach import MOST, Machine, reachable

HOME = Machine(("192.168.2.9", "2001:db8::9"), "raspberrypi.local")
HERE, NETWORK = "From this machine", "From the network"


def test_every_address() -> None:
    """The URLs of a server on every address are localhost, the machine's name and each address."""
    assert list(reachable("http", "", 8080, HOME)) == [
        (HERE, "http://localhost:8080/"),
        (NETWORK, "http://raspberrypi.local:8080/"),
        (NETWORK, "http://192.168.2.9:8080/"),
        (NETWORK, "http://[2001:db8::9]:8080/"),
    ]


def test_ipv4_alone() -> None:
    """A server on 0.0.0.0 has no IPv6 URL."""
    assert [url for _, url in reachable("ws", "0.0.0.0", 80, HOME)] == [
        "ws://localhost:80/",
        "ws://raspberrypi.local:80/",
        "ws://192.168.2.9:80/",
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "192.168.2.9", "raspberrypi"])
def test_one_address(host: str) -> None:
    """A server on one address has no URLs besides the announced one."""
    assert list(reachable("http", host, 8080, HOME)) == []


def test_a_machine_without_a_network() -> None:
    """Without a network, localhost is the only URL."""
    assert list(reachable("https", "[::]", 443, Machine())) == [(HERE, "https://localhost:443/")]


def test_many_addresses() -> None:
    """Of many addresses, the first have URLs."""
    many = Machine(tuple(f"10.0.0.{number}" for number in range(200)))
    assert len(list(reachable("http", "", 80, many))) == 1 + MOST
