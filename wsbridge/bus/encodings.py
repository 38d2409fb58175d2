"""Decodes the bodies that other programs encode: with gzip or deflate, or in the encoding of AMQP 1.0.

The property content-encoding names a compression (RFC 9110, section 8.4.1). Some libraries join it with a character set, as in
`gzip:UTF-8`. Many programs write other values there; `decode` ignores every name that is not a known compression.

RabbitMQ also delivers messages from clients of AMQP 1.0 and of the stream protocol to a client of 0-9-1. It delivers Data
sections as plain bytes. It delivers any other body as AMQP 1.0 sections, with the property type `amqp-1.0` (AMQP 1.0, parts 1.6
and 3.2).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from wsbridge.errors import BodyTooLong, EncodedBody

AMQP_1 = "amqp-1.0"
"""The property type of a body that consists of sections."""
LARGEST = 128 * 1024 * 1024
"""Maximum bytes of a decompressed body when messages have no bound: the size that RabbitMQ accepts as one message."""
LAYERS = 2
"""Maximum layers of compression of one body: each layer can expand the result of the layer before it a thousandfold."""
MEMBERS = 1024
"""Maximum members of a gzip body: an empty member occupies 20 bytes, and takes 10 us to decode."""
PIECE = 64 * 1024
"""Bytes decompressed at a time. At the end of a member, zlib copies the rest of them."""
GZIP, DEFLATE, RAW_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
WINDOWS = {"gzip": (GZIP,), "x-gzip": (GZIP,), "deflate": (DEFLATE, RAW_DEFLATE), "zlib": (DEFLATE,)}
"""The window sizes to pass to zlib for each compression. RFC 9110 notes that some senders of deflate omit the wrapper of RFC 1950."""
UNKNOWN = frozenset(
    ("br", "brotli", "bz2", "bzip2", "compress", "lz4", "lzma", "snappy", "x-bzip2", "x-compress", "x-snappy", "xz", "zip", "zstd")
)
"""Compressions that wsbridge does not decode."""

DATA, SEQUENCE, VALUE = 0x75, 0x76, 0x77
"""Descriptors of the sections that hold a body."""
DESCRIBED = 0x00
"""The constructor of a described value, which begins with a descriptor."""
READ = (0xA0, 0xB0, 0xA1, 0xB1, 0xA3, 0xB3)
"""Constructors of binary, string and symbol, each in its short and its long form."""
FIXED = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
COUNTED = {0xA: 1, 0xB: 4, 0xC: 1, 0xD: 4, 0xE: 1, 0xF: 4}
"""Bytes of a value (FIXED), or of its length field (COUNTED), by the upper half of its constructor."""


def decode(data: bytes, encoding: str | None, kind: str | None, limit: int) -> bytes:
    """Return the decoded content of a body.

    `encoding` and `kind` are the properties content-encoding and type. `limit` bounds a decompressed body, in bytes; 0 means
    LARGEST. Raises EncodedBody.
    """
    if encoding:
        names = [name.strip() for name in re.split("[,:;]", encoding.lower())]
        if sum(name in WINDOWS for name in names) > LAYERS:
            raise EncodedBody(f"its content-encoding is {encoding}, but wsbridge decodes at most {LAYERS} layers of compression")
        # The sender applied the layers of compression in the order of their names, so decode them in reverse.
        for name in reversed(names):
            data = _decompressed(data, name, limit or LARGEST)
    return _of_sections(data) if kind == AMQP_1 else data


def _decompressed(data: bytes, name: str, limit: int) -> bytes:
    if name in UNKNOWN:
        hint = "publish it as gzip or deflate, or uncompressed"
        raise EncodedBody(f"its content-encoding is {name}, which wsbridge does not decode; {hint}")
    windows = WINDOWS.get(name, ())
    for window in windows:
        try:
            return _inflated(data, window, limit)
        except zlib.error as error:
            why = error
    if windows:
        raise EncodedBody(f"its content-encoding is {name}, but its content is not valid {name}: {why}")
    return data


def _inflated(data: bytes, window: int, limit: int) -> bytes:
    """Return the decompressed data of all members. Raises zlib.error, and BodyTooLong before the data exceeds the limit."""
    parts, remaining, at = [], limit, 0
    for _ in range(MEMBERS):
        inflater = zlib.decompressobj(window)
        while not inflater.eof:
            piece = data[at : at + PIECE]
            if not piece:
                raise zlib.error("it is truncated")
            part = inflater.decompress(piece, remaining + 1)
            if len(part) > remaining:
                raise BodyTooLong(f"it decompresses to more than {limit} bytes")
            parts.append(part)
            remaining -= len(part)
            at += len(piece) - len(inflater.unused_data)
        # Another gzip file, or zeros, may follow a gzip file.
        at = _behind_zeros(data, at) if window == GZIP else len(data)
        if at == len(data):
            return b"".join(parts)
    raise EncodedBody(f"it has more than {MEMBERS} members")


def _behind_zeros(data: bytes, at: int) -> int:
    """Return the offset of the first byte that is not zero, or of the end."""
    while piece := data[at : at + PIECE]:
        rest = piece.lstrip(b"\0")
        at += len(piece) - len(rest)
        if rest:
            break
    return at


def _of_sections(data: bytes) -> bytes:
    """Return the body that the sections hold. Raises EncodedBody."""
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
            raise EncodedBody("its type is amqp-1.0, but its content is not valid AMQP 1.0")
        _, descriptor, at = _value(data, at + 1)
        constructor, value, at = _value(data, at)
        yield int.from_bytes(descriptor), constructor, value


def _value(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return a value's constructor and bytes, and the offset of its end. The constructor's upper half gives the width (part 1.2.2)."""
    start = at + 1
    constructor = data[at] if at < len(data) else DESCRIBED
    kind = constructor >> 4
    if kind in COUNTED:
        start += COUNTED[kind]
        end = start + int.from_bytes(data[start - COUNTED[kind] : start])
    else:
        end = start + FIXED.get(kind, 0)
    if end > len(data):
        raise EncodedBody("its type is amqp-1.0, but it is truncated within a value")
    return constructor, data[start:end], end
