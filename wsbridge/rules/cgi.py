"""The response of a CGI script (RFC 3875, section 6): this module parses its head, and derives the request of a local redirect.

Scripts print warnings between their headers. The parser skips and reports a line that is not a header, as Go's net/http/cgi does,
and keeps the rest. The resulting head is always valid HTTP, so the server can send it unchecked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from http import HTTPStatus

from wsbridge.errors import InvalidResponse, Refused
from wsbridge.rules.paths import clean
from wsbridge.rules.request import Request, read_target

HEAD_LIMIT = 64 * 1024
"""Bytes. A script that has printed this much without an empty line is not printing a head."""

HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"})
"""Headers of a connection and not of a response (RFC 9110, section 7.6.1): the server sets them."""

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""The name of a header (RFC 9110, section 5.6.2)."""
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Characters that no header's value may contain (section 5.5): every control character but the tab."""
LENGTH = re.compile(r"[0-9]{1,18}")
STATUS = re.compile(r"([2-5][0-9][0-9])(?![0-9])(.*)")
"""Code and reason; like Go's net/http/cgi, it requires no space between them."""
SHOWN = 80
"""Bytes of a skipped line that a report shows."""

OF_CHUNKS = frozenset({"transfer-encoding", "trailer", "content-length"})
"""The headers that a request loses together with its chunks."""
OF_A_BODY = ("content-", "transfer-encoding", "trailer", "expect")
"""Prefixes of the headers that only a request with a body has."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status, reason and headers of the response; `redirect` is the path of a local redirect (section 6.2.2)."""

    status: int
    reason: str | None
    headers: tuple[tuple[str, str], ...]
    redirect: str | None = None
    skipped: tuple[str, ...] = ()
    """The fault of each skipped line, with the line in quotes."""

    @property
    def length(self) -> int | None:
        """The body length in bytes that the script declared; None if it declared none."""
        return next((int(value) for name, value in self.headers if name.lower() == "content-length"), None)


def split_head(data: bytes) -> tuple[bytes, bytes] | None:
    """Split at the first empty line, ended with LF or CR LF; None if there is none yet. Raises InvalidResponse past the limit."""
    ends = [(position, len(mark)) for mark in (b"\n\n", b"\n\r\n") if (position := data.find(mark)) >= 0]
    if data.startswith((b"\n", b"\r\n")):
        raise InvalidResponse("no headers")
    position, length = min(ends, default=(len(data), 0))
    if position > HEAD_LIMIT:
        raise InvalidResponse(f"no empty line after {HEAD_LIMIT} bytes of headers")
    return (data[:position], data[position + length :]) if ends else None


def parse_head(head: bytes, *, is_ended: bool = True) -> Head:
    """Parse the headers, and skip every line that is not a header.

    Raises InvalidResponse if there is no header that a CGI response needs, and for an invalid Status. `is_ended` is whether an empty
    line followed the head. If none followed, a skipped line raises InvalidResponse as well: the output may be the page itself.
    """
    fields, skipped = _fields(head)
    if skipped and not is_ended:
        raise InvalidResponse(f"the headers do not end with an empty line; {skipped[0]}")
    lengths = {value for name, value in fields if name.lower() == "content-length"}
    status, reason, location = 200, None, None
    headers: list[tuple[str, str]] = []
    for name, value in fields:
        match name.lower():
            case "status":
                status, reason = _status(value)
            case "location":
                location = value
            case "content-length" if len(lengths) > 1 or not LENGTH.fullmatch(value):
                skipped.append(f"invalid or conflicting length: {f'{name}: {value}'[:SHOWN]!r}")
            case "content-length" if any(given.lower() == "content-length" for given, _ in headers):
                skipped.append(f"repeated: {f'{name}: {value}'[:SHOWN]!r}")
            case lowered if lowered not in HOP_BY_HOP:
                headers.append((name, _valid(value)))
    if location is not None:
        if location.startswith("/") and status == 200 and not headers:
            return Head(200, None, (), location, tuple(skipped))
        headers.append(("Location", _valid(location)))
        status = 302 if status == 200 else status
    elif not headers and status == 200:
        raise InvalidResponse("; ".join(("no Content-Type, Location or Status", *skipped[:1])))
    return Head(status, reason, tuple(headers), skipped=tuple(skipped))


def _fields(head: bytes) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the names and values of a head, with folded lines joined (RFC 9112, section 5.2), and each skipped line with its fault."""
    fields: list[tuple[str, str]] = []
    skipped: list[str] = []
    continues = False
    for line in head.replace(b"\r\n", b"\n").split(b"\n"):
        text = line.decode("utf-8", "surrogateescape")
        name, colon, value = (part.strip() for part in text.partition(":"))
        if not line:
            continue
        if text[0] in " \t" and continues and not CONTROL.search(text):
            name, before = fields[-1]
            fields[-1] = (name, f"{before} {text.strip()}".strip())
            continue
        continues = text[0] not in " \t" and bool(colon) and bool(TOKEN.fullmatch(name)) and not CONTROL.search(value)
        if continues:
            fields.append((name, value))
        else:
            skipped.append(f"not a header: {line[:SHOWN]!r}")
    return fields, skipped


def with_length(request: Request, length: int) -> Request:
    """Return a request whose chunked body was read: it has a length and no transfer coding (RFC 3875, section 4.1.2)."""
    headers = tuple(pair for pair in request.headers if pair[0].lower() not in OF_CHUNKS)
    return replace(request, headers=(*headers, ("Content-Length", str(length))))


def is_chunked(request: Request) -> bool:
    """Return whether a request has a chunked body. Raises Refused (501) for any other transfer coding (RFC 9112, section 6.1)."""
    coding = request.header("transfer-encoding")
    if coding is None:
        return False
    if coding.strip().lower() != "chunked":
        raise Refused(501, f"the transfer coding {coding[:SHOWN]!r} is not supported; use only chunked")
    return True


def redirected(request: Request, target: str) -> Request:
    """Return the request to serve after a local redirect of a script to a path (section 6.2.2). Raises InvalidResponse.

    It is a GET without the headers about a body, because the script received the body. The path counts from the root of the site,
    so the request has no mount.
    """
    try:
        found = read_target(target)
    except Refused as refused:
        raise InvalidResponse(f"Location: {refused.detail}") from None
    headers = tuple(pair for pair in request.headers if not pair[0].lower().startswith(OF_A_BODY))
    first_uri = request.first_uri or request.uri
    return Request("GET", clean(found.path), found.query, found.uri, request.protocol, headers, request.peer, "", first_uri)


def _status(value: str) -> tuple[int, str | None]:
    found = STATUS.fullmatch(value)
    if found is None:
        raise InvalidResponse(f"Status: {value[:SHOWN]!r} is not a status between 200 and 599")
    code, reason = int(found[1]), found[2].strip()
    if not reason:
        try:
            reason = HTTPStatus(code).phrase
        except ValueError:
            reason = "Unknown"
    return code, _valid(reason)


def _valid(text: str) -> str:
    """Return the text with U+FFFD for each byte that was not UTF-8: a head is sent as UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
