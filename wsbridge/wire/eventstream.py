"""Event streams (HTML, section 9.2, "Server-sent events"): messages of a channel in the form that a browser's EventSource reads.

`id:` is the position after a message. The browser sends the last such id back as Last-Event-ID. Text is sent as it is, each of
its lines in a `data:` line. CR and LF inside a message arrive as LF: the format has no other line end. A binary message is a
`binary` event, in base64. A loss is a `lost` event, whose data is the number of messages or `?`. A `broker` event reports that
the connection to the broker is lost (`away`) or back (`here`).
"""

from __future__ import annotations

import re
from base64 import b64encode

from wsbridge.flow import Batch, Kind
from wsbridge.wire.positioned import HERE

LINE_ENDS = re.compile(rb"\r\n|\r|\n")


class Events:
    """The wire of event streams."""

    name = "events"

    def encode(self, batch: Batch, mark: str, first: int) -> bytes:
        head = mark.encode()
        if batch.kind is Kind.BINARY:
            events = [
                b"event: binary\nid: %b%d\ndata: %b\n\n" % (head, number, b64encode(message))
                for number, message in enumerate(batch.messages, first + 1)
            ]
        else:
            events = [
                b"".join((b"id: %b%d\ndata: " % (head, number), _lines(message), b"\n\n"))
                for number, message in enumerate(batch.messages, first + 1)
            ]
        return b"".join(events)

    def published(self, at: int | None) -> bytes:
        return b""

    def joined(self, mark: str, number: int) -> bytes:
        # A browser dispatches no event without data, but it keeps the id.
        return f"id: {mark}{number}\n\n".encode()

    def lost(self, messages: int | None, mark: str, number: int) -> bytes:
        count = "?" if messages is None else str(messages)
        return f"event: lost\nid: {mark}{number}\ndata: {count}\n\n".encode()

    def broker(self, is_connected: bool) -> bytes:
        return f"event: broker\ndata: {HERE[is_connected]}\n\n".encode()


def _lines(message: bytes | bytearray) -> bytes | bytearray:
    return LINE_ENDS.sub(b"\ndata: ", message) if b"\n" in message or b"\r" in message else message
