"""Text messages separated by one byte: LF for lines, NUL for the output of `find -print0`.

A message longer than `limit` is an error, not a truncation: half a message looks like a message. Bytes that are not UTF-8 become
U+FFFD, because a browser drops the connection at a text message that is not UTF-8.
"""

from __future__ import annotations

from wsbridge.errors import MessageTooLong
from wsbridge.flow import Batch, Kind, valid_text
from wsbridge.framing import BareEncoder


class Decoder:
    """Splits a byte stream into messages; the separator is not part of a message.

    With `strip_cr`, one CR before the separator is not part of it either. At the end of the stream, the bytes after the last
    separator are a message too.
    """

    __slots__ = ("_limit", "_rest", "_separator", "_strip_cr")

    def __init__(self, separator: bytes, *, limit: int, strip_cr: bool = False) -> None:
        self._separator = separator
        self._limit = limit
        self._strip_cr = strip_cr
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Batch]:
        """Return at most one batch. Raises MessageTooLong."""
        messages = data.split(self._separator)
        rest = self._rest
        size = len(data) + len(rest)
        if rest:
            rest += messages[0]
            if len(messages) > 1:
                messages[0] = bytes(rest)
                self._rest = bytearray(messages.pop())
            else:
                messages.clear()
        elif messages[-1]:
            self._rest = bytearray(messages.pop())
        else:
            messages.pop()
        if self._limit and size > self._limit:
            self._enforce_limit(messages)
        return self._batch(messages, has_cr=b"\r" in data, is_ascii=data.isascii()) if messages else []

    def eof(self) -> list[Batch]:
        """Return the last message, if the stream ended without its separator. Raises MessageTooLong."""
        if not self._rest:
            return []
        last, self._rest = bytes(self._rest), bytearray()
        if self._limit and len(last) > self._limit:
            raise MessageTooLong(self._limit)
        return [Batch(Kind.TEXT, valid_text([last]))]

    def _batch(self, messages: list[bytes], *, has_cr: bool, is_ascii: bool = False) -> list[Batch]:
        # A search for one byte, not for CR LF: 1.4 us in 64 KiB instead of 72. The CR may also have come with the previous read.
        if self._strip_cr and (has_cr or messages[0][-1:] == b"\r"):
            messages = [message[:-1] if message[-1:] == b"\r" else message for message in messages]
        # A part of the first message may have come with the previous read.
        return [Batch(Kind.TEXT, messages if is_ascii and messages[0].isascii() else valid_text(messages))]

    def _enforce_limit(self, messages: list[bytes]) -> None:
        limit = self._limit
        for index, message in enumerate(messages):
            if len(message) - (self._strip_cr and message[-1:] == b"\r") > limit:
                before = self._batch(messages[:index], has_cr=True) if index else []
                raise MessageTooLong(limit, before=before)
        if len(self._rest) > limit + self._strip_cr:
            raise MessageTooLong(limit, before=self._batch(messages, has_cr=True) if messages else [])


class Encoder(BareEncoder):
    """Writes each text message and the separator, and each binary message as it is, with nothing appended."""

    __slots__ = ("_separator",)

    def __init__(self, separator: bytes) -> None:
        self._separator = separator

    def encode(self, batch: Batch) -> bytes:
        kind, messages = batch
        if kind is Kind.BINARY:
            return b"".join(messages)
        return self._separator.join([*messages, b""])
