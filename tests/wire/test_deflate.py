"""permessage-deflate (RFC 7692): the negotiation, and messages between wsbridge and zlib."""

from __future__ import annotations

import zlib
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.decoding import Item, Outcome, decode, run
from tests.wire.peer import BINARY, CONTINUATION, PING, TEXT, frame, message, read_frames
from wsbridge.flow import Batch, Kind
from wsbridge.wire.deflate import Deflate, Parameters, SharedDeflate, negotiate
from wsbridge.wire.frames import compress, encode
from wsbridge.wire.reader import FrameReader

TAIL = b"\x00\x00\xff\xff"


class Peer:
    """The zlib of a client with the widest permitted windows; `takeover` selects whether it keeps them between messages."""

    def __init__(self, *, takeover: bool = True, wbits: int = 15) -> None:
        self._takeover = takeover
        self._wbits = wbits
        self._start()

    def _start(self) -> None:
        self._deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        self._inflate = zlib.decompressobj(-self._wbits)

    def compress(self, payload: bytes) -> bytes:
        if not self._takeover:
            self._start()
        return (self._deflate.compress(payload) + self._deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)

    def decompress(self, payload: bytes) -> bytes:
        if not self._takeover:
            self._start()
        return self._inflate.decompress(payload + TAIL)


def compressed(payload: bytes, opcode: int = TEXT) -> bytes:
    return frame(payload, opcode, rsv=4)


def reader(limit: int = 1000, *, takeover: bool = True) -> FrameReader:
    return FrameReader(limit=limit, deflate=Deflate(Parameters(client_no_context_takeover=not takeover)))


def noise(size: int) -> bytes:
    """Return bytes that do not compress, always the same."""
    return Random(size).randbytes(size)


ACCEPTED = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_max_window_bits=15",
    "permessage-deflate; client_max_window_bits=8",
    'permessage-deflate; client_max_window_bits="10"',
    "permessage-deflate; server_max_window_bits=15",
    "permessage-deflate; server_max_window_bits=9",
    'permessage-deflate; server_max_window_bits="10"',
    "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover",
    "permessage-deflate;client_max_window_bits;server_max_window_bits=10;client_no_context_takeover;server_no_context_takeover",
    "  permessage-deflate  ;  server_max_window_bits = 10  ",
]
DECLINED = [
    "",
    "permessage-bzip2",
    "x-webkit-deflate-frame",
    "permessage-deflate; unknown",
    "permessage-deflate; unknown=1",
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; client_no_context_takeover=true",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=0",
    "permessage-deflate; server_max_window_bits=-10",
    "permessage-deflate; server_max_window_bits=1O",
    "permessage-deflate; server_max_window_bits=010",
    "permessage-deflate; server_max_window_bits=10.0",
    "permessage-deflate; client_max_window_bits=7",
    "permessage-deflate; client_max_window_bits=16",
    "permessage-deflate; client_max_window_bits=08",
    "permessage-deflate; client_max_window_bits=x",
    "permessage-deflate; server_max_window_bits=١٢",
]


def parameters(extension: str) -> dict[str, str]:
    """Return the parameters of one extension: name to value."""
    _, *fields = extension.split(";")
    return {name.strip(): value.strip(' "') for name, _, value in (pair.partition("=") for pair in fields)}


@pytest.mark.parametrize("offer", ACCEPTED)
def test_offers_accepted(offer: str) -> None:
    """The server accepts an offer that it can satisfy, and its answer stays within the offer (section 7.1)."""
    agreed = negotiate(offer)
    assert agreed is not None
    answer, asked = parameters(agreed.header()), parameters(offer)
    assert agreed.header().split(";")[0].strip() == "permessage-deflate"
    assert answer.keys() <= {"server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits", "client_max_window_bits"}
    # A limit that the client requests for the server must be answered with the same limit or a stricter one.
    if "server_no_context_takeover" in asked:
        assert "server_no_context_takeover" in answer
    if "server_max_window_bits" in asked:
        assert 9 <= int(answer["server_max_window_bits"]) <= int(asked["server_max_window_bits"])
    # The server requests no limit from a client that does not support one.
    if "client_max_window_bits" not in asked:
        assert "client_max_window_bits" not in answer


@pytest.mark.parametrize("offer", ACCEPTED)
def test_offers_accepted_for_shared_compression(offer: str) -> None:
    """If a message is compressed once for many clients, the server agrees to no context takeover, and to one of two window sizes."""
    alone, shared = negotiate(offer), negotiate(offer, is_shared=True)
    assert alone is not None
    assert shared is not None
    bits = 15 if int(parameters(offer).get("server_max_window_bits", 15)) == 15 else 9
    assert (shared.server_bits, shared.server_no_context_takeover) == (bits, True)
    assert shared.client_no_context_takeover == alone.client_no_context_takeover


@pytest.mark.parametrize("offer", DECLINED)
def test_offers_declined(offer: str) -> None:
    """The server declines an offer with an unknown or repeated parameter, or with an invalid value (section 7.1)."""
    assert negotiate(offer) is negotiate(offer, is_shared=True) is None


@pytest.mark.parametrize(
    ("offers", "bits"),
    [
        ("permessage-deflate; server_max_window_bits=9, permessage-deflate", 9),
        ("permessage-deflate; server_max_window_bits=99, permessage-deflate; server_max_window_bits=10, permessage-deflate", 10),
        ("permessage-deflate; client_max_window_bits=16, permessage-deflate; server_max_window_bits=11", 11),
        ("permessage-deflate; server_max_window_bits, permessage-deflate; server_max_window_bits=11", 11),
        ("x-webkit-deflate-frame, foo; bar=1, permessage-deflate; server_max_window_bits=11; client_max_window_bits", 11),
    ],
)
def test_first_satisfiable_offer(offers: str, bits: int) -> None:
    """The server prefers the first offer that it can satisfy: the client lists its offers by preference."""
    agreed = negotiate(offers)
    assert agreed is not None
    assert agreed.server_bits == bits


@pytest.mark.parametrize(
    ("compressed", "messages"),
    [
        (compressed(b"\xf2\x48\xcd\xc9\xc9\x07\x00"), [b"Hello"]),
        (frame(b"\xf2\x48\xcd", rsv=4, fin=False) + frame(b"\xc9\xc9\x07\x00", CONTINUATION), [b"Hello"]),
        (compressed(b"\xf2\x48\xcd\xc9\xc9\x07\x00") + compressed(b"\xf2\x00\x11\x00\x00"), [b"Hello", b"Hello"]),
        (compressed(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), [b"Hello"]),
        (compressed(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), [b"Hello"]),
        (compressed(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), [b"Hello"]),
        (compressed(b"\x02\x00"), [b""]),
        (compressed(b"\x00"), [b""]),
    ],
    ids=["one block", "fragments", "shared window", "stored", "BFINAL", "two blocks", "empty, Huffman", "empty"],
)
def test_examples_of_the_rfc(compressed: bytes, messages: list[bytes]) -> None:
    """The decoder reads the examples of section 7.2.3."""
    assert decode(reader, compressed, tail=frame(b"plain")) == Outcome([(Kind.TEXT, message) for message in messages])


def test_session_continues_after_a_final_block() -> None:
    """A block with BFINAL ends a message, not the session."""
    final = compressed(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00")
    plain = compressed(b"\xf2\x48\xcd\xc9\xc9\x07\x00")
    assert decode(reader, final + final + plain) == Outcome([(Kind.TEXT, b"Hello")] * 3)


def test_blocks_after_a_final_block() -> None:
    """A message may contain blocks after a block with BFINAL, aligned to a byte (section 7.2.1): the decoder reads all of them."""
    final, plain = b"\xf3\x48\xcd\xc9\xc9\x07\x00", b"\xf2\x48\xcd\xc9\xc9\x07\x00"
    assert decode(reader, compressed(final + final + b"\x00")) == Outcome([(Kind.TEXT, b"HelloHello")])
    assert decode(reader, compressed(final + plain)) == Outcome([(Kind.TEXT, b"HelloHello")])


texts = st.tuples(st.just(Kind.TEXT), st.text(max_size=40).map(str.encode))
messages_of_both_kinds = st.lists(texts | st.tuples(st.just(Kind.BINARY), st.binary(max_size=300)), max_size=6)


@pytest.mark.parametrize("takeover", [True, False], ids=["takeover", "no takeover"])
@settings(deadline=None)
@given(messages=messages_of_both_kinds, data=st.data())
def test_from_the_client(takeover: bool, messages: list[Item], data: st.DataObject) -> None:
    """The decoder reads compressed messages with and without context takeover, also between uncompressed messages."""
    peer = Peer(takeover=takeover)
    sent = b""
    for kind, payload in messages:
        if data.draw(st.booleans()):
            compressed = peer.compress(payload)
            place = data.draw(st.integers(0, len(compressed)))
            sent += message(compressed[:place], compressed[place:], opcode=kind, rsv=4)
        else:
            sent += frame(payload, kind)
    assert decode(lambda: reader(takeover=takeover), sent) == Outcome(messages)


@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("takeover", [True, False], ids=["takeover", "no takeover"])
@settings(deadline=None)
@given(messages=messages_of_both_kinds)
def test_to_the_client(takeover: bool, bits: int, messages: list[Item]) -> None:
    """zlib reads each compressed message with the agreed window size; RSV1 is set, and the payload is never empty."""
    deflate = Deflate(Parameters(server_bits=bits, server_no_context_takeover=not takeover))
    peer = Peer(takeover=takeover, wbits=bits)
    for kind, payload in messages:
        ((first, compressed),) = read_frames(encode(Batch(kind, [payload]), deflate))
        assert (first, compressed != b"", peer.decompress(compressed)) == (0xC0 | kind, True, payload)


def test_batch_to_the_client() -> None:
    """Each message of a batch is one compressed frame, even an empty message or a bytearray."""
    peer, messages = Peer(), [b"", b"", b"one", bytearray(b"one"), b"x" * 100_000, b"", noise(70_000)]
    sent = read_frames(encode(Batch(Kind.TEXT, messages), Deflate(Parameters())))
    assert [(first, peer.decompress(compressed)) for first, compressed in sent] == [(0xC1, message) for message in messages]


@pytest.mark.parametrize("bits", [9, 12])
def test_window_is_not_wider_than_agreed(bits: int) -> None:
    """The compressor refers to no data outside the agreed window."""
    deflate, peer = Deflate(Parameters(server_bits=bits)), Peer(wbits=bits)
    far = [noise(64), noise(2**bits), noise(64), noise(64)]
    assert [peer.decompress(deflate.compress(message)) for message in far] == far


def test_context_takeover_shortens() -> None:
    """With context takeover, a repeated message needs only a few bytes; without it, it needs as many as before."""
    line = noise(200)
    kept, fresh = Deflate(Parameters()), Deflate(Parameters(server_no_context_takeover=True))
    assert len(kept.compress(line)) > 190 > 20 > len(kept.compress(line))
    assert fresh.compress(line) == fresh.compress(line)


@pytest.mark.parametrize("bits", [9, 12, 15])
@given(messages=messages_of_both_kinds)
def test_to_many_clients(bits: int, messages: list[Item]) -> None:
    """Any client with a window of the size can read a shared message; a message that compression would lengthen stays uncompressed."""
    for kind, payload in messages:
        ((first, sent),) = read_frames(compress(Batch(kind, [payload]), SharedDeflate(bits)))
        assert first in (0xC0 | kind, 0x80 | kind)
        assert (Peer(takeover=False, wbits=bits).decompress(sent) if first & 0x40 else sent) == payload
        assert len(sent) < len(payload) if first & 0x40 else len(sent) == len(payload)


def test_batch_to_many_clients() -> None:
    """Each message of a batch is one frame, in its shortest form."""
    messages = [b"", b"one", bytearray(b"one" * 100), b"x" * 100_000, noise(70_000)]
    sent = read_frames(compress(Batch(Kind.TEXT, messages), SharedDeflate(15)))
    assert [first for first, _ in sent] == [0x81, 0x81, 0xC1, 0xC1, 0x81]
    assert sum(len(payload) for _, payload in sent[2:4]) < 200


@pytest.mark.parametrize("limit", [5, 10, 124, 125, 126, 1000])
def test_limit(limit: int) -> None:
    """The limit applies to decompressed messages: exactly the limit is valid, one byte more is 1009, for short frames too."""
    whole = b"x" * limit
    peer = Peer()
    assert run(lambda: reader(limit), [compressed(peer.compress(whole)) + compressed(peer.compress(whole + b"x"))]) == Outcome(
        [(Kind.TEXT, whole), ("violation", 1009)]
    )


@pytest.mark.parametrize("limit", [10, 125, 1000, 65536])
def test_limit_of_incompressible_data(limit: int) -> None:
    """A message of exactly the limit is valid with compression too, even if compression lengthens it."""
    whole = noise(limit)
    peer = Peer()
    halves = peer.compress(whole)
    assert run(lambda: reader(limit), [compressed(halves, BINARY) + frame(whole, BINARY)]) == Outcome([(Kind.BINARY, whole)] * 2)
    assert run(lambda: reader(limit), [message(halves[:5], halves[5:], opcode=BINARY, rsv=4)]) == Outcome([(Kind.BINARY, whole)])
    assert run(lambda: reader(limit), [compressed(Peer().compress(noise(limit + 1)), BINARY)]) == Outcome([("violation", 1009)])


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_bomb(opcode: int) -> None:
    """A message that would expand beyond the limit is 1009, however short its frame is; earlier messages are delivered."""
    bomb = Peer().compress(b"\0" * (16 << 20))
    assert len(bomb) < 20_000
    assert run(lambda: reader(20_000), [frame(b"ok") + compressed(bomb, opcode) + frame(b"no")]) == Outcome(
        [(Kind.TEXT, b"ok"), ("violation", 1009)]
    )


def test_length_is_checked_before_the_payload() -> None:
    """The header alone shows that a compressed frame is too long for any message within the limit."""
    assert decode(lambda: reader(10), frame(b"", rsv=4, length=1 << 20)) == Outcome([("violation", 1009)])


def test_no_limit() -> None:
    """A limit of 0 means no limit, for compressed messages too."""
    whole = b"x" * (1 << 20)
    assert run(lambda: reader(0), [compressed(Peer().compress(whole))]) == Outcome([(Kind.TEXT, whole)])


@pytest.mark.parametrize("damaged", [b"\xff\xff\xff\xff", b"\x06", b"\x00\x05\x00\x00\x00Hello", b"\xf2\x48\xcd\xc9\xc9\x07\x00\x07"])
def test_damaged_data(damaged: bytes) -> None:
    """Invalid deflate data closes with 1007, after the earlier messages."""
    assert decode(reader, frame(b"ok") + compressed(damaged), tail=frame(b"no")) == Outcome([(Kind.TEXT, b"ok"), ("violation", 1007)])


def test_text_that_is_not_utf8() -> None:
    """The UTF-8 check applies to decompressed text."""
    assert decode(reader, compressed(Peer().compress(b"caf\xe9"))) == Outcome([("violation", 1007)])
    assert decode(reader, compressed(Peer().compress("café".encode()))) == Outcome([(Kind.TEXT, "café".encode())])


@pytest.mark.parametrize(
    "sent",
    [
        frame(b"x", PING, rsv=4),
        frame(b"", rsv=4, fin=False) + frame(b"\x00", CONTINUATION, rsv=4),
        frame(b"\x00", rsv=2),
        frame(b"\x00", rsv=6),
        frame(b"\x00", rsv=5),
    ],
)
def test_reserved_bits(sent: bytes) -> None:
    """RSV1 is valid only on the first frame of a message; RSV2 and RSV3 are not negotiated: 1002."""
    assert decode(reader, sent) == Outcome([("violation", 1002)])


def test_control_frames_between_compressed_fragments() -> None:
    """Control frames are never compressed, and are valid between the fragments of a compressed message."""
    compressed = Peer().compress(b"Hello")
    sent = message(compressed[:3], compressed[3:], rsv=4, between=frame(b"?", PING))
    assert decode(reader, sent) == Outcome([("ping", b"?"), (Kind.TEXT, b"Hello")])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=4))
def test_any_compressed_bytes(payloads: list[bytes]) -> None:
    """Any compressed bytes are a message or a violation; the decoder raises no other exception."""
    outcome = decode(lambda: reader(50), b"".join(compressed(payload, BINARY) for payload in payloads))
    assert all(item[0] == "violation" for item in outcome.delivered if item[0] is not Kind.BINARY)
    assert all(len(item[1]) <= 50 for item in outcome.delivered if item[0] is Kind.BINARY)
