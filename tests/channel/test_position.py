"""Positions: their text, and the marks of bodies in a stream."""

from __future__ import annotations

import pytest

from wsbridge.channel.position import BEGINNING, Position, have_one_fingerprint, offset_of, parse_position, stream_mark


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("k3x9-12", Position("k3x9", 12)),
        ("1207.9f3ac01b-3", Position("1207.9f3ac01b", 3)),
        ("0-0", Position(BEGINNING, 0)),
        ("k3x9", None),
        ("k3x9-", None),
        ("-3", None),
        ("K3X9-3", None),
        ("k3x9-3\n", None),
        ("k3x9-٣", None),
        ("k3x9--3", None),
        (f"{'a' * 65}-1", None),
        (f"a-{'1' * 19}", None),
    ],
)
def test_text(text: str, position: Position | None) -> None:
    """A position consists of its mark and its number, no other text is a position, and parsing restores a written position."""
    assert parse_position(text) == position
    assert position is None or str(position) == text


@pytest.mark.parametrize(
    ("mark", "offset"),
    [("1207.9f3ac01b", 1207), ("0.5be04f71", 0), ("0", None), ("12345678901234567890", None), ("k3x9", None), ("x.5be04f71", None)],
)
def test_offset(mark: str, offset: int | None) -> None:
    """A mark of a stream begins with an offset; a mark of a process has no offset, even if it is decimal."""
    assert offset_of(mark) == offset
    assert Position(mark, 1).offset == offset


def test_stream_mark() -> None:
    """The mark of a body contains its offset; two marks name the same body if their fingerprints are equal."""
    mark = stream_mark(1207, "9f3ac01b")
    assert (mark, offset_of(mark)) == ("1207.9f3ac01b", 1207)
    assert have_one_fingerprint(mark, stream_mark(9, "9f3ac01b"))
    assert not have_one_fingerprint(mark, stream_mark(1207, "5be04f71"))
