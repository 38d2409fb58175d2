"""The wires of subscribers, tested with independent readers."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.peer import read_frames
from wsbridge.flow import Batch, Kind
from wsbridge.wire.eventstream import Events
from wsbridge.wire.positioned import PlainWire, Positioned

TEXTS = st.lists(st.text(max_size=20).map(str.encode), min_size=1, max_size=5)
BYTES = st.lists(st.binary(max_size=200), min_size=1, max_size=5)


def batches() -> st.SearchStrategy[Batch]:
    return st.one_of(TEXTS.map(lambda texts: Batch(Kind.TEXT, texts)), BYTES.map(lambda items: Batch(Kind.BINARY, items)))


@given(batches(), st.integers(0, 10**12))
def test_plain(batch: Batch, first: int) -> None:
    """A plain subscriber receives only messages, and no notice of a loss."""
    assert read_frames(PlainWire().encode(batch, "e-", first)) == [(0x80 | batch.kind, message) for message in batch.messages]
    assert PlainWire().lost(3, "e-", 5) == b""


@given(batches(), st.integers(0, 10**12))
def test_positioned(batch: Batch, first: int) -> None:
    """In wsbridge.v1, a line with the position after the message precedes each payload."""
    for number, (opcode, payload) in enumerate(read_frames(Positioned().encode(batch, "k3-", first)), first):
        head, _, message = payload.partition(b"\n")
        assert (opcode, head) == (0x80 | batch.kind, b"k3-%d" % (number + 1))
        assert message == batch.messages[number - first]


@pytest.mark.parametrize(("messages", "count"), [(1, b"1"), (10**9, b"1000000000"), (None, b"?")])
def test_loss(messages: int | None, count: bytes) -> None:
    """The notice of a loss has the position after it, so that a client that resumes there does not receive it again."""
    assert read_frames(Positioned().lost(messages, "k3-", 17)) == [(0x81, b"!lost k3-17 " + count)]
    assert Events().lost(messages, "k3-", 17) == b"event: lost\nid: k3-17\ndata: " + count + b"\n\n"


@pytest.mark.parametrize(("at", "told"), [(1_795_227_069_430, b"1795227069430"), (0, b"0"), (None, b"?")])
def test_times(at: int | None, told: bytes) -> None:
    """A client that requests times receives them; for other clients, the bytes are the same as without times."""
    assert read_frames(Positioned(times=True).published(at)) == [(0x81, b"!time " + told)]
    assert [wire.published(at) for wire in (PlainWire(), Positioned(), Events())] == [b"", b"", b""]


def test_joined() -> None:
    """A new subscriber receives its position; a browser stores the position of an event stream although there is no event."""
    assert PlainWire().joined("k3-", 17) == b""
    assert read_frames(Positioned().joined("k3-", 17)) == [(0x81, b"!at k3-17")]
    assert read_events(Events().joined("k3-", 17).decode() + "data: x\n\n") == [("message", "k3-17", "x")]


def read_events(data: str) -> list[tuple[str, str, str]]:
    """Read an event stream according to HTML, section 9.2.6: type, last event id and data of each event."""
    events, kind, last, lines = [], "message", "", []
    for line in re.split("\r\n|\r|\n", data):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "" if not line:
                if lines:
                    events.append((kind, last, "\n".join(lines)))
                kind, lines = "message", []
            case "event":
                kind = value
            case "id":
                last = value
            case "data":
                lines.append(value)
    return events


@given(TEXTS, st.integers(0, 10**12))
def test_text_events(texts: list[bytes], first: int) -> None:
    """The data of an event is the text, line by line; the id is the position after it."""
    events = read_events(Events().encode(Batch(Kind.TEXT, texts), "k3-", first).decode())
    assert [data for _, _, data in events] == [re.sub("\r\n|\r", "\n", text.decode()) for text in texts]
    assert [(kind, last) for kind, last, _ in events] == [("message", f"k3-{first + index + 1}") for index in range(len(texts))]


@given(BYTES)
def test_binary_events(messages: list[bytes]) -> None:
    """A binary message is base64 in an event with its own name."""
    events = read_events(Events().encode(Batch(Kind.BINARY, messages), "e-", 0).decode())
    assert [(kind, base64.b64decode(data)) for kind, _, data in events] == [("binary", message) for message in messages]
