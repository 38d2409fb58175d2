"""Checks settings against this machine: programs are found, folders and files exist, users and groups are known.

Nothing here opens a socket or starts a program. The command line and a configuration file use it alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from wsbridge.errors import ConfigurationError, reason_of
from wsbridge.net.unixsocket import group_number, user_number
from wsbridge.process.spawn import find_program
from wsbridge.settings.broker import BrokerSettings, name_of_address
from wsbridge.settings.declare import Fault, Part, fields_of
from wsbridge.settings.endpoint import EndpointSettings, parts_of
from wsbridge.settings.listen import ListenSettings
from wsbridge.settings.server import ServerSettings

HEARTBEAT = "heartbeat"
"""The parameter of a broker's URL that names no file."""


def resolve(settings: ServerSettings, *, path: str) -> tuple[ServerSettings, list[Fault]]:
    """Return the settings with absolute folders and programs found in `path`, the value of PATH; and the faults."""
    endpoints: list[EndpointSettings] = []
    faults: list[Fault] = []
    for number, endpoint in enumerate(settings.endpoints):
        resolved, found = resolve_endpoint(endpoint, path=path)
        endpoints.append(resolved)
        faults += (fault.within("endpoint", number) for fault in found)
    for number, listen in enumerate(settings.listeners):
        faults += (fault.within("listen", number) for fault in listener_faults(listen))
    for name, broker in settings.brokers.items():
        faults += (fault.within("broker", name) for fault in broker_faults(broker))
    return msgspec.structs.replace(settings, endpoints=tuple(endpoints)), faults


def resolve_endpoint(endpoint: EndpointSettings, *, path: str) -> tuple[EndpointSettings, list[Fault]]:
    """Return an endpoint with absolute folders and its program found in `path`; and the faults."""
    faults: list[Fault] = []
    parts = {name: _resolve_part(getattr(endpoint, name), path, faults) for name, _, _ in parts_of(type(endpoint))}
    return msgspec.structs.replace(endpoint, **parts), faults


def listener_faults(listen: ListenSettings) -> Iterator[Fault]:
    """Yield a fault for each user and group that this machine does not know."""
    checks: tuple[tuple[str, Callable[[str], int], str], ...] = (("owner", user_number, "user"), ("group", group_number, "group"))
    for name, find, kind in checks:
        given = getattr(listen, name)
        try:
            find(given)
        except LookupError:
            yield Fault((name,), f"<{name}>={given}: this machine has no such {kind}; create it, or correct the name")


def broker_faults(broker: BrokerSettings) -> Iterator[Fault]:
    """Yield a fault for each file in a broker's addresses that cannot be used."""
    for number, url in enumerate(broker.url, 1):
        subject = name_of_address(number, len(broker.url))
        for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
            if name == HEARTBEAT:
                continue
            if not os.path.isfile(value):
                yield Fault(("url",), f"{subject}: the {name} in its URL is not a file: {value}")
            elif complaint := _why_unusable(name, value):
                yield Fault(("url",), f"{subject}: the {name} in its URL, {value}, cannot be used: {complaint}")


def _resolve_part(part: Part, path: str, faults: list[Fault]) -> Part:
    changes: dict[str, Any] = {}
    for field in fields_of(type(part)):
        value = getattr(part, field.name)
        if field.setting.place == "folder" and value:
            if os.path.isdir(value):
                changes[field.name] = os.path.abspath(value)
            else:
                remedy = "name the directory instead of a file in it" if os.path.exists(value) else "create it, or correct the name"
                faults.append(Fault((field.name,), f"<{field.name}>={value} is not a directory; {remedy}"))
        elif field.name == "command" and value:
            try:
                changes[field.name] = (find_program(value[0], path), *value[1:])
            except ConfigurationError as error:
                faults.append(Fault((field.name,), str(error)))
    return msgspec.structs.replace(part, **changes) if changes else part


def _why_unusable(name: str, path: str) -> str:
    """Return the fault of a certificate or key that a URL names, and the remedy; empty if no fault is found."""
    from wsbridge.net.certificates import FILE_BYTES, why_unusable

    try:
        with open(path, "rb") as file:
            return why_unusable(path, file.read(FILE_BYTES), is_key=name == "keyfile", swapped="")
    except OSError as error:
        return reason_of(error).lower()
