"""Tables of a configuration file as values of settings. The reader collects every fault and goes on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wsbridge.config.document import Document
from wsbridge.config.faults import Fault, show_type
from wsbridge.config.places import Path
from wsbridge.config.secrets import resolve as resolve_secret
from wsbridge.config.sentences import in_keys, unknown
from wsbridge.config.values import each, read_value, wrong
from wsbridge.errors import WrongValue
from wsbridge.settings.broker import split_addresses
from wsbridge.settings.declare import Fault as SettingFault
from wsbridge.settings.declare import Field, check_fault

HINTS = 100
"""Faults up to which an unknown key names the nearest known one: the search for it takes 0.2 ms."""


@dataclass(slots=True)
class Values:
    """The values of a table that could be read, and the names of the others."""

    values: dict[str, Any] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)


class Reader:
    """Reads the tables of a document; `faults` holds what is wrong."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.document = document
        self.environ = environ
        self.path = environ.get("PATH", os.defpath)
        """The folders of programs."""
        self.faults: dict[Fault, None] = dict.fromkeys(document.faults)
        """A set that keeps its order: the same fault counts once."""

    def fault(self, path: Path, sentence: str) -> None:
        """Record a fault."""
        self.faults[self.document.fault(path, sentence)] = None

    def setting_fault(self, path: Path, fault: SettingFault) -> None:
        """Record the fault of a setting in the table at `path`."""
        name = str(fault.path[-1])
        self.fault((*path, *fault.path), in_keys(fault.sentence, name))

    def table(self, path: Path, value: Any, example: str) -> dict[str, Any]:
        """Return a value if it is a table; else record a fault and return an empty table."""
        if isinstance(value, dict):
            return value
        self.fault(path, f"expected a table, got {show_type(value)}; write {example}")
        return {}

    def tables(self, path: Path, value: Any, example: str) -> list[tuple[Path, dict[str, Any]]]:
        """Return the entries of an array of tables, with their paths."""
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.fault(path, f"expected an array of tables, got {show_type(value)}; write {example}")
            return []
        return [((*path, index), entry) for index, entry in enumerate(value)]

    def read(self, path: Path, table: Mapping[str, Any], fields: Iterable[Field], *, more: Iterable[str] = ()) -> Values:
        """Return the values of a table with these settings; `more` are other keys that the table may have."""
        known = {setting.name: setting for setting in fields}
        read = Values()
        for key, value in table.items():
            if key in known:
                self._read_into(read, path, known[key], value)
            elif key not in more:
                self.fault((*path, key), unknown(key, [*known, *more] if len(self.faults) < HINTS else ()))
        return read

    def missing(self, path: Path, required: Iterable[Field], read: Values) -> list[Field]:
        """Return the required settings that have no value, and record those that are not given or empty."""
        missing = [setting for setting in required if read.values.get(setting.name, "") == ""]
        for name in (setting.name for setting in missing if setting.name not in read.wrong):
            self.fault((*path, name), f"empty; write a value, or remove {path[0]}" if name in read.values else f"missing: add {name}")
        return missing

    def _read_into(self, read: Values, path: Path, field: Field, value: Any) -> None:
        place = (*path, field.name)
        try:
            read.values[field.name] = self._secrets(place, field, value) if field.setting.is_secret else self._value(place, field, value)
        except WrongValue as error:
            for inner, sentence in error.faults:
                self.fault((*place, *inner), sentence)
            read.wrong.add(field.name)

    def _value(self, path: Path, field: Field, value: Any) -> Any:
        return read_value(field, value, folder=self.document.folder(path))

    def _secrets(self, path: Path, field: Field, value: Any) -> tuple[str, ...]:
        """Return strings that may be kept elsewhere: one, or an array of them. A single one may hold several, with commas."""
        folder = self.document.folder(path)

        def secret(item: Any) -> str:
            try:
                return resolve_secret(item, environ=self.environ, folder=folder)
            except ValueError as error:
                raise wrong(str(error)) from None

        urls = split_addresses(each(secret, value) if isinstance(value, list) else (secret(value),))
        if not urls:
            raise wrong("expected at least one address, got none")
        for fault in check_fault(field, urls):
            raise wrong(in_keys(fault.sentence, field.name))
        return urls
