"""The environment of a program: the CGI variables, and no others (cases 56-62)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.parity.conftest import Starter
from tests.support.server import Server

EMPTY = {"AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "REMOTE_IDENT", "REMOTE_USER"}
"""The variables that are present but empty."""

NAMES = (
    "SERVER_SOFTWARE REMOTE_ADDR REMOTE_HOST REMOTE_PORT SERVER_NAME SERVER_PORT SERVER_PROTOCOL GATEWAY_INTERFACE REQUEST_METHOD"
    " SCRIPT_NAME PATH_INFO PATH_TRANSLATED QUERY_STRING REQUEST_URI UNIQUE_ID PATH LD_LIBRARY_PATH"
    " HTTP_UPGRADE HTTP_CONNECTION HTTP_SEC_WEBSOCKET_KEY HTTP_SEC_WEBSOCKET_VERSION HTTP_USER_AGENT"
)
"""All other permitted variables, for a client that sends a User-Agent."""


def environ(server: Server, path: str = "/", **options: object) -> dict[str, str]:
    """Return the environment of a session's program; the program is `env`."""
    with server.connect(path, **options) as client:
        return dict(line.split("=", 1) for line in client.receive_lines())


@pytest.mark.case(56)
def test_environment_is_complete_and_closed(bridge: Starter) -> None:
    """Every variable is present, the five unsupported ones empty. HTTP_HOST and the server's own environment are absent."""
    server = bridge("env", env={"LD_LIBRARY_PATH": "/lib/extra", "SECRET": "of the server"})
    found = environ(server, headers=[("User-Agent", "test")])
    assert set(found) == EMPTY | set(NAMES.split())
    assert {name for name, value in found.items() if not value} == EMPTY | {"QUERY_STRING"}


@pytest.mark.case(56)
def test_values_of_the_environment(bridge: Starter) -> None:
    """The variables have the values of RFC 3875; UNIQUE_ID is the id in the log."""
    server = bridge("env")
    with server.connect("/a%20b/c?x=1", headers=[("User-Agent", "test/1")]) as client:
        port = client.stream.sock.getsockname()[1]
        found = dict(line.split("=", 1) for line in client.receive_lines())
    assert found["SERVER_SOFTWARE"].startswith(f"{bridge.name}/")
    expected = {
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_HOST": "127.0.0.1",
        "REMOTE_PORT": str(port),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/",
        "PATH_INFO": "/a b/c",
        "PATH_TRANSLATED": "/a b/c",
        "QUERY_STRING": "x=1",
        "REQUEST_URI": "/a%20b/c?x=1",
        "UNIQUE_ID": server.wait_for_log(r"id:'(\d+)'")[1],
        "HTTP_USER_AGENT": "test/1",
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.case(56)
def test_gateway_interface(bridge: Starter) -> None:
    """GATEWAY_INTERFACE is CGI/1.1."""
    assert environ(bridge("env"))["GATEWAY_INTERFACE"] == "CGI/1.1"


@pytest.mark.case(56)
def test_server_name_is_the_host_header(bridge: Starter) -> None:
    """SERVER_NAME and SERVER_PORT come from the Host header; the default port is 80."""
    server = bridge("env")
    expected = {
        "example.com": ("example.com", "80"),
        "example.com:81": ("example.com", "81"),
        "[::1]:81": ("::1", "81"),
        "[::1]": ("[::1]", "80"),
    }
    found = {host: environ(server, headers=[("Host", host)]) for host in expected}
    assert {host: (variables["SERVER_NAME"], variables["SERVER_PORT"]) for host, variables in found.items()} == expected


@pytest.mark.case(57)
def test_passenv_replaces_the_list(bridge: Starter) -> None:
    """--passenv passes exactly the named variables, so PATH only if it is named. Newlines become spaces."""
    env = {"FOO": " a\r\nb ", "BAR": "c", "EMPTY": "", "HTTPS": "on"}
    found = environ(bridge("--passenv=FOO,EMPTY,HTTPS,UNSET", "/usr/bin/env", env=env))
    assert {name: found.get(name) for name in ("FOO", "BAR", "EMPTY", "PATH", "HTTPS", "UNSET")} == {
        **dict.fromkeys(("BAR", "EMPTY", "PATH", "HTTPS", "UNSET")),
        "FOO": "a  b",
    }
    assert "PATH" in environ(bridge("--passenv=PATH", "env"))


@pytest.mark.case(58)
def test_repeated_headers_are_joined(bridge: Starter) -> None:
    """A repeated header becomes one variable, joined by a comma and a space."""
    found = environ(bridge("env"), headers=[("X-A", "1"), ("X-A", "1"), ("X-Ends", " \t trimmed \t ")])
    assert [found[name] for name in ("HTTP_X_A", "HTTP_X_ENDS")] == ["1, 1", "trimmed"]


@pytest.mark.case(58)
def test_cookies_are_joined(bridge: Starter) -> None:
    """Repeated Cookie headers are joined by a semicolon and a space, the separator of a cookie string (RFC 6265, section 4.2.1)."""
    found = environ(bridge("env"), headers=[("Cookie", "a=b"), ("Cookie", "c=d")])
    assert found["HTTP_COOKIE"] == "a=b; c=d"


@pytest.mark.case(58)
def test_control_characters_cannot_enter(bridge: Starter) -> None:
    """The server answers CR or NUL in a header's value with 400."""
    server = bridge("env")
    assert [server.refusal(headers=[("X-A", f"a{character}b")]).status for character in "\r\0"] == [400, 400]


@pytest.mark.case(59)
def test_path_is_split_after_the_script(bridge: Starter, tmp_path: Path) -> None:
    """In a directory of scripts, SCRIPT_NAME is the script's path and PATH_INFO the rest."""
    server = bridge(f"--dir={scripts(tmp_path)}")
    expected = {
        "/echo.sh": ("/echo.sh", ""),
        "/echo.sh/": ("/echo.sh", "/"),
        "/echo.sh/extra/p": ("/echo.sh", "/extra/p"),
        "/sub/echo.sh/extra": ("/sub/echo.sh", "/extra"),
        "/sub%2Fecho.sh?a=/b": ("/sub/echo.sh", ""),
    }
    found = {path: environ(server, path) for path in expected}
    assert {path: (variables["SCRIPT_NAME"], variables["PATH_INFO"]) for path, variables in found.items()} == expected


@pytest.mark.case(60)
def test_query_and_uri_are_raw(bridge: Starter) -> None:
    """QUERY_STRING is raw. REQUEST_URI is raw except for characters that are invalid in a URL's path."""
    server = bridge("env")
    expected = {
        "/a%20b?c=%20d+e&f": ("c=%20d+e&f", "/a%20b?c=%20d+e&f"),
        '/a"b?c="d': ('c="d', '/a%22b?c="d'),
        "/?": ("", "/?"),
        "/?a?b": ("a?b", "/?a?b"),
        "http://example.com/a?b": ("b", "/a?b"),
    }
    found = {target: environ(server, target) for target in expected}
    assert {target: (variables["QUERY_STRING"], variables["REQUEST_URI"]) for target, variables in found.items()} == expected


@pytest.mark.case(60)
def test_dots_cannot_leave_the_directory(bridge: Starter, tmp_path: Path) -> None:
    """No spelling of .. reaches a script outside the directory."""
    server = bridge(f"--dir={scripts(tmp_path)}")
    for path in ("/../outside.sh", "/%2e%2e/outside.sh", "/..%2foutside.sh", "/sub/%2e%2e/%2e%2e/outside.sh"):
        assert server.refusal(path).status in {301, 400, 403, 404}, path
    assert "CONNECT" not in server.log


@pytest.mark.case(60)
def test_links_cannot_leave_the_directory(wsbridge: Starter, tmp_path: Path) -> None:
    """The server answers 404 for a symbolic link to a script or a directory outside."""
    inside = scripts(tmp_path)
    (inside / "link.sh").symlink_to(tmp_path / "outside.sh")
    (inside / "folder").symlink_to(tmp_path)
    server = wsbridge(f"--dir={inside}")
    assert [server.refusal(path).status for path in ("/link.sh", "/folder/outside.sh")] == [404, 404]


@pytest.mark.case(61)
def test_headers_cannot_imitate_others(wsbridge: Starter) -> None:
    """A Proxy header is not exported as HTTP_PROXY. A header with an underscore is not exported like the header with a dash."""
    server = wsbridge("env")
    found = environ(server, headers=[("Proxy", "http://evil"), ("X-A", "good"), ("X_A", "evil"), ("X_B", "evil")])
    assert [found.get(name) for name in ("HTTP_PROXY", "HTTP_X_A", "HTTP_X_B")] == [None, "good", None]


@pytest.mark.case(62)
def test_unique_ids_differ(bridge: Starter) -> None:
    """UNIQUE_ID is a decimal number, and differs between two simultaneous connections."""
    server = bridge("sh", "-c", 'echo "$UNIQUE_ID"; exec cat')
    with server.connect() as first, server.connect() as second:
        ids = {first.receive_text(), second.receive_text()}
    assert len(ids) == 2
    assert all(re.fullmatch(r"\d+", text) for text in ids)


def scripts(root: Path) -> Path:
    """Make a directory with /echo.sh and /sub/echo.sh, which print their environment, and a script outside it."""
    inside = root / "scripts"
    for path in (inside / "echo.sh", inside / "sub" / "echo.sh", root / "outside.sh"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\nexec env\n")
        path.chmod(0o755)
    return inside
