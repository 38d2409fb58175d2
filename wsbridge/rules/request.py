"""A request as plain values, independent of the library that parsed it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from wsbridge.errors import Refused
from wsbridge.rules.cache import remembered

Headers = tuple[tuple[str, str], ...]

HOST = re.compile(r"(?:[A-Za-z0-9\-._~%!$&()*+,;=]*|\[[0-9A-Za-z:.%\-_~]+\])(?::[0-9]*)?")
"""A host and port (RFC 3986, section 3.2), without the apostrophe: no host has one, and the log uses it to quote values."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The client and its connection; behind a trusted proxy, the values that the proxy reports."""

    address: str
    port: str
    host: str
    """The Host header, or the host that a trusted proxy reports."""
    is_tls: bool
    is_loopback: bool = field(default=False, compare=False)
    """Whether the connection came to a loopback address of this machine."""
    proxied_host: str | None = field(default=None, compare=False)
    """The Host header of a trusted proxy's request; None without such a proxy."""

    @property
    def url_scheme(self) -> str:
        return "https" if self.is_tls else "http"


@dataclass(frozen=True, slots=True)
class Request:
    """Method, target and headers of a request. Text that was not UTF-8 is held with surrogate escapes."""

    method: str
    path: str
    """Percent-decoded, without the mount: empty for a request to the mount itself."""
    query: str
    """As sent, not decoded."""
    uri: str
    """The whole path and the query as sent, with percent-encoding for characters that a URL must not contain."""
    protocol: str
    headers: Headers
    peer: Peer
    mount: str = ""
    """The path of the endpoint that serves the request; empty for `/`."""
    first_uri: str = ""
    """The `uri` that the client sent, if a local redirect has led to another one; else empty."""
    _values: dict[str, str] = field(repr=False, compare=False, default_factory=dict)
    """The result of `by_name` for the headers, from a caller that has it already."""

    def __post_init__(self) -> None:
        if not self._values:
            self._values.update(by_name(self.headers))

    def header(self, name: str) -> str | None:
        """Return the value of a header, its name in lower case; several values are joined with `, `. None if it was not sent."""
        return self._values.get(name)

    def below(self, mount: str) -> Request:
        """Return the request as the endpoint at `mount` sees it. The path of the request begins with that mount."""
        if not mount:
            return self
        path = self.path[len(mount) :]
        return Request(self.method, path, self.query, self.uri, self.protocol, self.headers, self.peer, mount, self.first_uri, self._values)

    def location(self, path: str) -> str:
        """Return the Location of a redirect to a clean path, not encoded, from the root of the site; it keeps the query.

        It is a relative reference (RFC 9110, section 10.2.2), so it stays below the prefix that a reverse proxy has removed. It
        begins with a dot, so it names no other host. If the client has sent `//`, it is an absolute path: clients disagree about
        the number of folders in such a path.
        """
        query = "?" + self.query if self.query else ""
        sent, _, _ = (self.first_uri or self.uri).partition("?")
        if "//" in sent:
            return quote_path(path) + query
        here, there = _folders(sent), quote_path(path).split("/")[1:]
        same = 0
        while same < min(len(here), len(there) - 1) and here[same] == there[same]:
            same += 1
        up = "../" * (len(here) - same) or "./"
        return up + "/".join(there[same:]) + query

    @property
    def url(self) -> str:
        """The whole URL, for the log."""
        return f"{self.peer.url_scheme}://{self.peer.host}{self.uri}"


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """The parts of a request target."""

    path: str
    """Percent-decoded."""
    query: str
    """As sent, not decoded."""
    uri: str
    """Path and query as sent, with percent-encoding for characters that a URL must not contain."""
    authority: str | None
    """The host in an absolute target (`GET http://host/path`): it replaces the Host header (RFC 9112, section 3.2.2)."""


@remembered
def read_target(target: str) -> RequestTarget:
    """Parse a request target. Raises Refused (400) for a NUL in the path."""
    authority = None
    if not target.startswith("/"):
        rest = target.partition("://")[2].removeprefix("//")
        found = re.match(r"[^/?#]*", rest)
        authority = found[0] if found else ""
        target = rest[len(authority) :]
        target = target if target.startswith("/") else "/" + target
    raw_path, mark, query = target.partition("?")
    path = unquote_to_bytes(raw_path.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
    if "\0" in path:
        raise Refused(400, "the path contains a NUL")
    return RequestTarget(path, query, encode_path(raw_path) + mark + query, authority or None)


def _folders(path: str) -> list[str]:
    """Return the components of a path before its last slash, as a client counts them: `.` is none, and `..` removes one."""
    folders: list[str] = []
    for component in path.split("/")[1:-1]:
        if component == "..":
            del folders[-1:]
        elif component != ".":
            folders.append(component)
    return folders


def check_host(host: str) -> None:
    """Check a Host. Raises Refused (400) if it cannot be a host with a port (RFC 9110, section 7.2): blanks, quotes, user names, …"""
    if not HOST.fullmatch(host):
        raise Refused(400, f"the Host {host[:80]!r} is not a host name or address, with or without a port")


def by_name(headers: Headers) -> dict[str, str]:
    """Return the value of each header by its name in lower case; several values of one name are joined with `, `."""
    values: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        values[key] = f"{values[key]}, {value}" if key in values else value
    return values


def check_framing(protocol: str, headers: Headers, values: Mapping[str, str]) -> None:
    """Check that a head makes clear where its request ends and which host it is for. Raises Refused (400) otherwise.

    HTTP/1.0 has no chunks (RFC 9112, section 6.1). A request has one Host (section 3.2). `values` is the result of `by_name` for
    the headers.
    """
    if len(values) < len(headers) and sum(name.lower() == "host" for name, _ in headers) > 1:
        raise Refused(400, "the request has more than one Host header")
    if protocol != "HTTP/1.1" and "transfer-encoding" in values:
        raise Refused(400, "HTTP/1.0 does not support Transfer-Encoding")


def has_body(request: Request) -> bool:
    """Return whether a request has a body, by its head (RFC 9112, section 6.3)."""
    length = request.header("content-length")
    return request.header("transfer-encoding") is not None or (length is not None and length.strip("0 ") != "")


def encode_path(path: str) -> str:
    """Return a path with percent-encoding for characters that a URL must not contain; encoded characters stay encoded."""
    return quote(path.encode("utf-8", "surrogateescape"), safe="/%:@!$&'()*+,;=~-._[]")


def quote_path(path: str) -> str:
    """Return a percent-decoded path as a URL contains it."""
    return encode_path(path.replace("%", "%25"))


def has_token(values: Iterable[str], token: str) -> bool:
    """Return whether one of several comma-separated header values contains a token, in any case."""
    return any(value.lower() == token or any(part.strip().lower() == token for part in value.split(",")) for value in values)
