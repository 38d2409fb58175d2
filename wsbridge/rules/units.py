"""Sizes and times with a unit: `16MiB`, `64k`, `25s`, `1m30s`.

A number without a unit counts in the unit of its flag, in Go's notation.
"""

from __future__ import annotations

import math
import re

from wsbridge.rules.numbers import INTEGER, LARGEST, OUT_OF_RANGE, parse_float, parse_int, parse_unsigned

SIZES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
"""Factors by the first letter of the unit. If only B follows it (kB, MB), they are powers of 1000; if iB follows it, powers of 1024."""

TIMES_MS = {"ms": 1, "s": 1000, "sec": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}

NUMBER = r"(?:0|[1-9](?:_?[0-9])*)(?:\.[0-9]+)?"
"""Without a leading 0, which means octal in a number without a unit."""
SIZE = re.compile(rf"({NUMBER}) ?([kmgt]?)(i?b)?\Z", re.IGNORECASE)
TIME = re.compile(rf"({NUMBER}) ?({'|'.join(sorted(TIMES_MS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)

WRITE_A_SIZE = "write a number of bytes, or a size such as 64k or 16MiB"
WRITE_MS = "write a whole number of milliseconds, or a time such as 500ms, 25s or 1m"
WRITE_SECONDS = "write a number of seconds, or a time such as 500ms, 25s or 1m"


def parse_size(text: str) -> int:
    """Parse a size in bytes. Raises ValueError."""
    if INTEGER.match(text):
        return parse_int(text)
    found = SIZE.match(text)
    if not found or ((found[3] or "").lower() == "ib" and not found[2]):
        raise ValueError(WRITE_A_SIZE)
    number, prefix, suffix = found.groups()
    factor = SIZES[prefix.lower()]
    if prefix and suffix and suffix.lower() == "b":
        factor = 1000 ** list(SIZES).index(prefix.lower())
    return _whole(float(number.replace("_", "")) * factor, WRITE_A_SIZE)


def parse_milliseconds(text: str) -> int:
    """Parse a time in milliseconds. Raises ValueError."""
    return parse_int(text) if INTEGER.match(text) else _whole(_time_ms(text, WRITE_MS), WRITE_MS)


def parse_unsigned_milliseconds(text: str) -> int:
    """Parse a time in milliseconds without a sign. Raises ValueError."""
    return parse_unsigned(text) if INTEGER.match(text) else parse_milliseconds(text)


def parse_seconds(text: str) -> float:
    """Parse a time in seconds. Raises ValueError."""
    try:
        return parse_float(text)
    except ValueError:
        return _time_ms(text, WRITE_SECONDS) / 1000


def show_size(size: int) -> str:
    """Return a size in the largest unit that gives a whole number, such as `16 MiB`; else in bytes."""
    for prefix, factor in reversed(SIZES.items()):
        if prefix and size and size % factor == 0:
            return f"{size // factor} {'K' if prefix == 'k' else prefix.upper()}iB"
    return str(size)


def _time_ms(text: str, advice: str) -> float:
    """Return the sum of the parts of a time such as 1m30s, in milliseconds. Raises ValueError."""
    total, rest = 0.0, text
    while found := TIME.match(rest):
        total += float(found[1].replace("_", "")) * TIMES_MS[found[2].lower()]
        rest = rest[found.end() :].lstrip(" ")
    if rest or not text.strip():
        raise ValueError(advice)
    return total


def _whole(number: float, advice: str) -> int:
    if number > LARGEST:
        raise ValueError(OUT_OF_RANGE)
    if not math.isclose(number, round(number), abs_tol=1e-6):
        raise ValueError(advice)
    return round(number)
