"""The answer of a CGI script (RFC 3875, section 6), taken apart."""

from __future__ import annotations

import pytest

from wsbridge.rules.cgi import HEAD_LIMIT, BadAnswer, Head, parse_head, split_head

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
    """The first empty line, ended with LF or CR LF, is the end of the headers, however the output is cut into reads."""
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
    """An answer that begins with an empty line has no headers, and is none."""
    with pytest.raises(BadAnswer):
        split_head(printed)


def test_head_limit() -> None:
    """A head that does not end is given up after 64 KiB, whether it comes in many reads or, with its end, in one."""
    assert HEAD_LIMIT == 64 * 1024
    assert split_head(b"x" * HEAD_LIMIT) is None
    for printed in (b"x" * (HEAD_LIMIT + 100), b"X: " + b"x" * (HEAD_LIMIT + 100) + b"\n\nbody"):
        with pytest.raises(BadAnswer):
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
    """Status is obeyed and is no header of the answer; every other header goes out, repeated ones as often as they came."""
    given = parse_head(head)
    if parsed.reason is None:
        assert given.reason in (None, "OK")
        given = Head(given.status, None, given.headers, given.redirect)
    assert given == parsed


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "TE", "Trailer", "Proxy-Connection"])
def test_hop_by_hop(name: str) -> None:
    """What belongs to the connection is the server's business, not the script's."""
    assert parse_head(b"Content-Type: text/plain\n" + name.encode() + b": x").headers == (TEXT,)


@pytest.mark.parametrize("location", ["/other", "/other/path?q=1"])
def test_local_redirect(location: str) -> None:
    """A path alone is served in the answer's place (6.2.2)."""
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
    """A URL is the client's to follow, with 302 unless the script says otherwise (6.2.3 and 6.2.4)."""
    parsed = parse_head(head)
    assert (parsed.status, set(parsed.headers), parsed.redirect) == (status, headers, None)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"hello",
        b": value",
        b"Content Type: text/plain",
        b"Status: ok\nContent-Type: text/plain",
        b"Status: 99\nContent-Type: text/plain",
        b"Status: 101 Switching Protocols",
        b"Status: 600\nContent-Type: text/plain",
        b"Status:\nContent-Type: text/plain",
        b"Status: -200\nContent-Type: text/plain",
        b"Connection: close",
        b"Content-Type: text/plain\nX: a\rSet-Cookie: b",
        b"Content-Type: text/plain\nX: a\0b",
        b"Location: http://h/\rX: y",
        b"Status: 404 Not\rFound\nContent-Type: text/plain",
    ],
)
def test_no_answer(head: bytes) -> None:
    """What is no header, no status or no answer at all is refused, and so is what would break the head that goes out."""
    with pytest.raises(BadAnswer):
        parse_head(head)
