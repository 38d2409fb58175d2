"""A request as the rules see it: plain values, whatever library read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from wsbridge.errors import Refused
from wsbridge.rules.memory import remembered

Headers = tuple[tuple[str, str], ...]

HOST = re.compile(r"(?:[A-Za-z0-9\-._~%!$&()*+,;=]*|\[[0-9A-Za-z:.%\-_~]+\])(?::[0-9]*)?")
"""A host and port (RFC 3986, section 3.2), without the apostrophe: no host has one, and the log puts it round values."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, and how: over a trusted proxy these are what the proxy reports."""

    address: str
    port: str
    host: str
    """The Host header, or what a trusted proxy says it was."""
    is_tls: bool
    is_loopback: bool = field(default=False, compare=False)
    """Whether the connection came to a loopback address of ours."""
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
    """Decoded."""
    query: str
    """As sent, undecoded."""
    uri: str
    """Path and query as sent, with percent signs for what a URL may not hold."""
    protocol: str
    headers: Headers
    peer: Peer
    _values: dict[str, str] = field(repr=False, compare=False, default_factory=dict)
    """What `by_name` makes of the headers, for a caller that has it already."""

    def __post_init__(self) -> None:
        if not self._values:
            self._values.update(by_name(self.headers))

    def header(self, name: str) -> str | None:
        """Return the value of a header, its name in lower case; several joined with `, `, None when it was not sent."""
        return self._values.get(name)

    @property
    def url(self) -> str:
        """The whole URL, for the log."""
        return f"{self.peer.url_scheme}://{self.peer.host}{self.uri}"


@dataclass(frozen=True, slots=True)
class Target:
    """What a request line asks for."""

    path: str
    """Decoded."""
    query: str
    """As sent."""
    uri: str
    """Path and query as sent, with percent signs for what a URL may not hold."""
    authority: str | None
    """The host that an absolute target names (`GET http://host/path`): it stands for the Host header (RFC 9112, section 3.2.2)."""


@remembered
def read_target(target: str) -> Target:
    """Take a request target apart. Raises Refused (400) for a NUL in the path."""
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
        raise Refused(400, "the path holds a NUL")
    return Target(path, query, encode_path(raw_path) + mark + query, authority or None)


def check_host(host: str) -> None:
    """Raises Refused (400) for what no host with a port can be (RFC 9110, section 7.2): blanks, quotes, user names, …"""
    if not HOST.fullmatch(host):
        raise Refused(400, f"the Host {host[:80]!r} is not a host name or address, with or without a port")


def by_name(headers: Headers) -> dict[str, str]:
    """Return the value of each header by its name in lower case; several of one name are joined with `, `."""
    values: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        values[key] = f"{values[key]}, {value}" if key in values else value
    return values


def check_framing(protocol: str, headers: Headers, values: Mapping[str, str]) -> None:
    """Raises Refused (400) for a head of which it is not sure where its request ends or for whom it is.

    Chunks of HTTP/1.0 are a fault (RFC 9112, section 6.1). Of Host there is to be one (section 3.2). `values` is what
    `by_name` makes of the headers.
    """
    if len(values) < len(headers) and sum(name.lower() == "host" for name, _ in headers) > 1:
        raise Refused(400, "a request has one Host")
    if protocol != "HTTP/1.1" and "transfer-encoding" in values:
        raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")


def has_body(request: Request) -> bool:
    """Whether a request comes with a body, by its head (RFC 9112, section 6.3)."""
    length = request.header("content-length")
    return request.header("transfer-encoding") is not None or (length is not None and length.strip("0 ") != "")


def encode_path(path: str) -> str:
    """Return a path with percent signs for what a URL may not hold; what is encoded stays so."""
    return quote(path.encode("utf-8", "surrogateescape"), safe="/%:@!$&'()*+,;=~-._[]")


def has_token(values: Iterable[str], token: str) -> bool:
    """Whether one of several comma-separated header values holds a token, in any case."""
    return any(value.lower() == token or any(part.strip().lower() == token for part in value.split(",")) for value in values)
