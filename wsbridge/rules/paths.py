"""Maps the path of a URL to a file below a directory.

This module judges the text of a path. It reads the disk through a single function that the caller passes, so tests of the walk need no
disk. No path can name a file outside the directory: `..` never reaches the walk, and a symbolic link that leads out is not found.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from wsbridge.rules.environ import Script

WELL_KNOWN = ".well-known"
"""The only dotfile that a site is expected to serve (RFC 8615)."""


class PathType(Enum):
    """The type of a path on the disk."""

    FILE = "file"
    DIRECTORY = "directory"
    NOTHING = "nothing"
    """Missing, outside the directory, or neither a file nor a directory."""


@dataclass(frozen=True, slots=True)
class ScriptPath:
    """A file below a directory, with the script's part of the path and the part after it."""

    file: str
    script: Script


Lookup = Callable[[str], PathType]
"""Returns the type of a path of components below the directory, such as `a/b`. It follows links, but not out of the directory."""


def clean(path: str) -> str:
    """Return a path without `//`, `.` and `..`, as Go's ServeMux does; a slash at the end stays."""
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    return cleaned + "/" if path.endswith(("/", "/.", "/..")) and cleaned != "/" else cleaned


def find_script(path: str, lookup: Lookup) -> ScriptPath | None:
    """Walk a clean path to its first component that is a file: the script. The rest is PATH_INFO. None if there is no such file."""
    components = path.split("/")[1:]
    for count in range(1, len(components) + 1):
        walked = "/".join(components[:count])
        match lookup(walked) if components[count - 1] else PathType.NOTHING:
            case PathType.FILE:
                rest = components[count:]
                return ScriptPath(walked, Script("/" + walked, "/" + "/".join(rest) if rest else ""))
            case PathType.NOTHING:
                return None
    return None


def names_dotfile(path: str) -> bool:
    """Return whether a component of a clean path begins with a dot, except `/.well-known` at its start."""
    return "/." in path.removeprefix(f"/{WELL_KNOWN}" if f"{path}/".startswith(f"/{WELL_KNOWN}/") else "")


def make_lookup(root: str, *, dotfiles: bool = False) -> Lookup:
    """Return a Lookup for a real directory; `root` itself may be a link. It reads the disk at each call.

    Without `dotfiles`, a name that begins with a dot counts as missing: a git checkout holds programs in `.git/hooks`.
    """
    top = os.path.realpath(root)

    def lookup(walked: str) -> PathType:
        if not dotfiles and names_dotfile("/" + walked):
            return PathType.NOTHING
        # A name that contains a NUL or is too long counts as missing.
        try:
            real = Path(os.path.realpath(os.path.join(top, walked), strict=True))
            if not real.is_relative_to(top):
                return PathType.NOTHING
            return PathType.FILE if real.is_file() else PathType.DIRECTORY if real.is_dir() else PathType.NOTHING
        except (OSError, ValueError):
            return PathType.NOTHING

    return lookup
