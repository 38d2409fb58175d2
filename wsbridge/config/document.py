"""Reads a configuration file in TOML, with the files that it includes, into one document that knows the place of each value.

    include = "conf.d/*.toml"        a string or a list of strings, at the top of a file

A pattern is relative to the folder of the file that contains it. A pattern may match no file; a plain name must exist. A file comes
before the files that it includes, and those come sorted for each pattern. Each file is read once, even if several patterns match it.

Reading collects errors: the document holds the readable files. It does not interpret the values.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from wsbridge.config.faults import Fault, Place, show_name, show_type
from wsbridge.config.includes import expand, is_pattern
from wsbridge.config.merging import ConfigFile, Merged, Table
from wsbridge.config.parsing import parse
from wsbridge.config.places import Path
from wsbridge.config.regularfile import read_regular
from wsbridge.errors import InvalidFile, UnusableFile, reason_of

MAX_BYTES = 1024 * 1024
"""A longer file is probably a mistake, such as the name of a log. 1 MiB holds thousands of endpoints, and takes seconds to parse."""
MAX_FILES = 100
"""A configuration of more files is probably a mistake, such as a pattern for the wrong folder."""


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration as it was read. A path is a tuple of keys, and of indices from 0 as in `tables`."""

    tables: Table
    """The merged tables, without `include`. If there are faults, parts are missing."""
    faults: tuple[Fault, ...]
    files: tuple[str, ...]
    """The absolute paths to watch for changes: all files, also those that could not be read, and the folders of patterns."""
    _merged: Merged = field(repr=False)

    def place(self, path: Path) -> Place:
        """Return the place of a path, or of the nearest path around it."""
        file, local = self._merged.find(path)
        return file.place(local)

    def folder(self, path: Path) -> str:
        """Return the absolute folder of the file that holds a path: relative names in a value are relative to it."""
        return self._merged.find(path)[0].folder

    def fault(self, path: Path, sentence: str) -> Fault:
        """Return an error at a path. Its text counts the entries of an array from 1, within the file that the place names."""
        file, local = self._merged.find(path)
        return file.fault(local, sentence)


def read_document(path: str) -> Document:
    """Read a configuration file and its includes. Errors show names as the user gave them: relative if `path` is relative."""
    reader = _Reader()
    reader.read(path, {}, lambda sentence: reader.faults.append(Fault(Place(path, 0), "", sentence)))
    merged = Merged(reader.parsed or [ConfigFile(path, _folder(path))])
    return Document(merged.tables, (*reader.faults, *merged.faults), tuple(reader.watched), merged)


class _Reader:
    """Reads files depth first, each of them once."""

    def __init__(self) -> None:
        self.parsed: list[ConfigFile] = []
        self.faults: list[Fault] = []
        self.watched: dict[str, None] = {}
        """A set that keeps its order."""
        self._seen: set[str] = set()
        """The real paths of the files, as links and several patterns may lead to one file."""
        self._is_full = False

    def read(self, name: str, chain: dict[str, str], complain: Callable[[str], None]) -> None:
        """Read a file and its includes. `chain` maps the real path of each including file to its name, from the first file on.

        `complain` reports, at the place that names the file, that the file cannot be read.
        """
        real = _real(name)
        if real in self._seen or self._is_full:
            return
        if len(self._seen) == MAX_FILES:
            self._is_full = True
            complain(f"the configuration has more than {MAX_FILES} files; include fewer files")
            return
        self._seen.add(real)
        self.watched[_absolute(name)] = None
        try:
            tables, places = parse(read_regular(name, limit=MAX_BYTES))
        except UnusableFile as error:
            complain(str(error))
        except InvalidFile as error:
            self.faults.append(Fault(Place(name, error.line), "", error.sentence))
        else:
            file = ConfigFile(name, _folder(name), tables, places)
            self.parsed.append(file)
            self._include(file, chain | {real: name})

    def _include(self, file: ConfigFile, chain: dict[str, str]) -> None:
        """Read the files that a file includes, and remove `include` from its tables."""
        value = file.tables.pop("include", [])
        for path, pattern in _items(("include",), value):
            if not isinstance(pattern, str) or not pattern:
                got = show_type(pattern) if pattern != "" else "an empty string"
                self.faults.append(file.fault(path, f'expected a file or a pattern, such as "conf.d/*.toml", got {got}'))
                continue
            names = self._expand(file, path, pattern)
            circular = [name for name in names if _real(name) in chain]
            if circular:
                self.faults.append(file.fault(path, _circle(circular[0], pattern, chain)))
            for name in names:
                self.read(name, chain, partial(self._complain, file, path, name))

    def _expand(self, file: ConfigFile, path: Path, pattern: str) -> tuple[str, ...]:
        """Return the files that a pattern names, and watch its folders; report why it cannot be expanded."""
        try:
            expansion = expand(pattern, os.path.dirname(file.name))
        except OSError as error:
            reason = reason_of(error).lower()
            self.watched[_absolute(error.filename)] = None
            self._complain(file, path, error.filename, f"cannot list this folder: {reason}; let the user that runs wsbridge read it")
        except ValueError as error:
            self.faults.append(file.fault(path, str(error)))
        else:
            self.watched |= dict.fromkeys(map(_absolute, expansion.folders))
            return expansion.names
        return ()

    def _complain(self, file: ConfigFile, path: Path, name: str, sentence: str) -> None:
        """Report, at the include that names a file, why the file cannot be read."""
        self.faults.append(file.fault(path, f"{show_name(name)}: {sentence}"))


def _items(path: Path, value: object) -> list[tuple[Path, object]]:
    """Return the items of an array with their paths; any other value counts as the only item."""
    return [((*path, index), item) for index, item in enumerate(value)] if isinstance(value, list) else [(path, value)]


def _circle(name: str, pattern: str, chain: dict[str, str]) -> str:
    """Return the sentence for an include of a file in the chain; the last file of the chain contains the include."""
    real = list(chain).index(_real(name))
    circle = [show_name(file) for file in [*chain.values()][real:]]
    if len(circle) > 1:
        return f"the files include each other in a circle: {' -> '.join([*circle, circle[0]])}; remove one of these includes"
    if is_pattern(pattern):
        return f'the pattern matches {circle[0]} itself; keep the included files in a folder of their own: "conf.d/*.toml"'
    return f"{circle[0]} includes itself; remove this include"


def _real(name: str) -> str:
    """Return the path of a file without links; of an impossible name, the name."""
    try:
        return os.path.realpath(name)
    except (OSError, ValueError):
        return name


def _absolute(name: str) -> str:
    """Return the absolute path of a file; the name itself if the working directory no longer exists."""
    try:
        return os.path.abspath(name)
    except OSError:
        return name


def _folder(name: str) -> str:
    return os.path.dirname(_absolute(name))
