"""The answer of a CGI script (RFC 3875, section 6): its head, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

HEAD_LIMIT = 64 * 1024
"""Bytes. A script that has printed this much without an empty line is not printing a head."""

HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"})
"""What belongs to a connection and not to an answer (RFC 9110, section 7.6.1): the server's business."""


class BadAnswer(Exception):
    """What the script printed is no CGI answer."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status, reason and headers of the answer; `redirect` is a path to be served in its place (section 6.2.2)."""

    status: int
    reason: str | None
    headers: tuple[tuple[str, str], ...]
    redirect: str | None = None


def split_head(data: bytes) -> tuple[bytes, bytes] | None:
    """Split at the first empty line, ended with LF or CR LF; None when there is none yet. Raises BadAnswer past the limit."""
    ends = [(position, len(mark)) for mark in (b"\n\n", b"\n\r\n") if (position := data.find(mark)) >= 0]
    if data.startswith((b"\n", b"\r\n")):
        raise BadAnswer("no headers")
    if ends:
        position, length = min(ends)
        return data[:position], data[position + length :]
    if len(data) > HEAD_LIMIT:
        raise BadAnswer(f"no empty line after {HEAD_LIMIT} bytes of headers")
    return None


def parse_head(head: bytes) -> Head:
    """Read the headers. Raises BadAnswer."""
    status, reason, location = 200, None, None
    headers: list[tuple[str, str]] = []
    for line in head.replace(b"\r\n", b"\n").split(b"\n"):
        name, colon, value = (part.decode("utf-8", "surrogateescape").strip() for part in line.partition(b":"))
        if not colon or not name or any(character.isspace() or not character.isprintable() for character in name):
            raise BadAnswer(f"not a header: {line[:80]!r}")
        match name.lower():
            case "status":
                status, reason = _status(value)
            case "location":
                location = value
            case lowered if lowered not in HOP_BY_HOP:
                headers.append((name, value))
    if location is not None:
        if location.startswith("/") and status == 200 and not headers:
            return Head(200, None, (), redirect=location)
        headers.append(("Location", location))
        status = 302 if status == 200 else status
    elif not headers and status == 200:
        raise BadAnswer("no Content-Type, Location or Status")
    return Head(status, reason, tuple(headers))


def _status(value: str) -> tuple[int, str | None]:
    code, _, reason = value.partition(" ")
    if not (code.isascii() and code.isdigit() and 200 <= int(code) <= 599):
        raise BadAnswer(f"Status: {value[:80]!r} is none between 200 and 599")
    if not reason:
        try:
            reason = HTTPStatus(int(code)).phrase
        except ValueError:
            reason = "Unknown"
    return int(code), reason
