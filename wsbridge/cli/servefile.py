"""`wsbridge serve FILE`: from a configuration file to a server that reads it again on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from wsbridge.cli.hints import hint_in_file
from wsbridge.config.convert import convert
from wsbridge.config.document import Document, read_document
from wsbridge.config.namedfiles import secret_files, tls_files
from wsbridge.errors import InvalidConfiguration, UsageError
from wsbridge.server.reload import Configuration
from wsbridge.settings import ServerSettings


def file_of(words: Sequence[str]) -> str:
    """Return the name of the configuration file on a command line. Raises UsageError."""
    if len(words) == 1:
        return words[0]
    if words and words[1].startswith("-"):
        raise UsageError(f"flags precede FILE; write serve {words[1]} {words[0]}")
    raise UsageError("serve needs one FILE" if not words else f"serve accepts one FILE; remove {words[1]!r}")


def load(file: str, environ: Mapping[str, str]) -> Configuration:
    """Read a configuration file. Raises InvalidConfiguration with every fault."""
    document = read_document(file)
    private = (*document.files, *secret_files(document))
    files = (*private, *tls_files(document))
    settings = convert(document, environ=environ)
    if isinstance(settings, ServerSettings):
        return Configuration(settings, files, private, lambda error: hint_in_file(error, settings, partial(_find_key, document)))
    raise InvalidConfiguration(file, tuple(map(str, settings)), files)


def _find_key(document: Document, number: int, key: str) -> tuple[str, str]:
    """Return the place of a key of a listener, counted from 0, and the name of the key there."""
    fault = document.fault(("listen", number, key), "")
    # Without any table [[listen]], the server listens at its default address.
    table = "" if document.tables.get("listen") else "a table [[listen]] of "
    return f"{table}{fault.place}", fault.path
