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


class HiddenFiles:
    """Decides which files the server does not serve.

    `files` are hidden by name: the files of COMMAND, and keys. Of `cgi_directory`, no file is served. Of `script_directory`, no
    executable file is served: pages may lie beside the scripts that they connect to. With `dotfiles`, the server serves names that
    begin with a dot like all other names.
    """

    def __init__(
        self,
        files: Iterable[str] = (),
        *,
        cgi_directory: str | None = None,
        script_directory: str | None = None,
        dotfiles: bool = False,
    ) -> None:
        self._files = tuple(os.path.abspath(name) for name in dict.fromkeys(files) if name)
        self._paths = frozenset(map(os.path.realpath, self._files))
        self._cgi = os.path.realpath(cgi_directory) if cgi_directory else None
        self._scripts = os.path.realpath(script_directory) if script_directory else None
        self._dotfiles = dotfiles

    def identities(self) -> frozenset[Identity]:
        """Return the current identities of the hidden files: a renewed key is a new file under the old name. Reads the disk."""
        found = set()
        for name in self._files:
            with suppress(OSError, ValueError):
                status = os.stat(name)
                found.add((status.st_dev, status.st_ino))
        return frozenset(found)

    def holds(self, real: str, status: os.stat_result, identities: frozenset[Identity]) -> bool:
        """Whether the file at a real path is hidden."""
        is_named = real in self._paths or (status.st_dev, status.st_ino) in identities
        if is_named and not stat.S_ISDIR(status.st_mode):
            return True
        if self._cgi is not None and is_below(real, self._cgi):
            return True
        executable = status.st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        return bool(executable) and self._scripts is not None and is_below(real, self._scripts)

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
