"""Where a stream of requests may be cut."""

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
    """All pieces of the reads, one after the other."""
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
    """However a stream is cut into reads, each end of a head is the end of a piece, and no byte is lost."""
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
    """A body ends where its length says, whatever it holds; a head follows."""
    cutter = RequestCutter()
    cutter.expect_body(len(BODY))
    assert pieces(cutter, BODY[:cut]) == [BODY[:cut]]
    assert cutter.part is Part.BODY
    assert pieces(cutter, BODY[cut:] + FIRST) == [BODY[cut:], FIRST]
    assert cutter.part is Part.HEAD


def test_empty_body() -> None:
    """A body of no bytes is none."""
    cutter = RequestCutter()
    cutter.expect_body(0)
    assert cutter.part is Part.HEAD


def test_chunks_end_a_piece() -> None:
    """The end of chunks is the end of a piece, with trailers or without; what follows is a head."""
    cutter = RequestCutter()
    cutter.expect_chunks()
    for end in (b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n"):
        assert pieces(cutter, b"3\r\nabc\r\n" + end + FIRST)[0] == b"3\r\nabc\r\n" + end
    cutter.end_chunks()
    assert cutter.part is Part.HEAD


def test_empty_lines_before_a_request() -> None:
    """Empty lines before a request may be pieces of their own."""
    assert pieces(RequestCutter(), SECOND) == [b"\r\n\r\n", SECOND[4:]]
