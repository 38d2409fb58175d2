"""What lies below a served directory and is never served: programs, secrets, and dotfiles unless they are asked for.

A file is known by its real path and by its identity (device and inode), so that no link, symbolic or hard, is a way around.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

from wsbridge.rules.paths import WELL_KNOWN

Identity = tuple[int, int]

PRIVATE_KEY = b"PRIVATE KEY-----"
IN_A_URL = ("keyfile", "certfile")
KEY_BYTES = 256 * 1024
"""Bytes of a PEM file in which a private key is looked for."""


class Withheld:
    """Decides what is not served. `files` are withheld by name: those of COMMAND, keys.

    Of `cgi_directory` nothing is served, of `script_directory` nothing that is executable: pages may lie beside the scripts that
    they connect to. With `dotfiles` names that begin with a dot are served like others.
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
        """Return the identities that the files have now: a renewed key is a new file under the old name. Asks the disk."""
        found = set()
        for name in self._files:
            with suppress(OSError, ValueError):
                status = os.stat(name)
                found.add((status.st_dev, status.st_ino))
        return frozenset(found)

    def holds(self, real: str, status: os.stat_result, identities: frozenset[Identity]) -> bool:
        """Whether the file at a real path is withheld."""
        is_named = real in self._paths or (status.st_dev, status.st_ino) in identities
        if is_named and not stat.S_ISDIR(status.st_mode):
            return True
        if self._cgi is not None and is_below(real, self._cgi):
            return True
        executable = status.st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        return bool(executable) and self._scripts is not None and is_below(real, self._scripts)

    def hides(self, path: str) -> bool:
        """Whether a component of a URL's path is a dotfile that is not to be served; `/.well-known/` always is."""
        return not self._dotfiles and "/." in path.removeprefix(f"/{WELL_KNOWN}" if f"{path}/".startswith(f"/{WELL_KNOWN}/") else "")


def is_below(path: str, root: str) -> bool:
    """Whether a real path is a directory's, or below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def files_of_command(words: Iterable[str]) -> Iterator[str]:
    """Yield what may name a file in a command: its words, those of a shell's command in one of them, and what follows a `=`."""
    for word in words:
        parts = [word]
        with suppress(ValueError):
            parts += shlex.split(word)
        for part in parts:
            yield part
            yield part.rpartition("=")[2]


def keys_in_url(url: str) -> list[str]:
    """Return the files that the query of an `amqps://` URL names: a client's certificate may hold its key."""
    with suppress(ValueError):
        return [value for name, value in parse_qsl(urlsplit(url).query) if name in IN_A_URL]
    return []


def open_at_once(path: str, flags: int) -> int:
    """Open a file as the opener of `open`, without waiting: a FIFO would keep it until somebody writes."""
    return os.open(path, flags | os.O_NONBLOCK)


def holds_private_key(path: str) -> bool:
    """Whether a PEM file holds a private key: a certificate often comes in one file with its key."""
    try:
        with open(path, "rb", opener=open_at_once) as file:
            return PRIVATE_KEY in file.read(KEY_BYTES)
    except OSError:
        return False
