"""Batches, and the twins that carry them in the tests of higher floors."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsbridge.flow import NULL_SOURCE, Batch, CallbackSink, End, Kind, Memory, batches, valid_text

T, B = Kind.TEXT, Kind.BINARY


def test_kinds_are_opcodes() -> None:
    """The kind of a message is its WebSocket opcode (RFC 6455, section 5.2)."""
    assert {kind.name: int(kind) for kind in Kind} == {"TEXT": 1, "BINARY": 2}


@pytest.mark.parametrize(
    ("messages", "made"),
    [
        ([], []),
        ([(T, b"a")], [Batch(T, [b"a"])]),
        ([(T, b"a"), (T, b""), (T, b"a")], [Batch(T, [b"a", b"", b"a"])]),
        ([(T, b"a"), (B, b"b"), (B, b"c"), (T, b"d")], [Batch(T, [b"a"]), Batch(B, [b"b", b"c"]), Batch(T, [b"d"])]),
    ],
)
def test_batches(messages: list[tuple[Kind, bytes]], made: list[Batch]) -> None:
    """Each run of messages of one kind is a batch, in order; a batch is never empty."""
    assert batches(messages) == made
    assert batches(iter(messages)) == made


@pytest.mark.parametrize(
    ("messages", "valid"),
    [
        ([b"ascii"], [b"ascii"]),
        ([b"ascii", b""], [b"ascii", b""]),
        (["é€😀".encode()], ["é€😀".encode()]),
        ([b"caf\xe9", b"ok"], ["caf�".encode(), b"ok"]),
        ([b"\xc3", b"\xa9"], ["�".encode(), "�".encode()]),
        ([b"\xed\xa0\x80"], ["���".encode()]),
        ([b"\xff"], ["�".encode()]),
        ([b"a\nb\xff"], ["a\nb�".encode()]),
    ],
)
def test_valid_text(messages: list[bytes], valid: list[bytes]) -> None:
    """Valid UTF-8 stays unchanged; other bytes become U+FFFD, separately in each message."""
    assert list(valid_text(messages)) == valid


@settings(deadline=None)
@given(st.lists(st.binary(max_size=8) | st.text(max_size=4).map(str.encode), min_size=1))
def test_valid_text_of_any_bytes(messages: list[bytes]) -> None:
    """The number of messages stays the same. Each is valid UTF-8, and a message that was valid is unchanged."""
    assert [message.decode() for message in valid_text(messages)] == [message.decode("utf-8", "replace") for message in messages]


def test_in_memory_twin() -> None:
    """The twin records its batches and the calls of its sink, and pushes into the sink that it is joined to."""
    source, sink = Memory(), Memory()
    source.sink = sink
    source.push(Batch(T, [b"a", bytearray(b"b")]))
    source.push(Batch(B, [b"c"]))
    assert (sink.batches, sink.messages, sink.ended) == ([Batch(T, [b"a", b"b"]), Batch(B, [b"c"])], [b"a", b"b", b"c"], None)
    source.pause()
    assert source.paused
    source.resume()
    assert not source.paused
    sink.end(End(1000, "done"))
    assert sink.ended == End(1000, "done")


def test_callback_sink() -> None:
    """The sink passes batches and the end to their callbacks."""
    taken: list[Batch] = []
    ends: list[End] = []
    joint = CallbackSink(taken.append, ends.append)
    joint.write(Batch(T, [b"a"]))
    joint.end(End(1001))
    assert (taken, ends) == ([Batch(T, [b"a"])], [End(1001, "")])


def test_null_source() -> None:
    """The null source, which replaces a missing source, accepts every call."""
    for method in (NULL_SOURCE.pause, NULL_SOURCE.resume, NULL_SOURCE.pause, NULL_SOURCE.pause):
        method()
