"""The commands around a configuration file: check it, print the one that is equivalent to a command line, print its JSON schema.

They import wsbridge.config when they run: a server that gets its settings from flags does not need it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence

from wsbridge.cli.hints import hint_for_overlap, overlaps
from wsbridge.cli.values import raise_first
from wsbridge.errors import ConfigurationError, UsageError
from wsbridge.logs import escape
from wsbridge.settings import ListenSettings, ServerSettings
from wsbridge.settings.declare import check_fault, field_of
from wsbridge.settings.listen import place_fault


def check_file(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Check a configuration file; print each mistake as one line on stderr, or that the file is valid. Return the exit status."""
    if len(words) != 1:
        raise UsageError("check needs one FILE" if not words else f"check accepts one FILE; remove {words[1]!r}")
    from wsbridge.config.convert import convert
    from wsbridge.config.document import read_document

    settings = convert(read_document(words[0]), environ=environ)
    if isinstance(settings, ServerSettings):
        counts = f"{_count(len(settings.endpoints), 'endpoint')}, {_count(len(settings.listeners), 'listener')}"
        print(f"{escape(words[0])}: {counts}: valid")
        return 0
    for fault in settings:
        print(escape(str(fault)), file=sys.stderr)
    return ConfigurationError.exit_status


def print_config(settings: ServerSettings) -> int:
    """Print the configuration file that is equivalent to a command line; return the exit status. Raises ConfigurationError."""
    if settings.once:
        raise ConfigurationError("--once has no equivalent in a configuration file; remove it")
    from wsbridge.config.write import absolute, write

    check_listeners(settings)
    print(write(absolute(settings, os.getcwd())), end="")
    return 0


def check_listeners(settings: ServerSettings) -> None:
    """Raise ConfigurationError for an address at which the server could not listen: a configuration file refuses it as well."""
    for listen in settings.listeners:
        for host, port in ((listen.host, listen.port), (listen.host, listen.redirect_port)) if listen.is_tcp else ():
            if complaint := place_fault(host, port):
                raise ConfigurationError(f"cannot listen on {host}:{port}: {complaint}")
        raise_first((*check_fault(field_of(ListenSettings, "address"), listen.address), *listen.faults()))
    for address, other in overlaps(settings).items():
        raise ConfigurationError(f"cannot listen on {address}{hint_for_overlap(other)}")


def print_schema(words: Sequence[str]) -> int:
    """Print the JSON schema of a configuration file; return the exit status."""
    if words:
        raise UsageError(f"schema accepts no arguments; remove {words[0]!r}")
    from wsbridge.config.jsonschema import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
