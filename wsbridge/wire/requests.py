"""Where a stream of HTTP requests may be cut, so that no piece holds the end of a head and what follows it.

aiohttp's parser forgets what lies in the same read behind a request that asks for an upgrade, and answers a request by
how it was cut into segments. Fed with these pieces it sees every stream in the same way.
"""

from __future__ import annotations

from enum import Enum

END = b"\r\n\r\n"


class Part(Enum):
    """What comes next in the stream."""

    HEAD = "head"
    BODY = "body"
    CHUNKS = "chunks"


class RequestCutter:
    """Says how much of what was read belongs together: a head, a body of known length, or chunks.

    The caller reports what the head said of the body, since it has parsed the head, and the end of chunks.
    """

    def __init__(self) -> None:
        self.part = Part.HEAD
        self._left = 0
        self._last = b""
        """The last bytes of the head or of the chunks so far: the end may be cut in two."""

    def cut(self, data: bytes, start: int) -> int:
        """Return where the next piece of `data` ends that begins at `start`."""
        if self.part is Part.BODY:
            end = min(len(data), start + self._left)
            self._left -= end - start
            if not self._left:
                self.part = Part.HEAD
            return end
        # The end that is searched for may have begun in the piece before.
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
        """The head that has ended has a body of so many bytes."""
        self.part, self._left = Part.BODY if length else Part.HEAD, length

    def expect_chunks(self) -> None:
        """The head that has ended has a body in chunks."""
        self.part = Part.CHUNKS

    def end_chunks(self) -> None:
        """The chunks have ended; a head follows."""
        self.part, self._last = Part.HEAD, b""
