"""Messages as JSON objects, one per line, in both directions.

    both directions   {"type":"message","text":"…"}   {"type":"message","base64":"…"}
    from the program  {"type":"close","code":1000,"reason":"…"}
    to the program    {"type":"open",…}               {"type":"close","code":1000,"reason":"…"}

The decoder skips empty lines. Any other line that is not such an object is the program's fault. The session ends, and the log
names the line and the reason.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence

import msgspec

from wsbridge.closecodes import REASON_LIMIT, may_be_sent
from wsbridge.errors import MessageTooLong, ProgramError
from wsbridge.flow import Batch, End, Kind, batches
from wsbridge.framing import separated

SHOWN = 40
"""Bytes of an invalid line that an error shows."""


class Message(msgspec.Struct, tag="message", forbid_unknown_fields=True, omit_defaults=True):
    """One message: `text`, or `base64` for binary."""

    text: str | None = None
    base64: str | None = None


class Close(msgspec.Struct, tag="close", forbid_unknown_fields=True):
    """The end of the session: a request of the program, or a notice to it."""

    code: int = 1000
    reason: str = ""


class Decoder:
    """Reads the records of a program. A close record becomes an `End`, and the decoder ignores all later bytes."""

    __slots__ = ("_closed", "_line", "_lines", "_read")

    def __init__(self, *, limit: int) -> None:
        self._lines = separated.Decoder(b"\n", limit=limit, strip_cr=True)
        self._read = msgspec.json.Decoder(Message | Close).decode
        self._line = 0
        self._closed = False

    def feed(self, data: bytes) -> Sequence[Batch | End]:
        """Return batches and, at the end, at most one End. Raises ProgramError and MessageTooLong."""
        if self._closed:
            return ()
        try:
            lines = self._lines.feed(data)
        except MessageTooLong as error:
            before = self._records(error.before)
            if self._closed:
                return before
            raise MessageTooLong(error.limit, before=before) from None
        return self._records(lines)

    def eof(self) -> Sequence[Batch | End]:
        """Return the content of the last line, if it did not end in a newline. Raises the same errors as `feed`."""
        return () if self._closed else self._records(self._lines.eof())

    def _records(self, lines: Sequence[Batch | End]) -> Sequence[Batch | End]:
        messages: list[tuple[Kind, bytes]] = []
        for line in (line for batch in lines if isinstance(batch, Batch) for line in batch.messages):
            if self._closed:
                break
            self._line += 1
            if not line.strip():
                continue
            try:
                record = self._read(line)
                if isinstance(record, Close):
                    self._closed = True
                    return [*batches(messages), _end(record)]
                messages.append(_message(record))
            except (msgspec.MsgspecError, ValueError) as error:
                shown = bytes(line[:SHOWN]).decode("utf-8", "replace")
                raise ProgramError(f"line {self._line} of stdout is not a record ({error}): {shown}", before=batches(messages)) from None
        return batches(messages)


class Encoder:
    """Writes messages, the opening and the close as records."""

    def opening(self, details: Callable[[], Mapping[str, object]]) -> bytes:
        # Not msgspec's encoder: it rejects the bytes of a request that were not UTF-8. Here they become question marks.
        record = json.dumps({"type": "open", **details()}, ensure_ascii=False, separators=(",", ":"))
        return record.encode("utf-8", "replace") + b"\n"

    def encode(self, batch: Batch) -> bytes:
        kind, messages = batch
        if kind is Kind.TEXT:
            records = [Message(text=message.decode()) for message in messages]
        else:
            records = [Message(base64=b64encode(message).decode()) for message in messages]
        return b"".join([msgspec.json.encode(record) + b"\n" for record in records])

    def closing(self, reason: End) -> bytes:
        return msgspec.json.encode(Close(*reason)) + b"\n"


def _message(record: Message) -> tuple[Kind, bytes]:
    match record:
        case Message(text=str() as text, base64=None):
            return Kind.TEXT, text.encode("utf-8", "replace")
        case Message(text=None, base64=str() as encoded):
            return Kind.BINARY, b64decode(encoded, validate=True)
    raise ValueError('a message needs either "text" or "base64"')


def _end(record: Close) -> End:
    if not may_be_sent(record.code):
        raise ValueError(f"close code {record.code} may not be sent; use 1000-1003, 1007-1014 or 3000-4999")
    if len(record.reason.encode()) > REASON_LIMIT:
        raise ValueError(f"the reason is longer than {REASON_LIMIT} bytes")
    return End(record.code, record.reason)
