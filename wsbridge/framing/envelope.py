"""Two streams in one: with `--passstderr`, each line names the stream that the program printed it on, stdout or stderr.

    {"stream":"stdout","data":"…"}
    {"stream":"stderr","data":"…"}

The bytes are those of Go's JSON encoder, which websocketd uses: no spaces, and `<`, `>`, `&`, U+2028 and U+2029 escaped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from wsbridge.errors import MessageTooLong
from wsbridge.flow import Batch, End
from wsbridge.framing import separated

ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


class Decoder:
    """Wraps the lines of one stream."""

    __slots__ = ("_head", "_lines")

    def __init__(self, stream: str, *, limit: int) -> None:
        self._lines = separated.Decoder(b"\n", limit=limit, strip_cr=True)
        self._head = b'{"stream":"%s","data":' % stream.encode()

    def feed(self, data: bytes) -> Sequence[Batch | End]:
        """Return at most one batch. Raises MessageTooLong."""
        try:
            return self._wrap(self._lines.feed(data))
        except MessageTooLong as error:
            raise MessageTooLong(error.limit, before=self._wrap(error.before)) from None

    def eof(self) -> Sequence[Batch | End]:
        """Return the last line, if it did not end in a newline. Raises MessageTooLong."""
        return self._wrap(self._lines.eof())

    def _wrap(self, items: Sequence[Batch | End]) -> Sequence[Batch | End]:
        return [Batch(item.kind, [self._envelope(line) for line in item.messages]) for item in items if isinstance(item, Batch)]

    def _envelope(self, line: bytes | bytearray) -> bytes:
        return self._head + json.dumps(line.decode(), ensure_ascii=False).translate(ESCAPES).encode() + b"}"
