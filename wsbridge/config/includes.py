"""Expands the pattern of an include into the files that match it, and the folders in which later matches can appear."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class Expansion:
    """`names` is sorted. `folders` are the folders that the pattern searches, also those that do not exist."""

    names: tuple[str, ...]
    folders: tuple[str, ...]


def is_pattern(name: str) -> bool:
    """Whether a name contains `*`, `?` or `[`, and so may match any number of files, also none."""
    return MAGIC.search(name) is not None


def expand(pattern: str, folder: str) -> Expansion:
    """Return the matches of a pattern; a relative pattern is relative to `folder`. A plain name matches itself, even if it is missing.

    The syntax is that of a shell: `*`, `?`, `[a-z]` and `[!a-z]`, within one part of a path. Only a dot matches the dot of a hidden file.
    Raises OSError for a folder that exists and cannot be listed, with the folder as `filename`, and ValueError with a sentence.
    """
    if "\0" in pattern:
        raise ValueError("a file name cannot contain U+0000; remove this character")
    if "**" in pattern.split("/"):
        raise ValueError("** is not supported; write one pattern for each level of folders: *.toml and */*.toml")
    found = ["/" if pattern.startswith("/") else folder]
    folders: list[str] = []
    for part in filter(None, pattern.split("/")):
        if is_pattern(part):
            folders += [base for base in found if not os.path.isfile(base)]
            found = [os.path.join(base, name) for base in found for name in _list(base) if _matches(name, part)]
        else:
            found = [os.path.join(base, part) for base in found]
    # A plain part behind a pattern, as in sites/*/wsbridge.toml, is in some of the folders only.
    names = [name for name in found if os.path.lexists(name)] if is_pattern(pattern) else found
    return Expansion(tuple(sorted(names)), tuple(folders))


def _list(folder: str) -> list[str]:
    """Return the names in a folder; none if it is missing, or if it is a file."""
    try:
        return os.listdir(folder or ".")
    except (FileNotFoundError, NotADirectoryError):
        return []


def _matches(name: str, part: str) -> bool:
    return fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
