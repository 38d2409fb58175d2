"""The positions at which a stream of requests may be cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.wire.requestcutter import Part, RequestCutter

FIRST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
SECOND = b"\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"
BODY = b"a\r\n\r\nbody"


def pieces(cutter: RequestCutter, *reads: bytes) -> list[bytes]:
    """Return all pieces of the reads."""
    found = []
    for data in reads:
        start = 0
        while start < len(data):
            end = cutter.cut(data, start)
            assert start < end <= len(data)
            found.append(data[start:end])
            start = end
    return found


@given(st.lists(st.integers(1, 120), max_size=8))
def test_every_head_ends_a_piece(cuts: list[int]) -> None:
    """In any cut of a stream into reads, each end of a request header is the end of a piece, and no byte is lost."""
    stream = FIRST * 3 + b"\r\n" + FIRST
    places = [0, *sorted(cut for cut in set(cuts) if cut < len(stream)), len(stream)]
    found = pieces(RequestCutter(), *(stream[a:b] for a, b in pairwise(places)))
    assert b"".join(found) == stream
    ends, size = set(), 0
    for piece in found:
        size += len(piece)
        ends.add(size)
    assert {len(FIRST) * n for n in (1, 2, 3)} | {len(stream)} <= ends


@pytest.mark.parametrize("cut", range(1, len(BODY)))
def test_body_is_one_part(cut: int) -> None:
    """A body ends after its Content-Length, whatever it contains; then a header follows."""
    cutter = RequestCutter()
    cutter.expect_body(len(BODY))
    assert pieces(cutter, BODY[:cut]) == [BODY[:cut]]
    assert cutter.part is Part.BODY
    assert pieces(cutter, BODY[cut:] + FIRST) == [BODY[cut:], FIRST]
    assert cutter.part is Part.HEAD


def test_empty_body() -> None:
    """A Content-Length of 0 means no body."""
    cutter = RequestCutter()
    cutter.expect_body(0)
    assert cutter.part is Part.HEAD


def test_chunks_end_a_piece() -> None:
    """The end of a chunked body is the end of a piece, with or without trailers; then a header follows."""
    cutter = RequestCutter()
    cutter.expect_chunks()
    for end in (b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n"):
        assert pieces(cutter, b"3\r\nabc\r\n" + end + FIRST)[0] == b"3\r\nabc\r\n" + end
    cutter.end_chunks()
    assert cutter.part is Part.HEAD


def test_empty_lines_before_a_request() -> None:
    """Empty lines before a request may be separate pieces."""
    assert pieces(RequestCutter(), SECOND) == [b"\r\n\r\n", SECOND[4:]]
