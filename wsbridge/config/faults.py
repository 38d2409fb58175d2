"""The errors of a configuration: each has a place, the path of a setting, and a sentence.

    wsbridge.toml:17: endpoint[2].max_programs: expected an integer, got "ten"

A path in a program holds indices from 0, as Python counts. A path in a text counts from 1, as users do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsbridge.config.places import Path
from wsbridge.rules.urls import hidden

BARE_KEY = re.compile("[A-Za-z0-9_-]+")
LONGEST_KEY = 60
"""Characters of a key that a text shows: an error is one line for people."""
TYPES: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    list: "an array",
    dict: "a table",
}
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, from 1; line 0 stands for the whole file. `file` is the name that the user gave."""

    file: str
    line: int

    def __str__(self) -> str:
        file = show_name(self.file)
        return f"{file}:{self.line}" if self.line else file


@dataclass(frozen=True, slots=True)
class Fault:
    """An error in a configuration. `path` is the text of a path, or empty if the fault concerns a whole file or its syntax."""

    place: Place
    path: str
    sentence: str

    def __str__(self) -> str:
        return ": ".join(filter(None, [str(self.place), self.path, self.sentence]))


def show_path(path: Path) -> str:
    """Return a path as in `endpoint[2].max_programs`: indices from 1, keys in quotes unless they are bare keys of TOML."""
    words = [f"[{part + 1}]" if isinstance(part, int) else f".{_show_key(part)}" for part in path]
    return "".join(words).removeprefix(".")


def show_name(file: str) -> str:
    """Return the name of a file for a line of text: an empty one, and one with unprintable characters, is in quotes."""
    file = hidden(file)
    return file if file and file.isprintable() else repr(file)


def show_type(value: object) -> str:
    """Return the name of a value's type in TOML, with its article: `an integer`. It never shows the value, which may be a secret."""
    return TYPES.get(type(value), "a date or time")


def _show_key(key: str) -> str:
    key = hidden(key)
    if len(key) > LONGEST_KEY:
        key = f"{key[:LONGEST_KEY]}…"
    return key if BARE_KEY.fullmatch(key) else f'"{"".join(map(_show_character, key))}"'


def _show_character(character: str) -> str:
    if character.isprintable() and character not in ESCAPES:
        return character
    return ESCAPES.get(character) or (f"\\u{ord(character):04X}" if ord(character) < 0x10000 else f"\\U{ord(character):08X}")
