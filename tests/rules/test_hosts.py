"""The host names that the server accepts, as protection against DNS rebinding."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.rules.forwarded import parse_trusted, seen_through
from wsbridge.rules.hosts import Hosts, is_address, name_of, normal_name, own_names, parse_hosts
from wsbridge.rules.request import Peer

OWN = own_names("pi", "127.0.0.1 localhost\n127.0.1.1\tpi.example.com pi  # ours\n0.0.0.0 ads.example\n")


def local(host: str) -> Peer:
    return Peer("127.0.0.1", "1", host, False, is_loopback=True)


def remote(host: str) -> Peer:
    return Peer("192.0.2.7", "1", host, False)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8080",
        "192.168.1.5:8080",
        "[::1]",
        "[::1]:8080",
        "[fe80::1]:81",
        "localhost",
        "LOCALHOST:8080",
        "localhost.",
        "app.localhost:8080",
        "pi",
        "Pi:8080",
        "pi.local:8080",
        "pi.local.:8080",
        "pi.example.com",
        "",
    ],
)
def test_own_names(host: str) -> None:
    """The server accepts IP addresses, localhost and the names of this machine, in any case and with any port, and a missing Host."""
    assert Hosts(own=OWN, is_strict=True).refused(local(host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "evil",
        "localhost.evil.example",
        "evillocalhost",
        "pi.evil.example",
        "evil.pi",
        "evil.local",
        "127.0.0.1.evil.example",
        "127.0.0.1.evil.example:8080",
        "127.1",
        "0x7f000001",
        "[::1].evil.example",
        "ads.example",
        "evil.example:127.0.0.1",
        "evil.example:80:80",
        "user@127.0.0.1",
        "localhost@evil.example",
        "127.0.0.1 evil.example",
        "*",
        "*.localhost.x",
        ".",
        ":8080",
    ],
)
def test_foreign_names(host: str) -> None:
    """The server refuses any other name."""
    assert Hosts(own=OWN).refused(local(host)) == host


def test_connections_with_a_check() -> None:
    """The server checks Host on connections to a loopback address. With `--sameorigin` or `--host`, it checks all connections."""
    assert Hosts(own=OWN).refused(remote("evil.example")) is None
    assert Hosts(own=OWN).refused(local("evil.example"))
    assert Hosts(own=OWN, is_strict=True).refused(remote("evil.example"))
    assert Hosts(("good.example",), OWN).refused(remote("evil.example"))


@pytest.mark.parametrize(
    ("given", "host", "passes"),
    [
        ("good.example", "good.example:8080", True),
        ("good.example", "GOOD.example.", True),
        ("Good.Example.", "good.example", True),
        ("good.example", "x.good.example", False),
        ("good.example", "localhost", True),
        ("*.good.example", "x.y.good.example", True),
        ("*.good.example", "good.example", False),
        ("*.good.example", ".good.example", False),
        ("*.good.example", "evilgood.example", False),
        ("*.good.example", "x.good.example.evil.example", False),
        ("a.example, b.example", "b.example", True),
        ("*", "evil.example", True),
    ],
)
def test_given_names(given: str, host: str, passes: bool) -> None:
    """`--host` accepts a name, every name below it with `*.name`, or any name with `*`."""
    assert (Hosts(parse_hosts([given])).refused(local(host)) is None) is passes


def through(host: str, reported: str, given: str = "") -> str | None:
    """Return the reason to refuse a request that a trusted proxy on this machine passes."""
    headers = (("Host", host), ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Host", reported))
    return Hosts(parse_hosts([given]), OWN, is_strict=True).refused(seen_through(local(host), headers, parse_trusted("127.0.0.1")))


def test_trusted_proxy() -> None:
    """A trusted proxy decides which names it serves. With `--host`, its own Host and the reported host must both match."""
    assert through("backend", "good.example") is None
    assert through("127.0.0.1:8080", "good.example", "good.example") is None
    assert through("127.0.0.1:8080", "evil.example", "good.example") == "evil.example"
    # A page on the proxy's own machine can set X-Forwarded-Host, but not Host.
    assert through("evil.example:8080", "good.example", "good.example") == "evil.example:8080"
    assert through("evil.example:8080", "127.0.0.1", "good.example") == "evil.example:8080"


def test_untrusted_proxy() -> None:
    """The server ignores a host that an untrusted peer reports."""
    headers = (("Host", "evil.example"), ("X-Forwarded-Host", "localhost"))
    assert Hosts(own=OWN).refused(seen_through(local("evil.example"), headers, parse_trusted("10.0.0.0/8"))) == "evil.example"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("http://good.example", "without scheme, port and path"),
        ("good.example:8080", "without scheme, port and path"),
        ("good.example/path", "without scheme, port and path"),
        ("good example", "without scheme, port and path"),
        ("x.*.example", "*.example.com"),
        ("*x.example", "*.example.com"),
        (".good.example", "*.example.com"),
        ("good..example", "not a host name"),
        ("bücher.example", "xn--"),
        ("127.0.0.1", "<address>=127.0.0.1"),
        ("::1", "<address>=::1"),
        ("[::1]", "<address>=[::1]"),
        ("localhost", "<address>=localhost"),
    ],
)
def test_invalid_names(value: str, remedy: str) -> None:
    """An invalid host name, or a name that is always accepted, is a usage error that shows the correct form."""
    with pytest.raises(ValueError, match="write") as caught:
        parse_hosts(["good.example", value])
    assert all(words in str(caught.value) for words in (value, remedy))


@pytest.mark.parametrize(
    ("hostname", "file", "names"),
    [
        ("pi", "", {"pi", "pi.local"}),
        ("Pi.Example.COM", "", {"pi.example.com", "pi", "pi.local"}),
        ("pi", "192.168.1.5 pi.lan pi\n::1 localhost", {"pi", "pi.local", "pi.lan"}),
        ("pi", "192.168.1.5 other.lan other\n#127.0.0.1 evil.example pi", {"pi", "pi.local"}),
        ("pi", "broken\n\n# \n127.0.0.1 pi * *.lan a/b", {"pi", "pi.local"}),
        ("", "127.0.0.1 localhost", set()),
    ],
)
def test_names_of_the_machine(hostname: str, file: str, names: set[str]) -> None:
    """The names are the host name, its short form, the short form with `.local`, and the aliases in /etc/hosts, without a lookup."""
    assert own_names(hostname, file) == names


@given(
    st.one_of(
        st.ip_addresses().map(str),
        st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
        st.from_regex(r"\A[0-9]{1,4}(\.[0-9]{1,4}){0,4}\.?\n?\Z"),
        st.text("0123456789abcdef.:[]%", max_size=20),
    )
)
def test_is_address(name: str) -> None:
    """An address is valid if the standard library accepts it, apart from the brackets of IPv6."""
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") and ":" in name else name)
    except ValueError:
        assert not is_address(name)
    else:
        assert is_address(name)


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ("A.example", "a.EXAMPLE:80"),
        ("*.A.example", "*.a.example"),
        ("localhost", "localhost:1"),
        ("192.0.2.7", "192.0.2.7:80"),
        ("::1", "[::1]:80"),
        ("[2001:DB8:0::1]", "[2001:db8::1]"),
    ],
)
def test_normal_name(given: str, header: str) -> None:
    """A host from the command line equals the normalized name in a browser's header."""
    assert normal_name(given) == name_of(header)
