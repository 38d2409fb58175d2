"""Merges the tables of several files into one, and keeps which file each part came from.

    arrays of tables at the top level    concatenated, in the order of the files
    tables                               merged key by key
    all other values                     an error if two files set the same key

An array of tables below the top level counts as a value: only one file may set it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wsbridge.config.faults import Fault, Place, show_path
from wsbridge.config.places import Path, nearest

Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file of the configuration: the name that the user gave, its absolute folder, its tables and the lines of their paths."""

    name: str
    folder: str
    tables: Table = field(default_factory=dict, repr=False)
    places: dict[Path, int] = field(default_factory=dict, repr=False)

    def place(self, path: Path) -> Place:
        """Return the place of a path, or of the nearest path around it; the whole file if there is none."""
        return Place(self.name, self.places.get(nearest(self.places, path), 0))

    def fault(self, path: Path, sentence: str) -> Fault:
        """Return an error at a path of this file."""
        return Fault(self.place(path), show_path(path), sentence)


class Merged:
    """The tables of one or more files. It owns the tables of the files from then on.

    Each conflict is one of `faults`; the value of the first file stays.
    """

    def __init__(self, files: Sequence[ConfigFile]) -> None:
        self.tables: Table = {}
        self.faults: list[Fault] = []
        self._files = files
        self._entries: dict[str, list[tuple[ConfigFile, int]]] = {}
        """For each array of tables at the top level: the file of each entry, and its index in that file."""
        for file in files:
            for key, value in file.tables.items():
                if _is_array_of_tables(value) and _is_array_of_tables(self.tables.setdefault(key, [])):
                    self.tables[key] += value
                    self._entries.setdefault(key, []).extend((file, index) for index in range(len(value)))
                else:
                    self._set(self.tables, (key,), value, file)

    def find(self, path: Path) -> tuple[ConfigFile, Path]:
        """Return the file that holds a path, or most of it, and the path in that file, where an index may be smaller."""
        match path:
            case (str(key), int(index), *rest) if 0 <= index < len(self._entries.get(key, ())):
                file, local = self._entries[key][index]
                return file, (key, local, *rest)
        # max returns the first of equals, so the first file that mentions a table is the place of the table.
        return max(self._files, key=lambda file: len(nearest(file.places, path))), path

    def _set(self, table: Table, path: Path, value: object, file: ConfigFile) -> None:
        """Set the last key of a path in its merged table, or merge two tables."""
        key = path[-1]
        assert isinstance(key, str)
        earlier = table.get(key)
        if key not in table:
            table[key] = value
        elif isinstance(value, dict) and isinstance(earlier, dict):
            for inner, item in value.items():
                self._set(earlier, (*path, inner), item, file)
        else:
            self.faults.append(file.fault(path, self._conflict(path, value, earlier)))

    def _conflict(self, path: Path, value: object, earlier: object) -> str:
        first, _ = self.find(path)
        name, place = show_path(path), first.place(path)
        if _is_array_of_tables(value) and isinstance(earlier, dict):
            return f"{place} defines {name} as one table; write [{name}] here, or [[{name}]] in both places"
        if isinstance(value, dict) and _is_array_of_tables(earlier):
            return f"{place} defines {name} as an array of tables; write [[{name}]] here"
        return f"{place} already sets this key; remove one of the two"


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
