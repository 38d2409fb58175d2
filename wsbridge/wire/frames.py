"""WebSocket frames (RFC 6455): batches to bytes, bytes to batches.

Server frames are never masked, so a batch becomes one buffer: heads from a table, payloads as they are, one join.
Frames are read strictly, without I/O, those of a client and those of a server: `FrameReader.feed` takes bytes and returns what
they say. Lengths are checked when a head is seen, before its payload is kept. What breaks the protocol is a value as well, so that all that
came before it is still delivered.

One message a frame, never fragmented: a frame costs nothing to be long.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Callable, Sequence
from enum import Enum, IntEnum
from struct import Struct
from typing import NamedTuple

from wsbridge.closecodes import INVALID_DATA, NO_CODE, PROTOCOL_ERROR, REASON_LIMIT, TOO_BIG, may_be_sent
from wsbridge.errors import ClientError
from wsbridge.flow import Batch, End, Kind
from wsbridge.wire.deflate import Deflate, Squeezer, most_squeezed

FIN, RSV1, MASKED = 0x80, 0x40, 0x80
CONTROL = 0x08
SHORT = Struct(">BBH")
LONG = Struct(">BBQ")
CODE = Struct(">H")
SHORT_LENGTH = 125
"""Bytes of payload whose length fits into the second byte of a head."""

Mask = Callable[[bytes, bytearray], None]
"""XOR a payload in place with a mask of four bytes."""


INFLATE_LIMIT = 256 * 1024
"""Bytes of decompressed messages after which `feed` takes a break; the last of them may pass it."""
TURN = 1024
"""What one `feed` reads before it takes a break, in short plain messages: about a millisecond. A read of the socket may bring
forty times as many."""
LONG_FRAME = 64 * 1024
"""Bytes from which on the payload of a frame is unmasked and checked as it comes, so that its end costs no more than any read."""
SLOW_FRAME = 8
"""How many short plain messages cost as much as a frame of any other shape (1 us beside 5 to 15, measured)."""


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Side(Enum):
    """Whose frames are read: a server reads those of a client, which are masked, a client those of a server, which are not."""

    SERVER = "server"
    CLIENT = "client"


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


class Violation(NamedTuple):
    """The client broke the protocol; nothing after it is read. To be answered with a close of this code and reason."""

    code: int
    reason: str


Event = Batch | Ping | Pong | End | Violation
"""What a client says. An `End` is its close frame: 1005 when that held no code."""


def head(first: int, length: int) -> bytes:
    """Return the head of an unmasked frame; `first` holds FIN, RSV and opcode."""
    if length < 126:
        return bytes((first, length))
    return SHORT.pack(first, 126, length) if length < 65536 else LONG.pack(first, 127, length)


class _Heads(dict[int, bytes]):
    """Heads by length. The short ones are made once; a long message can afford to have its own made."""

    def __init__(self, first: int) -> None:
        super().__init__((length, head(first, length)) for length in range(126))
        self._first = first

    def __missing__(self, length: int) -> bytes:
        return head(self._first, length)


_HEADS = {kind: _Heads(FIN | kind) for kind in Kind}
_WHOLE = {FIN | kind: kind for kind in Kind}
"""The first byte of a message in one frame."""


def encode(batch: Batch, deflate: Deflate | None = None) -> bytes:
    """Return the frames of a batch, one a message, compressed one by one when `deflate` is given."""
    kind, messages = batch
    heads = _HEADS[kind]
    if deflate is not None:
        compressed = [deflate.compress(message) for message in messages]
        return b"".join([part for message in compressed for part in (head(FIN | RSV1 | kind, len(message)), message)])
    if len(messages) == 1:
        return heads[len(messages[0])] + messages[0]
    parts: list[bytes | bytearray] = [b""] * (2 * len(messages))
    parts[0::2] = map(heads.__getitem__, map(len, messages))
    parts[1::2] = messages
    return b"".join(parts)


def squeeze(batch: Batch, squeezer: Squeezer) -> bytes:
    """Return the frames of a batch for any number of clients: a message is compressed where that makes it shorter."""
    kind, messages = batch
    heads = _HEADS[kind]
    parts: list[bytes | bytearray] = []
    for message in messages:
        squeezed = squeezer.squeeze(message)
        if len(squeezed) < len(message):
            parts += (head(FIN | RSV1 | kind, len(squeezed)), squeezed)
        else:
            parts += (heads[len(message)], message)
    return b"".join(parts)


def ping(payload: bytes = b"") -> bytes:
    """Return a ping of at most 125 bytes of payload."""
    return head(FIN | Opcode.PING, len(payload)) + payload


def pong(payload: bytes) -> bytes:
    """Return the answer to a ping."""
    return head(FIN | Opcode.PONG, len(payload)) + payload


def close(end: End) -> bytes:
    """Return a close frame; its reason is cut to what fits, between two characters. Code 1005 makes it empty."""
    if end.code == NO_CODE:
        return head(FIN | Opcode.CLOSE, 0)
    reason = end.reason.encode("utf-8", "replace")[:REASON_LIMIT].decode("utf-8", "ignore").encode()
    return head(FIN | Opcode.CLOSE, 2 + len(reason)) + CODE.pack(end.code) + reason


def unmask(mask: bytes, payload: bytearray) -> None:
    """XOR a payload in place: the plain way, 0.3 GB/s. A compiled one may be given to FrameReader instead."""
    length = len(payload)
    pad = (mask * (length // 4 + 1))[:length]
    payload[:] = (int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")).to_bytes(length, "little")


class FrameReader:
    """Read the frames of a client, or with `side` CLIENT those of a server.

    `limit` bounds a message in bytes, fragments added up and after decompression; 0 is no bound. What is kept between
    two calls is at most one unfinished frame and the fragments of one message.
    """

    __slots__ = (
        "_deflate",
        "_done",
        "_head",
        "_inflated",
        "_is_masked",
        "_kept",
        "_limit",
        "_long",
        "_mask",
        "_need",
        "_opcode",
        "_partial",
        "_short",
        "_squeezed",
        "_text",
        "has_more",
    )

    def __init__(self, *, limit: int, mask: Mask = unmask, deflate: Deflate | None = None, side: Side = Side.SERVER) -> None:
        self._limit = limit
        self._short = min(limit or SHORT_LENGTH, SHORT_LENGTH)
        self._mask = mask
        self._is_masked = MASKED if side is Side.SERVER else 0
        self._head = 6 if side is Side.SERVER else 2
        """Bytes before the payload of a short frame."""
        self._deflate = deflate
        self._kept = bytearray()
        self._need = 0
        """Bytes that `_kept` must hold before they are looked at again, so that a long frame is not copied for each read."""
        self._long: _Long | None = None
        self._text: _Text | None = None
        """Checks the text of the message that is under way."""
        self._partial: bytearray | None = None
        self._opcode = Opcode.CONTINUATION
        self._squeezed = False
        self._inflated = 0
        self._done = False
        self.has_more = False
        """Whether `feed` stopped before the end of what it was given, see TURN and INFLATE_LIMIT; call it again, with nothing or more."""

    def feed(self, data: bytes) -> Sequence[Event]:
        """Take bytes as they come; return what they complete, in bounded portions (`has_more`).

        After an End or a Violation nothing more is read.
        """
        if self._done:
            self.has_more = False
            return ()
        if self._kept:
            self._kept += data
            if len(self._kept) < self._need:
                return ()
            data = bytes(self._kept)
            self._kept.clear()
            self._need = 0
        events: list[Event] = []
        position, available = 0, len(data)
        self._inflated = 0
        self.has_more = False
        left = TURN
        try:
            if self._long is not None:
                position = self._fill(data, 0, events)
            while position < available:
                if left <= 0 or self._inflated > INFLATE_LIMIT:
                    self.has_more = True
                    break
                position, count = self._read_short(data, position, left, events)
                left -= count + SLOW_FRAME
                if available - position < 2:
                    break
                taken = self._read_one(data, position, events)
                if not taken or self._done:
                    break
                position += taken
        except ClientError as error:
            self._done = True
            events.append(Violation(error.code, error.reason))
            return events
        if position < available:
            self._kept += data[position:]
        return events

    def _read_short(self, data: bytes, position: int, most: int, events: list[Event]) -> tuple[int, int]:
        """Read the straight way what almost every frame is: short, whole, masked, of the kind of the one before it.

        Reads `most` frames at most. Returns the position of the first frame that was not read, and how many were.
        """
        first = data[position]
        if first not in _WHOLE or self._partial is not None:
            return position, 0
        run: list[bytearray] = []
        mask, longest, head, masked = self._mask, self._short, self._head, self._is_masked
        available = len(data)
        for _ in range(most):
            if position > available - head or data[position] != first:
                break
            start = position + head
            end = start + data[position + 1] - masked
            if not start <= end <= available or end - start > longest:
                break
            payload = bytearray(data[start:end])
            if masked:
                mask(data[start - 4 : start], payload)
            run.append(payload)
            position = end
        if run:
            _deliver(_WHOLE[first], run, events)
        return position, len(run)

    def _read_one(self, data: bytes, position: int, events: list[Event]) -> int:
        """Read one frame of any shape; return its size in bytes, or 0 when it is not whole yet. Raises ClientError."""
        length, start = self._measure(data, position)
        end = start + length
        if start and end > len(data) and length > LONG_FRAME:
            return self._begin_long(data, position, start, length, events)
        if not start or end > len(data):
            self._need = end - position
            return 0
        payload = bytearray(data[start:end])
        if self._is_masked:
            self._mask(data[start - 4 : start], payload)
        first = data[position]
        if first in _WHOLE:
            _deliver(_WHOLE[first], [payload], events)
        else:
            self._take(first, payload, events)
        return end - position

    def _begin_long(self, data: bytes, position: int, start: int, length: int, events: list[Event]) -> int:
        """Begin a frame that comes in many reads; return how many bytes of it are here."""
        first = data[position]
        self._long = _Long(first, length, data[start - 4 : start] if self._is_masked else b"")
        if first == FIN | Opcode.TEXT:
            self._text = _Text()
        return self._fill(data, start, events) - position

    def _fill(self, data: bytes, position: int, events: list[Event]) -> int:
        """Take what is here of a long frame; return the position behind it. Raises ClientError."""
        long = self._long
        assert long is not None
        piece = bytearray(data[position : position + long.left])
        if long.mask:
            turned = len(long.payload) % 4
            self._mask(long.mask[turned:] + long.mask[:turned], piece)
        if long.first == FIN | Opcode.TEXT and self._text is not None:
            self._text.check(piece, is_last=long.left == len(piece))
        long.payload += piece
        long.left -= len(piece)
        if not long.left:
            self._long = None
            if long.first in _WHOLE:
                self._text = None
                _deliver(_WHOLE[long.first], [long.payload], events, is_checked=True)
            else:
                self._take(long.first, long.payload, events)
        return position + len(piece)

    def _measure(self, data: bytes, position: int) -> tuple[int, int]:
        """Check a head; return the length of its payload and where that starts, or 0 for the start if the head is not whole.

        Raises ClientError.
        """
        first, second = data[position], data[position + 1]
        self._check_head(first, second)
        length = second & 0x7F
        start = position + self._head
        if length >= 126:
            size, least = (2, 126) if length == 126 else (8, 65536)
            start += size
            if len(data) < start:
                return self._head + size, 0
            length = int.from_bytes(data[position + 2 : position + 2 + size], "big")
            if length < least:
                raise ClientError(PROTOCOL_ERROR, "frame length is not in the fewest bytes")
        if not first & CONTROL:
            held = len(self._partial) if self._partial is not None else 0
            squeezed = first & RSV1 or (held and self._squeezed)
            limit = most_squeezed(self._limit) if squeezed else self._limit
            if length >> 63 or (limit and held + length > limit):
                raise ClientError(TOO_BIG, f"message longer than {self._limit or 2**63 - 1} bytes")
        return length, start

    def _check_head(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        if second & MASKED != self._is_masked:
            raise ClientError(PROTOCOL_ERROR, "frame is not masked" if self._is_masked else "frame of a server is masked")
        if first & 0x30 or (first & RSV1 and (self._deflate is None or opcode not in (Opcode.TEXT, Opcode.BINARY))):
            raise ClientError(PROTOCOL_ERROR, "reserved bit is set")
        if opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG):
            if not first & FIN:
                raise ClientError(PROTOCOL_ERROR, "control frame is fragmented")
            if second & 0x7F > 125:
                raise ClientError(PROTOCOL_ERROR, "control frame is longer than 125 bytes")
        elif opcode == Opcode.CONTINUATION:
            if self._partial is None:
                raise ClientError(PROTOCOL_ERROR, "continuation without a beginning")
        elif opcode not in (Opcode.TEXT, Opcode.BINARY):
            raise ClientError(PROTOCOL_ERROR, f"opcode {opcode} is not known")
        elif self._partial is not None:
            raise ClientError(PROTOCOL_ERROR, "new message before the last one ended")

    def _take(self, first: int, payload: bytearray, events: list[Event]) -> None:
        """Act on a frame that is not a whole plain message: a control frame, a fragment, or compressed."""
        match first & 0x0F:
            case Opcode.PING:
                events.append(Ping(bytes(payload)))
            case Opcode.PONG:
                events.append(Pong(bytes(payload)))
            case Opcode.CLOSE:
                # 1014 was registered after RFC 6455; websocketd refuses it from a client, and no client has cause to send it.
                events.append(_read_close(payload, refused=1014 if self._is_masked else None))
                self._done = True
            case opcode:
                if self._partial is None:
                    self._opcode, self._partial = Opcode(opcode), bytearray()
                    self._squeezed = bool(first & RSV1)
                    self._text = _Text() if opcode == Opcode.TEXT and not self._squeezed else None
                if self._text is not None:
                    self._text.check(payload, is_last=bool(first & FIN))
                if self._partial:
                    self._partial += payload
                else:
                    self._partial = payload
                if first & FIN:
                    self._complete(events)

    def _complete(self, events: list[Event]) -> None:
        assert self._partial is not None
        message, self._partial = self._partial, None
        if self._squeezed:
            assert self._deflate is not None
            message = bytearray(self._deflate.decompress(message, self._limit))
            self._inflated += len(message)
        _deliver(Kind(self._opcode), [message], events, is_checked=self._text is not None)
        self._text = None


class _Long:
    """A frame that comes in many reads: what is here of its payload, unmasked, and how much is to come."""

    __slots__ = ("first", "left", "mask", "payload")

    def __init__(self, first: int, left: int, mask: bytes) -> None:
        self.first, self.left, self.mask, self.payload = first, left, mask, bytearray()


class _Text:
    """Checks text piece by piece; a character may be cut in two."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")()

    def check(self, piece: bytearray, *, is_last: bool) -> None:
        """Raises ClientError (1007) when a piece shows that the text is not UTF-8."""
        if piece.isascii() and not self._decoder.getstate()[0]:
            return
        try:
            self._decoder.decode(piece, is_last)
        except UnicodeDecodeError:
            raise ClientError(INVALID_DATA, "text is not UTF-8") from None


def _deliver(kind: Kind, messages: list[bytearray], events: list[Event], *, is_checked: bool = False) -> None:
    """Add messages to the last batch, or a batch to the events; text that is not UTF-8 raises ClientError behind what is before it."""
    valid = len(messages)
    if kind is Kind.TEXT and not is_checked:
        whole = b"\n".join(messages) if len(messages) > 1 else messages[0]
        if not whole.isascii():
            valid = _count_valid(messages)
    last = events[-1] if events else None
    if valid and type(last) is Batch and last.kind is kind and isinstance(last.messages, list):
        last.messages.extend(messages[:valid])
    elif valid:
        events.append(Batch(kind, messages if valid == len(messages) else messages[:valid]))
    if valid < len(messages):
        raise ClientError(INVALID_DATA, "text is not UTF-8")


def _count_valid(messages: list[bytearray]) -> int:
    for index, message in enumerate(messages):
        try:
            message.decode()
        except UnicodeDecodeError:
            return index
    return len(messages)


def _read_close(payload: bytearray, *, refused: int | None) -> End:
    if not payload:
        return End(NO_CODE)
    if len(payload) == 1:
        raise ClientError(PROTOCOL_ERROR, "close frame of one byte")
    (code,) = CODE.unpack_from(payload)
    if not may_be_sent(code) or code == refused:
        raise ClientError(PROTOCOL_ERROR, f"bad close code {code}")
    try:
        return End(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ClientError(INVALID_DATA, "close reason is not UTF-8") from None
