"""Checks files, and reports when they have changed. A change counts once it is complete: two checks in a row find the same.

An editor may write a file in parts, or rename it for a moment. The server must not read a part of a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple


class Stamp(NamedTuple):
    """Facts that change with a file."""

    inode: int
    size: int
    modified_ns: int


class Found(Enum):
    """The result of a check."""

    NOTHING = "nothing"
    CHANGING = "changing"
    """A change that may go on."""
    CHANGED = "changed"


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a file; None if it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


class Watch:
    """The watched files. Each method reads the disk."""

    def __init__(self, files: Iterable[str], *, stamp: Callable[[str], Stamp | None] = stamp_of) -> None:
        self._stamp = stamp
        self._known = self._found = {path: stamp(path) for path in files}
        """The recorded state of the files, and their state at the last check."""

    def check(self) -> Found:
        """Compare the files with their recorded state."""
        before, self._found = self._found, {path: self._stamp(path) for path in self._known}
        if self._found == self._known:
            return Found.NOTHING
        return Found.CHANGED if self._found == before else Found.CHANGING

    def record(self) -> None:
        """Record the present state of the files. Call this before reading them: a change during the reading then counts."""
        self._known = self._found = {path: self._stamp(path) for path in self._known}

    def follow(self, files: Iterable[str], *, all_of_before: bool = False) -> None:
        """Watch these files from now on, and with `all_of_before` the earlier files as well."""
        paths = dict.fromkeys([*(self._known if all_of_before else ()), *files])
        self._known = self._found = {path: self._known[path] if path in self._known else self._stamp(path) for path in paths}
