"""The stderr of a child, cut into lines of any length for the log.

A line longer than PIECE is handed on in pieces: it is logged whatever its length, and never kept whole.
"""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.logs import ERROR, Pairs, extra, logger

PIECE = 1024 * 1024
"""Bytes of the longest line that is logged in one piece."""

log = logger("stderr")


def logged(pairs: Pairs) -> Callable[[bytes], None]:
    """Return what takes the stderr of a child and logs its lines; when nobody would see them it just takes them.

    It is read in any case, so that the program never blocks.
    """
    if not log.isEnabledFor(ERROR):
        return lambda data: None
    words = extra(pairs)
    return Lines(lambda line: log.error("%s", line, extra=words))


class Lines:
    """Give each line that was fed to `log`; the last one also when it does not end in a newline."""

    __slots__ = ("_log", "_rest")

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._rest = bytearray()

    def __call__(self, data: bytes) -> None:
        """Take bytes as they come; nothing at all means the end."""
        if not data:
            if self._rest:
                self._say(self._rest)
                self._rest = bytearray()
            return
        lines = data.split(b"\n")
        self._rest += lines[0]
        if len(lines) > 1:
            self._say(self._rest)
            for line in lines[1:-1]:
                self._say(line)
            self._rest = bytearray(lines[-1])
        while len(self._rest) >= PIECE:
            self._say(self._rest[:PIECE])
            del self._rest[:PIECE]

    def _say(self, line: bytes | bytearray) -> None:
        self._log(line.removesuffix(b"\r").decode("utf-8", "backslashreplace"))
