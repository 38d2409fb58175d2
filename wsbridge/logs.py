"""The format of the log: websocketd's lines, or one JSON object per line.

    Sat, 21 Nov 2026 02:11:01 +0000 | ACCESS | session    | url:'http://h/' id:'1795…' remote:'127.0.0.1' | CONNECT

The levels are websocketd's: debug, trace, access, info, error, fatal. A logger `wsbridge.<category>` writes each category. Every
line about a connection carries its fields, among them its id, as `extra=`. This module only formats: the installed handler decides
where the lines go. A record may hold several lines (`lines`), which have all other fields in common.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Mapping

DEBUG, TRACE, ACCESS, INFO, ERROR, FATAL, NONE = 10, 12, 15, 20, 40, 50, 60
LEVELS = {"debug": DEBUG, "trace": TRACE, "access": ACCESS, "info": INFO, "error": ERROR, "fatal": FATAL, "none": NONE}
NAMES = {DEBUG: "DEBUG", TRACE: "TRACE", ACCESS: "ACCESS", INFO: "INFO", ERROR: "ERROR", FATAL: "FATAL"}

LogFields = dict[str, str]

REPEAT_SECONDS = 60.0
CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029"
    r"\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Line ends, terminal control characters, lone surrogates, characters that change the text direction, and invisible characters.
The two joiners (U+200C, U+200D) are excluded, because ordinary words and emoji contain them."""
NO_FIELDS: LogFields = {}


def logger(category: str) -> logging.Logger:
    """Return the logger for a category: server, http, session, process, websocket, stderr."""
    return logging.getLogger(f"wsbridge.{category}")


def extra(fields: LogFields) -> dict[str, object]:
    """Return the `extra` argument that adds a connection's fields to a line: `logger.info(…, extra=extra(fields))`."""
    return {"fields": fields}


class LineFormatter(logging.Formatter):
    """websocketd's format. Control characters are escaped, so that one line stays one line and no text controls the terminal."""

    _second, _when = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, str] = getattr(record, "fields", NO_FIELDS)
        if _is_clean("".join(fields.values()), quote=True):
            shown = " ".join([f"{key}:'{value}'" for key, value in fields.items()])
        else:
            shown = " ".join([f"{key}:'{escape(value, quote=True)}'" for key, value in fields.items()])
        level = NAMES.get(record.levelno, record.levelname)
        if int(record.created) != self._second:
            self._second = int(record.created)
            self._when = time.strftime("%a, %d %b %Y %H:%M:%S %z", time.localtime(self._second))
        head = f"{self._when} | {level:<6} | {_category(record):<10} | {shown} | "
        return "\n".join([head + escape(line) for line in _lines(record, self)])


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time` (ISO 8601, UTC), `level`, `category`, the fields of the connection, `message`."""

    def format(self, record: logging.LogRecord) -> str:
        whole, fraction = divmod(record.created, 1)
        fields: Mapping[str, str] = getattr(record, "fields", NO_FIELDS)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int(fraction * 1e6):06d}Z",
            "level": NAMES.get(record.levelno, record.levelname).lower(),
            "category": _category(record),
            **fields,
        }
        return "\n".join([json.dumps({**line, "message": message}, ensure_ascii=True) for message in _lines(record, self)])


def send_to(handler: logging.Handler, level: int) -> None:
    """Send wsbridge's records from this level on to a handler, and also the records of asyncio and aiohttp."""
    # No line shows these fields, so logging need not determine them for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    for name in ("wsbridge", "asyncio", "aiohttp"):
        logging.getLogger(name).addHandler(handler)
    set_level(level)
    logging.getLogger("wsbridge").propagate = False


def set_level(level: int) -> None:
    """Set the lowest level of wsbridge's records that are logged."""
    logging.getLogger("wsbridge").setLevel(level)


class RepeatFilter:
    """Logs an error at once, and the same error again only after a minute: repeated attempts fail in the same way."""

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._log = log
        self._last = ""
        self._again = 0.0

    def error(self, sentence: str, now: float) -> None:
        """Log a sentence. `now` is in seconds of a monotonic clock."""
        if sentence != self._last or now >= self._again:
            self._last, self._again = sentence, now + REPEAT_SECONDS
            self._log.error("%s", sentence)


class RepeatFilters:
    """A RepeatFilter for each of several errors that occur in turn.

    When there are more than `LIMIT` errors, each may be logged again at once.
    """

    LIMIT = 16

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._log = log
        self._filters: dict[str, RepeatFilter] = {}

    def error(self, sentence: str, now: float) -> None:
        """Log a sentence. `now` is in seconds of a monotonic clock."""
        if sentence not in self._filters and len(self._filters) >= self.LIMIT:
            self._filters.clear()
        self._filters.setdefault(sentence, RepeatFilter(self._log)).error(sentence, now)

    def clear(self) -> None:
        """Log each error at once when it occurs again."""
        self._filters.clear()


class RateLimit:
    """Logs at most `LINES` lines of a kind per minute: an event that any client can cause must not fill a disk.

    After the first line of a kind in the next minute, it logs how many lines it left out. There are few kinds: a client cannot
    choose them.
    """

    LINES = 10
    SECONDS = 60.0

    def __init__(self, log: logging.Logger, level: int) -> None:
        self._log = log
        self._level = level
        self._window_start = -math.inf
        self._counts: Counter[str] = Counter()
        self._omitted: Counter[str] = Counter()

    def log(self, kind: str, sentence: str, fields: LogFields, now: float) -> bool:
        """Log a sentence of a kind, and return whether it was logged. `now` is in seconds of a monotonic clock."""
        if now >= self._window_start + self.SECONDS:
            self._window_start = now
            self._omitted = Counter({known: count - self.LINES for known, count in self._counts.items() if count > self.LINES})
            self._counts.clear()
        self._counts[kind] += 1
        if self._counts[kind] <= self.LINES:
            self._log.log(self._level, "%s", sentence, extra=extra(fields))
            if omitted := self._omitted.pop(kind, 0):
                self._log.log(self._level, "suppressed %d more lines of this kind: %s", omitted, kind)
        return self._counts[kind] <= self.LINES


def escape(text: str, *, quote: bool = False) -> str:
    """Return a text with its control characters escaped.

    The result is one line, does not control a terminal, and is displayed in its stored order.
    """
    # Almost every line is clean. A line that is not may be a megabyte of stderr, so a single regular expression escapes it.
    if _is_clean(text, quote=quote):
        return text
    if quote:
        text = text.replace("\\", "\\\\").replace("'", "\\'")
    return CONTROL.sub(_escaped, text)


def _category(record: logging.LogRecord) -> str:
    return record.name.rpartition(".")[2]


def count_lines(record: logging.LogRecord) -> int:
    """Return how many lines of the log a record makes."""
    return len(getattr(record, "lines", (record,)))


def _lines(record: logging.LogRecord, formatter: logging.Formatter) -> list[str]:
    lines: list[str] | None = getattr(record, "lines", None)
    if lines is not None:
        return lines
    message = record.getMessage()
    if not record.exc_info:
        return [message]
    try:
        return [f"{message}\n{formatter.formatException(record.exc_info)}"]
    except Exception as error:
        # The traceback module may fail on the frames of compiled code.
        return [f"{message}: {record.exc_info[1]!r} (cannot print its traceback: {error!r})"]


def _is_clean(text: str, *, quote: bool) -> bool:
    return text.isascii() and text.isprintable() and not (quote and ("'" in text or "\\" in text))


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
