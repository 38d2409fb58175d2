"""The encodings of bodies from other programs: `decode` restores the content, or its error says why it cannot."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.bus.encodings import AMQP_1, LARGEST, MEMBERS, PIECE, decode
from wsbridge.errors import BodyTooLong, EncodedBody

LIMIT = 1000
TEXT = "21.5 °C\n".encode() * 10


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (None, TEXT),
        ("", TEXT),
        ("gzip", zipped(TEXT)),
        ("GZip", zipped(TEXT)),
        ("x-gzip", zipped(TEXT)),
        (" gzip ", zipped(TEXT)),
        ("gzip:UTF-8", zipped(TEXT)),
        ("utf-8, gzip", zipped(TEXT)),
        ("gzip; charset=utf-8", zipped(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
        ("zlib", zlib.compress(TEXT)),
        ("deflate, gzip", zipped(zlib.compress(TEXT))),
        ("gzip", zipped(TEXT[:20]) + zipped(TEXT[20:])),
        ("gzip", zipped(TEXT) + b"\0" * 100),
        *((name, TEXT) for name in ("utf-8", "UTF8", "binary", "identity", "iso-8859-1", "application/json", "8bit", "?")),
    ],
)
def test_content_encoding(encoding: str | None, data: bytes) -> None:
    """The decoder accepts gzip and deflate in every spelling, and ignores a name that is not a compression."""
    assert decode(data, encoding, None, LIMIT) == TEXT


@pytest.mark.parametrize("name", ["br", "zstd", "compress", "snappy", "utf-8, BR"])
def test_unknown_compression(name: str) -> None:
    """The error names a compression that wsbridge does not decode, and suggests gzip or deflate."""
    with pytest.raises(EncodedBody, match=r"content-encoding is (br|zstd|compress|snappy), .*publish it as gzip or deflate"):
        decode(TEXT, name, None, LIMIT)


@pytest.mark.parametrize("name", ["gzip", "deflate", "zlib"])
@pytest.mark.parametrize("cut", [0, 1, 5, 12, -1])
def test_damaged(name: str, cut: int) -> None:
    """A body that does not match its content-encoding, or is truncated, is an error."""
    whole = zipped(TEXT) if name == "gzip" else zlib.compress(TEXT)
    for data in (whole[:cut], TEXT):
        with pytest.raises(EncodedBody, match=f"content-encoding is {name}, but its content is not valid {name}"):
            decode(data, name, None, LIMIT)


@pytest.mark.parametrize("pack", [zipped, zlib.compress, raw_deflate], ids=["gzip", "zlib", "raw"])
def test_bomb(pack: object) -> None:
    """A body that expands to more than the limit is an error, with one member or several; exactly the limit is not."""
    assert callable(pack)
    name = "gzip" if pack is zipped else "deflate"
    assert decode(pack(b"x" * LIMIT), name, None, LIMIT) == b"x" * LIMIT
    for data in (pack(b"x" * (LIMIT + 1)), pack(b"\0" * 100_000_000), *([pack(b"x" * 400) * 3] if name == "gzip" else [])):
        with pytest.raises(BodyTooLong, match=f"more than {LIMIT} bytes"):
            decode(data, name, None, LIMIT)


def test_many_members() -> None:
    """The number of members in a body is limited, because even an empty member costs work."""
    assert decode(zipped(b"x") * MEMBERS, "gzip", None, 2 * MEMBERS) == b"x" * MEMBERS
    assert decode(zipped(b"") * (MEMBERS - 1) + zipped(TEXT) + b"\0" * 200_000, "gzip", None, LIMIT) == TEXT
    for data, encoding in ((zipped(b"") * 200_000, "gzip"), (zipped(zipped(b"") * 200_000), "gzip, gzip")):
        with pytest.raises(EncodedBody, match=f"more than {MEMBERS} members"):
            decode(data, encoding, None, LARGEST)


def test_many_layers() -> None:
    """The number of compressions of a body is limited too."""
    data = zipped(zipped(zipped(TEXT)))
    with pytest.raises(EncodedBody, match="its content-encoding is gzip,gzip,gzip, but wsbridge decodes at most 2 layers of compression"):
        decode(data, "gzip,gzip,gzip", None, LIMIT)
    assert decode(data, "gzip, utf-8, gzip", None, LIMIT) == zipped(TEXT)


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_pieces(size: int) -> None:
    """A body of several pieces decodes completely, wherever its members begin; a truncated body is an error."""
    text = random.Random(size).randbytes(size)
    for data in (zipped(text), zipped(TEXT) + zipped(text) + b"\0" * PIECE + zipped(TEXT)):
        assert decode(data, "gzip", None, 0) in (text, TEXT + text + TEXT)
        with pytest.raises(EncodedBody):
            decode(data[:-1], "gzip", None, 0)


def test_bomb_without_a_limit() -> None:
    """If messages have no limit, a decompressed body still has one."""
    deflater = zlib.compressobj()
    block = b"\0" * (1 << 20)
    data = b"".join(deflater.compress(block) for _ in range(LARGEST >> 20)) + deflater.compress(b"\0") + deflater.flush()
    with pytest.raises(BodyTooLong):
        decode(data, "deflate", None, 0)


# AMQP 1.0


def section(descriptor: int, value: bytes, *, long: bool = False) -> bytes:
    return (b"\0\x80" + descriptor.to_bytes(8) if long else bytes((0, 0x53, descriptor))) + value


def string(text: bytes, constructor: int = 0xA1) -> bytes:
    return bytes((constructor,)) + len(text).to_bytes(4 if constructor >> 4 == 0xB else 1) + text


@pytest.mark.parametrize("constructor", [0xA0, 0xB0, 0xA1, 0xB1, 0xA3, 0xB3])
@pytest.mark.parametrize("long", [False, True])
def test_values_of_amqp_1(constructor: int, long: bool) -> None:
    """A value of type string, symbol or binary becomes its bytes, in each encoding; data sections are joined."""
    assert decode(section(0x77, string(TEXT, constructor), long=long), None, AMQP_1, LIMIT) == TEXT
    halves = [section(0x75, string(half, 0xA0), long=long) for half in (TEXT[:7], TEXT[7:])]
    assert decode(b"".join(halves), None, AMQP_1, LIMIT) == TEXT


def test_sections_beside_the_body() -> None:
    """The decoder skips the header and footer sections, whatever they contain; compression may apply to the whole body."""
    head = section(0x70, b"\xc0\x04\x02\x41\x50\x04") + section(0x72, b"\xc1\x01\0") + section(0x73, b"\x45")
    whole = head + section(0x77, string(b"body")) + section(0x78, b"\xd1\0\0\0\x04\0\0\0\0")
    assert decode(whole, None, AMQP_1, LIMIT) == b"body"
    assert decode(zipped(whole), "gzip", AMQP_1, LIMIT) == b"body"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"plain",
        section(0x77, b""),
        section(0x77, b"\x40"),
        section(0x77, b"\x55\x05"),
        section(0x77, b"\x82" + b"\0" * 8),
        section(0x77, b"\xc1\x01\0"),
        section(0x76, b"\x45"),
        section(0x75, b"\x55\x05"),
        section(0x70, b"\x45"),
        section(0x77, string(TEXT))[:-1],
        section(0x77, b"\xb1\xff\xff\xff\xff"),
        section(0x77, string(b"x")) + b"\0",
    ],
    ids=repr,
)
def test_invalid_amqp_1(data: bytes) -> None:
    """Values of other types, and bytes that are not AMQP 1.0, are errors."""
    with pytest.raises(EncodedBody, match=r"AMQP 1\.0|amqp-1\.0"):
        decode(data, None, AMQP_1, LIMIT)


@given(st.binary(max_size=60), st.sampled_from([None, "gzip", "deflate"]), st.sampled_from([None, AMQP_1]))
def test_anything(data: bytes, encoding: str | None, kind: str | None) -> None:
    """The decoder decodes or rejects any bytes."""
    try:
        assert len(decode(data, encoding, kind, LIMIT)) <= LIMIT
    except EncodedBody:
        pass
