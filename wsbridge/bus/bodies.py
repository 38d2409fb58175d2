"""How messages lie in the body of an AMQP message: many in one, because what costs is the AMQP message and not the byte.

    content type                      body
    text/plain                        text messages joined by LF: what anybody's consumer prints as lines
    application/octet-stream          one binary message
    application/vnd.wsbridge.text     text messages, some with an LF in them: each with its length before it, 4 bytes big-endian
    application/vnd.wsbridge.binary   binary messages in that form

Headers of ours: `wsbridge-producer`, who published it; `wsbridge-first`, the number of its first message among those of its
producer; `wsbridge-count`, how many it holds; `wsbridge-time`, when it was sent, in milliseconds since 1970.

A body of a stranger has none of them. Without a content type, or with one of `text/`, it is lines, of which the last may end
in an LF; `application/json` is one text message, and anything else one binary message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from struct import Struct
from typing import NamedTuple

from wsbridge.bus.base import Body
from wsbridge.flow import Batch, Kind, valid_text

LINES, SINGLE = "text/plain", "application/octet-stream"
TEXTS, BINARIES = "application/vnd.wsbridge.text", "application/vnd.wsbridge.binary"
PRODUCER, FIRST, COUNT, TIME = "wsbridge-producer", "wsbridge-first", "wsbridge-count", "wsbridge-time"

BODY_BYTES = 120 * 1024
"""What one body holds, unless a single message is longer: it fits into one frame of RabbitMQ's 128 KiB."""
LENGTH = Struct(">I")
FINGERPRINT_BYTES = 5
LATEST = 8_640_000_000_000_000
"""The last millisecond that is a date in a browser (ECMA-262, section 21.4.1.1)."""


class Parcel(NamedTuple):
    """A body as it goes to the broker."""

    content_type: str
    data: bytes
    first: int
    messages: int

    def headers(self, producer: str) -> dict[str, str | int]:
        return {PRODUCER: producer, FIRST: self.first, COUNT: self.messages}


class MalformedBody(Exception):
    """A body that is not what its content type says."""


def pack(batch: Batch, first: int) -> list[Parcel]:
    """Return the parcels of a batch, as few as may be; `first` is the number of its first message."""
    kind, messages = batch
    count = len(messages)
    if count == 1:
        data = bytes(messages[0])
        if kind is Kind.BINARY:
            return [Parcel(SINGLE, data, first, 1)]
        # A single one may hold what separates many: its count says that it is one.
        return [Parcel(LINES, data, first, 1)]
    data = b"\n".join(messages)
    are_lines = kind is Kind.TEXT and data.count(b"\n") == count - 1
    if len(data) + (0 if are_lines else LENGTH.size * count) > BODY_BYTES:
        half = count // 2
        return pack(Batch(kind, messages[:half]), first) + pack(Batch(kind, messages[half:]), first + half)
    if are_lines:
        return [Parcel(LINES, data, first, count)]
    parts: list[bytes | bytearray] = []
    for message in messages:
        parts += (LENGTH.pack(len(message)), message)
    return [Parcel(TEXTS if kind is Kind.TEXT else BINARIES, b"".join(parts), first, count)]


def can_join(one: Parcel, other: Parcel) -> bool:
    """Whether two parcels that follow each other may go as one: lines without an LF of their own, and not too many."""
    return (
        one.content_type == other.content_type == LINES
        and len(one.data) + len(other.data) < BODY_BYTES
        and not (one.messages == 1 and b"\n" in one.data)
        and not (other.messages == 1 and b"\n" in other.data)
    )


def unpack(data: bytes, content_type: str | None, headers: Mapping[str, object]) -> Body:
    """Read a body. Raises MalformedBody."""
    producer, first, count = headers.get(PRODUCER), headers.get(FIRST), headers.get(COUNT)
    if isinstance(producer, str) and isinstance(first, int) and isinstance(count, int) and producer and first >= 0 and count > 0:
        batch = _batch(data, content_type, count)
        if len(batch.messages) != count:
            raise MalformedBody(f"{len(batch.messages)} messages where {COUNT} says {count}")
        return Body(batch, producer, first)
    return Body(_batch(data, content_type, None))


def time_of(headers: Mapping[str, object], timestamp: object) -> int | None:
    """Return when a body was sent, in milliseconds: by our header, else by the AMQP property, which counts seconds; None without."""
    told = headers.get(TIME)
    if isinstance(told, int) and 0 <= told <= LATEST:
        return told
    if isinstance(timestamp, datetime):
        return int(timestamp.timestamp()) * 1000
    return None


def is_ours(headers: Mapping[str, object]) -> bool:
    """Return whether a body names its producer and its number there, which no other body has."""
    return isinstance(headers.get(PRODUCER), str) and isinstance(headers.get(FIRST), int)


def fingerprint(data: bytes, headers: Mapping[str, object], stream: str) -> str:
    """Return what tells a body from any other that might come to lie at its place: hexadecimal, of its bytes, its origin and its stream.

    `stream` is the identity of that: strangers publish the same again, and another stream may have it at the same offset.
    """
    digest = hashlib.blake2b(data, digest_size=FINGERPRINT_BYTES, salt=b"wsbridge", usedforsecurity=False)
    digest.update(f"{headers.get(PRODUCER)} {headers.get(FIRST)}{stream and ' '}{stream}".encode())
    return digest.hexdigest()


def stream_mark(stream: str) -> str:
    """Return the fingerprint of a stream itself, for a place in it at which no body is."""
    return hashlib.blake2b(stream.encode(), digest_size=FINGERPRINT_BYTES, salt=b"stream", usedforsecurity=False).hexdigest()


def _batch(data: bytes, content_type: str | None, count: int | None) -> Batch:
    """Return the messages; without a count it is a stranger's."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    match kind:
        case "application/vnd.wsbridge.text":
            return Batch(Kind.TEXT, valid_text(_split(data)))
        case "application/vnd.wsbridge.binary":
            return Batch(Kind.BINARY, _split(data))
        case "application/json":
            return Batch(Kind.TEXT, valid_text([data]))
        case "" | "text/plain" if count is not None:
            messages = [data] if count == 1 else data.split(b"\n")
            return Batch(Kind.TEXT, messages if data.isascii() else valid_text(messages))
        case _ if not kind or kind.startswith("text/"):
            lines = data.removesuffix(b"\n").split(b"\n")
            return Batch(Kind.TEXT, valid_text([line.removesuffix(b"\r") for line in lines]))
        case _:
            return Batch(Kind.BINARY, [data])


def _split(data: bytes) -> list[bytes]:
    messages, start = [], 0
    while start < len(data):
        if len(data) - start < LENGTH.size:
            raise MalformedBody("it ends within a length")
        (length,) = LENGTH.unpack_from(data, start)
        start += LENGTH.size
        if start + length > len(data):
            raise MalformedBody("it ends within a message")
        messages.append(data[start : start + length])
        start += length
    if not messages:
        raise MalformedBody("it is empty")
    return messages
