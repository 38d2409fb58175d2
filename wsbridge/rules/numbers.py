"""Numbers and booleans in Go's notation (Go's package strconv): `0x1F90`, `1_000`, `t`."""

from __future__ import annotations

import math
import re

LARGEST = 2**63 - 1
OUT_OF_RANGE = "value out of range"
TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
INTEGER = re.compile(r"[+-]?(0[xX]_?[0-9a-fA-F](_?[0-9a-fA-F])*|0[bB]_?[01](_?[01])*|0[oO](_?[0-7])+|0(_?[0-7])*|[1-9](_?[0-9])*)\Z")


def parse_bool(text: str) -> bool:
    """Parse a boolean as Go does. Raises ValueError."""
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError("write true or false")


def parse_int(text: str) -> int:
    """Parse an integer as in Go source: `0x1F90`, `1_000`, and a leading 0 for octal. Raises ValueError."""
    if not INTEGER.match(text):
        raise ValueError("write a whole number; a leading 0 means octal" if text.startswith("0") else "write a whole number")
    digits = text.lstrip("+-")
    if re.match(r"0_?[0-7]", digits):
        text = text.replace("0", "0o", 1)
    number = int(text, 0)
    if not -LARGEST - 1 <= number <= LARGEST:
        raise ValueError(OUT_OF_RANGE)
    return number


def parse_float(text: str) -> float:
    """Parse a time as a finite number. Raises ValueError."""
    number = float(text)
    # Python also accepts digits of other scripts, and blanks around a number.
    if not math.isfinite(number) or not text.isascii() or text != text.strip():
        raise ValueError("write a number")
    return number


def parse_unsigned(text: str) -> int:
    """Parse an integer without a sign. Raises ValueError."""
    if text[:1] in ("+", "-"):
        raise ValueError("write a whole number without a sign")
    return parse_int(text)
