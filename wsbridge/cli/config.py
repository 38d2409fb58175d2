"""From the flags of a server to its settings: one endpoint at `/`, with the checks that concern several flags."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import msgspec

from wsbridge import __version__
from wsbridge.cli.commands import BRIDGE, BROADCAST, Command
from wsbridge.cli.hints import hint_for_address, hint_for_command
from wsbridge.cli.option import in_flags
from wsbridge.cli.values import check_choice, check_needless, check_needs, check_values, part_of, raise_first, with_addresses
from wsbridge.errors import ConfigurationError
from wsbridge.framing import FRAMINGS
from wsbridge.resolve import resolve
from wsbridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    BrokerSettings,
    CgiSettings,
    ChannelSettings,
    EndpointSettings,
    FilesSettings,
    ListenSettings,
    ProcessSettings,
    ProgramSettings,
    ServerSettings,
)
from wsbridge.settings.declare import Fault
from wsbridge.settings.endpoint import faults_of, parts_of
from wsbridge.settings.listen import UNIX

MAIN = "main"
"""The name of the broker of `--broker`."""
OF_COMMAND = (*(option.name for option in BROADCAST.options if option.field and option.field.name in BroadcastSettings.needs), "binary")
"""The flags of broadcast that have no effect without COMMAND."""


def make_settings(flags: SimpleNamespace, environ: Mapping[str, str], *, name: str, shape: Command = BRIDGE) -> ServerSettings:
    """Return the settings of a server. Raises ConfigurationError, which names the flags and the remedy."""
    flags = with_addresses(_with_framing(flags))
    check_values(shape.options, flags)
    if shape is BROADCAST and not flags.command:
        check_needless(OF_COMMAND, flags, "COMMAND")
    endpoint = _endpoint(BroadcastSettings if shape is BROADCAST else _kind_of(flags), shape, flags)
    raise_first(_faults_of(endpoint, flags))
    check_needs(shape.options, flags)
    settings = ServerSettings(
        server=part_of(ProcessSettings, shape.options, flags),
        listeners=_listeners(flags),
        endpoints=(endpoint,),
        brokers={MAIN: part_of(BrokerSettings, shape.options, flags)} if shape is BROADCAST and flags.broker else {},
        software=f"{name}/{__version__}",
        once=shape is BRIDGE and flags.once,
        names_urls=name != "websocketd",
    )
    return _resolved(settings, flags, environ.get("PATH", os.defpath))


def _with_framing(flags: SimpleNamespace) -> SimpleNamespace:
    """Return the flags with the framing that `--binary` stands for."""
    if not flags.binary:
        return flags
    if flags.framing not in ("lines", "chunks"):
        check_choice("framing", flags.framing, FRAMINGS)
        raise ConfigurationError(f"--binary is --framing=chunks and cannot be used with --framing={flags.framing}")
    return SimpleNamespace(**{**vars(flags), "framing": "chunks"})


def _kind_of(flags: SimpleNamespace) -> type[EndpointSettings]:
    """Return the kind of endpoint that the flags of a bridge stand for."""
    if flags.command and flags.dir:
        raise ConfigurationError("COMMAND and --dir cannot be used together; use only one of them")
    if flags.command or flags.dir:
        return BridgeSettings
    if not (flags.staticdir or flags.cgidir):
        raise ConfigurationError("nothing to serve: specify COMMAND, --dir, --staticdir or --cgidir")
    if flags.once:
        raise ConfigurationError("--once needs COMMAND or --dir")
    return FilesSettings if flags.staticdir else CgiSettings


def _endpoint(kind: type[EndpointSettings], shape: Command, flags: SimpleNamespace) -> EndpointSettings:
    parts: dict[str, Any] = {}
    for name, part, within in parts_of(kind):
        options = [option for option in shape.options if option.field is not None and within.has(option.field.name)]
        more = dict(within.fixed)
        if part is ProgramSettings and within.has("command"):
            more["command"] = tuple(flags.command)
        if part is ChannelSettings and flags.broker:
            more["broker"] = MAIN
        parts[name] = part_of(part, options, flags, **more)
    return kind(**parts)


def _faults_of(endpoint: EndpointSettings, flags: SimpleNamespace) -> Iterator[Fault]:
    for fault in faults_of(endpoint):
        if fault.path == ("durable",) and not flags.given >= {"durable", "passive"}:
            # One of them comes from a variable, and --passive wins.
            continue
        yield Fault(fault.path, fault.sentence.replace("<framing>=chunks", "--binary")) if flags.binary else fault


def _resolved(settings: ServerSettings, flags: SimpleNamespace, path: str) -> ServerSettings:
    """Return the settings with absolute folders and the path of COMMAND. Raises ConfigurationError."""
    resolved, faults = resolve(settings, path=path)
    for fault in faults:
        hint = hint_for_command(flags.command, path) if fault.path[-1] == "command" else ""
        raise ConfigurationError(f"{in_flags(fault.sentence)}{hint}")
    return resolved if resolved.names_urls else _without_introduction(resolved)


def _without_introduction(settings: ServerSettings) -> ServerSettings:
    """Return the settings with the introduction page disabled; websocketd has no such page."""
    (endpoint,) = settings.endpoints
    http = msgspec.structs.replace(endpoint.http, page=False)
    return msgspec.structs.replace(settings, endpoints=(msgspec.structs.replace(endpoint, http=http),))


def _listeners(flags: SimpleNamespace) -> tuple[ListenSettings, ...]:
    tls = {"certificate": flags.sslcert, "key": flags.sslkey, "client_ca": flags.sslca}
    if (flags.ssl or any(tls.values())) and not (flags.ssl and flags.sslcert and flags.sslkey):
        raise ConfigurationError("TLS needs all three of --ssl, --sslcert and --sslkey")
    if not flags.unixsocket:
        check_needless(("unixsocket-mode", "unixsocket-owner", "unixsocket-group"), flags, "--unixsocket")
    for address in flags.address:
        if complaint := hint_for_address(address):
            raise ConfigurationError(complaint)
    port, listeners = flags.port, []
    if port is None and not (flags.unixsocket and not flags.address and not flags.redirport):
        port = 443 if flags.ssl else 80
    if port is not None:
        for host in dict.fromkeys(flags.address) or ("",):
            listeners.append(ListenSettings(address=f"{host}:{port}", redirect_port=flags.redirport, **tls))
    if flags.unixsocket:
        rights = {"mode": flags.unixsocket_mode, "owner": flags.unixsocket_owner, "group": flags.unixsocket_group}
        listeners.append(ListenSettings(address=f"{UNIX}{flags.unixsocket}", **rights, **tls))
    return tuple(listeners)
