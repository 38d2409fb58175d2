"""The pages that may connect: websocketd's rules, except that an empty entry matches nothing."""

from __future__ import annotations

import pytest

from wsbridge.rules.origins import Rules, admits_null, parse_allowed, schemeless
from wsbridge.rules.request import Peer

ANY = Rules()


def plain(host: str) -> Peer:
    return Peer("192.0.2.7", "1", host, False)


def tls(host: str) -> Peer:
    return Peer("192.0.2.7", "1", host, True)


def may_pass(rules: Rules, origin: str | None, peer: Peer | None = None) -> bool:
    return rules.refusal(origin, peer or plain("h.com")) is None


@pytest.mark.parametrize(
    "origin", [None, "", "null", "http://a.com", "https://a.com:8443", "file://", "chrome-extension://abc", "http://[::1]:80"]
)
def test_unrestricted(origin: str | None) -> None:
    """Without a flag, every origin passes, also a missing one, an empty one and `null`."""
    assert may_pass(ANY, origin)


@pytest.mark.parametrize("origin", ["foo", "http://a b", "a.com", "http://a.com:port", "http://[::1", "http://a.com\x7f", " "])
@pytest.mark.parametrize("rules", [ANY, Rules(same=True), Rules(allowed=parse_allowed("a.com"))], ids=["any", "same", "listed"])
def test_invalid_uri(origin: str, rules: Rules) -> None:
    """An Origin that is no URI is refused, with or without restrictions, and never raises an exception."""
    assert not may_pass(rules, origin)


@pytest.mark.parametrize(
    ("origin", "peer", "passes"),
    [
        ("http://h.com", plain("h.com"), True),
        ("http://h.com", plain("h.com:80"), True),
        ("http://h.com:80", plain("h.com"), True),
        ("http://h.com:8080", plain("h.com:8080"), True),
        ("http://h.com:8080/path", plain("h.com:8080"), True),
        ("http://user@h.com:8080", plain("h.com:8080"), True),
        ("https://h.com", tls("h.com"), True),
        ("https://h.com:443", tls("h.com"), True),
        ("https://h.com", tls("h.com:443"), True),
        ("https://h.com:8443", tls("h.com:8443"), True),
        ("https://h.com:8443", plain("h.com:8443"), False),
        ("http://h.com:443", tls("h.com"), False),
        ("http://h.com:443", tls("h.com:443"), False),
        ("https://h.com:80", plain("h.com"), False),
        ("ws://h.com", plain("h.com"), False),
        ("ftp://h.com:80", plain("h.com"), False),
        ("http://[::1]:81", plain("[::1]:81"), True),
        ("http://[::1]", plain("[::1]"), True),
        ("http://h.com", plain("h.com:8080"), False),
        ("http://h.com:8080", plain("h.com"), False),
        ("http://h.com:81", plain("h.com:82"), False),
        ("http://other.com", plain("h.com"), False),
        ("http://h.com.evil.org", plain("h.com"), False),
        ("http://evil.org/h.com", plain("h.com"), False),
        ("http://h.com@evil.org", plain("h.com"), False),
        ("http://sub.h.com", plain("h.com"), False),
        ("https://h.com", plain("h.com"), False),
        ("http://h.com", tls("h.com"), False),
        (None, plain("h.com"), False),
        ("", plain("h.com"), False),
        ("null", plain("h.com"), False),
        ("null", plain("null"), False),
        ("file://", plain("h.com"), False),
        ("file://", plain(""), False),
        (None, plain(""), False),
        (None, plain("a:b:c"), False),
    ],
)
def test_same_origin(origin: str | None, peer: Peer, passes: bool) -> None:
    """Scheme, host and port must equal the server's (RFC 6454). A missing port is the scheme's default; a missing origin is refused."""
    assert may_pass(Rules(same=True), origin, peer) is passes


def test_same_origin_behind_a_proxy() -> None:
    """Behind a trusted proxy with TLS, the connection counts as TLS: a page on port 443 has the same origin."""
    assert may_pass(Rules(same=True), "https://h.com", tls("h.com"))
    assert not may_pass(Rules(same=True), "https://h.com", plain("h.com"))


@pytest.mark.parametrize(
    ("allowed", "origin", "passes"),
    [
        ("a.com", "http://a.com", True),
        ("a.com", "https://a.com", True),
        ("a.com", "https://a.com:8443", True),
        ("a.com", "http://a.com:80/path", True),
        ("a.com", "http://user:secret@a.com", True),
        ("a.com", "http://b.com", False),
        ("a.com", "http://sub.a.com", False),
        ("a.com", "http://a.com.b.com", False),
        ("a.com", "http://b.com/a.com", False),
        ("a.com", "http://a.com@b.com", False),
        ("a.com:3000", "http://a.com:3000", True),
        ("a.com:3000", "https://a.com:3000", True),
        ("a.com:3000", "http://a.com", False),
        ("a.com:3000", "http://a.com:3001", False),
        ("a.com:80", "http://a.com", True),
        ("a.com:80", "http://a.com:80", True),
        ("a.com:80", "https://a.com", False),
        ("a.com:443", "https://a.com", True),
        ("https://a.com", "https://a.com", True),
        ("https://a.com", "https://a.com:8443", True),
        ("https://a.com", "http://a.com", False),
        ("https://a.com:8443", "https://a.com:8443", True),
        ("https://a.com:8443", "https://a.com", False),
        ("http://a.com:80", "http://a.com", True),
        ("http://a.com:80", "https://a.com:80", False),
        ("[::1]", "http://[::1]", True),
        ("[::1]:81", "http://[::1]:81", True),
        ("[::1]:81", "http://[::1]:82", False),
        ("a.com,b.com:81", "http://b.com:81", True),
        ("a.com, b.com", "http://b.com", True),
        (" a.com ,", "http://a.com", True),
        ("a.com,b.com", "http://c.com", False),
        ("*.a.com", "http://x.a.com", True),
        ("*.a.com", "https://x.y.a.com:8443", True),
        ("*.a.com", "http://a.com", False),
        ("*.a.com", "http://.a.com", False),
        ("*.a.com", "http://xa.com", False),
        ("*.a.com", "http://x.a.com.evil.org", False),
        ("*.a.com", "http://evil.org/x.a.com", False),
        ("*.a.com", "null", False),
        ("*.a.com", None, False),
        ("https://*.a.com", "https://x.a.com", True),
        ("https://*.a.com", "http://x.a.com", False),
        ("*.a.com:3000", "http://x.a.com:3000", True),
        ("*.a.com:3000", "http://x.a.com", False),
        ("https://*", "https://b.com:1", True),
        ("https://*", "http://b.com", False),
        ("*:3000", "http://b.com:3000", True),
        ("*:3000", "http://b.com", False),
        ("https://*", None, False),
        ("https://*", "null", False),
        ("*", "http://a.com", True),
        ("*", "null", True),
        ("*", None, True),
        ("b.com, *", "http://a.com", True),
        ("A.com", "http://a.COM", True),
        ("a.com/", "http://a.com", True),
        ("http://a.com/", "http://a.com", True),
        ("[0:0:0:0:0:0:0:1]", "http://[::1]", True),
        ("a.com:0443", "https://a.com", True),
        ("chrome-extension://abcd", "chrome-extension://abcd", True),
        ("null", "null", True),
        ("null", None, False),
        ("null", "file://", False),
    ],
)
def test_listed(allowed: str, origin: str | None, passes: bool) -> None:
    """An entry without a port matches any port, and without a scheme any scheme; `*.name` matches every name below a name."""
    assert may_pass(Rules(allowed=parse_allowed(allowed)), origin) is passes


@pytest.mark.parametrize("origin", [None, "", "null", "file://"])
@pytest.mark.parametrize("allowed", ["a.com", "a.com,", ",a.com", ",", " , ", "a.com,,b.com", "*.a.com", "https://*"])
def test_clients_without_an_origin(allowed: str, origin: str | None) -> None:
    """With a list, a missing Origin and `null` are refused; an empty entry matches nothing."""
    assert not may_pass(Rules(allowed=parse_allowed(allowed)), origin)


@pytest.mark.parametrize(("origin", "passes"), [(None, True), ("", True), ("file://", True), ("null", True), ("http://a.com", False)])
def test_file_entry(origin: str | None, passes: bool) -> None:
    """`file://` accepts a missing Origin and pages from files, for which Chromium and Firefox send `null`."""
    assert may_pass(Rules(allowed=parse_allowed("file://")), origin) is passes


@pytest.mark.parametrize(
    ("origin", "host", "passes"),
    [("http://a.com", "a.com", True), ("http://a.com", "b.com", False), ("http://b.com", "b.com", False)],
)
def test_both_rules(origin: str, host: str, passes: bool) -> None:
    """With both flags, an origin must satisfy both."""
    assert may_pass(Rules(same=True, allowed=parse_allowed("a.com")), origin, plain(host)) is passes


def test_logged_reason() -> None:
    """The log names the rule that refused the origin, in websocketd's words."""
    assert Rules(same=True).refusal("http://x.com", plain("h.com")) == "Same origin policy mismatch"
    assert Rules(allowed=parse_allowed("a.com")).refusal("http://x.com", plain("h.com")) == "Origin is not listed in allowed list"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("a.com:port", "use a port from 1 to 65535"),
        ("a.com:0", "use a port from 1 to 65535"),
        ("a.com:99999", "use a port from 1 to 65535"),
        ("a.com:*", "omit the port"),
        ("a.com:", "omit the port"),
        ("http:", "omit the port"),
        ("http:a.com", "use a port from 1 to 65535"),
        ("::1", "it has no host"),
        ("fe80::1", "write IPv6 addresses in brackets"),
        ("http://[::1", "no user, path or query"),
        ("[::g]", "not an IPv6 address"),
        ("a.com/path", "no user, path or query"),
        ("https://a.com/app,b.com", "no user, path or query"),
        ("https://a.com?x", "no user, path or query"),
        ("https://a.com#x", "no user, path or query"),
        ("https://user@a.com", "no user, path or query"),
        ("file:///home/page.html", "no user, path or query"),
        ("a.com b.com", "separate entries by commas"),
        ("https://a.com\thttps://b.com", "separate entries by commas"),
        ("http://", "it has no host"),
        ("https:///a.com", "no user, path or query"),
        ("://a.com", "omit the scheme"),
        ("*://a.com", "omit the scheme"),
        ("http*://a.com", "omit the scheme"),
        ("ws://a.com", "write http://"),
        ("wss://a.com", "write https://"),
        ("a*.com", "a wildcard stands for whole names"),
        ("*a.com", "a wildcard stands for whole names"),
        ("*.*.com", "a wildcard stands for whole names"),
        ("a.*.com", "a wildcard stands for whole names"),
        ("a.com.*", "a wildcard stands for whole names"),
        (".a.com", "a wildcard stands for whole names"),
        ("**", "a wildcard stands for whole names"),
        ("'a.com'", "not a host name"),
        ("a..com", "not a host name"),
        ("-a.com", "not a host name"),
        ("a.com;b.com", "not a host name"),
        ("bücher.example", "xn--"),
        ("127.1", "not an IP address"),
        ("http://0x7f.0.0.1", "not an IP address"),
        ("256.0.0.1", "not an IP address"),
    ],
)
def test_entries_that_cannot_match(value: str, remedy: str) -> None:
    """An entry that cannot match any origin is a usage error that names the entry and the correct form."""
    with pytest.raises(ValueError, match="cannot match any origin") as caught:
        parse_allowed(value)
    assert all(words in str(caught.value) for words in (repr(value.split(",")[0]), remedy, "[scheme://]host[:port]"))


def test_schemeless() -> None:
    """With TLS, a warning names the entries that accept pages from plain HTTP."""
    assert schemeless(parse_allowed("https://a.com, b.com, http://c.com, d.com:81") or ()) == ["b.com", "d.com"]


def test_sandboxed_frames() -> None:
    """`file://` and `null` also accept sandboxed frames of any site, and a warning says so."""
    assert [admits_null(parse_allowed(value) or ()) for value in ("a.com,file://", "null", "a.com,*.b.com")] == [True, True, False]
