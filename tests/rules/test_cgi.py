"""Parsing the response of a CGI script (RFC 3875, section 6)."""

from __future__ import annotations

import pytest

from wsbridge.errors import InvalidResponse
from wsbridge.rules.cgi import HEAD_LIMIT, Head, parse_head, split_head

TEXT = ("Content-Type", "text/plain")


@pytest.mark.parametrize(
    ("printed", "head", "body"),
    [
        (b"A: b\n\nbody", b"A: b", b"body"),
        (b"A: b\r\n\r\nbody", b"A: b", b"body"),
        (b"A: b\nC: d\n\n", b"A: b\nC: d", b""),
        (b"A: b\n\r\nbody", b"A: b", b"body"),
        (b"A: b\r\n\nbody", b"A: b", b"body"),
        (b"A: b\n\n\n\nbody\n\n", b"A: b", b"\n\nbody\n\n"),
        (b"A: b\r\n\r\nC: d\n\n", b"A: b", b"C: d\n\n"),
    ],
)
def test_split(printed: bytes, head: bytes, body: bytes) -> None:
    """The first empty line, terminated by LF or CR LF, ends the headers, however the reads split the output."""
    for count in range(len(printed)):
        parts = split_head(printed[:count])
        whole = len(printed) - len(body)
        assert (parts is None) == (count < whole)
        if parts is not None:
            assert (parts[0].rstrip(b"\r"), parts[1]) == (head, printed[whole:count])
    parts = split_head(printed)
    assert parts is not None
    assert (parts[0].rstrip(b"\r"), parts[1]) == (head, body)


@pytest.mark.parametrize("printed", [b"\nbody", b"\r\nbody", b"\n\n", b"\n"])
def test_no_headers(printed: bytes) -> None:
    """A response that begins with an empty line has no headers, and is invalid."""
    with pytest.raises(InvalidResponse):
        split_head(printed)


def test_head_limit() -> None:
    """The parser rejects a header block over 64 KiB, whether it comes in many reads or in one read with its end."""
    assert HEAD_LIMIT == 64 * 1024
    assert split_head(b"x" * HEAD_LIMIT) is None
    for printed in (b"x" * (HEAD_LIMIT + 100), b"X: " + b"x" * (HEAD_LIMIT + 100) + b"\n\nbody"):
        with pytest.raises(InvalidResponse):
            split_head(printed)


@pytest.mark.parametrize(
    ("head", "parsed"),
    [
        (b"Content-Type: text/plain", Head(200, None, (TEXT,))),
        (b"content-type:text/plain\r\nX-A:  1 \r\nX-A: 2", Head(200, None, (("content-type", "text/plain"), ("X-A", "1"), ("X-A", "2")))),
        (b"Status: 404 Nowhere\nContent-Type: text/plain", Head(404, "Nowhere", (TEXT,))),
        (b"Content-Type: text/plain\nSTATUS: 404", Head(404, "Not Found", (TEXT,))),
        (b"Status: 204 No Content", Head(204, "No Content", ())),
        (b"Content-Type: text/plain\nX: a:b", Head(200, None, (TEXT, ("X", "a:b")))),
        (b"Content-Type: text/plain\nX:", Head(200, None, (TEXT, ("X", "")))),
        (b"Content-Type: text/plain\nContent-Length: 5", Head(200, None, (TEXT, ("Content-Length", "5")))),
        (b"Set-Cookie: a\nSet-Cookie: b\nContent-Type: text/plain", Head(200, None, (("Set-Cookie", "a"), ("Set-Cookie", "b"), TEXT))),
    ],
)
def test_document(head: bytes, parsed: Head) -> None:
    """The parser applies Status and removes it. It passes every other header, repeated headers as often as they came."""
    given = parse_head(head)
    if parsed.reason is None:
        assert given.reason in (None, "OK")
        given = Head(given.status, None, given.headers, given.redirect)
    assert given == parsed


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "TE", "Trailer", "Proxy-Connection"])
def test_hop_by_hop_headers(name: str) -> None:
    """The parser drops hop-by-hop headers, which are the server's business."""
    assert parse_head(b"Content-Type: text/plain\n" + name.encode() + b": x").headers == (TEXT,)


@pytest.mark.parametrize("location", ["/other", "/other/path?q=1"])
def test_local_redirect(location: str) -> None:
    """The server itself serves a Location that is only a path (6.2.2)."""
    assert parse_head(f"Location: {location}".encode()).redirect == location


@pytest.mark.parametrize(
    ("head", "status", "headers"),
    [
        (b"Location: http://h/x", 302, {("Location", "http://h/x")}),
        (b"Status: 301 Moved\nLocation: http://h/x", 301, {("Location", "http://h/x")}),
        (b"Status: 303 See Other\nLocation: /x", 303, {("Location", "/x")}),
        (b"Location: http://h/x\nContent-Type: text/plain", 302, {("Location", "http://h/x"), TEXT}),
        (b"Status: 201 Created\nLocation: /x\nContent-Type: text/plain", 201, {("Location", "/x"), TEXT}),
    ],
)
def test_client_redirect(head: bytes, status: int, headers: set[tuple[str, str]]) -> None:
    """The client follows a Location that is a URL, with 302 unless the script sets a status (6.2.3 and 6.2.4)."""
    parsed = parse_head(head)
    assert (parsed.status, set(parsed.headers), parsed.redirect) == (status, headers, None)


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"<!--: spam",
        b"DeprecationWarning: 'cgi' is deprecated",
        b"HTTP/1.1 200 OK",
        b": value",
        b"X Y: 1",
        b"X(y): 1",
        b"X\xe9: 1",
        b"X: a\rSet-Cookie: b",
        b"X: a\0b",
        b"X: a\x1bb",
        b"  X: 1",
        b"\tindented",
        b"Content-Length: -1",
        b"Content-Length: 1\nContent-Length: 2",
        b"Location: http://h/\rX: y",
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_malformed_line(line: bytes, first: bool) -> None:
    """The parser skips and reports a malformed header line, wherever it stands; the rest is the response."""
    sound = b"Content-Type: text/plain\nX-A: 1"
    if line[:1] in b" \t":
        # After a header, it would continue that header.
        sound = sound if first else b"Content-Type: text/plain\nX-A: 1\nno header"
    parsed = parse_head(line + b"\n" + sound if first else sound + b"\n" + line)
    if line.startswith(b"Deprecation"):
        # A stray line may look like a header.
        assert parsed.headers == ((("DeprecationWarning", "'cgi' is deprecated"),) if first else ()) + (TEXT, ("X-A", "1")) + (
            () if first else (("DeprecationWarning", "'cgi' is deprecated"),)
        )
        return
    assert (parsed.status, parsed.headers) == (200, (TEXT, ("X-A", "1")))
    assert parsed.skipped
    assert all(repr(part)[2:-1] in " ".join(parsed.skipped) for part in line.split(b"\n"))


@pytest.mark.parametrize(
    ("head", "headers"),
    [
        (b"Content-Type: text/plain;\n charset=utf-8", (("Content-Type", "text/plain; charset=utf-8"),)),
        (b"Content-Type: text/plain\nX:\r\n\ta\r\n   b \n\tc:d", (TEXT, ("X", "a b c:d"))),
    ],
)
def test_folded_header(head: bytes, headers: tuple[tuple[str, str], ...]) -> None:
    """A line that begins with a space or a tab continues the previous header, and the parser joins the two lines."""
    assert parse_head(head) == Head(200, None, headers)


def test_status_and_location_may_be_folded() -> None:
    """Status and Location may be folded as well."""
    assert parse_head(b"Status: 404\n Nowhere\nX: 1").reason == "Nowhere"
    assert parse_head(b"Location:\n /other").redirect == "/other"


def test_repeated_length() -> None:
    """A repeated Content-Length with the same value is sent once; two different values are both dropped."""
    assert parse_head(b"Content-Type: text/plain\nContent-Length: 2\ncontent-length: 2").headers == (TEXT, ("Content-Length", "2"))
    assert parse_head(b"Content-Type: text/plain\nContent-Length: 2\ncontent-length: 3").headers == (TEXT,)


def test_short_reports() -> None:
    """A report quotes only the beginning of a long line."""
    (what,) = parse_head(b"Content-Type: text/plain\n" + b"x" * 10_000).skipped
    assert len(what) < 120


def test_malformed_line_without_an_end() -> None:
    """If no empty line ends the headers, a malformed line is body text, and the response is invalid."""
    head = b"Content-Type: text/plain\n<h1>page</h1>"
    with pytest.raises(InvalidResponse, match="empty line"):
        parse_head(head, is_ended=False)
    assert parse_head(b"Content-Type: text/plain", is_ended=False).headers == (TEXT,)


@pytest.mark.parametrize(
    ("value", "status", "reason"),
    [("404", 404, "Not Found"), ("404Gone  away", 404, "Gone  away"), ("599", 599, "Unknown")],
)
def test_status(value: str, status: int, reason: str) -> None:
    """A status may lack its reason, and the space before it."""
    parsed = parse_head(f"Status: {value}\nX: 1".encode())
    assert (parsed.status, parsed.reason) == (status, reason)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"hello",
        b": value",
        b"hello\nworld\n",
        b"Status: ok\nContent-Type: text/plain",
        b"Status: 99\nContent-Type: text/plain",
        b"Status: 2000\nContent-Type: text/plain",
        b"Status: 101 Switching Protocols",
        b"Status: 600\nContent-Type: text/plain",
        b"Status:\nContent-Type: text/plain",
        b"Status: -200\nContent-Type: text/plain",
        b"Connection: close",
        b"Content-Length: -1",
    ],
)
def test_invalid_response(head: bytes) -> None:
    """A response without any header, or with an invalid status, is an error."""
    with pytest.raises(InvalidResponse):
        parse_head(head)
