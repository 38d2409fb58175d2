"""Messages in bodies: unpacking a packed batch returns the same messages, and a body of an external publisher is messages or an error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsbridge.bus.base import Body
from wsbridge.bus.bodies import (
    BINARIES,
    BODY_BYTES,
    COUNT,
    FIRST,
    LINES,
    PRODUCER,
    SINGLE,
    TEXTS,
    TIME,
    OutgoingBody,
    can_join,
    fingerprint,
    pack,
    stream_fingerprint,
    time_of,
    unpack,
)
from wsbridge.errors import MalformedBody
from wsbridge.flow import Batch, Kind

FRAME_BYTES = 128 * 1024 - 8
"""The payload of one frame with RabbitMQ's default settings (AMQP 0-9-1, section 4.2.3: a header of 7 bytes, an end of 1)."""

texts = st.text(st.sampled_from("a\n\r\0é"), max_size=6) | st.text(max_size=6)
KINDS = {Kind.TEXT: texts.map(str.encode), Kind.BINARY: st.binary(max_size=6)}
batches = st.sampled_from(Kind).flatmap(lambda kind: st.lists(KINDS[kind], min_size=1, max_size=8).map(lambda found: Batch(kind, found)))
values = st.none() | st.integers(-2, 5) | st.sampled_from(("", "p", "1")) | st.booleans()
headers = st.dictionaries(st.sampled_from((PRODUCER, FIRST, COUNT)), values)
content_types = st.none() | st.sampled_from((LINES, SINGLE, TEXTS, BINARIES, "application/json", "text/html", "image/png", "", ";"))


def unpacked(packed: OutgoingBody) -> Body:
    return unpack(packed.data, packed.content_type, packed.headers("p"))


def arrived(packed_bodies: list[OutgoingBody], kind: Kind) -> list[bytes]:
    """Return the messages of `packed_bodies`, after a check of their order, numbers and kinds."""
    bodies = [unpacked(packed) for packed in packed_bodies]
    for packed, body in zip(packed_bodies, bodies, strict=True):
        assert (body.producer, body.first, len(body.batch.messages)) == ("p", packed.first, packed.messages)
        assert (body.batch.kind, body.mark) == (kind, None)
    assert all(one.first + one.messages == other.first for one, other in pairwise(packed_bodies))
    return [bytes(message) for body in bodies for message in body.batch.messages]


@given(batch=batches, first=st.integers(0, 2**62))
def test_round_trip(batch: Batch, first: int) -> None:
    """Unpacking a packed batch restores its kind, its messages, their boundaries and their numbers."""
    packed_bodies = pack(batch, first)
    assert packed_bodies[0].first == first
    assert arrived(packed_bodies, batch.kind) == batch.messages
    assert len(packed_bodies) == 1, "a small batch is one body"


@settings(deadline=None)
@given(
    kind=st.sampled_from(Kind),
    lengths=st.lists(st.integers(0, 3 * BODY_BYTES) | st.integers(0, 5), min_size=1, max_size=20),
    newlines=st.booleans(),
    times=st.integers(1, 400),
)
def test_big_batches(kind: Kind, lengths: list[int], newlines: bool, times: int) -> None:
    """A big batch becomes several bodies; none is longer than one frame of the broker, unless it is a single message."""
    messages = [(b"\n" if newlines else b"x") * length for length in lengths] + [b"tiny"] * times
    packed_bodies = pack(Batch(kind, messages), 7)
    assert arrived(packed_bodies, kind) == messages
    assert all(packed.messages == 1 or len(packed.data) <= FRAME_BYTES for packed in packed_bodies)


@pytest.mark.parametrize("messages", [[b"\n"] * 50_000, [b""] * 100_000], ids=["newlines", "nothing"])
@pytest.mark.parametrize("kind", Kind)
def test_many_tiny_messages_fit_into_a_frame(kind: Kind, messages: list[bytes]) -> None:
    """The length prefixes of messages count too: a body of many tiny messages fits into one frame of the broker."""
    packed_bodies = pack(Batch(kind, messages), 0)
    assert arrived(packed_bodies, kind) == messages
    assert max(len(packed.data) for packed in packed_bodies) <= FRAME_BYTES


def test_few_bodies() -> None:
    """A thousand lines that a program printed at once become one body: the cost is per body."""
    (packed,) = pack(Batch(Kind.TEXT, [b"line"] * 1000), 0)
    assert (packed.content_type, packed.messages) == ("text/plain", 1000)
    assert packed.data == b"\n".join([b"line"] * 1000), "any consumer can print the body as lines"


@pytest.mark.parametrize(
    ("batch", "content_type"),
    [
        (Batch(Kind.TEXT, [b"one"]), "text/plain"),
        (Batch(Kind.TEXT, [b"o\nne"]), "text/plain"),
        (Batch(Kind.TEXT, [b"", b""]), "text/plain"),
        (Batch(Kind.TEXT, [b"o\nne", b"two"]), "application/vnd.wsbridge.text"),
        (Batch(Kind.BINARY, [b"one"]), "application/octet-stream"),
        (Batch(Kind.BINARY, [b"one", b"two"]), "application/vnd.wsbridge.binary"),
    ],
)
def test_content_types(batch: Batch, content_type: str) -> None:
    """Lines are plain text and a single binary message has no envelope; only other batches use a content type of wsbridge."""
    (packed,) = pack(batch, 0)
    assert packed.content_type == content_type


@settings(deadline=None)
@given(one=batches, other=batches)
def test_joining(one: Batch, other: Batch) -> None:
    """Joining two bodies does not change their messages."""
    before, after = pack(one, 0)[0], pack(other, len(one.messages))[0]
    if can_join(before, after):
        whole = OutgoingBody(before.content_type, before.data + b"\n" + after.data, before.first, before.messages + after.messages)
        assert arrived([whole], Kind.TEXT) == [*one.messages, *other.messages]


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        (None, b"a\nb\n", Batch(Kind.TEXT, [b"a", b"b"])),
        (None, b"a\nb", Batch(Kind.TEXT, [b"a", b"b"])),
        (None, b"a\r\n\r\nb\r\n", Batch(Kind.TEXT, [b"a", b"", b"b"])),
        ("", b"a", Batch(Kind.TEXT, [b"a"])),
        ("text/plain", b"a\n\n", Batch(Kind.TEXT, [b"a", b""])),
        ("text/plain", b"", Batch(Kind.TEXT, [b""])),
        ("TEXT/Plain; charset=utf-8", b"a\nb", Batch(Kind.TEXT, [b"a", b"b"])),
        ("text/csv", b"a;b\r\nc;d\r\n", Batch(Kind.TEXT, [b"a;b", b"c;d"])),
        ("text/plain", b"a\xff\nb", Batch(Kind.TEXT, ["a�".encode(), b"b"])),
        ("application/json", b'{\n"a": 1\n}\n', Batch(Kind.TEXT, [b'{\n"a": 1\n}\n'])),
        ("application/json", b'"\xff"', Batch(Kind.TEXT, ['"�"'.encode()])),
        ("application/octet-stream", b"a\nb", Batch(Kind.BINARY, [b"a\nb"])),
        ("image/png", b"\x89PNG\n", Batch(Kind.BINARY, [b"\x89PNG\n"])),
        ("nonsense", b"", Batch(Kind.BINARY, [b""])),
        ("application/vnd.wsbridge.text", b"\0\0\0\3a\nb\0\0\0\0", Batch(Kind.TEXT, [b"a\nb", b""])),
        ("application/vnd.wsbridge.text", b"\0\0\0\1\xff", Batch(Kind.TEXT, ["�".encode()])),
        ("application/vnd.wsbridge.binary", b"\0\0\0\1\xff", Batch(Kind.BINARY, [b"\xff"])),
    ],
)
def test_external_publishers(content_type: str | None, data: bytes, expected: Batch) -> None:
    """A body of an external publisher becomes lines, one text message or one binary message, by its content type."""
    body = unpack(data, content_type, {})
    assert (body.batch.kind, list(body.batch.messages)) == (expected.kind, expected.messages)
    assert body == Body(body.batch)


@pytest.mark.parametrize(
    "given_headers",
    [
        {PRODUCER: "p", FIRST: 0},
        {PRODUCER: "p", COUNT: 2},
        {FIRST: 0, COUNT: 2},
        {PRODUCER: "", FIRST: 0, COUNT: 2},
        {PRODUCER: b"p", FIRST: 0, COUNT: 2},
        {PRODUCER: "p", FIRST: -1, COUNT: 2},
        {PRODUCER: "p", FIRST: 0, COUNT: 0},
        {PRODUCER: "p", FIRST: "0", COUNT: 2},
        {PRODUCER: "p", FIRST: 0, COUNT: None},
        {"x-anything": "p"},
    ],
)
def test_invalid_headers(given_headers: Mapping[str, object]) -> None:
    """A body without three valid headers of wsbridge is a body of an external publisher."""
    assert unpack(b"a\nb\n", "text/plain", given_headers) == Body(Batch(Kind.TEXT, [b"a", b"b"]))


@pytest.mark.parametrize("content_type", [TEXTS, BINARIES])
@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\0\0\0\2a", b"\0\0\0\1a\0", b"\xff\xff\xff\xffa"])
@pytest.mark.parametrize("given_headers", [{}, {PRODUCER: "p", FIRST: 0, COUNT: 1}], ids=["external", "ours"])
def test_malformed(content_type: str, data: bytes, given_headers: Mapping[str, object]) -> None:
    """A body that ends within a message or within a length is an error, whatever its publisher is."""
    with pytest.raises(MalformedBody):
        unpack(data, content_type, given_headers)


@pytest.mark.parametrize(
    ("content_type", "data"),
    [(LINES, b"a\nb"), (TEXTS, b"\0\0\0\1a"), (BINARIES, b"\0\0\0\1a"), (SINGLE, b"a\nb\nc")],
)
def test_wrong_count(content_type: str, data: bytes) -> None:
    """A body of wsbridge with another number of messages than its header says is an error: its numbers would be wrong."""
    with pytest.raises(MalformedBody, match=COUNT):
        unpack(data, content_type, {PRODUCER: "p", FIRST: 0, COUNT: 3})


@given(
    data=st.binary(max_size=12) | st.lists(st.sampled_from((b"\0\0\0\1", b"a", b"\n", b"\xff"))).map(b"".join),
    content_type=content_types,
    given_headers=headers,
)
def test_any_body(data: bytes, content_type: str | None, given_headers: Mapping[str, object]) -> None:
    """Any bytes are either at least one message, with valid text, or a malformed body."""
    try:
        body = unpack(data, content_type, given_headers)
    except MalformedBody:
        return
    assert body.batch.messages
    assert body.first >= 0
    if body.batch.kind is Kind.TEXT:
        for message in body.batch.messages:
            bytes(message).decode()


@pytest.mark.parametrize(
    ("headers", "timestamp", "at"),
    [
        ({TIME: 1_795_227_069_430}, None, 1_795_227_069_430),
        ({TIME: 5}, datetime(2026, 11, 21, tzinfo=UTC), 5),
        ({}, datetime(2026, 11, 21, tzinfo=UTC), 1_795_219_200_000),
        ({TIME: "yesterday"}, None, None),
        ({TIME: -1}, None, None),
        ({TIME: 1 << 60}, None, None),
        ({TIME: 8_640_000_000_000_000}, None, 8_640_000_000_000_000),
        ({TIME: 8_640_000_000_000_001}, None, None),
        ({}, None, None),
    ],
)
def test_time_of_a_body(headers: dict[str, object], timestamp: datetime | None, at: int | None) -> None:
    """The time of a body is that of wsbridge's header, else that of the AMQP property, if it is in range."""
    assert time_of(headers, timestamp) == at


def test_fingerprint() -> None:
    """A fingerprint depends on the bytes, the producer and the stream, and is valid as part of a mark."""
    ours = {PRODUCER: "p", FIRST: 0, COUNT: 1}
    bodies = ((b"a", {}), (b"b", {}), (b"a", ours), (b"a", ours | {FIRST: 1}), (b"a", ours | {PRODUCER: "q"}))
    prints = [fingerprint(*body, stream) for body in bodies for stream in ("", "1", "2")]
    assert len(set(prints)) == len(prints)
    assert fingerprint(b"a", ours, "1") == fingerprint(b"a", dict(ours), "1")
    assert all(len(one) == 10 and set(one) <= set("0123456789abcdef") for one in prints)


def test_fingerprint_of_version_0_2() -> None:
    """In a stream without an identity, a body has the fingerprint of version 0.2: positions of that version stay valid."""
    assert fingerprint(b"a", {PRODUCER: "p", FIRST: 0, COUNT: 1}, "") == "ded05a447f"


def test_stream_fingerprint() -> None:
    """The mark of a stream differs from the marks of all bodies."""
    marks = {stream_fingerprint("1"), stream_fingerprint("2"), fingerprint(b"", {}, "1"), fingerprint(b"", {}, "")}
    assert len(marks) == 4
