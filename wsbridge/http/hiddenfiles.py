"""Files below a served directory that are never served: programs, secrets, and dotfiles unless the user enables them.

The server identifies a file by its real path and by its device and inode, so that no symbolic or hard link bypasses the rule.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

from wsbridge.files import open_at_once
from wsbridge.rules.paths import names_dotfile

Identity = tuple[int, int]

PRIVATE_KEY = b"PRIVATE KEY-----"
IN_A_URL = ("keyfile", "certfile")
KEY_BYTES = 256 * 1024
"""Bytes of a PEM file in which the server searches for a private key."""


class PrivateFiles:
    """The programs and secrets of all endpoints of a server: an endpoint that serves files serves none of them.

    `hide` adds files by name: the files of a COMMAND, and secrets. No file in a CGI directory is served. In a script directory, no
    executable file is served: pages may lie beside the scripts that they connect to. Nothing becomes public again while the server
    runs.
    """

    def __init__(self) -> None:
        self._files: dict[str, None] = {}
        self._renewable: dict[str, None] = {}
        """The names that may come to mean a file at another path: symbolic links, and secrets, which are renewed."""
        self._paths: set[str] = set()
        self._cgi: set[str] = set()
        self._scripts: set[str] = set()

    def hide(
        self,
        files: Iterable[str] = (),
        *,
        secrets: Iterable[str] = (),
        cgi_directory: str | None = None,
        script_directory: str | None = None,
    ) -> None:
        """Add files and directories."""
        for name in files:
            self._hide(name, is_secret=False)
        for name in secrets:
            self._hide(name, is_secret=True)
        if cgi_directory:
            self._cgi.add(os.path.realpath(cgi_directory))
        if script_directory:
            self._scripts.add(os.path.realpath(script_directory))

    def _hide(self, name: str, *, is_secret: bool) -> None:
        if not name:
            return
        path = os.path.abspath(name)
        if path not in self._files:
            self._files[path] = None
            self._paths.add(os.path.realpath(path))
        if is_secret or os.path.realpath(path) != path:
            self._renewable[path] = None

    def add(self, other: PrivateFiles) -> None:
        """Add the files and directories of another object."""
        self._files |= other._files
        self._renewable |= other._renewable
        self._paths |= other._paths
        self._cgi |= other._cgi
        self._scripts |= other._scripts

    def identities(self, *, has_hard_links: bool = True) -> frozenset[Identity]:
        """Return the current identities of the hidden files: a renewed key is a new file under the old name. Reads the disk.

        A hidden file that is not renewable has a second path only through a hard link. For a file with one hard link, a few
        identities are enough: those of all programs of 200 endpoints would take 2 ms.
        """
        found = set()
        for name in tuple(self._files if has_hard_links else self._renewable):
            with suppress(OSError, ValueError):
                status = os.stat(name)
                found.add((status.st_dev, status.st_ino))
        return frozenset(found)

    def hold(self, real: str, status: os.stat_result, identities: frozenset[Identity]) -> bool:
        """Whether the file at a real path is hidden."""
        is_named = real in self._paths or (status.st_dev, status.st_ino) in identities
        if is_named and not stat.S_ISDIR(status.st_mode):
            return True
        if any(is_below(real, directory) for directory in tuple(self._cgi)):
            return True
        executable = status.st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        return bool(executable) and any(is_below(real, directory) for directory in tuple(self._scripts))


class HiddenFiles:
    """Decides which files an endpoint does not serve: private files, and names that begin with a dot unless `dotfiles` is set."""

    def __init__(self, private: PrivateFiles, *, dotfiles: bool = False) -> None:
        self._dotfiles = dotfiles
        self.identities = private.identities
        self.holds = private.hold

    def hides(self, path: str) -> bool:
        """Whether a component of a URL's path is a dotfile that must not be served; `/.well-known/` is always served."""
        return not self._dotfiles and names_dotfile(path)


def is_below(path: str, root: str) -> bool:
    """Whether a real path is the directory `root` or lies below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def files_of_command(words: Iterable[str]) -> Iterator[str]:
    """Yield the possible file names in a command.

    These are its words, the words of a shell command within a word, and the text after a `=`.
    """
    for word in words:
        parts = [word]
        with suppress(ValueError):
            parts += shlex.split(word)
        for part in parts:
            yield part
            yield part.rpartition("=")[2]


def keys_in_url(url: str) -> list[str]:
    """Return the files that the query of an `amqps://` URL names: a client's certificate may contain its key."""
    with suppress(ValueError):
        return [value for name, value in parse_qsl(urlsplit(url).query) if name in IN_A_URL]
    return []


def holds_private_key(path: str) -> bool:
    """Whether a PEM file contains a private key: a certificate often shares a file with its key."""
    try:
        with open(path, "rb", opener=open_at_once) as file:
            return PRIVATE_KEY in file.read(KEY_BYTES)
    except OSError:
        return False
