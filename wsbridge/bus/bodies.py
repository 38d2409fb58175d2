"""The encoding of messages in the body of an AMQP message: many in one body, because AMQP costs per message, not per byte.

    content type                      body
    text/plain                        text messages joined by LF; any consumer can print them as lines
    application/octet-stream          one binary message
    application/vnd.wsbridge.text     text messages, some with an LF in them: each follows its length, 4 bytes big-endian
    application/vnd.wsbridge.binary   binary messages in that form

Headers from wsbridge: `wsbridge-producer` is the id of the producer. `wsbridge-first` is the number of the first message among
those of its producer. `wsbridge-count` is the number of messages in the body. `wsbridge-time` is the time of sending, in
milliseconds since 1970.

A body from an external publisher has none of these headers. Without a content type, or with a type of `text/`, it consists of
lines, and the last line may end in an LF. A body of type `application/json` is one text message. Any other body is one binary
message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from struct import Struct
from typing import NamedTuple

from wsbridge.bus.base import Body
from wsbridge.errors import MalformedBody
from wsbridge.flow import Batch, Kind, valid_text

LINES, SINGLE = "text/plain", "application/octet-stream"
TEXTS, BINARIES = "application/vnd.wsbridge.text", "application/vnd.wsbridge.binary"
PRODUCER, FIRST, COUNT, TIME = "wsbridge-producer", "wsbridge-first", "wsbridge-count", "wsbridge-time"

BODY_BYTES = 120 * 1024
"""Maximum bytes of one body, unless a single message is longer. Such a body fits into one of RabbitMQ's 128 KiB frames."""
LENGTH = Struct(">I")
FINGERPRINT_BYTES = 5
LATEST = 8_640_000_000_000_000
"""The last millisecond that is a date in a browser (ECMA-262, section 21.4.1.1)."""


class OutgoingBody(NamedTuple):
    """A body in the form that wsbridge sends to the broker."""

    content_type: str
    data: bytes
    first: int
    messages: int

    def headers(self, producer: str) -> dict[str, str | int]:
        return {PRODUCER: producer, FIRST: self.first, COUNT: self.messages}


def pack(batch: Batch, first: int) -> list[OutgoingBody]:
    """Return the bodies of a batch, as few as possible; `first` is the number of its first message."""
    kind, messages = batch
    count = len(messages)
    if count == 1:
        data = bytes(messages[0])
        if kind is Kind.BINARY:
            return [OutgoingBody(SINGLE, data, first, 1)]
        # A single message may contain the separator LF; its count of 1 marks it as one message.
        return [OutgoingBody(LINES, data, first, 1)]
    data = b"\n".join(messages)
    are_lines = kind is Kind.TEXT and data.count(b"\n") == count - 1
    if len(data) + (0 if are_lines else LENGTH.size * count) > BODY_BYTES:
        half = count // 2
        return pack(Batch(kind, messages[:half]), first) + pack(Batch(kind, messages[half:]), first + half)
    if are_lines:
        return [OutgoingBody(LINES, data, first, count)]
    parts: list[bytes | bytearray] = []
    for message in messages:
        parts += (LENGTH.pack(len(message)), message)
    return [OutgoingBody(TEXTS if kind is Kind.TEXT else BINARIES, b"".join(parts), first, count)]


def can_join(one: OutgoingBody, other: OutgoingBody) -> bool:
    """Whether two consecutive bodies may leave as one body.

    Both must consist of lines, no message may contain an LF, and together they must stay below BODY_BYTES.
    """
    return (
        one.content_type == other.content_type == LINES
        and len(one.data) + len(other.data) < BODY_BYTES
        and not (one.messages == 1 and b"\n" in one.data)
        and not (other.messages == 1 and b"\n" in other.data)
    )


def unpack(data: bytes, content_type: str | None, headers: Mapping[str, object]) -> Body:
    """Decode a body. Raises MalformedBody."""
    producer, first, count = headers.get(PRODUCER), headers.get(FIRST), headers.get(COUNT)
    if isinstance(producer, str) and isinstance(first, int) and isinstance(count, int) and producer and first >= 0 and count > 0:
        batch = _batch(data, content_type, count)
        if len(batch.messages) != count:
            raise MalformedBody(f"it holds {len(batch.messages)} messages, but its header {COUNT} is {count}")
        return Body(batch, producer, first)
    return Body(_batch(data, content_type, None))


def time_of(headers: Mapping[str, object], timestamp: object) -> int | None:
    """Return the send time of a body, in milliseconds since 1970, or None if it carries no time.

    The wsbridge-time header has precedence over the AMQP property timestamp, which counts seconds.
    """
    header = headers.get(TIME)
    if isinstance(header, int) and 0 <= header <= LATEST:
        return header
    if isinstance(timestamp, datetime):
        return int(timestamp.timestamp()) * 1000
    return None


def is_ours(headers: Mapping[str, object]) -> bool:
    """Return whether a body names its producer and its first number, as only bodies from wsbridge do."""
    return isinstance(headers.get(PRODUCER), str) and isinstance(headers.get(FIRST), int)


def fingerprint(data: bytes, headers: Mapping[str, object], stream: str) -> str:
    """Return a hexadecimal fingerprint of a body's bytes, its origin and its stream.

    The fingerprint distinguishes the body from any other body that may later have its offset. `stream` is the identity of the
    stream. An external publisher may publish the same bytes again, and another stream may hold them at the same offset.
    """
    digest = hashlib.blake2b(data, digest_size=FINGERPRINT_BYTES, salt=b"wsbridge", usedforsecurity=False)
    digest.update(f"{headers.get(PRODUCER)} {headers.get(FIRST)}{stream and ' '}{stream}".encode())
    return digest.hexdigest()


def stream_fingerprint(stream: str) -> str:
    """Return the fingerprint of a stream itself, for an offset without a body."""
    return hashlib.blake2b(stream.encode(), digest_size=FINGERPRINT_BYTES, salt=b"stream", usedforsecurity=False).hexdigest()


def _batch(data: bytes, content_type: str | None, count: int | None) -> Batch:
    """Return the messages. Without a count the body comes from an external publisher."""
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
            raise MalformedBody("it is truncated within a length field")
        (length,) = LENGTH.unpack_from(data, start)
        start += LENGTH.size
        if start + length > len(data):
            raise MalformedBody("it is truncated within a message")
        messages.append(data[start : start + length])
        start += length
    if not messages:
        raise MalformedBody("it is empty")
    return messages
