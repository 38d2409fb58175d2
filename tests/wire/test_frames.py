"""The frames of a server (RFC 6455, section 5): unmasked, one for each message."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.peer import read_frames
from wsbridge.closecodes import may_be_sent
from wsbridge.flow import Batch, End, Kind
from wsbridge.wire import frames


@pytest.mark.parametrize(
    ("kind", "message", "head"),
    [
        (Kind.TEXT, b"Hello", b"\x81\x05"),
        (Kind.TEXT, b"", b"\x81\x00"),
        (Kind.BINARY, b"\x00\xff", b"\x82\x02"),
        (Kind.TEXT, b"x" * 125, b"\x81\x7d"),
        (Kind.TEXT, b"x" * 126, b"\x81\x7e\x00\x7e"),
        (Kind.BINARY, b"x" * 256, b"\x82\x7e\x01\x00"),
        (Kind.BINARY, b"x" * 65535, b"\x82\x7e\xff\xff"),
        (Kind.BINARY, b"x" * 65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_heads(kind: Kind, message: bytes, head: bytes) -> None:
    """Payload lengths use the shortest form, at each boundary; with the examples of section 5.7."""
    assert frames.encode(Batch(kind, [message])) == head + message
    assert frames.encode(Batch(kind, [bytearray(message)] * 2)) == (head + message) * 2


lengths = st.integers(0, 200) | st.sampled_from([65535, 65536, 70000])


@settings(deadline=None)
@given(kind=st.sampled_from(Kind), messages=st.lists(lengths.map(lambda length: b"x" * length), min_size=1, max_size=5))
def test_batch(kind: Kind, messages: list[bytes]) -> None:
    """A batch becomes one frame for each message, in order, in one buffer."""
    assert read_frames(frames.encode(Batch(kind, messages))) == [(0x80 | kind, message) for message in messages]


def test_control_frames() -> None:
    """Ping and pong carry their payload of at most 125 bytes."""
    assert frames.ping() == b"\x89\x00"
    assert frames.ping(b"Hello") == b"\x89\x05Hello"
    assert frames.pong(b"Hello") == b"\x8a\x05Hello"
    assert frames.pong(b"x" * 125) == b"\x8a\x7d" + b"x" * 125


@pytest.mark.parametrize(
    ("end", "payload"),
    [
        (End(1000), b"\x03\xe8"),
        (End(1000, "bye"), b"\x03\xe8bye"),
        (End(1011, "exit 3"), b"\x03\xf3exit 3"),
        (End(4999, "é"), b"\x13\x87\xc3\xa9"),
        (End(1005), b""),
        (End(1001, "x" * 123), b"\x03\xe9" + b"x" * 123),
        (End(1001, "x" * 124), b"\x03\xe9" + b"x" * 123),
        (End(1001, "x" + "é" * 62), b"\x03\xe9" + b"x" + "é".encode() * 61),
        (End(1001, "é" * 62), b"\x03\xe9" + "é".encode() * 61),
        (End(1001, "xx" + "😀" * 31), b"\x03\xe9xx" + "😀".encode() * 30),
    ],
)
def test_close(end: End, payload: bytes) -> None:
    """A close frame has a code and a reason; the reason is truncated to 123 bytes at a character; 1005 makes an empty frame."""
    assert read_frames(frames.close(end)) == [(0x88, payload)]


def test_close_with_invalid_text() -> None:
    """The reason of a close frame is always valid UTF-8, whatever its source is."""
    ((_, payload),) = read_frames(frames.close(End(1011, b"exit \xff".decode("utf-8", "surrogateescape"))))
    assert payload[2:].decode().startswith("exit ")


def test_codes_that_may_be_sent() -> None:
    """A close frame may contain 1000-1003, 1007-1014 and 3000-4999, but never 1004-1006, 1015 or any other code."""
    allowed = {code for code in range(-1, 70000) if may_be_sent(code)}
    assert allowed == {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
