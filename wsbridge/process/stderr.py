"""Splits the stderr of a child into lines of any length for the log.

Each read makes one log record, however many lines it holds, so a program that floods its stderr does not noticeably slow other
sessions. A line longer than PIECE is passed on in pieces, and never kept whole.
"""

from __future__ import annotations

from collections.abc import Callable

from wsbridge.logs import ERROR, LogFields, extra, logger

PIECE = 256 * 1024
"""Bytes of the longest line that is logged in one piece; the log's buffer holds several such lines."""

log = logger("stderr")


def logged(fields: LogFields, last: Callable[[str], None] | None = None) -> Callable[[bytes], None]:
    """Return a function that logs the lines of a child's stderr, and passes the last line of each read to `last`.

    If the log level hides the lines and there is no `last`, the function discards them. The caller reads stderr in any case, so
    that the program never blocks.
    """
    if not log.isEnabledFor(ERROR) and last is None:
        return lambda data: None

    def log_lines(lines: list[str]) -> None:
        if last is not None:
            last(lines[-1])
        log.error("%d lines", len(lines), extra=extra(fields) | {"lines": lines})

    return Lines(log_lines)


class Lines:
    """Passes the lines of each read to `log`, and the last line also if it does not end in a newline."""

    __slots__ = ("_log", "_rest")

    def __init__(self, log: Callable[[list[str]], None]) -> None:
        self._log = log
        self._rest = bytearray()

    def __call__(self, data: bytes) -> None:
        """Accept bytes as they arrive; empty bytes mean the end."""
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
