"""Turns a document into the settings of a server, or into the list of its faults.

    [server]                 the process as a whole
    [[listen]]               an address; without any, the server listens on port 8080 of every address
    [[endpoint]]             an endpoint: kind, path, and the settings of its kind side by side
    [broker.NAME]            a RabbitMQ broker, to which endpoints refer by its name
    [defaults]               values for all endpoints; [defaults.KIND] for those of a kind

Relative names of programs, folders and files are relative to the file that holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wsbridge.config.crosschecks import check_endpoints, check_listeners
from wsbridge.config.document import Document
from wsbridge.config.endpoints import DEFAULTS, Defaults, read_defaults, read_endpoint
from wsbridge.config.faults import Fault
from wsbridge.config.places import Path
from wsbridge.config.reading import Reader
from wsbridge.config.secrets import is_reference
from wsbridge.config.sentences import unknown
from wsbridge.resolve import broker_faults
from wsbridge.settings import BrokerSettings, EndpointSettings, ListenSettings, ProcessSettings, ServerSettings
from wsbridge.settings.declare import fields_of

TABLES = ("server", "listen", "endpoint", "broker", DEFAULTS)
DEFAULT_LISTENERS = (ListenSettings(address=":8080"),)


def convert(document: Document, *, environ: Mapping[str, str]) -> ServerSettings | list[Fault]:
    """Return the settings of a server, with programs looked up in PATH and secrets in `environ`; or every fault of the document."""
    reader = Reader(document, environ)
    tables = document.tables
    for key in tables.keys() - {*TABLES}:
        reader.fault((key,), unknown(key, (*TABLES, "include")))
    server = _server(reader, tables.get("server", {}))
    brokers = _brokers(reader, tables.get("broker", {}))
    defaults = read_defaults(reader, tables.get(DEFAULTS, {}))
    listeners = _listeners(reader, tables.get("listen", []))
    endpoints = _endpoints(reader, tables.get("endpoint", []), defaults)
    if not document.faults and not tables.get("endpoint"):
        reader.fault((), "nothing to serve: add a table [[endpoint]]")
    check_listeners(reader, listeners)
    check_endpoints(reader, endpoints, tables.get("broker", {}))
    if reader.faults:
        return in_order(reader.faults)
    return ServerSettings(
        server=server,
        listeners=tuple(listeners.values()) or DEFAULT_LISTENERS,
        endpoints=tuple(endpoints.values()),
        brokers=brokers,
    )


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """Return faults by file, in the order in which the files occur, and by line."""
    faults = list(faults)
    files = {file: number for number, file in enumerate(dict.fromkeys(fault.place.file for fault in faults))}
    return sorted(faults, key=lambda fault: (files[fault.place.file], fault.place.line))


def _server(reader: Reader, value: Any) -> ProcessSettings:
    table = reader.table(("server",), value, "[server]")
    return ProcessSettings(**reader.read(("server",), table, fields_of(ProcessSettings)).values)


def _listeners(reader: Reader, value: Any) -> dict[Path, ListenSettings]:
    """Return the listeners that can be made, by their paths."""
    listeners = {}
    fields = fields_of(ListenSettings)
    for path, table in reader.tables(("listen",), value, "[[listen]]"):
        read = reader.read(path, table, fields)
        if not reader.missing(path, [field for field in fields if field.is_required], read) and not read.wrong:
            listeners[path] = ListenSettings(**read.values)
    return listeners


def _brokers(reader: Reader, value: Any) -> dict[str, BrokerSettings]:
    brokers = {}
    fields = fields_of(BrokerSettings)
    tables = reader.table(("broker",), value, "[broker.NAME]")
    if unnamed := _unnamed(tables):
        reader.fault(("broker",), "a broker has a name; write [broker.main]")
    for name in [name for name in tables if name not in unnamed]:
        path: Path = ("broker", name)
        table = reader.maybe_table(path, tables[name], "[broker.NAME]")
        if table is None:
            continue
        read = reader.read(path, table, fields)
        if reader.missing(path, [field for field in fields if field.is_required], read):
            continue
        brokers[name] = BrokerSettings(**read.values)
        for fault in broker_faults(brokers[name]):
            reader.setting_fault(path, fault)
    return brokers


def _unnamed(tables: Mapping[str, Any]) -> set[str]:
    """Return the keys of a broker in the place of names of brokers."""
    names = {field.name for field in fields_of(BrokerSettings)} & tables.keys()
    return {name for name in names if is_reference(tables[name]) or not isinstance(tables[name], dict)}


def _endpoints(reader: Reader, value: Any, defaults: Defaults) -> dict[Path, EndpointSettings]:
    """Return the endpoints that can be made, by their paths in the document."""
    found = {path: read_endpoint(reader, path, table, defaults) for path, table in reader.tables(("endpoint",), value, "[[endpoint]]")}
    return {path: endpoint for path, endpoint in found.items() if endpoint is not None}
