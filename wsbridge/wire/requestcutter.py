"""Splits a stream of HTTP requests so that no piece holds the end of a head together with the bytes after it.

aiohttp's parser drops the bytes that follow an upgrade request in the same read. Its response to a request also depends on how
the stream was cut into segments. With these pieces, it treats every stream in the same way.
"""

from __future__ import annotations

from enum import Enum

END = b"\r\n\r\n"


class Part(Enum):
    """The part of a request that comes next in the stream."""

    HEAD = "head"
    BODY = "body"
    CHUNKS = "chunks"


class RequestCutter:
    """Determines how many of the bytes read belong together: a head, a body of known length, or chunks.

    The caller parses the head. It reports here which body the head announces, and where the chunks end.
    """

    def __init__(self) -> None:
        self.part = Part.HEAD
        self._remaining = 0
        self._last = b""
        """The last bytes of the current head or chunks: their end may span two pieces."""

    def cut(self, data: bytes, start: int) -> int:
        """Return the end of the next piece of `data`, which begins at `start`."""
        if self.part is Part.BODY:
            end = min(len(data), start + self._remaining)
            self._remaining -= end - start
            if not self._remaining:
                self.part = Part.HEAD
            return end
        # The end to search for may have begun in the previous piece.
        seam = self._last + data[start : start + 3]
        found = seam.find(END)
        if found >= 0:
            end = start + found + len(END) - len(self._last)
        else:
            found = data.find(END, start)
            end = found + len(END) if found >= 0 else len(data)
        self._last = b"" if found >= 0 else (self._last + data[max(start, end - 3) : end])[-3:]
        return end

    def expect_body(self, length: int) -> None:
        """Report that the head that has ended has a body of `length` bytes."""
        self.part, self._remaining = Part.BODY if length else Part.HEAD, length

    def expect_chunks(self) -> None:
        """Report that the head that has ended has a chunked body."""
        self.part = Part.CHUNKS

    def end_chunks(self) -> None:
        """Report that the chunks have ended; a head follows."""
        self.part, self._last = Part.HEAD, b""
