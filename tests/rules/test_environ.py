"""The environment of a child: exactly websocketd's variables, and no others."""

from __future__ import annotations

import pytest

from tests.rules.requests import PEER, make_request
from wsbridge.errors import Refused
from wsbridge.rules.environ import Script, cgi_environment, inherited_environment, passed_on, session_environment, split_host
from wsbridge.rules.request import Peer, Request

WHOLE_PATH = Script("/", "/")


def environment(request: Request, script: Script = WHOLE_PATH, passed: dict[str, str] | None = None) -> dict[str, str]:
    return session_environment(request, script, unique_id="17", remote_host="192.0.2.7", software="wsbridge/1", passed=passed or {})


def cgi(request: Request, script: Script, passed: dict[str, str] | None = None) -> dict[str, str]:
    return cgi_environment(
        request, script, filename="/srv/cgi/a.cgi", root="/srv/cgi", remote_host="192.0.2.7", software="wsbridge/1", passed=passed or {}
    )


BARE = {
    "SERVER_SOFTWARE": "wsbridge/1",
    "REMOTE_ADDR": "192.0.2.7",
    "REMOTE_PORT": "54321",
    "REMOTE_HOST": "192.0.2.7",
    "SERVER_NAME": "example.org",
    "SERVER_PORT": "8080",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "GATEWAY_INTERFACE": "CGI/1.1",
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "/",
    "PATH_INFO": "/",
    "PATH_TRANSLATED": "/",
    "QUERY_STRING": "",
    "REQUEST_URI": "/",
    "UNIQUE_ID": "17",
    "AUTH_TYPE": "",
    "CONTENT_LENGTH": "",
    "CONTENT_TYPE": "",
    "REMOTE_IDENT": "",
    "REMOTE_USER": "",
}
"""The variables of a minimal request."""


def test_bare_request() -> None:
    """A minimal request gives these variables: the five unsupported ones empty, no HTTP_HOST, and none of the parent's."""
    assert environment(make_request(("Host", "example.org:8080"))) == BARE


def test_whole_request() -> None:
    """The path is decoded, the query raw, and the script's part separate. All headers, passed variables and HTTPS (with TLS) are
    present."""
    request = make_request(
        ("Host", "example.org"),
        ("User-Agent", "test"),
        ("X-A", "1"),
        ("Cookie", "a=1"),
        ("x-a", "2"),
        ("Cookie", "b=2"),
        ("X.Dot", "3"),
        ("Content-Length", "0"),
        path="/sub/echo.sh/a b/",
        query="q=%20&r",
        uri="/sub/echo.sh/a%20b/?q=%20&r",
        protocol="HTTP/1.0",
        peer=Peer("unix-socket", "", "example.org", True),
    )
    script = Script("/sub/echo.sh", "/a b/")
    assert session_environment(
        request, script, unique_id="18", remote_host="client.example", software="websocketd/1", passed={"PATH": "/bin"}
    ) == BARE | {
        "SERVER_SOFTWARE": "websocketd/1",
        "PATH": "/bin",
        "HTTPS": "on",
        "REMOTE_ADDR": "unix-socket",
        "REMOTE_PORT": "",
        "REMOTE_HOST": "client.example",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "SCRIPT_NAME": "/sub/echo.sh",
        "PATH_INFO": "/a b/",
        "PATH_TRANSLATED": "/sub/echo.sh/a b/",
        "QUERY_STRING": "q=%20&r",
        "REQUEST_URI": "/sub/echo.sh/a%20b/?q=%20&r",
        "UNIQUE_ID": "18",
        "HTTP_USER_AGENT": "test",
        "HTTP_X_A": "1, 2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X.DOT": "3",
        "HTTP_CONTENT_LENGTH": "0",
    }


@pytest.mark.parametrize(
    ("path", "info"),
    [("/a ", "/a"), ("/a\nb", "/a b"), ("/a\r\nb", "/a  b"), ("/a/b", "/a/b"), ("/é", "/é"), ("/\udcff", "/\udcff")],
)
def test_path_is_trimmed(path: str, info: str) -> None:
    """CR and LF become spaces, and spaces around a value are removed; bytes that are not UTF-8 are unchanged."""
    variables = environment(make_request(path=path), Script("/", path))
    assert (variables["PATH_INFO"], variables["PATH_TRANSLATED"]) == (info, info)


@pytest.mark.parametrize("character", ["\r", "\n", "\0"])
def test_no_control_character_enters_a_value(character: str) -> None:
    """CR, LF and NUL cannot enter a value, whatever its source."""
    dirty = f"a{character}b"
    request = make_request(("X-A", dirty), path=dirty, query=dirty, uri=dirty, peer=Peer("192.0.2.7", "1", dirty, False))
    variables = environment(request, Script(dirty, dirty), passed=passed_on(["P"], {"P": dirty}))
    assert [name for name, value in variables.items() if character in value] == []
    assert variables["HTTP_X_A"] == variables["P"] == variables["PATH_INFO"] == "a b"


@pytest.mark.parametrize("name", ["Proxy", "proxy", "PROXY"])
def test_proxy_header(name: str) -> None:
    """A `Proxy:` header never becomes HTTP_PROXY, which libraries obey; the server's own HTTP_PROXY may be passed."""
    assert environment(make_request((name, "http://evil"))) == BARE
    assert environment(make_request((name, "http://evil")), passed={"HTTP_PROXY": "http://ours"}) == BARE | {"HTTP_PROXY": "http://ours"}


@pytest.mark.parametrize("first", [True, False])
def test_underscore_cannot_pass_for_a_hyphen(first: bool) -> None:
    """A header with `_` in its name never replaces a header with `-`, whatever their order, and also not alone."""
    headers = [("X-Real-IP", "true"), ("X_Real_IP", "false")]
    assert environment(make_request(*(headers if first else headers[::-1]))) == BARE | {"HTTP_X_REAL_IP": "true"}
    assert environment(make_request(("X_Real-IP", "false"))) == BARE


def test_precedence() -> None:
    """Request variables override passed variables, except SERVER_SOFTWARE. Passed names keep their case."""
    passed = {"REMOTE_ADDR": "1", "REMOTE_USER": "root", "UNIQUE_ID": "0", "HTTP_X_A": "0", "SERVER_SOFTWARE": "mine", "path": "lower"}
    assert environment(make_request(("X-A", "1")), passed=passed) == BARE | {"HTTP_X_A": "1", "SERVER_SOFTWARE": "mine", "path": "lower"}


def test_headers_cannot_replace_variables() -> None:
    """A header's variable always begins with HTTP_, whatever the header's name."""
    assert environment(make_request(("Remote-Addr", "1"), ("Path", "/evil"), ("Https", "on"))) == BARE | {
        "HTTP_REMOTE_ADDR": "1",
        "HTTP_PATH": "/evil",
        "HTTP_HTTPS": "on",
    }


@pytest.mark.parametrize(
    ("names", "passed"),
    [
        ("PATH,LD_LIBRARY_PATH", {"PATH": "/bin:/usr/bin"}),
        ("HOME", {"HOME": "/home/me"}),
        ("", {}),
        ("EMPTY,BLANK", {}),
        ("HTTPS", {}),
        ("path", {"path": "lower"}),
        ("TWO", {"TWO": "a b"}),
        ("PATH,PATH,UNSET", {"PATH": "/bin:/usr/bin"}),
    ],
)
def test_passed_variables(names: str, passed: dict[str, str]) -> None:
    """Exactly the named variables are passed: trimmed, without empty values, and never HTTPS. Names are case-sensitive."""
    ours = {
        "PATH": " /bin:/usr/bin\n",
        "path": "lower",
        "HOME": "/home/me",
        "EMPTY": "",
        "BLANK": " \t",
        "HTTPS": "on",
        "TWO": "a\nb",
        "SECRET": "x",
    }
    assert passed_on(names.split(","), ours) == passed


def test_variables_of_socket_activation_are_not_passed() -> None:
    """No child gets the variables of socket activation; other names with the same beginning are permitted."""
    others = {"LISTEN_ADDRESS": "here", "HOME": "/home/me"}
    ours = others | {"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "LISTEN_PIDFDID": "9"}
    assert passed_on(ours, ours) == others
    assert inherited_environment(ours | {"WSBRIDGE_BROKER": "amqp://u:secret@h/"}) == others


@pytest.mark.parametrize(
    ("host", "is_tls", "name", "port"),
    [
        ("ex.com", False, "ex.com", "80"),
        ("ex.com", True, "ex.com", "443"),
        ("ex.com:81", False, "ex.com", "81"),
        ("ex.com:81", True, "ex.com", "81"),
        ("ex.com:http", False, "ex.com", "http"),
        ("", False, "", "80"),
        ("", True, "", "443"),
        ("a:b:c", False, "", ""),
        ("::1", False, "", ""),
        ("[::1]:81", False, "::1", "81"),
        ("[::1]", False, "[::1]", "80"),
        ("[::1]", True, "[::1]", "443"),
        (":81", False, "", "81"),
        ("[::1", False, "", ""),
    ],
)
def test_split_host(host: str, is_tls: bool, name: str, port: str) -> None:
    """The Host header is split into name and port. The default port is 80, or 443 with TLS; brackets are removed only with a port."""
    assert split_host(host, is_tls=is_tls) == (name, port)


def test_longest_variable() -> None:
    """Linux accepts a variable of up to 128 KiB, including name, `=` and NUL. One byte more gives 431."""
    longest = 128 * 1024 - 1 - len("HTTP_COOKIE=")
    assert environment(make_request(("Cookie", "c" * longest)))["HTTP_COOKIE"] == "c" * longest
    with pytest.raises(Refused, match="HTTP_COOKIE") as caught:
        environment(make_request(("Cookie", "c" * (longest + 1))))
    assert caught.value.status == 431


def test_limit_counts_bytes() -> None:
    """The limit counts encoded bytes, and the joined value of a repeated header."""
    with pytest.raises(Refused):
        environment(make_request(("X-A", "é" * (64 * 1024))))
    with pytest.raises(Refused):
        environment(make_request(*[("X-A", "x" * 1024)] * 128))
    with pytest.raises(Refused):
        environment(make_request(query="q" * (128 * 1024)))


def test_cgi_get() -> None:
    """A CGI script has the environment of RFC 3875: Host and cookies as sent, and none of a session's own variables."""
    request = make_request(
        ("Host", "example.org:8080"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("X-A", "1"),
        ("X-A", "2"),
        ("Proxy", "evil"),
        ("X_A", "3"),
        path="/bin/a.cgi",
        query="x=1",
        uri="/bin/a.cgi?x=1",
    )
    assert cgi(request, Script("/bin/a.cgi", ""), passed={"PATH": "/bin"}) == {
        "SERVER_SOFTWARE": "wsbridge/1",
        "PATH": "/bin",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "54321",
        "REMOTE_HOST": "192.0.2.7",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/bin/a.cgi",
        "SCRIPT_FILENAME": "/srv/cgi/a.cgi",
        "PATH_INFO": "",
        "QUERY_STRING": "x=1",
        "REQUEST_URI": "/bin/a.cgi?x=1",
        "HTTP_HOST": "example.org:8080",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_A": "1, 2",
    }


def test_cgi_body() -> None:
    """CONTENT_TYPE and CONTENT_LENGTH have no HTTP_ prefix (RFC 3875, 4.1.2 and 4.1.3), and exist only with the headers."""
    request = make_request(("Content-Type", "text/plain"), ("Content-Length", "5"), method="POST")
    variables = cgi(request, Script("/a.cgi", ""))
    assert {name: value for name, value in variables.items() if "CONTENT" in name} == {"CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "5"}
    assert variables["REQUEST_METHOD"] == "POST"
    assert not any("CONTENT" in name for name in cgi(make_request(), Script("/a.cgi", "")))


def test_cgi_path_info() -> None:
    """PATH_INFO is the path after the script; PATH_TRANSLATED is its place in the directory, and exists only with PATH_INFO (4.1.6)."""
    variables = cgi(make_request(path="/a.cgi/x/y"), Script("/a.cgi", "/x/y"))
    assert (variables["SCRIPT_NAME"], variables["PATH_INFO"], variables["PATH_TRANSLATED"]) == ("/a.cgi", "/x/y", "/srv/cgi/x/y")


def test_cgi_authorization() -> None:
    """A script gets the Authorization header, as with websocketd: the script may check it, wsbridge never does (4.1.18)."""
    assert cgi(make_request(("Authorization", "Basic Og==")), Script("/a.cgi", ""))["HTTP_AUTHORIZATION"] == "Basic Og=="


def test_cgi_limit() -> None:
    """For a CGI script too, a variable that is too long gives 431."""
    with pytest.raises(Refused, match="QUERY_STRING") as caught:
        cgi(make_request(query="q" * (128 * 1024)), Script("/a.cgi", ""))
    assert caught.value.status == 431


def test_host_without_a_header() -> None:
    """An HTTP/1.0 client may send no Host: the name is empty, and the port the default."""
    variables = environment(make_request(protocol="HTTP/1.0", peer=Peer(PEER.address, PEER.port, "", False)))
    assert (variables["SERVER_NAME"], variables["SERVER_PORT"], variables["SERVER_PROTOCOL"]) == ("", "80", "HTTP/1.0")
