"""Writes settings as the equivalent configuration file: only values that differ from their defaults.

A broker's address with a password is not written. The file refers to a variable instead, which has to hold the address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from wsbridge.config.convert import DEFAULT_LISTENERS
from wsbridge.config.faults import show_path
from wsbridge.config.values import located
from wsbridge.errors import ConfigurationError
from wsbridge.rules.units import show_size
from wsbridge.settings import BrokerSettings, EndpointSettings, ListenSettings, ServerSettings
from wsbridge.settings.declare import Field, Kind, Part, fields_of
from wsbridge.settings.endpoint import needless, parts_of, settings_of

P = TypeVar("P", bound=Part)

SECRET = "WSBRIDGE_BROKER"
"""The variable that holds the address of a broker: that of `--broker` for the broker `main`."""
MAIN = "main"
LINE = 120
"""Characters of a line of the file. A longer array has one item per line."""
ESCAPES = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
UNDECODED = re.compile("[\ud800-\udfff]")
MILLISECONDS = 1000


def write(settings: ServerSettings) -> str:
    """Return the text of the file, without settings that have no effect. Raises ConfigurationError for a value that TOML cannot hold."""
    tables = [*_server(settings), *_listeners(settings.listeners), *_brokers(settings.brokers), *map(_endpoint, settings.endpoints)]
    return "\n\n".join(tables) + "\n"


def absolute(settings: ServerSettings, folder: str) -> ServerSettings:
    """Return settings with absolute names of files: so they mean the same wherever the configuration file is."""
    return msgspec.structs.replace(
        settings,
        listeners=tuple(_absolute_part(listen, folder) for listen in settings.listeners),
        endpoints=tuple(_absolute_endpoint(endpoint, folder) for endpoint in settings.endpoints),
        brokers={name: _absolute_part(broker, folder) for name, broker in settings.brokers.items()},
    )


def secrets_of(settings: ServerSettings) -> dict[str, str]:
    """Return the variables that the file refers to, with the values that they must have."""
    return {_variable(name): ",".join(broker.url) for name, broker in settings.brokers.items() if _has_password(broker)}


def _absolute_endpoint(endpoint: EndpointSettings, folder: str) -> EndpointSettings:
    parts = {name: _absolute_part(getattr(endpoint, name), folder) for name, _, _ in parts_of(type(endpoint))}
    return msgspec.structs.replace(endpoint, **parts)


def _absolute_part(part: P, folder: str) -> P:
    values = {field.name: located(field, getattr(part, field.name), folder) for field in fields_of(type(part))}
    return msgspec.structs.replace(part, **values)


def _server(settings: ServerSettings) -> Iterator[str]:
    if lines := [*_lines(settings.server, fields_of(type(settings.server)))]:
        yield _table("[server]", lines)


def _listeners(listeners: tuple[ListenSettings, ...]) -> Iterator[str]:
    if listeners != DEFAULT_LISTENERS:
        for listen in listeners:
            yield _table("[[listen]]", _lines(listen, fields_of(ListenSettings)))


def _brokers(brokers: Mapping[str, BrokerSettings]) -> Iterator[str]:
    for name, broker in brokers.items():
        lines = [line for line in _lines(broker, fields_of(BrokerSettings)) if not line.startswith("url ")]
        if _has_password(broker):
            variable = _variable(name)
            lines[:0] = [
                f"# The address has a password, which this file does not show: set the variable {variable} to the address.",
                f"url = {{ env = {_quoted(variable)} }}",
            ]
        else:
            lines.insert(0, f"url = {_quoted(broker.url[0]) if len(broker.url) == 1 else _array('url', broker.url)}")
        yield _table(f"[{show_path(('broker', name))}]", lines)


def _endpoint(endpoint: EndpointSettings) -> str:
    lines = [f"path = {_quoted(endpoint.path)}", f"kind = {_quoted(endpoint.kind)}"]
    # A variable of the environment may set what has no effect here; a configuration file may not.
    omitted = {"path", *(field.name for field, _ in needless(endpoint))}
    for entry in settings_of(type(endpoint)):
        part = getattr(endpoint, entry.part) if entry.part else endpoint
        if entry.field.name not in omitted:
            lines += _lines(part, (entry.field,))
    return _table("[[endpoint]]", lines)


def _lines(part: Part, fields: Iterable[Field]) -> Iterator[str]:
    """Yield the lines of the settings that differ from their defaults."""
    for field in fields:
        value = getattr(part, field.name)
        if value != field.default:
            yield f"{field.name} = {_shown(field, value)}"


def _table(header: str, lines: Iterable[str]) -> str:
    return "\n".join([header, *lines])


def _shown(field: Field, value: Any) -> str:
    match field.kind:
        case Kind.BOOLEAN:
            return str(value).lower()
        case Kind.INTEGER:
            return str(value)
        case Kind.SIZE:
            shown = show_size(value).replace(" ", "")
            return _quoted(shown) if shown.endswith("B") else shown
        case Kind.SECONDS:
            return _time(value)
        case Kind.TEXTS:
            return _array(field.name, value)
        case _:
            return _quoted(str(value))


def _time(seconds: float) -> str:
    """Return a time as a number with its unit, or as a plain number of seconds if that is more exact."""
    if seconds == round(seconds):
        return f'"{round(seconds)}s"' if seconds else "0"
    ms = round(seconds * MILLISECONDS)
    return f'"{ms}ms"' if ms / MILLISECONDS == seconds else repr(seconds)


def _array(name: str, items: Iterable[str]) -> str:
    quoted = [_quoted(item) for item in items]
    line = f"[{', '.join(quoted)}]"
    if len(name) + len(" = ") + len(line) <= LINE:
        return line
    return "[\n" + "".join(f"    {item},\n" for item in quoted) + "]"


def _quoted(text: str) -> str:
    if UNDECODED.search(text):
        raise ConfigurationError(f"{text!a} is not UTF-8, so that a configuration file cannot hold it; rename it")
    return '"' + "".join(ESCAPES.get(character) or _escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    return character if character >= " " and character != "\x7f" else f"\\u{ord(character):04X}"


def _has_password(broker: BrokerSettings) -> bool:
    return any(urlsplit(url).password for url in broker.url)


def _variable(name: str) -> str:
    return SECRET if name == MAIN else f"{SECRET}_{re.sub('[^A-Z0-9]', '_', name.upper())}"
