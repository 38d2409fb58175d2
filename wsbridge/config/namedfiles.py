"""The files that a document names: those that hold its secrets, and the certificates and keys of its listeners.

A server never serves the secrets as files. It watches all these files for changes. The values need not be valid.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from wsbridge.config.document import Document
from wsbridge.config.places import Path
from wsbridge.config.secrets import secret_file
from wsbridge.settings import BrokerSettings, ListenSettings
from wsbridge.settings.declare import fields_of


def secret_files(document: Document) -> tuple[str, ...]:
    """Return the absolute paths of the files that hold secrets."""
    return tuple(path for where, value in _secrets(document.tables) if (path := secret_file(value, document.folder(where))))


def tls_files(document: Document) -> tuple[str, ...]:
    """Return the absolute paths of the certificates and keys of listeners."""
    return tuple(
        os.path.join(document.folder((*path, field.name)), name)
        for path, table in _tables(document.tables, "listen")
        for field in fields_of(ListenSettings)
        if field.setting.place == "file" and isinstance(name := table.get(field.name), str) and name
    )


def _secrets(tables: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Yield the values that may be kept in a file."""
    for path, table in _tables(tables, "broker"):
        for field in fields_of(BrokerSettings):
            if field.setting.is_secret and field.name in table:
                value = table[field.name]
                yield from (((*path, field.name), item) for item in (value if isinstance(value, list) else [value]))


def _tables(tables: dict[str, Any], name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the tables of an array or of a table of tables, with their paths."""
    found = tables.get(name)
    entries = enumerate(found) if isinstance(found, list) else found.items() if isinstance(found, dict) else ()
    for key, entry in entries:
        if isinstance(entry, dict):
            yield (name, key), entry
