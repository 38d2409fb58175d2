"""The endpoints of a configuration file: `[[endpoint]]`, with the values of `[defaults]` and of `[defaults.KIND]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from wsbridge.config.commands import hint_for_command
from wsbridge.config.places import Path
from wsbridge.config.reading import Reader, Values
from wsbridge.config.sentences import either, mentioned, unknown
from wsbridge.config.values import COMMAND, show
from wsbridge.resolve import resolve_endpoint
from wsbridge.settings.declare import Fault, Field, Kind
from wsbridge.settings.endpoint import KINDS, EndpointSettings, PartField, faults_of, needless, parts_of, settings_of

DEFAULTS = "defaults"
Defaults = Mapping[str, Mapping[str, Any]]
"""The default values of each kind of endpoint."""
NO_DEFAULTS = ("kind", "path")
"""Keys that each endpoint has for itself."""


def read_defaults(reader: Reader, value: Any) -> Defaults:
    """Return the default values of each kind. A table of a kind wins over the table of all kinds."""
    table = reader.table((DEFAULTS,), value, "[defaults]")
    # Some kinds and settings have the same name, such as `files`: a table is for the kind.
    common = {key: item for key, item in table.items() if not (key in KINDS and isinstance(item, dict))}
    everywhere = {entry.field.name for struct in KINDS.values() for entry in settings_of(struct)} - {*NO_DEFAULTS}
    for key in common.keys() - everywhere:
        if key in KINDS:
            reader.table((DEFAULTS, key), common[key], f"[{DEFAULTS}.{key}]")
        else:
            known = (*everywhere, *KINDS)
            reader.fault((DEFAULTS, key), f"each endpoint has its own {key}; remove it" if key in NO_DEFAULTS else unknown(key, known))
    values: dict[str, dict[str, Any]] = {}
    for kind, struct in KINDS.items():
        fields = [entry.field for entry in settings_of(struct) if entry.field.name not in NO_DEFAULTS]
        shared = reader.read((DEFAULTS,), common, fields, more=common)
        own = table.get(kind)
        special = _read_defaults_of_kind(reader, struct, own, fields) if isinstance(own, dict) else Values()
        values[kind] = {**shared.values, **special.values}
    return values


def _read_defaults_of_kind(reader: Reader, struct: type[EndpointSettings], table: Mapping[str, Any], fields: list[Field]) -> Values:
    path = (DEFAULTS, struct.kind)
    return reader.read(path, table, fields, more=_of_other_kinds(reader, path, table, struct))


def read_endpoint(reader: Reader, path: Path, table: Mapping[str, Any], defaults: Defaults) -> EndpointSettings | None:
    """Return an endpoint with its program and folders resolved on this machine; None if it cannot be made. Records every fault."""
    struct = _kind(reader, path, table)
    if struct is None:
        reader.read(path, table, _of_all_kinds(), more=("kind",))
        return None
    entries = settings_of(struct)
    read = reader.read(path, table, [entry.field for entry in entries], more=("kind", *_of_other_kinds(reader, path, table, struct)))
    values = {**defaults[struct.kind], **read.values}
    missing = reader.missing(path, [entry.field for entry in entries if entry.is_required], Values(values, read.wrong))
    if not all(field.kind is Kind.TEXT for field in missing):
        return None
    # An empty text stands for a missing one, so that the checks below find the other faults.
    values |= {field.name: "" for field in missing}
    if "path" in read.wrong:
        # As it stands, so that it does not count as a second endpoint at the root.
        values["path"] = str(table["path"])
    endpoint = _make(struct, entries, values)
    unsure = read.wrong | {field.name for field in missing}
    for fault in (*_needless(endpoint, read.values), *faults_of(endpoint)):
        if not {*mentioned(fault.sentence), *fault.path} & unsure:
            endpoint_fault(reader, path, struct.kind, fault)
    resolved, faults = resolve_endpoint(endpoint, path=reader.path)
    for fault in faults:
        hint = _hint(reader, path, struct.kind) if fault.path == (COMMAND,) else ""
        endpoint_fault(reader, path, struct.kind, fault._replace(sentence=fault.sentence + hint))
    return resolved


def _hint(reader: Reader, path: Path, kind: str) -> str:
    """Return the remedy for a command that names no program."""
    home = _home(reader, path, kind, COMMAND)
    written = _table_at(reader.document.tables, home)[COMMAND]
    return hint_for_command([written] if isinstance(written, str) else written, reader.document.folder(home))


def endpoint_fault(reader: Reader, path: Path, kind: str, fault: Fault) -> None:
    """Record the fault of a setting of an endpoint in the table that sets it; the sentence names the defaults that it depends on."""
    name = str(fault.path[-1])
    home = _home(reader, path, kind, name)
    others = {other: _home(reader, path, kind, other) for other in mentioned(fault.sentence) if other != name}
    places = [f"{reader.document.place((*table, other))} sets {other}" for other, table in others.items() if table not in (path, home)]
    reader.setting_fault(home, fault._replace(sentence=fault.sentence + (f" ({', '.join(places)})" if places else "")))


def _kind(reader: Reader, path: Path, table: Mapping[str, Any]) -> type[EndpointSettings] | None:
    kind = table.get("kind")
    if isinstance(kind, str) and kind in KINDS:
        return KINDS[kind]
    if kind is None:
        sentence = f"missing: add kind = {either(KINDS)}"
    elif isinstance(kind, str) and (near := get_close_matches(kind, KINDS, 1)):
        sentence = f'unknown kind {show(kind)}; did you mean "{near[0]}"?'
    else:
        sentence = f"expected {either(KINDS)}, got {show(kind)}"
    reader.fault((*path, "kind"), sentence)
    return None


def _of_all_kinds() -> list[Field]:
    """Return the settings of all kinds, each once."""
    return [*{entry.field.name: entry.field for struct in KINDS.values() for entry in settings_of(struct)}.values()]


def _of_other_kinds(reader: Reader, path: Path, table: Mapping[str, Any], struct: type[EndpointSettings]) -> list[str]:
    """Record the keys that belong to other kinds of endpoint, and return them."""
    names = {kind: {entry.field.name for entry in settings_of(other)} for kind, other in KINDS.items()}
    owners_of = {key: [kind for kind in names if key in names[kind]] for key in table if key not in names[struct.kind]}
    others = {key: owners for key, owners in owners_of.items() if owners}
    for key, owners in others.items():
        reader.fault((*path, key), f'an endpoint of kind "{struct.kind}" has no such key; kind {either(owners)} has it')
    return [*others]


def _make(struct: type[EndpointSettings], entries: tuple[PartField, ...], values: Mapping[str, Any]) -> EndpointSettings:
    """Return an endpoint with these values, which stand side by side, in its parts."""
    parts: dict[str, Any] = {}
    for name, part, within in parts_of(struct):
        own = {entry.field.name for entry in entries if entry.part == name}
        parts[name] = part(**{**within.fixed, **{key: value for key, value in values.items() if key in own}})
    own = {entry.field.name for entry in entries if not entry.part}
    return struct(**{key: value for key, value in values.items() if key in own}, **parts)


def _needless(endpoint: EndpointSettings, given: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the settings of the endpoint's own table that have no effect without another setting."""
    for field, need in needless(endpoint):
        if given.get(field.name, False) is not False:
            yield Fault((field.name,), f"<{field.name}> needs <{need}>")


def _home(reader: Reader, path: Path, kind: str, name: str) -> Path:
    """Return the path of the table that sets a setting of an endpoint: its own table also if none does."""
    tables: tuple[Path, ...] = (path, (DEFAULTS, kind), (DEFAULTS,))
    return next((table for table in tables if name in _table_at(reader.document.tables, table)), path)


def _table_at(tables: Any, path: Path) -> Mapping[str, Any]:
    """Return the table at a path; an empty one if there is none."""
    for key in path:
        tables = tables[key] if isinstance(key, int) else tables.get(key, {}) if isinstance(tables, dict) else {}
    return tables if isinstance(tables, dict) else {}
