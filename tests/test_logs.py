"""The format of the log: exactly websocketd's lines, or JSON."""

from __future__ import annotations

import json
import logging
import time
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsbridge.logs import (
    ACCESS,
    DEBUG,
    ERROR,
    FATAL,
    INFO,
    LEVELS,
    NONE,
    TRACE,
    JsonFormatter,
    LineFormatter,
    RateLimit,
    RepeatFilter,
    RepeatFilters,
    extra,
    logger,
)

WHEN = 1795227061.25
"""Sat, 21 Nov 2026 02:11:01.25 UTC."""


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC in a test."""
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def record(
    message: str, *values: object, level: int = INFO, category: str = "server", fields: dict[str, str] | None = None
) -> logging.LogRecord:
    """Return a record like those of the package's loggers, at a fixed time."""
    words = extra(fields) if fields is not None else None
    made = logger(category).makeRecord(f"wsbridge.{category}", level, "file.py", 1, message, values, None, extra=words)
    made.created = WHEN
    return made


def line(message: str, **how: object) -> str:
    return LineFormatter().format(record(message, **how))  # type: ignore[arg-type]


def after_time(formatted: str) -> str:
    return formatted.partition(" | ")[2]


@pytest.mark.parametrize(
    ("made", "formatted"),
    [
        (
            record("Starting WebSocket server   : %s", "ws://127.0.0.1:8080/"),
            "Sat, 21 Nov 2026 02:11:01 +0000 | INFO   | server     |  | Starting WebSocket server   : ws://127.0.0.1:8080/",
        ),
        (
            record(
                "CONNECT",
                level=ACCESS,
                category="session",
                fields={
                    "url": "http://127.0.0.1:8080/",
                    "id": "1795227061430539556",
                    "remote": "127.0.0.1",
                    "command": "/usr/bin/cat",
                    "origin": "file:",
                },
            ),
            "Sat, 21 Nov 2026 02:11:01 +0000 | ACCESS | session    | url:'http://127.0.0.1:8080/' id:'1795227061430539556' "
            "remote:'127.0.0.1' command:'/usr/bin/cat' origin:'file:' | CONNECT",
        ),
    ],
    ids=["a server's", "a connection's"],
)
@pytest.mark.usefixtures("utc")
def test_line(made: logging.LogRecord, formatted: str) -> None:
    """Lines equal websocketd's: an RFC 1123 time with a numeric zone, padded level and category, fields in order, and the message."""
    assert LineFormatter().format(made) == formatted


def test_local_time(monkeypatch: pytest.MonkeyPatch, utc: None) -> None:
    """The time of a line is local, with its offset."""
    monkeypatch.setenv("TZ", "EST5")
    time.tzset()
    assert line("x").startswith("Fri, 20 Nov 2026 21:11:01 -0500 | ")


@pytest.mark.parametrize(
    ("level", "name"),
    [(DEBUG, "DEBUG "), (TRACE, "TRACE "), (ACCESS, "ACCESS"), (INFO, "INFO  "), (ERROR, "ERROR "), (FATAL, "FATAL ")],
)
def test_level_names(level: int, name: str) -> None:
    """The levels have websocketd's names, padded to six columns."""
    assert after_time(line("x", level=level)).startswith(f"{name} | ")


def test_level_order() -> None:
    """The order is debug < trace < access < info < error < fatal; `none` disables the log."""
    assert list(LEVELS) == ["debug", "trace", "access", "info", "error", "fatal", "none"]
    assert sorted(LEVELS.values()) == list(LEVELS.values()) == [DEBUG, TRACE, ACCESS, INFO, ERROR, FATAL, NONE]
    assert len(set(LEVELS.values())) == 7


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 'quoted' \"text\"", "plain 'quoted' \"text\""),
        ("é€😀", "é€😀"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x00\x07\x7f\x9b", "\\x00\\x07\\x7f\\x9b"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("caf\udce9", "caf\\xe9"),
        ("http://evil\u202egnp.elif", "http://evil\\u202egnp.elif"),
        ("\u2066a\u2069", "\\u2066a\\u2069"),
        ("\u200e\u200f\u061c", "\\u200e\\u200f\\u061c"),
        ("pass\u200bword\ufeff\u00ad", "pass\\u200bword\\ufeff\\xad"),
        ("\U000e0041", "\\U000e0041"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
        ("\u05e9\u05dc\u05d5\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    """Control characters in a message are escaped, including C1 and invalid UTF-8; the other characters are unchanged."""
    assert after_time(line(text, level=ERROR, category="stderr")) == f"ERROR  | stderr     |  | {shown}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://h/'", r"http://h/\'"),
        ("' id:'forged", r"\' id:\'forged"),
        ("a\n| b\x1b", "a\\n| b\\x1b"),
        ("é", "é"),
    ],
)
def test_values_are_escaped(value: str, shown: str) -> None:
    """Quotes and control characters in the values of fields are escaped."""
    assert after_time(line("x", fields={"url": value})) == f"INFO   | server     | url:'{shown}' | x"


@settings(deadline=None)
@given(message=st.text(), value=st.text() | st.text(alphabet="'\\\n | a"))
def test_one_line_each(message: str, value: str) -> None:
    """Every record is one line of valid UTF-8 without control characters."""
    formatted = line(message.replace("%", "%%"), fields={"url": value})
    assert formatted.splitlines() == [formatted]
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in formatted)
    formatted.encode()


def test_no_control_character_remains() -> None:
    """Values and messages have no bidirectional control, line separator or terminal control character."""
    orders = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "BN", "B"}
    every = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp")]
    harmful = [character for character in every if unicodedata.bidirectional(character) in orders or character in "\u200e\u200f\u061c"]
    text = "".join(character for character in harmful if character not in "\u200c\u200d" and ord(character) < 0x10000)
    assert len(text) > 60
    assert after_time(line(text)).isascii()
    assert line("x", fields={"origin": text}).isascii()


def test_exception() -> None:
    """An exception's traceback is on the line of its message."""
    try:
        raise ValueError("told")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (type(error), error, error.__traceback__)
    formatted = LineFormatter().format(made)
    assert formatted.splitlines() == [formatted]
    assert "failed\\nTraceback" in formatted
    assert "ValueError: told" in formatted


@pytest.mark.parametrize(
    ("made", "fields"),
    [
        (
            record("port %d", 80),
            {"time": "2026-11-21T02:11:01.250000Z", "level": "info", "category": "server", "message": "port 80"},
        ),
        (
            record("CONNECT", level=ACCESS, category="session", fields={"url": "http://h/'\n", "id": "17"}),
            {
                "time": "2026-11-21T02:11:01.250000Z",
                "level": "access",
                "category": "session",
                "url": "http://h/'\n",
                "id": "17",
                "message": "CONNECT",
            },
        ),
        (
            record("é\x1b\n", level=FATAL, category="stderr"),
            {"time": "2026-11-21T02:11:01.250000Z", "level": "fatal", "category": "stderr", "message": "é\x1b\n"},
        ),
    ],
)
def test_json(made: logging.LogRecord, fields: dict[str, str]) -> None:
    """Each line is an object: time in UTC, level, category, the connection's fields, message."""
    formatted = JsonFormatter().format(made)
    assert (json.loads(formatted), formatted.splitlines()) == (fields, [formatted])


@settings(deadline=None)
@given(message=st.text(), value=st.text())
def test_json_of_any_text(message: str, value: str) -> None:
    """Every record can be parsed from its JSON."""
    formatted = JsonFormatter().format(record("%s", message, fields={"url": value}))
    fields = json.loads(formatted.encode())
    assert (fields["message"], fields["url"], formatted.count("\n")) == (message, value, 0)


def test_categories() -> None:
    """Each category has its logger below the package's logger, so that one level applies to all."""
    package = logging.getLogger("wsbridge")
    assert (logger("session").name, logger("session").parent) == ("wsbridge.session", package)


def test_repeated_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A repeated failure is logged again after a minute; a different failure is logged at once."""
    seldom = RepeatFilter(logger("test"))
    for now, sentence in [(0, "a"), (1, "a"), (59, "a"), (60, "a"), (61, "b"), (62, "a"), (63, "a"), (300, "a")]:
        seldom.error(sentence, now)
    assert caplog.messages == ["a", "a", "b", "a", "a"]


def test_several_errors_in_turn(caplog: pytest.LogCaptureFixture) -> None:
    """Errors that occur in turn are each logged once a minute; after `clear`, at once."""
    filters = RepeatFilters(logger("test"))
    for now, sentence in [(0, "a"), (1, "b"), (2, "a"), (3, "b"), (60, "a")]:
        filters.error(sentence, now)
    filters.clear()
    filters.error("a", 61)
    assert caplog.messages == ["a", "b", "a", "a"]


def test_too_many_errors_in_turn(caplog: pytest.LogCaptureFixture) -> None:
    """With too many different errors, each may be logged again at once."""
    filters = RepeatFilters(logger("test"))
    errors = [str(number) for number in range(RepeatFilters.LIMIT + 1)]
    for sentence in (*errors[1:], *errors[1:], errors[0], errors[1]):
        filters.error(sentence, 62)
    assert caplog.messages == [*errors[1:], "0", "1"]


def test_rate_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Ten lines of each kind are logged per minute; the next minute reports the number of suppressed lines."""
    ration = RateLimit(logging.getLogger("test"), ERROR)
    for number in range(25):
        ration.log("a", f"a {number}", {}, now=100.0)
    ration.log("b", "b", {}, now=159.0)
    ration.log("a", "a again", {}, now=160.0)
    ration.log("b", "b again", {}, now=161.0)
    ration.log("a", "a at last", {}, now=220.0)
    left_out = "suppressed 15 more lines of this kind: a"
    assert caplog.messages == [*(f"a {number}" for number in range(10)), "b", "a again", left_out, "b again", "a at last"]
