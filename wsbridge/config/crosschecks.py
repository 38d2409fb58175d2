"""Checks between the tables of a configuration file: duplicates, and references to missing tables."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from wsbridge.config.endpoints import endpoint_fault
from wsbridge.config.faults import show_path
from wsbridge.config.places import Path
from wsbridge.config.reading import Reader
from wsbridge.config.sentences import mentioned
from wsbridge.config.values import show
from wsbridge.resolve import listener_faults
from wsbridge.rules.overlap import Occupied
from wsbridge.settings import BroadcastSettings, ConsoleSettings, EndpointSettings, ListenSettings
from wsbridge.settings.declare import Fault


def check_listeners(reader: Reader, listeners: Mapping[Path, ListenSettings]) -> None:
    """Record the faults that prevent a listener from opening: its settings, its certificate, or another listener at its address."""
    occupied: Occupied[tuple[Path, str]] = Occupied()
    files: dict[str, Path] = {}
    for path, listen in listeners.items():
        for fault in (*listen.faults(), *listener_faults(listen)):
            reader.setting_fault(path, fault)
        if listen.certificate and listen.key:
            _check_certificates(reader, path, listen)
        for key, port in listen.ports:
            address = f"{listen.host}:{port}"
            if other := occupied.claim(listen.host, port, (path, address)):
                reader.fault((*path, key), _excluded(reader, address, *other))
        if not listen.is_tcp:
            name = listen.address if listen.unix_path is None else _real(listen.unix_path)
            if listen.unix_path is not None and _is_no_socket(listen.unix_path):
                reader.fault((*path, "address"), f"{listen.unix_path} exists and is not a socket; choose another path")
            if name in files:
                reader.fault((*path, "address"), _excluded(reader, listen.address, files[name], listen.address))
            files.setdefault(name, path)


def check_endpoints(reader: Reader, endpoints: Mapping[Path, EndpointSettings], brokers: object) -> None:
    """Record a fault for each endpoint with a path and host that are in use, and for each unknown name of a broker or endpoint."""
    owners: dict[tuple[str, str], Path] = {}
    paths = {endpoint.path for endpoint in endpoints.values()}
    for path, endpoint in endpoints.items():
        for host in endpoint.host_names or ("",):
            place = (endpoint.path, host)
            if place in owners:
                there = f'the path "{endpoint.path}"' + (f" of {host}" if host else "")
                reader.fault((*path, "path"), f"{_where(reader, owners[place])} has {there} already; choose another path")
                break
        for host in endpoint.host_names or ("",):
            owners.setdefault((endpoint.path, host), path)
        if isinstance(endpoint, BroadcastSettings) and endpoint.channel.broker:
            complaint = _unknown_broker(endpoint.channel.broker, brokers if isinstance(brokers, dict) else {})
            if complaint:
                endpoint_fault(reader, path, endpoint.kind, Fault(("broker",), complaint))
        if isinstance(endpoint, ConsoleSettings) and endpoint.target and endpoint.target not in paths:
            complaint = (
                f"no endpoint has the path {show(endpoint.target)}{_near(endpoint.target, paths) or '; write the path of an endpoint'}"
            )
            endpoint_fault(reader, path, endpoint.kind, Fault(("target",), complaint))


def _check_certificates(reader: Reader, path: Path, listen: ListenSettings) -> None:
    """Record why a certificate, its key or the CA of clients cannot be used."""
    # Imported here: only TLS needs it.
    from wsbridge.net.certificates import faults

    assert listen.tls is not None
    for error in faults(listen.tls):
        sentence = error.sentence
        reader.setting_fault(path, Fault((mentioned(sentence)[0],), sentence))


def _excluded(reader: Reader, name: str, other: Path, other_name: str) -> str:
    """Return the sentence for an address that the address of another listener excludes."""
    if name.lower() == other_name.lower():
        return f"{name} is already the address of {_where(reader, other)}; choose another one"
    return f"{name} cannot be used with {other_name} of {_where(reader, other)}; choose another port, or remove one of the two"


def _is_no_socket(path: str) -> bool:
    """Whether a path names a file that no socket may replace."""
    try:
        return not stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _real(path: str) -> str:
    """Return the path of a Unix socket without links in its folder, so that two names of one file are equal."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _unknown_broker(name: str, brokers: Mapping[str, Any]) -> str:
    """Return the error for a broker name that no table describes; empty if a table does."""
    if name in brokers:
        return ""
    table = f"[{show_path(('broker', name))}]"
    return f"there is no {table}{_near(name, brokers) or f'; add a table {table}'}"


def _near(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, names, 1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _where(reader: Reader, path: Path) -> str:
    """Return the words for another table: its place is clear even if it is in another file."""
    return f"[[{path[0]}]] at {reader.document.place(path)}"
