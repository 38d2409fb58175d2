"""Checks between the tables of a configuration file: what occurs twice, and what refers to a table that is not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from wsbridge.config.faults import show_path
from wsbridge.config.places import Path
from wsbridge.config.reading import Reader
from wsbridge.config.sentences import mentioned
from wsbridge.config.values import show
from wsbridge.errors import ListenError
from wsbridge.resolve import listener_faults
from wsbridge.settings import BroadcastSettings, ConsoleSettings, EndpointSettings, ListenSettings
from wsbridge.settings.declare import Fault


def check_listeners(reader: Reader, listeners: Mapping[Path, ListenSettings]) -> None:
    """Record what prevents a listener from opening: its settings, its certificate, or another listener at its address."""
    taken: dict[str, Path] = {}
    for path, listen in listeners.items():
        for fault in (*listen.faults(), *listener_faults(listen)):
            reader.setting_fault(path, fault)
        if listen.certificate and listen.key:
            _check_certificate(reader, path, listen)
        for key, name in _addresses(listen):
            if name in taken:
                reader.fault((*path, key), f"{name} is already the address of {_where(reader, taken[name])}; choose another one")
            taken.setdefault(name, path)


def check_endpoints(reader: Reader, endpoints: Mapping[Path, EndpointSettings], brokers: object) -> None:
    """Record endpoints that have the same path and host, and names of brokers and endpoints that are not there."""
    taken: dict[tuple[str, str], Path] = {}
    paths = {endpoint.path for endpoint in endpoints.values()}
    for path, endpoint in endpoints.items():
        for host in endpoint.host_names or ("",):
            place = (endpoint.path, host)
            if place in taken:
                there = f'the path "{endpoint.path}"' + (f" of {host}" if host else "")
                reader.fault((*path, "path"), f"{_where(reader, taken[place])} has {there} already; choose another path")
                break
        for host in endpoint.host_names or ("",):
            taken.setdefault((endpoint.path, host), path)
        if isinstance(endpoint, BroadcastSettings) and endpoint.channel.broker:
            _check_name(reader, (*path, "broker"), endpoint.channel.broker, brokers if isinstance(brokers, dict) else {})
        if isinstance(endpoint, ConsoleSettings) and endpoint.target and endpoint.target not in paths:
            reader.fault((*path, "target"), f"no endpoint has the path {show(endpoint.target)}{_near(endpoint.target, paths)}")


def _check_certificate(reader: Reader, path: Path, listen: ListenSettings) -> None:
    """Record why a certificate, its key or the CA of clients cannot be used."""
    # Imported here: only TLS needs it.
    from wsbridge.net.certificates import make_context

    assert listen.tls is not None
    try:
        make_context(listen.tls)
    except ListenError as error:
        sentence = error.sentence
        reader.setting_fault(path, Fault((mentioned(sentence)[0],), sentence))


def _addresses(listen: ListenSettings) -> Iterator[tuple[str, str]]:
    """Yield the addresses that a listener occupies, each with the key that sets it. Port 0 selects a free port."""
    if not listen.is_tcp:
        yield "address", listen.address
    elif listen.port:
        yield "address", f"{listen.host.lower()}:{listen.port}"
    if listen.is_tcp and listen.redirect_port:
        yield "redirect_port", f"{listen.host.lower()}:{listen.redirect_port}"


def _check_name(reader: Reader, path: Path, name: str, brokers: Mapping[str, Any]) -> None:
    if name not in brokers:
        table = f"[{show_path(('broker', name))}]"
        reader.fault(path, f"there is no {table}{_near(name, brokers) or f'; add a table {table}'}")


def _near(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, names, 1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _where(reader: Reader, path: Path) -> str:
    """Return the words for another table: its place is clear even if it is in another file."""
    return f"[[{path[0]}]] at {reader.document.place(path)}"
