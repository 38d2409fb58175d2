"""The encoding of an event stream (HTML, section 9.2): texts, binary messages, positions, losses and the state of the broker."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from wsbridge.flow import Batch, Kind
from wsbridge.wire.eventstream import Events

PAGE = Path(__file__).parents[2] / "docs/event-streams.md"
MARK = "4f1c9a-"


def text(*messages: bytes | bytearray, first: int = 16) -> bytes:
    return Events().encode(Batch(Kind.TEXT, messages), MARK, first)


def binary(*messages: bytes | bytearray, first: int = 16) -> bytes:
    return Events().encode(Batch(Kind.BINARY, messages), MARK, first)


def test_example_of_the_documentation() -> None:
    """The wire encodes the example of docs/event-streams.md as the page shows it."""
    shown = PAGE.read_text().partition("## Events\n\n```\n")[2].partition("```")[0]
    assert (text("21.5 °C".encode()) + Events().lost(23, MARK, 40)).decode() == f"{shown}\n"


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (b"one", b"data: one\n"),
        (b"", b"data: \n"),
        (b"one\ntwo", b"data: one\ndata: two\n"),
        (b"one\rtwo", b"data: one\ndata: two\n"),
        (b"one\r\ntwo", b"data: one\ndata: two\n"),
        (b"one\n\rtwo", b"data: one\ndata: \ndata: two\n"),
        (b"one\r\r\ntwo", b"data: one\ndata: \ndata: two\n"),
        (b"one\n\ntwo", b"data: one\ndata: \ndata: two\n"),
        (b"\none", b"data: \ndata: one\n"),
        (b"one\n", b"data: one\ndata: \n"),
        (b"one\r", b"data: one\ndata: \n"),
        (b"\r\n", b"data: \ndata: \n"),
    ],
)
def test_lines_of_a_text(message: bytes, data: bytes) -> None:
    """The wire sends each line of a text in a `data` line, and CR, LF and CR LF each end a line."""
    assert text(message) == b"id: 4f1c9a-17\n" + data + b"\n"


@pytest.mark.parametrize("message", [b" one", b"id: 9", b"one\x0b\x0ctwo", "one\u2028two\u0085\ufeff".encode(), b"\0"])
def test_text_is_unchanged(message: bytes) -> None:
    """The wire changes nothing else in a text: a space at its start, a field's name, another separator."""
    assert text(message) == b"id: 4f1c9a-17\ndata: " + message + b"\n\n"


@pytest.mark.parametrize("message", [b"\nevent: lost", b"\rid: 0-0", b"\r\n\r\nretry: 1", b"\n\ndata: x"])
def test_text_cannot_add_a_field(message: bytes) -> None:
    """A program cannot write a field or an end of an event: each line of the text is data."""
    head, *lines = text(message).removesuffix(b"\n\n").split(b"\n")
    assert head == b"id: 4f1c9a-17"
    assert len(lines) > 1
    assert all(line.startswith(b"data: ") for line in lines)


@pytest.mark.parametrize("message", [b"", b"\0", b"\r\n", bytes(range(256)) * 3])
def test_binary_message(message: bytes) -> None:
    """The wire sends a binary message as an event `binary` with one line of base64."""
    assert binary(message) == b"event: binary\nid: 4f1c9a-17\ndata: " + b64encode(message) + b"\n\n"


def test_messages_of_a_batch() -> None:
    """Each message of a batch is an event of its own, in order, with the position after the message."""
    assert text(b"a", b"b\nc", first=0) == b"id: 4f1c9a-1\ndata: a\n\nid: 4f1c9a-2\ndata: b\ndata: c\n\n"
    assert binary(b"a", b"b", first=99) == (b"event: binary\nid: 4f1c9a-100\ndata: YQ==\n\nevent: binary\nid: 4f1c9a-101\ndata: Yg==\n\n")


@pytest.mark.parametrize("message", [b"one", b"one\r\ntwo", b""])
def test_bytearray(message: bytes) -> None:
    """The wire encodes a bytearray like the same bytes."""
    assert text(bytearray(message)) == text(message)
    assert binary(bytearray(message)) == binary(message)


def test_join() -> None:
    """The wire reports the first position with an `id` line alone, so a browser stores it and dispatches no event."""
    assert Events().joined(MARK, 17) == b"id: 4f1c9a-17\n\n"
    assert Events().joined(MARK, 0) == b"id: 4f1c9a-0\n\n"


@pytest.mark.parametrize(("messages", "count"), [(1, b"1"), (0, b"0"), (10**12, b"1000000000000"), (None, b"?")])
def test_loss(messages: int | None, count: bytes) -> None:
    """The data of an event `lost` is the number of lost messages, or `?` if the number is unknown."""
    assert Events().lost(messages, MARK, 40) == b"event: lost\nid: 4f1c9a-40\ndata: " + count + b"\n\n"


@pytest.mark.parametrize(("is_connected", "data"), [(True, b"here"), (False, b"away")])
def test_state_of_the_broker(is_connected: bool, data: bytes) -> None:
    """An event `broker` has no `id`, so the client keeps its position."""
    assert Events().broker(is_connected) == b"event: broker\ndata: " + data + b"\n\n"


@pytest.mark.parametrize("at", [None, 0, 1_795_227_069_430])
def test_no_times(at: int | None) -> None:
    """An event stream does not contain the times of publication."""
    assert Events().published(at) == b""
