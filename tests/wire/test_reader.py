"""The frames of a client (RFC 6455, section 5): the reader accepts valid frames only."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.decoding import Item, Outcome, decode, held_bytes, run
from tests.wire.peer import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, close, frame, message
from wsbridge.flow import Batch, Kind
from wsbridge.wire.reader import LONG_FRAME, FrameReader, Side, Violation, unmask

LIMIT = 1000


def reader() -> FrameReader:
    return FrameReader(limit=LIMIT)


def small() -> FrameReader:
    return FrameReader(limit=10)


def text(payload: bytes) -> Item:
    return (Kind.TEXT, payload)


def binary(payload: bytes) -> Item:
    return (Kind.BINARY, payload)


def frame_of(length: int, size: int, *, opcode: int = TEXT, mask: bytes | None = MASK) -> bytes:
    """Return a frame with a length field of `size` bytes, 2 or 8, even if the length needs fewer."""
    second = (0x80 if mask else 0) | (126 if size == 2 else 127)
    return bytes((0x80 | opcode, second)) + length.to_bytes(size, "big") + (mask or b"") + bytes(length)


OK = frame(b"ok")


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", [text(b"Hello")]),
        (frame(b""), [text(b"")]),
        (frame(b"", BINARY), [binary(b"")]),
        (frame(b"\x00\xff", BINARY), [binary(b"\x00\xff")]),
        (frame(b"a") + frame(b"b") + frame(b"c", BINARY) + frame(b"d"), [text(b"a"), text(b"b"), binary(b"c"), text(b"d")]),
        (frame("é€😀\0".encode()), [text("é€😀\0".encode())]),
        (frame(b"x" * 125), [text(b"x" * 125)]),
        (frame(b"x" * 126), [text(b"x" * 126)]),
        (frame(b"x", mask=b"\0\0\0\0"), [text(b"x")]),
        (frame(b"", PING), [("ping", b"")]),
        (frame(b"\xff" * 125, PING), [("ping", b"\xff" * 125)]),
        (frame(b"p", PONG), [("pong", b"p")]),
        (message(b"one, ", b"two, ", b"three"), [text(b"one, two, three")]),
        (message(b"", b"", b""), [text(b"")]),
        (message(b"\xff", b"\xfe", opcode=BINARY), [binary(b"\xff\xfe")]),
        (message(b"\xc3", b"\xa9"), [text("é".encode())]),
        (message(b"a", b"b", between=frame(b"?", PING)), [("ping", b"?"), text(b"ab")]),
        (message(b"a", b"b") + message(b"c", b"d", opcode=BINARY) + OK, [text(b"ab"), binary(b"cd"), text(b"ok")]),
    ],
)
def test_valid_frames(sent: bytes, heard: list[Item]) -> None:
    """The reader returns messages, whole and in fragments, and control frames, also between fragments, in order."""
    assert decode(reader, sent, tail=OK) == Outcome(heard)


def test_long_frame() -> None:
    """A frame of more than 65535 bytes has a length field of eight bytes."""
    assert run(lambda: FrameReader(limit=0), [frame(b"x" * 70000, BINARY) + OK]) == Outcome([binary(b"x" * 70000), text(b"ok")])


def test_messages_of_one_read_form_one_batch() -> None:
    """Messages of one kind in one read form one batch; the next read delivers a message that was incomplete."""
    decoder = reader()
    cut = frame(b"c")
    assert decoder.feed(frame(b"a") + frame(b"b") + cut[:4]) == [Batch(Kind.TEXT, [b"a", b"b"])]
    assert decoder.feed(cut[4:]) == [Batch(Kind.TEXT, [b"c"])]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_long_frame_does_not_delay_the_next(count: int) -> None:
    """A short message is delivered when it is complete, even if its first bytes arrived with the end of a long message."""
    decoder = FrameReader(limit=0)
    long, short = frame(b"x" * 5000, BINARY), frame(b"now")
    assert list(decoder.feed(long[:100])) == []
    assert decoder.feed(long[100:] + short[:count]) == [Batch(Kind.BINARY, [b"x" * 5000])]
    assert decoder.feed(short[count:]) == [Batch(Kind.TEXT, [b"now"])]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"x", mask=None), 1002),
        (frame(b"", mask=None), 1002),
        (frame(b"x", PING, mask=None), 1002),
        (frame(b"x" * 200, mask=None), 1002),
        (frame(b"x", rsv=4), 1002),
        (frame(b"x", rsv=2), 1002),
        (frame(b"x", rsv=1), 1002),
        (frame(b"x", PING, rsv=4), 1002),
        *((frame(b"x", opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        (frame(b"x", PING, fin=False), 1002),
        (frame(b"x", PONG, fin=False), 1002),
        (frame(b"", CLOSE, fin=False), 1002),
        (frame(b"x" * 126, PING), 1002),
        (frame(b"x" * 126, PONG), 1002),
        (frame(b"\x03\xe8" + b"x" * 124, CLOSE), 1002),
        (frame(b"x", CONTINUATION), 1002),
        (frame(b"x", CONTINUATION, fin=False), 1002),
        (frame(b"x", fin=False) + frame(b"y"), 1002),
        (frame(b"x", fin=False) + frame(b"y", BINARY, fin=False), 1002),
        (frame(b"x", fin=False) + frame(b"y", CONTINUATION, rsv=4), 1002),
        (frame(b"\xff"), 1007),
        (frame(b"caf\xe9"), 1007),
        (frame(b"\xc3"), 1007),
        (frame(b"\xed\xa0\x80"), 1007),
        (frame(b"\xc0\xaf"), 1007),
        (frame(b"\xf4\x90\x80\x80"), 1007),
        (message(b"\xc3", b"x"), 1007),
        (frame(b"\xa9" + b"x" * 200), 1007),
        (frame(b"x" * (LIMIT + 1)), 1009),
        *((frame_of(length, size), 1002) for length in (0, 1, 125) for size in (2, 8)),
        *((frame_of(length, 8), 1002) for length in (126, 1000, 65535)),
        (frame_of(5, 2, opcode=PING), 1002),
    ],
)
def test_violations(sent: bytes, code: int) -> None:
    """A protocol violation results in 1002, invalid UTF-8 in 1007, and a message beyond the limit in 1009.

    The reader delivers earlier messages, and ignores later bytes.
    """
    assert decode(reader, OK + frame(b"b", BINARY) + sent, tail=OK) == Outcome([text(b"ok"), binary(b"b"), ("violation", code)])


def test_valid_messages_before_text_that_is_not_utf8() -> None:
    """Of messages in one read, those before an invalid text are delivered, and those after it are not."""
    sent = frame(b"a") + frame("é".encode()) + frame(b"\xff") + frame(b"b")
    assert decode(reader, sent) == Outcome([text(b"a"), text("é".encode()), ("violation", 1007)])


def test_continuation_after_the_end_of_a_message() -> None:
    """A continuation after a complete message is 1002; the message is delivered."""
    assert decode(reader, message(b"x", b"y") + frame(b"z", CONTINUATION), tail=OK) == Outcome([text(b"xy"), ("violation", 1002)])


def test_character_in_two_messages() -> None:
    """Each message must be valid UTF-8 by itself: two halves of a character in two messages are invalid."""
    assert decode(reader, frame(b"\xc3") + frame(b"\xa9")) == Outcome([("violation", 1007)])


@pytest.mark.parametrize("payload", [b"x", b"x" * 126, b"x" * 70000])
def test_unmasked_frame_is_rejected_at_once(payload: bytes) -> None:
    """A frame without a mask is rejected after its second byte, without waiting for the rest of its length."""
    assert run(reader, [frame(payload, mask=None)[:2]]) == Outcome([("violation", 1002)])


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999])
def test_close_codes(code: int) -> None:
    """The reader returns a valid code with its reason."""
    assert decode(reader, OK + close(code, "adé".encode()), tail=OK) == Outcome([text(b"ok"), ("close", code, "adé")])


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2000, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_sent(code: int) -> None:
    """The codes below 1000, 1004-1006, 1014-2999 and from 5000 on are 1002."""
    assert decode(reader, OK + close(code), tail=OK) == Outcome([text(b"ok"), ("violation", 1002)])


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (close(), ("close", 1005, "")),
        (close(1000), ("close", 1000, "")),
        (close(1000, b"x" * 123), ("close", 1000, "x" * 123)),
        (frame(b"\x03", CLOSE), ("violation", 1002)),
        (close(1000, b"\xff"), ("violation", 1007)),
        (close(1000, b"x" * 122 + b"\xc3"), ("violation", 1007)),
    ],
    ids=["empty", "code alone", "longest", "one byte", "not UTF-8", "half a character"],
)
def test_close_payloads(sent: bytes, heard: Item) -> None:
    """An empty close frame is 1005; a payload of one byte is 1002, and a reason that is not UTF-8 is 1007."""
    assert decode(reader, sent, tail=OK) == Outcome([heard])


@pytest.mark.parametrize("last", [close(1000), frame(b"x", mask=None), frame(b"\xff"), frame(b"x", 3)])
def test_bytes_after_the_end(last: bytes) -> None:
    """After a close frame or a violation, the reader ignores all bytes, in the same read or a later one."""
    decoder = reader()
    assert len(decoder.feed(last + OK)) == 1
    assert [list(decoder.feed(data)) for data in (OK, frame(b"", PING), close(1000), b"\xff" * 20)] == [[], [], [], []]


def test_close_within_a_fragmented_message() -> None:
    """A close frame between fragments ends the connection: the incomplete message is not delivered."""
    assert decode(reader, frame(b"x", fin=False) + close(1001), tail=frame(b"y", CONTINUATION)) == Outcome([("close", 1001, "")])


@pytest.mark.parametrize("limit", [1, 10, 124, 125, 126, 127, 300, 65535, 65536])
def test_limit(limit: int) -> None:
    """Exactly the limit is valid, whole and in fragments, and one byte more is 1009, for short frames too."""

    def at_limit() -> FrameReader:
        return FrameReader(limit=limit)

    whole, half = b"x" * limit, limit // 2
    parts = (whole[:half], whole[half:])
    too_long = Outcome([text(whole), ("violation", 1009)])
    assert run(at_limit, [frame(whole) + frame(whole + b"x")]) == too_long
    assert run(at_limit, [message(*parts) + message(*parts, b"x")]) == too_long
    assert run(at_limit, [message(*parts, b"") + message(*parts, b"", b"x")]) == too_long
    assert run(at_limit, [message(*parts, b"") + frame(whole, fin=False) + frame(b"x", PING) + frame(b"y", CONTINUATION)]) == Outcome(
        [text(whole), ("ping", b"x"), ("violation", 1009)]
    )


def test_limit_in_any_cut() -> None:
    """In any cut of the bytes, a message beyond the limit is 1009, and earlier messages are delivered."""
    long = frame(b"x" * 10)
    assert decode(small, long + long + frame(b"x" * 11) + long, tail=OK) == Outcome([text(b"x" * 10)] * 2 + [("violation", 1009)])
    assert decode(small, message(b"12345", b"67890") + message(b"12345", b"678901"), tail=OK) == Outcome(
        [text(b"1234567890"), ("violation", 1009)]
    )


@pytest.mark.parametrize("length", [11, 126, 65536, 2**40, 2**63 - 1])
def test_length_is_checked_before_the_payload(length: int) -> None:
    """A frame that is too long is rejected by its header, without waiting for its payload."""
    assert decode(small, frame(b"", length=length)) == Outcome([("violation", 1009)])
    assert decode(small, frame(b"", fin=False) + frame(b"", CONTINUATION, length=length)) == Outcome([("violation", 1009)])


@pytest.mark.parametrize("limit", [0, 10])
def test_length_with_the_highest_bit(limit: int) -> None:
    """The highest bit of a 64-bit length must be 0: the reader rejects other frames, with and without a limit."""
    sent = frame(b"", length=2**63 + 5)
    assert decode(lambda: FrameReader(limit=limit), sent) in (Outcome([("violation", 1002)]), Outcome([("violation", 1009)]))


def test_no_limit() -> None:
    """A limit of 0 means no limit: a message of two mebibytes is valid, in fragments too."""
    payload = b"x" * (1 << 20)
    assert run(lambda: FrameReader(limit=0), [message(payload, payload)]) == Outcome([text(payload * 2)])


def test_limit_excludes_control_frames() -> None:
    """The limit applies to messages: a longer ping is valid."""
    assert decode(small, frame(b"x" * 125, PING) + close(1000, b"x" * 100)) == Outcome([("ping", b"x" * 125), ("close", 1000, "x" * 100)])


@settings(deadline=None)
@given(payload=st.binary(max_size=300), mask=st.binary(min_size=4, max_size=4))
def test_unmask(payload: bytes, mask: bytes) -> None:
    """Unmasking is XOR with the mask, which repeats (section 5.3)."""
    masked = bytearray(payload)
    unmask(mask, masked)
    assert masked == bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


masks = st.binary(min_size=4, max_size=4)
payloads = st.binary(max_size=40) | st.integers(120, 300).map(lambda length: b"\xfe" * length)
controls = st.tuples(st.sampled_from(["ping", "pong"]), st.binary(max_size=125))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[Item]]:
    """Draw the frames of messages in any fragmentation, and the messages."""
    sent, heard = b"", []

    def add_controls() -> None:
        nonlocal sent
        for name, payload in draw(st.lists(controls, max_size=1)):
            sent += frame(payload, PING if name == "ping" else PONG, mask=draw(masks))
            heard.append((name, payload))

    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            kind, payload = Kind.TEXT, draw(st.text(max_size=30)).encode()
        else:
            kind, payload = Kind.BINARY, draw(payloads)
        places = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        fragments = [payload[start:end] for start, end in zip([0, *places], [*places, len(payload)], strict=True)]
        for index, fragment in enumerate(fragments):
            add_controls()
            sent += frame(fragment, CONTINUATION if index else kind, fin=index == len(places), mask=draw(masks))
        heard.append((kind, payload))
    return sent, heard


@settings(deadline=None)
@given(conversations())
def test_any_fragmentation(conversation: tuple[bytes, list[Item]]) -> None:
    """Fragments, masks, interleaved control frames and cuts do not change the messages."""
    sent, heard = conversation
    assert decode(reader, sent, tail=OK) == Outcome(heard)


broken = st.sampled_from(
    [OK, frame(b"\xff"), frame(b"x", fin=False), frame(b"y", CONTINUATION), frame(b"z" * 11), close(1000), frame(b"", PING)]
)


@settings(deadline=None)
@given(st.lists(broken | st.binary(max_size=12), max_size=8).map(b"".join), st.binary(max_size=8))
def test_any_bytes_in_any_cut(sent: bytes, tail: bytes) -> None:
    """For any bytes, the reader raises no exception, text is valid, and nothing follows a close or a violation."""
    outcome = decode(small, sent, tail=tail)
    assert outcome.error is None
    assert all(item[0] not in ("close", "violation") for item in outcome.delivered[:-1])
    for kind, *payload in outcome.delivered:
        if kind is Kind.TEXT:
            payload[0].decode()
        if kind == "violation":
            assert payload[0] in (1002, 1007, 1009)


fragments = st.sampled_from([frame(b"x" * 5, fin=False), frame(b"x" * 5, CONTINUATION, fin=False)])


@settings(deadline=None)
@given(st.lists(broken | fragments | st.binary(max_size=64), max_size=20))
def test_memory_is_bounded(reads: list[bytes]) -> None:
    """The reader never holds more than the limit and one read, including fragments and the header of a frame."""
    decoder = small()
    base = held_bytes(decoder)
    for read in reads:
        decoder.feed(read)
        assert held_bytes(decoder) - base <= 10 + 64 + 14


def test_control_frames_are_not_unparsed() -> None:
    """A thousand pings within a fragmented message take no memory."""
    decoder = small()
    decoder.feed(frame(b"x", fin=False))
    base = held_bytes(decoder)
    for _ in range(1000):
        decoder.feed(frame(b"p" * 125, PING) + frame(b"", CONTINUATION, fin=False))
    assert held_bytes(decoder) == base


# The frames of a server


def of_a_server() -> FrameReader:
    return FrameReader(limit=LIMIT, side=Side.CLIENT)


def plain(payload: bytes = b"", opcode: int = TEXT, **options: bool) -> bytes:
    return frame(payload, opcode, mask=None, **options)


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (plain(b"Hello") + plain(b"") + plain(b"x", BINARY), [text(b"Hello"), text(b""), binary(b"x")]),
        (plain(b"x" * 125) + plain(b"x" * 126), [text(b"x" * 125), text(b"x" * 126)]),
        (plain(b"a", fin=False) + plain(b"?", PING) + plain(b"b", CONTINUATION), [("ping", b"?"), text(b"ab")]),
        (plain(b"", PONG), [("pong", b"")]),
        (plain(b"\x03\xf6bye", CLOSE), [("close", 1014, "bye")]),
        (plain(b"", CLOSE), [("close", 1005, "")]),
        (frame(b"x"), [("violation", 1002)]),
        (frame(b""), [("violation", 1002)]),
        (plain(b"a") + frame(b"x" * 200), [text(b"a"), ("violation", 1002)]),
        (plain(b"a") + plain(b"\xff"), [text(b"a"), ("violation", 1007)]),
        (plain(b"\x03\xe8\xff", CLOSE), [("violation", 1007)]),
        (plain(b"\x03\xed", CLOSE), [("violation", 1002)]),
        (frame_of(5, 2, mask=None), [("violation", 1002)]),
        (frame_of(300, 8, mask=None), [("violation", 1002)]),
        (plain(b"x" * (LIMIT + 1)), [("violation", 1009)]),
    ],
)
def test_frames_of_a_server(sent: bytes, heard: list[Item]) -> None:
    """The frames of a server must be valid too: unmasked, with shortest lengths and UTF-8 text."""
    assert decode(of_a_server, sent, tail=b"" if heard[-1][0] == "close" else plain(b"ok")) == Outcome(heard)


# Long frames, which arrive in many reads

LONG = LONG_FRAME + 12_345
EURO = "\u20ac".encode()
LONG_TEXT = (EURO * LONG)[: LONG // 3 * 3]


def long_reader() -> FrameReader:
    return FrameReader(limit=0)


def portions(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1000, 65_537, 10_000_000])
@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (frame(LONG_TEXT), [text(LONG_TEXT)]),
        (frame(bytes(range(256)) * 300, BINARY), [binary(bytes(range(256)) * 300)]),
        (
            frame(b"x" * LONG, fin=False) + frame(b"?", PING) + frame(b"y" * LONG, CONTINUATION),
            [("ping", b"?"), text(b"x" * LONG + b"y" * LONG)],
        ),
        (frame(LONG_TEXT[:-1], fin=False) + frame(LONG_TEXT[-1:], CONTINUATION), [text(LONG_TEXT)]),
        (frame(b"a") + frame(LONG_TEXT) + frame(b"b"), [text(b"a"), text(LONG_TEXT), text(b"b")]),
        (frame(LONG_TEXT[:-1]), [("violation", 1007)]),
        (frame(b"x" * LONG + b"\xff"), [("violation", 1007)]),
        (frame(b"a") + frame(b"\xff" + b"x" * LONG), [text(b"a"), ("violation", 1007)]),
        (frame(LONG_TEXT[:-1], fin=False) + frame(b"x", CONTINUATION), [("violation", 1007)]),
        (frame(LONG_TEXT[:-1], fin=False) + frame(b"", CONTINUATION), [("violation", 1007)]),
    ],
)
def test_long_frame_in_portions(sent: bytes, heard: list[Item], size: int) -> None:
    """A long frame has the same result in any cut: its text is checked as a whole, and the frames after it are read."""
    follows = frame(b"ok") if heard[-1][0] != "violation" else b""
    expected = [*heard, text(b"ok")] if follows else heard
    assert run(long_reader, portions(sent + follows, size if size > 100 else LONG // 20 * 4 + size)) == Outcome(expected)


def test_long_frame_is_read_as_it_comes() -> None:
    """The reader unmasks a long frame as it arrives, and rejects invalid UTF-8 before the end of the frame."""
    decoder = long_reader()
    sent = frame(b"x" * 10 * LONG)
    assert list(decoder.feed(sent[: 2 * LONG])) == []
    assert not decoder._unparsed
    assert decoder._long is not None
    assert decoder._long.payload == b"x" * (2 * LONG - 14)
    events = decoder.feed(bytes(byte ^ 0xFF for byte in sent[2 * LONG : 2 * LONG + 10]))
    assert [type(event).__name__ for event in events] == ["Violation"]


def test_longest_message_of_long_frames() -> None:
    """The limit applies to long frames as soon as their headers arrive."""
    limited = FrameReader(limit=2 * LONG)
    assert limited.feed(frame(b"x" * LONG, fin=False) + frame(b"", CONTINUATION, length=LONG + 1))[-1] == Violation(
        1009, f"message longer than {2 * LONG} bytes"
    )
    assert FrameReader(limit=LONG).feed(frame(b"", length=LONG + 1)) == [Violation(1009, f"message longer than {LONG} bytes")]
