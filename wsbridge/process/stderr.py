"""The stderr of a child, cut into lines of any length for the log.

What one read brings is one record, however many lines it holds: a program that floods its stderr costs the others
nothing that can be felt. A line longer than PIECE is handed on in pieces, and never kept whole.
"""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.logs import ERROR, Pairs, extra, logger

PIECE = 256 * 1024
"""Bytes of the longest line that is logged in one piece; the log's buffer holds several."""

log = logger("stderr")


def logged(pairs: Pairs, last: Callable[[str], None] | None = None) -> Callable[[bytes], None]:
    """Return what takes the stderr of a child and logs its lines, and gives the last line of each read to `last`.

    When nobody would see the lines it just takes them.

    It is read in any case, so that the program never blocks.
    """
    if not log.isEnabledFor(ERROR) and last is None:
        return lambda data: None

    def say(lines: list[str]) -> None:
        if last is not None:
            last(lines[-1])
        log.error("%d lines", len(lines), extra=extra(pairs) | {"lines": lines})

    return Lines(say)


class Lines:
    """Give the lines of each read to `log`; the last one also when it does not end in a newline."""

    __slots__ = ("_log", "_rest")

    def __init__(self, log: Callable[[list[str]], None]) -> None:
        self._log = log
        self._rest = bytearray()

    def __call__(self, data: bytes) -> None:
        """Take bytes as they come; nothing at all means the end."""
        lines = data.split(b"\n") if data else [b"", b""] if self._rest else [b""]
        self._rest += lines[0]
        complete: list[bytes | bytearray] = []
        if len(lines) > 1:
            complete = [self._rest, *lines[1:-1]]
            self._rest = bytearray(lines[-1])
        while len(self._rest) >= PIECE:
            complete.append(self._rest[:PIECE])
            del self._rest[:PIECE]
        if complete:
            self._log([line.removesuffix(b"\r").decode("utf-8", "backslashreplace") for line in complete])
