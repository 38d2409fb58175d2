"""Request targets (RFC 9112, section 3.2) and headers, as plain values."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rules.requests import make_request
from tests.support.references import resolve
from wsbridge.errors import Refused
from wsbridge.rules.cgi import redirected
from wsbridge.rules.paths import clean
from wsbridge.rules.request import Peer, RequestTarget, encode_path, has_token, quote_path, read_target


@pytest.mark.parametrize(
    ("target", "path", "query", "uri"),
    [
        ("/", "/", "", "/"),
        ("/a/b", "/a/b", "", "/a/b"),
        ("/a?x=1&y=%20+", "/a", "x=1&y=%20+", "/a?x=1&y=%20+"),
        ("/a?x?y", "/a", "x?y", "/a?x?y"),
        ("/a?", "/a", "", "/a?"),
        ("/a%20b+c", "/a b+c", "", "/a%20b+c"),
        ("/a%2Fb", "/a/b", "", "/a%2Fb"),
        ("/%2e%2e/a", "/../a", "", "/%2e%2e/a"),
        ("/a%0Ab", "/a\nb", "", "/a%0Ab"),
        ("/%C3%A9", "/é", "", "/%C3%A9"),
        ("/é", "/é", "", "/%C3%A9"),
        ("/%ff", "/\udcff", "", "/%ff"),
        ("/\udcff", "/\udcff", "", "/%FF"),
        ('/"<>\\^`{|}', '/"<>\\^`{|}', "", "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/-._~!$&'()*+,;=:@", "/-._~!$&'()*+,;=:@", "", "/-._~!$&'()*+,;=:@"),
        ('/a?"', "/a", '"', '/a?"'),
        ("/%2525", "/%25", "", "/%2525"),
        ("//h/a", "//h/a", "", "//h/a"),
    ],
)
def test_origin_form(target: str, path: str, query: str, uri: str) -> None:
    """The path is decoded once, and the query stays raw. The URI encodes only characters that are invalid in a URL."""
    assert read_target(target) == RequestTarget(path, query, uri, None)


@pytest.mark.parametrize(
    ("target", "path", "query", "uri", "authority"),
    [
        ("http://h/a?x", "/a", "x", "/a?x", "h"),
        ("http://h:81/", "/", "", "/", "h:81"),
        ("http://h", "/", "", "/", "h"),
        ("HTTP://h/a", "/a", "", "/a", "h"),
        ("http://h?x=1", "/", "x=1", "/?x=1", "h"),
        ("http://h?x=/y", "/", "x=/y", "/?x=/y", "h"),
        ("http://h/a?u=http://i/b", "/a", "u=http://i/b", "/a?u=http://i/b", "h"),
        ("ws://[::1]:81/a%20b", "/a b", "", "/a%20b", "[::1]:81"),
        ("http:///a", "/a", "", "/a", None),
        ("*", "/", "", "/", None),
    ],
)
def test_absolute_form(target: str, path: str, query: str, uri: str, authority: str | None) -> None:
    """An absolute target loses scheme and host; the host replaces the Host header."""
    assert read_target(target) == RequestTarget(path, query, uri, authority)


@pytest.mark.parametrize("target", ["/?://evil/", "/|?://evil/", "/^^^^?x=http://evil/", "//evil/?://evil/"])
def test_no_query_is_a_host(target: str) -> None:
    """Whatever the path and the query contain, a target that begins with a slash has no host."""
    assert read_target(target).authority is None


@pytest.mark.parametrize("target", ["/%00", "/a%00b", "/a%00/b?x", "http://h/%00"])
def test_nul(target: str) -> None:
    """`%00` in the path gives 400."""
    with pytest.raises(Refused) as caught:
        read_target(target)
    assert caught.value.status == 400


def test_nul_in_the_query() -> None:
    """The query is not decoded, so encoded NUL bytes in it do no harm."""
    assert read_target("/a?%00") == RequestTarget("/a", "%00", "/a?%00", None)


def test_encode_path() -> None:
    """Encoded characters stay unchanged, also in lower case."""
    assert encode_path("/a%2fb%2F c") == "/a%2fb%2F%20c"


@pytest.mark.parametrize(
    ("path", "quoted"),
    [("/a b/ü?#", "/a%20b/%C3%BC%3F%23"), ("/100%/%41", "/100%25/%2541"), ("/\udcff", "/%FF"), ("/a:b@c;d=e", "/a:b@c;d=e")],
)
def test_quote_path(path: str, quoted: str) -> None:
    """Each character that is invalid in a URL, including `%`, is encoded once, so that decoding returns the path."""
    assert quote_path(path) == quoted
    assert read_target(quoted).path == path


@pytest.mark.parametrize(
    ("sent", "path", "location"),
    [
        ("/count", "/count/", "./count/"),
        ("/tools/console?q=//x", "/tools/console/", "./console/?q=//x"),
        ("/page/index.html", "/page/", "./"),
        ("/index.html", "/", "./"),
        ("/small.txt/", "/small.txt", "../small.txt"),
        ("/tools%2Fconsole", "/tools/console/", "./tools/console/"),
        ("//evil.example/count", "/evil.example/count", "/evil.example/count"),
        ("//evil.example", "/evil.example", "/evil.example"),
        ("/team//chat", "/team/chat", "/team/chat"),
        ("/%2Fevil.example/", "/evil.example/", "../evil.example/"),
        ("/%5Cevil.example//", "/\\evil.example/", "/%5Cevil.example/"),
        ("/a/../b", "/b", "./b"),
        ("/../../b", "/b", "./b"),
        ("/http:%2F%2Fevil.example", "/http:/evil.example", "./http:/evil.example"),
    ],
)
def test_location(sent: str, path: str, location: str) -> None:
    """A redirect is a relative reference, or a path from the root if the client has sent `//`; it never names a host."""
    target = read_target(sent)
    request = make_request(path=target.path, query=target.query, uri=target.uri)
    assert request.location(path) == location
    assert resolve(sent, location).partition("?")[0] == quote_path(path)
    assert urlsplit(urljoin(f"http://here{sent}", location))[1:3] == ("here", quote_path(path))


COMPONENTS = st.sampled_from(["", "a", "b.c", ".", "..", "a%2Fb", "%2F", "%2e", "%5Cevil", "evil.example", "x:y", "%3F", "%C3%BC"])


@given(st.lists(COMPONENTS, min_size=1, max_size=6), st.sampled_from(["", "?q=/../x"]), st.sampled_from(["", "/ws", "/ws/x"]))
def test_every_location(components: list[str], query: str, prefix: str) -> None:
    """A redirect leads from any path to the clean path: with `//`, for clients that ignore empty components too, and otherwise below
    the prefix that a reverse proxy has removed."""
    sent = "/" + "/".join(components) + query
    target = read_target(sent)
    request = make_request(path=target.path, query=target.query, uri=target.uri)
    location = request.location(path := clean(target.path))
    if ".." in components or "//" in sent.partition("?")[0]:
        prefix = ""
    assert resolve(prefix + sent, location) == prefix + quote_path(path) + query
    assert urljoin(f"http://here{prefix}{sent}", location) == f"http://here{prefix}{quote_path(path)}{query}"


def test_location_after_a_local_redirect() -> None:
    """A redirect counts from the path that the client has sent, and not from that of a local redirect."""
    request = redirected(make_request(path="/cgi/x", uri="/cgi/x?y"), "/files/sub?z")
    assert request.location("/files/sub/") == "../files/sub/?z"
    assert redirected(request, "/cgi").below("/cgi").location("/cgi/") == "./"


def test_headers() -> None:
    """Header names are case-insensitive. Repeated headers are joined in order; a missing header is None."""
    request = make_request(("X-A", "1"), ("x-a", "2"), ("Empty", ""))
    assert [request.header(name) for name in ("x-a", "empty", "x-b")] == ["1, 2", "", None]


@pytest.mark.parametrize(("is_tls", "url"), [(False, "http://h:81/a?x"), (True, "https://h:81/a?x")])
def test_url(is_tls: bool, url: str) -> None:
    """The whole URL in the form of the log."""
    assert make_request(path="/a", query="x", uri="/a?x", peer=Peer("::1", "1", "h:81", is_tls)).url == url


@pytest.mark.parametrize(
    ("values", "has"),
    [
        (["upgrade"], True),
        (["Upgrade"], True),
        (["keep-alive, Upgrade"], True),
        (["keep-alive", "upgrade"], True),
        (["keep-alive ,  UPGRADE , x"], True),
        ([], False),
        ([""], False),
        (["keep-alive"], False),
        (["upgraded"], False),
        (["not upgrade"], False),
    ],
)
def test_tokens(values: list[str], has: bool) -> None:
    """A token stands between commas, in any case, in any of several lines."""
    assert has_token(values, "upgrade") is has
