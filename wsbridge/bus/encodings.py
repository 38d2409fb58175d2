"""What other programs wrap around the body of an AMQP message: gzip or deflate, or the encoding of AMQP 1.0.

The property content-encoding names a compression: RFC 9110, section 8.4.1. Some libraries join it with a character set, as in
`gzip:UTF-8`, and many put something else there: all that is known to be no compression is passed over, and what is not known too.

RabbitMQ gives what a client of AMQP 1.0, or of the stream protocol, has published to a client of 0-9-1. Data sections come as plain
bytes. Any other body comes as its AMQP 1.0 sections, with the property type `amqp-1.0` (AMQP 1.0, parts 1.6 and 3.2).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

AMQP_1 = "amqp-1.0"
"""The property type of a body that is made of sections."""
LARGEST = 128 * 1024 * 1024
"""Bytes that a body may decode to where messages have no bound: what RabbitMQ takes as one message."""
LAYERS = 2
"""Compressions of one body: each can make a thousand times as much work of what the one before it came to."""
MEMBERS = 1024
"""Members of a gzip body: an empty one takes 20 bytes, and 10 us to decode."""
PIECE = 64 * 1024
"""Bytes that are decompressed at a time: what is left of them behind a member is copied."""
GZIP, DEFLATE, RAW_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
WINDOWS = {"gzip": (GZIP,), "x-gzip": (GZIP,), "deflate": (DEFLATE, RAW_DEFLATE), "zlib": (DEFLATE,)}
"""How zlib is asked for each compression. For deflate, RFC 9110 notes that some senders leave out the wrapper of RFC 1950."""
UNKNOWN = frozenset(
    ("br", "brotli", "bz2", "bzip2", "compress", "lz4", "lzma", "snappy", "x-bzip2", "x-compress", "x-snappy", "xz", "zip", "zstd")
)
"""Compressions that are not decoded."""

DATA, SEQUENCE, VALUE = 0x75, 0x76, 0x77
"""Descriptors of the sections that hold a body."""
DESCRIBED = 0x00
"""The constructor of a value with a descriptor before it."""
READ = (0xA0, 0xB0, 0xA1, 0xB1, 0xA3, 0xB3)
"""Constructors of binary, string and symbol, each in its short and its long form."""
FIXED = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
COUNTED = {0xA: 1, 0xB: 4, 0xC: 1, 0xD: 4, 0xE: 1, 0xF: 4}
"""Bytes of a value, or of its length, by the upper half of its constructor."""


class EncodedBody(Exception):
    """A body that cannot be decoded; it says why."""


class BodyTooLong(EncodedBody):
    """A body that would decode to more than may be."""


def decode(data: bytes, encoding: str | None, kind: str | None, limit: int) -> bytes:
    """Return what a body holds.

    `encoding` and `kind` are the properties content-encoding and type; `limit` bounds what a compressed body comes to, in bytes.
    Raises EncodedBody.
    """
    if encoding:
        names = [name.strip() for name in re.split("[,:;]", encoding.lower())]
        if sum(name in WINDOWS for name in names) > LAYERS:
            raise EncodedBody(f"its content-encoding is {encoding}: no more than {LAYERS} compressions are decoded here")
        # The last one was applied last.
        for name in reversed(names):
            data = _decompressed(data, name, limit or LARGEST)
    return _of_sections(data) if kind == AMQP_1 else data


def _decompressed(data: bytes, name: str, limit: int) -> bytes:
    if name in UNKNOWN:
        raise EncodedBody(f"its content-encoding is {name}, which is not decoded here; publish it as gzip or deflate, or without")
    windows = WINDOWS.get(name, ())
    for window in windows:
        try:
            return _inflated(data, window, limit)
        except zlib.error as error:
            why = error
    if windows:
        raise EncodedBody(f"its content-encoding is {name}, and it is not: {why}")
    return data


def _inflated(data: bytes, window: int, limit: int) -> bytes:
    """Return what is compressed, all members of it. Raises zlib.error, and BodyTooLong before more than the limit is there."""
    parts, left, at = [], limit, 0
    for _ in range(MEMBERS):
        inflater = zlib.decompressobj(window)
        while not inflater.eof:
            piece = data[at : at + PIECE]
            if not piece:
                raise zlib.error("it ends within its data")
            part = inflater.decompress(piece, left + 1)
            if len(part) > left:
                raise BodyTooLong(f"it decompresses to more than {limit} bytes")
            parts.append(part)
            left -= len(part)
            at += len(piece) - len(inflater.unused_data)
        # A gzip file may be followed by another, and by zeros.
        at = _behind_zeros(data, at) if window == GZIP else len(data)
        if at == len(data):
            return b"".join(parts)
    raise EncodedBody(f"it has more than {MEMBERS} members")


def _behind_zeros(data: bytes, at: int) -> int:
    """Return where something else than zeros begins, or the end."""
    while piece := data[at : at + PIECE]:
        rest = piece.lstrip(b"\0")
        at += len(piece) - len(rest)
        if rest:
            break
    return at


def _of_sections(data: bytes) -> bytes:
    """Return the body that sections hold. Raises EncodedBody."""
    parts = []
    for section, constructor, value in _sections(data):
        if section in (DATA, VALUE) and constructor in READ:
            parts.append(value)
        elif section in (DATA, SEQUENCE, VALUE):
            raise EncodedBody("it is an AMQP 1.0 value that is neither text nor bytes; publish a string or data")
    if not parts:
        raise EncodedBody("it is an AMQP 1.0 message without a body")
    return b"".join(parts)


def _sections(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Return each section: the number of its descriptor, and the constructor and the bytes of its value. Raises EncodedBody."""
    at = 0
    while at < len(data):
        described, _, _ = _value(data, at)
        if described != DESCRIBED:
            raise EncodedBody("its type is amqp-1.0, and it is not")
        _, descriptor, at = _value(data, at + 1)
        constructor, value, at = _value(data, at)
        yield int.from_bytes(descriptor), constructor, value


def _value(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return a value's constructor and bytes, and where it ends. The constructor's upper half tells the width (part 1.2.2)."""
    begin = at + 1
    constructor = data[at] if at < len(data) else DESCRIBED
    kind = constructor >> 4
    if kind in COUNTED:
        begin += COUNTED[kind]
        end = begin + int.from_bytes(data[begin - COUNTED[kind] : begin])
    else:
        end = begin + FIXED.get(kind, 0)
    if end > len(data):
        raise EncodedBody("its type is amqp-1.0, and it ends within a value")
    return constructor, data[begin:end], end
