"""The properties of every framing for any bytes: the same result in every cut, bounded memory, valid text, and lossless round trips."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.decoding import decode, held_bytes, joined, run
from wsbridge.errors import MessageTooLong, ProgramError
from wsbridge.flow import Batch, End, Kind
from wsbridge.framing import FRAMINGS, make_framing
from wsbridge.framing.envelope import Decoder as Envelope

LIMIT = 40
READ = 64
OVERHEAD = 8
"""Bytes of a header or a CR that a decoder may hold in addition to the message."""

DECODERS: dict[str, Any] = {name: make_framing(name, limit=LIMIT)[0] for name in FRAMINGS} | {
    "envelope": lambda: Envelope("stderr", limit=LIMIT)
}
ALLOWED_ERRORS = {
    "lines": {None, MessageTooLong},
    "chunks": {None},
    "nul": {None, MessageTooLong},
    "prefixed": {None, MessageTooLong, ProgramError},
    "json": {None, MessageTooLong, ProgramError},
    "envelope": {None, MessageTooLong},
}

# Bytes with a meaning, more often than in random data.
pieces = st.sampled_from(
    [
        *(b"\n", b"\r\n", b"\r", b"\0", b"\xc3\xa9", b"\xc3", b"x" * 39),
        *(b"\0\0\0\3\1abc", b"\0\0\0\2\2\xff\xfe", b"\0\0\0\x28\1", b"\0\0\0\x29\1"),
        *(b'{"type":"message","text":"a"}\n', b'{"type":"message","base64":"AA=="}\n', b'{"type":"close"}\n'),
    ]
)
streams = st.lists(pieces | st.binary(max_size=20), max_size=12).map(b"".join)


@pytest.mark.parametrize("name", DECODERS)
@settings(deadline=None)
@given(stream=streams)
def test_any_bytes_in_any_cut(name: str, stream: bytes) -> None:
    """The result does not depend on the cuts of the stream; only faults of the program are errors; text is valid UTF-8."""
    outcome = decode(DECODERS[name], stream, boundaries=name != "chunks")
    assert outcome.error in ALLOWED_ERRORS[name]
    for item in outcome.delivered:
        if item[0] is Kind.TEXT:
            item[1].decode()


@pytest.mark.parametrize("name", DECODERS)
@settings(deadline=None)
@given(stream=streams, tail=streams)
def test_any_tail(name: str, stream: bytes, tail: bytes) -> None:
    """Bytes after a complete message in the same read do not change the message."""
    if name != "chunks":
        decode(DECODERS[name], stream, tail=tail, ends=False)


@pytest.mark.parametrize("name", DECODERS)
@settings(deadline=None)
@given(stream=st.lists(st.binary(min_size=1, max_size=READ) | st.sampled_from([b"x" * READ, b"\0\0\0\x28\1"]), max_size=20))
def test_memory_is_bounded(name: str, stream: list[bytes]) -> None:
    """A decoder never holds more than the limit and one read, not even after an error."""
    decoder = DECODERS[name]()
    base = held_bytes(decoder)
    for read in stream:
        try:
            decoder.feed(read)
        except ProgramError:
            break
        assert held_bytes(decoder) - base <= LIMIT + READ + OVERHEAD
    assert held_bytes(decoder) - base <= LIMIT + READ + OVERHEAD


@pytest.mark.parametrize("name", ["lines", "nul", "json", "envelope"])
def test_endless_message_is_an_error(name: str) -> None:
    """A program that never ends its message is stopped within one read of the limit."""
    assert run(DECODERS[name], [b"x"] * (LIMIT + 2), ends=False).error is MessageTooLong


texts = st.text(max_size=8)
KINDS = {
    "lines": texts.filter(lambda text: "\n" not in text and not text.endswith("\r")).map(lambda text: (Kind.TEXT, text.encode())),
    "nul": texts.filter(lambda text: "\0" not in text).map(lambda text: (Kind.TEXT, text.encode())),
    "prefixed": texts.map(lambda text: (Kind.TEXT, text.encode())) | st.tuples(st.just(Kind.BINARY), st.binary(max_size=16)),
    "json": texts.map(lambda text: (Kind.TEXT, text.encode())) | st.tuples(st.just(Kind.BINARY), st.binary(max_size=16)),
}


@pytest.mark.parametrize("name", KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_round_trip(name: str, data: st.DataObject) -> None:
    """A program that prints what it reads returns the messages with their boundaries and kinds."""
    messages = data.draw(st.lists(KINDS[name], max_size=8))
    make, encoder = make_framing(name, limit=0)
    written = b"".join(encoder.encode(Batch(kind, [message])) for kind, message in messages)
    assert decode(make, written).delivered == messages
    if len({kind for kind, _ in messages}) == 1:
        assert encoder.encode(Batch(messages[0][0], [message for _, message in messages])) == written


@settings(deadline=None)
@given(messages=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=8))
def test_round_trip_of_chunks(messages: list[bytes]) -> None:
    """With `chunks`, such a program returns the bytes, without the boundaries."""
    make, encoder = make_framing("chunks", limit=0)
    written = encoder.encode(Batch(Kind.BINARY, messages))
    assert run(make, [written]).delivered == joined([(Kind.BINARY, message) for message in messages])


@settings(deadline=None)
@given(lines=st.lists(st.text(max_size=8).filter(lambda text: "\n" not in text and not text.endswith("\r")), max_size=8))
def test_envelopes_hold_their_lines(lines: list[str]) -> None:
    """For any line, its envelope is one line of JSON that contains it."""
    printed = "".join(f"{line}\n" for line in lines).encode()
    envelopes = decode(lambda: Envelope("stdout", limit=0), printed).delivered
    assert [json.loads(envelope) for _, envelope in envelopes] == [{"stream": "stdout", "data": line} for line in lines]
    assert not any(character in envelope.decode() for _, envelope in envelopes for character in "<>&\n\u2028\u2029")


@pytest.mark.parametrize("name", [name for name in FRAMINGS if name != "json"])
def test_only_json_reports_the_session(name: str) -> None:
    """In every framing but json, the beginning and end of a session are no bytes, and the details of the request are not read."""
    _, encoder = make_framing(name, limit=0)
    assert (encoder.opening(lambda: pytest.fail("asked")), encoder.closing(End(1000))) == (b"", b"")


def test_names() -> None:
    """These are all framings; each session has its own decoder."""
    assert FRAMINGS == ("lines", "chunks", "nul", "prefixed", "json")
    make, _ = make_framing("lines", limit=1)
    assert make() is not make()
    with pytest.raises(ProgramError, match="'xml'"):
        make_framing("xml", limit=1)
