"""Where a URL's path leads below a directory.

The text of a path is judged here; what it names on the disk is asked through the one function that is given, so that
the walk is tested without a disk. Nothing outside the directory can be named: `..` never gets as far as the walk, and a
symbolic link that leads out is not found.
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
"""The one dotfile that a site is expected to have (RFC 8615)."""


class Found(Enum):
    """What a path of the disk is."""

    FILE = "file"
    DIRECTORY = "directory"
    NOTHING = "nothing"
    """Not there, outside of the directory, or neither of the two."""


@dataclass(frozen=True, slots=True)
class Target:
    """A file below a directory, the script's part of the path, and what follows it."""

    file: str
    script: Script


Look = Callable[[str], Found]
"""Say what lies at a path of components below the directory, `a/b`, links followed but not out of it."""


def clean(path: str) -> str:
    """Return a path without `//`, `.` and `..`, as Go's ServeMux does; a slash at the end stays."""
    cleaned = posixpath.normpath("/" + path.lstrip("/"))
    return cleaned + "/" if path.endswith(("/", "/.", "/..")) and cleaned != "/" else cleaned


def find_script(path: str, look: Look) -> Target | None:
    """Walk a clean path to its first component that is a file: the script. The rest is PATH_INFO."""
    components = path.split("/")[1:]
    for count in range(1, len(components) + 1):
        walked = "/".join(components[:count])
        match look(walked) if components[count - 1] else Found.NOTHING:
            case Found.FILE:
                rest = components[count:]
                return Target(walked, Script("/" + walked, "/" + "/".join(rest) if rest else ""))
            case Found.NOTHING:
                return None
    return None


def looker(root: str, *, dotfiles: bool = False) -> Look:
    """Return a Look at a real directory; `root` itself may be a link. Asks the disk at each call.

    A name that begins with a dot is not there without `dotfiles`: a checkout of git holds programs in `.git/hooks`.
    """
    top = os.path.realpath(root)

    def look(walked: str) -> Found:
        name = walked.rpartition("/")[2]
        if not dotfiles and name.startswith(".") and name != WELL_KNOWN:
            return Found.NOTHING
        # A name with a NUL or too long is not there.
        try:
            real = Path(os.path.realpath(os.path.join(top, walked), strict=True))
            if not real.is_relative_to(top):
                return Found.NOTHING
            return Found.FILE if real.is_file() else Found.DIRECTORY if real.is_dir() else Found.NOTHING
        except (OSError, ValueError):
            return Found.NOTHING

    return look
