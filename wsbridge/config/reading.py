"""Tables of a configuration file as values of settings. The reader collects every fault and continues."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

from wsbridge.config.document import Document
from wsbridge.config.faults import Fault, show_type
from wsbridge.config.places import Path
from wsbridge.config.secrets import resolve as resolve_secret
from wsbridge.config.sentences import in_keys, unknown
from wsbridge.config.values import each, located, read_value, wrong
from wsbridge.errors import WrongValue
from wsbridge.rules.urls import hidden
from wsbridge.settings.broker import split_addresses
from wsbridge.settings.declare import Fault as SettingFault
from wsbridge.settings.declare import Field, check_fault

HINTS = 100
"""Faults up to which an unknown key names the nearest known one: the search for it takes 0.2 ms."""

URLS = 100
"""URLs with a user up to which a sentence loses exactly these users. With more, it loses all from the first URL to the last `@`."""


@dataclass(slots=True)
class Values:
    """The values of a table that could be read, and the names of the unreadable values."""

    values: dict[str, Any] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)


class Reader:
    """Reads the tables of a document; `faults` holds their faults."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.document = document
        self.environ = environ
        self.path = environ.get("PATH", os.defpath)
        """The folders of programs."""
        self.faults: dict[Fault, None] = dict.fromkeys(document.faults)
        """A set that keeps its order: the same fault counts once."""

    def fault(self, path: Path, sentence: str) -> None:
        """Record a fault. Its sentence may quote values: the users and passwords of URLs in them are hidden."""
        if ":/" in sentence:
            sentence = self._hidden(sentence)
        self.faults[self.document.fault(path, sentence)] = None

    def _hidden(self, sentence: str) -> str:
        if len(self._urls) > URLS:
            return hidden(sentence)
        for value, shown in self._urls.items():
            sentence = sentence.replace(value, shown)
        return sentence

    @cached_property
    def _urls(self) -> dict[str, str]:
        """The strings of the document that hold a user of a URL, unchanged and as a text quotes them, each with its replacement."""
        found = {value: hidden(value) for value in _strings(self.document.tables) if "@" in value}
        return {form(value): shown for value, shown in found.items() if shown != value for form in (str, _quoted)}

    def setting_fault(self, path: Path, fault: SettingFault) -> None:
        """Record the fault of a setting in the table at `path`."""
        name = str(fault.path[-1])
        self.fault((*path, *fault.path), in_keys(fault.sentence, name))

    def table(self, path: Path, value: Any, example: str) -> dict[str, Any]:
        """Return a value if it is a table; else record a fault and return an empty table."""
        return self.maybe_table(path, value, example) or {}

    def maybe_table(self, path: Path, value: Any, example: str) -> dict[str, Any] | None:
        """Return a value if it is a table; else record a fault."""
        if isinstance(value, dict):
            return value
        self.fault(path, f"expected a table, got {show_type(value)}; write {example}")
        return None

    def tables(self, path: Path, value: Any, example: str) -> list[tuple[Path, dict[str, Any]]]:
        """Return the entries of an array of tables, with their paths; record a fault for each other value."""
        if isinstance(value, list):
            places: list[Path] = [(*path, index) for index in range(len(value))]
            entries = [(place, self.maybe_table(place, entry, example)) for place, entry in zip(places, value, strict=True)]
            return [(place, entry) for place, entry in entries if entry is not None]
        self.fault(path, f"expected an array of tables, got {show_type(value)}; write {example}")
        # A single table with keys was probably meant as an entry, so its keys are checked as well.
        is_entry = isinstance(value, dict) and not all(isinstance(item, dict) for item in value.values())
        return [(path, value)] if is_entry else []

    def read(self, path: Path, table: Mapping[str, Any], fields: Iterable[Field], *, more: Iterable[str] = ()) -> Values:
        """Return the values of a table with these settings; `more` are other keys that the table may have."""
        known = {setting.name: setting for setting in fields}
        read = Values()
        for key, value in table.items():
            if key in known:
                self._read_into(read, path, known[key], value)
            elif key not in more:
                self.fault((*path, key), unknown(key, [*known, *more], guesses=len(self.faults) < HINTS))
        return read

    def missing(self, path: Path, required: Iterable[Field], read: Values) -> list[Field]:
        """Return the required settings that have no value, and record those that are not given or empty."""
        missing = [setting for setting in required if read.values.get(setting.name, "") == ""]
        for name in (setting.name for setting in missing if setting.name not in read.wrong):
            self.fault((*path, name), "empty; write a value" if name in read.values else f"missing: add {name}")
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
        """Return strings that may be kept elsewhere: a string, or an array of strings. A single string may hold several, with commas."""
        folder = self.document.folder(path)

        def addresses(item: Any) -> tuple[str, ...]:
            try:
                urls = split_addresses((resolve_secret(item, environ=self.environ, folder=folder),)) or _no_address()
            except ValueError as error:
                raise wrong(str(error)) from None
            for fault in check_fault(field, urls):
                raise wrong(in_keys(fault.sentence, field.name))
            return tuple(located(field, urls, folder))

        items = each(addresses, value) if isinstance(value, list) else (addresses(value),)
        return tuple(dict.fromkeys(url for urls in items for url in urls)) or _no_address()


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings in a value, and the keys of its tables."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value:
            yield from _strings(item)
        for item in value.values() if isinstance(value, dict) else ():
            yield from _strings(item)


def _quoted(text: str) -> str:
    return repr(text)[1:-1]


def _no_address() -> NoReturn:
    raise wrong("expected an address, got none")
