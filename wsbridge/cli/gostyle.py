"""Converts Go's notation of flags into click's: one pure function.

websocketd is a Go program. Its users write `-port 80`, `--port=80`, `--port 80`, `--binary` and `--binary=false`. The first word
that is not a flag is COMMAND, and all later words belong to the command.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from wsbridge.errors import UsageError

HELP = ("h", "help")
LARGEST = 2**63 - 1
TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
INTEGER = re.compile(r"[+-]?(0[xX]_?[0-9a-fA-F](_?[0-9a-fA-F])*|0[bB]_?[01](_?[01])*|0[oO](_?[0-7])+|0(_?[0-7])*|[1-9](_?[0-9])*)\Z")


def to_click(words: Sequence[str], takes_value: Mapping[str, bool], elsewhere: Mapping[str, str] = {}) -> list[str]:
    """Return the same command line with every flag as `--name=value`, and with `--` before COMMAND.

    `takes_value` maps every known flag to whether it has a value: False for a boolean. `elsewhere` maps the flags of other
    commands to those commands. Raises UsageError, with Go's wording.
    """
    flags: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {word}")
        if name in HELP:
            return ["--help"]
        if name not in takes_value:
            hint = ""
            if owner := elsewhere.get(name):
                hint = f"; it is a flag of {owner}"
            elif near := get_close_matches(name, takes_value, 1):
                hint = f"; did you mean -{near[0]}?"
            # Show only the scheme of a URL: the text before a "=" may contain half a password.
            raise UsageError(f"flag provided but not defined: -{re.sub('://.*', '://…', name, flags=re.DOTALL)}{hint}")
        if takes_value[name] and not equals:
            if not rest:
                raise UsageError(f"flag needs an argument: -{name}")
            value = rest.pop(0)
        flags.append(f"--{name}={value if equals or takes_value[name] else 'true'}")
    return [*flags, "--", *rest]


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
        raise ValueError("value out of range")
    return number


def parse_float(text: str) -> float:
    """Parse a time as a finite number. Raises ValueError."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("write a number")
    return number


def parse_unsigned(text: str) -> int:
    """Parse an integer without a sign. Raises ValueError."""
    if text[:1] in ("+", "-"):
        raise ValueError("write a whole number without a sign")
    return parse_int(text)
