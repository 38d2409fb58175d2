"""The environment of a child: the variables of CGI (RFC 3875, section 4.1) as websocketd sets them.

The child of a session, or of a CGI script, gets only these variables. Two kinds of headers are excluded on purpose. A `Proxy:` header
would become HTTP_PROXY, which libraries use (httpoxy). A header with an underscore in its name would look like a header with a hyphen
that a proxy in front set.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wsbridge.errors import Refused
from wsbridge.rules.request import Request

VARIABLE_LIMIT = 128 * 1024
"""Bytes that Linux accepts for one variable, including its name and NUL (MAX_ARG_STRLEN: 32 pages)."""

EMPTY = ("AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "REMOTE_IDENT", "REMOTE_USER")
"""Variables of CGI that a bridge does not know; they are present and empty, as in websocketd."""

COOKIE_JOINT = "; "
"""The separator between several Cookie headers (RFC 9113, section 8.2.3): a comma may be part of a cookie."""
UNSENT = frozenset({"host", "proxy"})

SETTINGS = "WSBRIDGE_"
"""The prefix of wsbridge's own settings: they may contain a password."""
OF_ACTIVATION = frozenset({"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"})
"""Variables of the service manager about the server's own descriptors, which no child has (sd_listen_fds(3))."""


@dataclass(frozen=True, slots=True)
class Script:
    """The target of a request: `name` is the part of the path that is the script, `info` the part after it."""

    name: str
    info: str


def passed_on(names: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the server's own variables that its children get.

    HTTPS is never among them: it is a statement about a request. Neither are the variables of socket activation.
    """
    excluded = {"", "HTTPS", *OF_ACTIVATION}
    passed = {name: _clean(environ.get(name, "")) for name in map(str.strip, names) if name not in excluded}
    return {name: value for name, value in passed.items() if value}


def inherited_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a channel's program: the server's environment without the server's settings and its socket activation."""
    return {name: value for name, value in environ.items() if not name.startswith(SETTINGS) and name not in OF_ACTIVATION}


def session_environment(
    request: Request, script: Script, *, unique_id: str, remote_host: str, software: str, passed: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of a session's child. Raises Refused (431) if a variable is longer than the system accepts."""
    environment = {"SERVER_SOFTWARE": software, **passed, **_request_variables(request, remote_host)}
    environment |= dict.fromkeys(EMPTY, "")
    environment |= {
        "SCRIPT_NAME": _clean(script.name),
        "PATH_INFO": _clean(script.info),
        "PATH_TRANSLATED": _clean(request.path),
        "UNIQUE_ID": unique_id,
    }
    environment |= _header_variables(request)
    return _checked(environment)


def cgi_environment(
    request: Request, script: Script, *, filename: str, root: str, remote_host: str, software: str, passed: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of a CGI script (RFC 3875, section 4.1). Raises Refused (431)."""
    environment = {"SERVER_SOFTWARE": software, **passed, **_request_variables(request, remote_host)}
    environment |= {"SCRIPT_NAME": _clean(script.name), "SCRIPT_FILENAME": filename, "PATH_INFO": _clean(script.info)}
    if script.info:
        environment["PATH_TRANSLATED"] = root + _clean(script.info)
    environment |= _header_variables(request)
    environment["HTTP_HOST"] = _clean(request.peer.host)
    for variable in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        # RFC 3875 names these two without HTTP_, and defines them only for a request with a body.
        if value := environment.pop(f"HTTP_{variable}", ""):
            environment[variable] = value
    return _checked(environment)


def split_host(host: str, *, is_tls: bool) -> tuple[str, str]:
    """Split a Host header into name and port, as Go's SplitHostPort does, and therefore websocketd.

    Without a port, the default port applies. With too many colons, both parts are empty. Brackets are removed only if there is a port.
    """
    default = "443" if is_tls else "80"
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        if bracket and rest.startswith(":"):
            return name, rest[1:]
        return (host, default) if bracket and not rest else ("", "")
    name, colon, port = host.partition(":")
    if ":" in port:
        return "", ""
    return name, port if colon else default


def _request_variables(request: Request, remote_host: str) -> dict[str, str]:
    peer = request.peer
    name, port = split_host(peer.host, is_tls=peer.is_tls)
    variables = {
        "REMOTE_ADDR": peer.address,
        "REMOTE_HOST": remote_host,
        "REMOTE_PORT": peer.port,
        "SERVER_NAME": _clean(name),
        "SERVER_PORT": _clean(port),
        "SERVER_PROTOCOL": request.protocol,
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": _clean(request.query),
        "REQUEST_URI": _clean(request.uri),
    }
    if peer.is_tls:
        variables["HTTPS"] = "on"
    return variables


def _header_variables(request: Request) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, value in request.headers:
        lowered = name.lower()
        if lowered in UNSENT or "_" in name:
            continue
        variable = "HTTP_" + name.upper().replace("-", "_")
        joint = COOKIE_JOINT if lowered == "cookie" else ", "
        variables[variable] = f"{variables[variable]}{joint}{_clean(value)}" if variable in variables else _clean(value)
    return variables


def _checked(environment: dict[str, str]) -> dict[str, str]:
    if sum(map(len, environment)) + sum(map(len, environment.values())) <= VARIABLE_LIMIT // 4:
        return environment
    for name, value in environment.items():
        if len(name) + len(value) > VARIABLE_LIMIT // 4 and len(os.fsencode(f"{name}={value}")) >= VARIABLE_LIMIT:
            raise Refused(431, f"{name} would be longer than {VARIABLE_LIMIT} bytes, the system's limit for a variable")
    return environment


def _clean(value: str) -> str:
    if value.isprintable():
        return value.strip()
    return value.replace("\r", " ").replace("\n", " ").replace("\0", " ").strip()
