"""Converts Go's notation of flags into click's: one pure function.

websocketd is a Go program. Its users write `-port 80`, `--port=80`, `--port 80`, `--binary` and `--binary=false`. The first word
that is not a flag is COMMAND, and all later words belong to the command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from wsbridge.errors import UsageError

HELP = ("h", "help")


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
