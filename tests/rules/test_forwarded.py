"""The report of a reverse proxy: wsbridge uses it only from trusted proxies."""

from __future__ import annotations

import pytest

from wsbridge.rules.forwarded import Trusted, parse_trusted, seen_through
from wsbridge.rules.request import Peer

PROXY = Peer("10.0.0.1", "4000", "backend:8080", False)
STRANGER = Peer("203.0.113.66", "4000", "example.org", False)
UNIX = Peer("unix-socket", "", "backend", False)
TRUSTED = parse_trusted("10.0.0.0/8, 192.0.2.1, 2001:db8::/32")

CLIENT = "198.51.100.9"


def behind(address: str = PROXY.address, port: str = "", host: str = PROXY.host, is_tls: bool = False) -> Peer:
    return Peer(address, port, host, is_tls)


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ([], PROXY),
        ([("X-Other", "1")], PROXY),
        ([("X-Forwarded-For", CLIENT)], behind(CLIENT)),
        ([("x-forwarded-for", CLIENT)], behind(CLIENT)),
        ([("X-Forwarded-For", f"{CLIENT}:5555")], behind(CLIENT, "5555")),
        ([("X-Forwarded-For", "2001:DB9::1")], behind("2001:db9::1")),
        ([("X-Forwarded-For", "[2001:db9::1]")], behind("2001:db9::1")),
        ([("X-Forwarded-For", "[2001:db9::1]:5555")], behind("2001:db9::1", "5555")),
        ([("X-Forwarded-For", "::ffff:198.51.100.9")], behind(CLIENT)),
        ([("X-Forwarded-For", "fe80::1%eth0")], behind("fe80::1")),
        ([("X-Forwarded-For", "[fe80::1%eth0]:5555")], behind("fe80::1", "5555")),
        ([("X-Forwarded-For", f"{CLIENT}:port")], behind(CLIENT)),
        ([("X-Forwarded-For", f"{CLIENT}:65536")], behind(CLIENT)),
        ([("X-Forwarded-For", f"{CLIENT}:0")], behind(CLIENT)),
        ([("X-Forwarded-For", f"{CLIENT}:-1")], behind(CLIENT)),
        ([("X-Forwarded-For", f"{CLIENT}:+80")], behind(CLIENT)),
        ([("X-Forwarded-For", f"{CLIENT}:00080")], behind(CLIENT, "80")),
        ([("X-Forwarded-For", f"{CLIENT}:\u0661\u0662")], behind(CLIENT)),
        ([("X-Forwarded-For", f"{CLIENT}: 80")], behind(CLIENT)),
        ([("X-Forwarded-For", f"{CLIENT}:")], behind(CLIENT)),
        ([("X-Forwarded-For", "[2001:db9::1]:$(id)")], behind("2001:db9::1")),
        ([("X-Forwarded-For", CLIENT), ("X-Forwarded-Proto", "https")], behind(CLIENT, is_tls=True)),
        ([("X-Forwarded-For", CLIENT), ("X-Forwarded-Proto", "HTTPS")], behind(CLIENT, is_tls=True)),
        ([("X-Forwarded-For", CLIENT), ("X-Forwarded-Proto", "wss")], behind(CLIENT, is_tls=True)),
        ([("X-Forwarded-For", CLIENT), ("X-Forwarded-Proto", "http")], behind(CLIENT)),
        ([("X-Forwarded-For", CLIENT), ("X-Forwarded-Host", "example.org")], behind(CLIENT, host="example.org")),
        *(
            ([("X-Forwarded-For", CLIENT), ("X-Forwarded-Host", host)], behind(CLIENT))
            for host in ('a b"c:xyz', "user@h", "h:80x", "h, i j", "h\x80", "h'", "[::1", "h/path")
        ),
        ([("X-Forwarded-For", CLIENT), ("X-Forwarded-Host", "[::1]:81")], behind(CLIENT, host="[::1]:81")),
        ([("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "example.org")], Peer(PROXY.address, PROXY.port, "example.org", True)),
    ],
)
def test_reported(headers: list[tuple[str, str]], seen: Peer) -> None:
    """Address, port, scheme and host come from a trusted proxy's report; values that it lacks stay."""
    assert seen_through(PROXY, tuple(headers), TRUSTED) == seen


@pytest.mark.parametrize(
    ("chain", "seen"),
    [
        (f"1.2.3.4, {CLIENT}", CLIENT),
        (f"1.2.3.4,5.6.7.8,{CLIENT}", CLIENT),
        (f"{CLIENT}, 10.9.9.9", CLIENT),
        (f"1.2.3.4, {CLIENT}, 192.0.2.1, 10.2.2.2", CLIENT),
        (f"1.2.3.4, {CLIENT}, 2001:db8::5", CLIENT),
        (f"{CLIENT}, ::ffff:10.0.0.9", CLIENT),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (f"10.0.0.3, {CLIENT}", CLIENT),
        (f"{CLIENT}, 192.0.2.2", "192.0.2.2"),
    ],
)
def test_chain(chain: str, seen: str) -> None:
    """In a chain, the client is the last address that is not a trusted proxy's: a client may forge the addresses before it."""
    assert seen_through(PROXY, (("X-Forwarded-For", chain),), TRUSTED) == behind(seen)
    lines = tuple(("X-Forwarded-For", part) for part in chain.split(","))
    assert seen_through(PROXY, lines, TRUSTED) == behind(seen)


NO_ADDRESSES = (
    "fe80::1%",
    "fe80::1%a b",
    "fe80::1%'",
    "fe80::1%eth0%eth1",
    f"{CLIENT}%eth0",
    "[2001:db9::1]junk",
    "[2001:db9::1]junk:80",
    "[2001:db9::1",
    "[]:80",
    "2001:db9::1]",
)


@pytest.mark.parametrize("chain", ["junk", *(f"{CLIENT}, {junk}" for junk in ("junk", "unknown", "1.2.3", "<script>")), *NO_ADDRESSES])
def test_invalid_address_in_a_chain(chain: str) -> None:
    """Before an invalid address, wsbridge trusts nothing: the peer's address stays."""
    seen = seen_through(PROXY, (("X-Forwarded-For", chain),), TRUSTED)
    assert (seen.address, seen.host, seen.is_tls) == (PROXY.address, PROXY.host, False)


@pytest.mark.parametrize("peer", [STRANGER, UNIX, Peer("2001:db9::1", "1", "h", False), Peer("11.0.0.1", "1", "h", False)])
@pytest.mark.parametrize(
    "headers",
    [
        (("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil")),
        (("Forwarded", "for=127.0.0.1;proto=https;host=evil"),),
    ],
)
def test_untrusted_peers(peer: Peer, headers: tuple[tuple[str, str], ...]) -> None:
    """wsbridge ignores the headers of an untrusted peer, whether other proxies are trusted or not."""
    assert seen_through(peer, headers, TRUSTED) == peer
    assert seen_through(peer, headers, Trusted()) == peer


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Forwarded-For", CLIENT), ("X-Forwarded-Proto", "http, https"), ("X-Forwarded-Host", "evil, example.org")],
        [
            ("X-Forwarded-For", CLIENT),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil"),
            ("X-Forwarded-Host", "example.org"),
        ],
    ],
)
def test_nearest_proxy_sets_scheme_and_host(headers: list[tuple[str, str]]) -> None:
    """Of several schemes and hosts, the nearest proxy's are used: a client may forge the earlier ones."""
    assert seen_through(PROXY, tuple(headers), TRUSTED) == behind(CLIENT, host="example.org", is_tls=True)


def test_forwarded_is_not_read() -> None:
    """wsbridge ignores the header of RFC 7239: a proxy that does not know it passes a forged one from a client."""
    forwarded = ("Forwarded", f"for={CLIENT};proto=https;host=evil")
    assert seen_through(PROXY, (forwarded,), TRUSTED) == PROXY
    assert seen_through(PROXY, (forwarded, ("X-Forwarded-For", "198.51.100.7")), TRUSTED) == behind("198.51.100.7")


def test_unix() -> None:
    """`unix` trusts every peer on the Unix socket, and no other."""
    headers = (("X-Forwarded-For", CLIENT), ("X-Forwarded-Proto", "https"))
    assert seen_through(UNIX, headers, parse_trusted("unix")) == Peer(CLIENT, "", "backend", True)
    assert seen_through(PROXY, headers, parse_trusted("unix")) == PROXY


@pytest.mark.parametrize(
    ("value", "inside", "outside"),
    [
        ("10.0.0.0/8", ["10.0.0.1", "10.255.255.255", "::ffff:10.1.2.3"], ["11.0.0.1", "unix-socket", "", "::1", "10.0.0"]),
        ("10.1.2.3/8", ["10.0.0.1"], ["11.0.0.1"]),
        ("127.0.0.1", ["127.0.0.1"], ["127.0.0.2"]),
        ("::1,fd00::/8", ["::1", "fd12::1"], ["::2", "127.0.0.1", "fe00::1"]),
        ("unix", ["unix-socket"], ["127.0.0.1"]),
        (" 127.0.0.1 , unix ,", ["127.0.0.1", "unix-socket"], ["10.0.0.1"]),
        ("", [], ["127.0.0.1", "unix-socket", "::1"]),
        ("0.0.0.0/0", ["1.2.3.4"], ["unix-socket", "2001:db8::1"]),
    ],
)
def test_trusted(value: str, inside: list[str], outside: list[str]) -> None:
    """The list has CIDR networks, single addresses and `unix`, separated by commas. An IPv4 client on an IPv6 socket counts as IPv4."""
    trusted = parse_trusted(value)
    assert ([address for address in inside if address not in trusted], [address for address in outside if address in trusted]) == ([], [])


@pytest.mark.parametrize("value", ["localhost", "10.0.0.0/33", "10.0.0", "UNIX", "10.0.0.1;10.0.0.2", "::1/129"])
def test_invalid_networks(value: str) -> None:
    """An invalid network is a usage error that names the entry and the correct form."""
    with pytest.raises(ValueError, match="write networks") as caught:
        parse_trusted(value)
    assert all(words in str(caught.value) for words in (value.split("/")[0], "10.0.0.0/8", "unix"))
