"""The kinds of endpoint: each a struct of parts, whose settings stand side by side in a configuration file.

`register_kind` adds a kind. `Within` restricts a part to the settings that a kind has.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from inspect import get_annotations
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, NamedTuple
from urllib.parse import unquote

import msgspec

from wsbridge.rules.hosts import check_name, is_address, normal_name
from wsbridge.settings.access import AccessSettings
from wsbridge.settings.channel import ChannelSettings, Input, Role
from wsbridge.settings.client import ClientSettings
from wsbridge.settings.declare import Fault, Field, Part, Setting, fields_of
from wsbridge.settings.http import HttpSettings
from wsbridge.settings.program import ProgramSettings

ESCAPE = re.compile("%[0-9A-Fa-f]{2}")


class Within(msgspec.Struct, frozen=True, kw_only=True):
    """Selects the settings of a part that a kind of endpoint has."""

    only: tuple[str, ...] = ()
    """Empty for all."""
    without: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    fixed: dict[str, Any] = {}
    """Values of settings that the kind does not have, where they differ from the default."""

    def has(self, name: str) -> bool:
        return (not self.only or name in self.only) and name not in self.without and name not in self.fixed


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"<path>={path} does not begin with a slash; write it as in a URL, such as /count")
    if path != "/" and path.endswith("/"):
        raise ValueError(f"<path>={path} ends with a slash; write {path.rstrip('/') or '/'}")
    if any(part in ("", ".", "..") for part in path.split("/")[1:]) and path != "/":
        raise ValueError(f"<path>={path} contains an empty component, '.' or '..'; remove that component")
    if "?" in path or "#" in path:
        raise ValueError(f"<path>={path} has a query or a fragment; write only the path")
    if ESCAPE.search(path):
        raise ValueError(f"<path>={path} has a percent escape; write the character itself: {unquote(path)}")
    if not path.isprintable():
        raise ValueError(f"<path>={path!a} contains an unprintable character; remove it")


def _check_host(host: str) -> None:
    try:
        if not is_address(host):
            check_name(host)
    except ValueError as error:
        raise ValueError(f"<hosts>={error}") from None


class EndpointSettings(Part, frozen=True, kw_only=True):
    """The settings of every kind of endpoint."""

    kind: ClassVar[str] = ""
    """Its name in a configuration file."""
    needs: ClassVar[Mapping[str, str]] = {}
    """Settings that have no effect without a setting of another part, each with the name of that setting."""

    path: Annotated[
        str,
        Setting(
            "Serve the endpoint at this path", "Serve the endpoint at this path and below it; the longest path wins", check=_check_path
        ),
    ] = "/"
    hosts: Annotated[
        tuple[str, ...],
        Setting(
            "Serve the endpoint for these hosts only",
            "Serve the endpoint only for requests to these host names, or `*.example.com`",
            check_item=_check_host,
        ),
    ] = ()

    # The server reads these parts of every kind. A kind that has settings for a part declares the part as a field.

    @property
    def program(self) -> ProgramSettings:
        """The program; without a field, it has no command."""
        return ProgramSettings()

    @property
    def client(self) -> ClientSettings:
        """The limits of clients."""
        return ClientSettings()

    @property
    def access(self) -> AccessSettings:
        """The rules for admitting requests, and the headers of responses."""
        return AccessSettings()

    @property
    def http(self) -> HttpSettings:
        """Its files, scripts and pages; without a field, it has no folder."""
        return HttpSettings()

    @property
    def broker_name(self) -> str:
        """The name of the broker that it uses; empty for none."""
        return ""

    @property
    def host_names(self) -> tuple[str, ...]:
        """The hosts in the form in which they are compared, each once and in order."""
        return tuple(sorted({normal_name(host) for host in self.hosts}))

    @property
    def place(self) -> str:
        """The hosts and the path, for the log: `a.example,b.example/count`."""
        return f"{','.join(self.host_names)}{self.path}"


class PartField(NamedTuple):
    """A setting of an endpoint."""

    part: str
    """The name of its part; empty for a setting of the endpoint itself."""
    field: Field
    is_required: bool


class BridgeSettings(EndpointSettings, frozen=True, kw_only=True):
    """Each WebSocket connection gets its own process of a program."""

    kind = "bridge"

    program: ProgramSettings
    client: ClientSettings = ClientSettings()
    access: AccessSettings = AccessSettings()
    http: Annotated[HttpSettings, Within(without=("status",))] = HttpSettings()

    def faults(self) -> Iterator[Fault]:
        if self.program.command and self.program.scripts:
            yield Fault(("command",), "<command> and <scripts> cannot be used together; use only one of them")
        if not self.program.command and not self.program.scripts:
            yield Fault(("command",), "<command> is missing: add <command>, or <scripts> for a folder of scripts")


class BroadcastSettings(EndpointSettings, frozen=True, kw_only=True):
    """One program, any number of clients, on any number of nodes."""

    kind = "broadcast"
    needs = MappingProxyType(dict.fromkeys(("restart", "pty", "pty_size", "framing"), "command"))

    channel: ChannelSettings
    program: Annotated[ProgramSettings, Within(without=("scripts", "pass_stderr"))] = ProgramSettings()
    client: Annotated[ClientSettings, Within(fixed={"send_buffer": 0})] = ClientSettings(send_buffer=0)
    access: AccessSettings = AccessSettings()
    http: HttpSettings = HttpSettings()

    @property
    def broker_name(self) -> str:
        return self.channel.broker

    @property
    def role(self) -> Role:
        """The role of the channel's program."""
        return Role.THROUGH if self.channel.through else Role.PRODUCER if self.program.command else Role.NONE

    def faults(self) -> Iterator[Fault]:
        channel, has_program = self.channel, bool(self.program.command)
        if channel.through and not has_program:
            yield Fault(("through",), "<through> needs <command>, the program that reads the messages from the exchange")
        if channel.through and not channel.broker and channel.input is not Input.EXCHANGE:
            yield Fault(("through",), "no messages would reach <command>: with <through>, add <broker> or <input>=exchange")
        if channel.input is Input.PROGRAM and not has_program:
            yield Fault(("input",), "<input>=program needs <command>")
        if channel.input is Input.PROGRAM and channel.through:
            yield Fault(("input",), "<input>=program and <through> cannot be used together; use <input>=exchange instead")
        if not has_program and not channel.through and not channel.broker and channel.input is Input.NONE:
            yield Fault(("exchange",), "the channel has no source of messages: specify <command>, <broker> or <input>=exchange")


class FilesSettings(EndpointSettings, frozen=True, kw_only=True):
    """A folder of files, with or without CGI scripts."""

    kind = "files"

    http: Annotated[HttpSettings, Within(without=("status",), required=("files",))]
    access: AccessSettings = AccessSettings()
    client: Annotated[ClientSettings, Within(only=("write_timeout",))] = ClientSettings()
    program: Annotated[ProgramSettings, Within(only=("pass_environment", "close_delay", "drain"))] = ProgramSettings()


class CgiSettings(EndpointSettings, frozen=True, kw_only=True):
    """A folder of CGI scripts."""

    kind = "cgi"

    http: Annotated[HttpSettings, Within(without=("files", "status"), required=("cgi",))]
    access: AccessSettings = AccessSettings()
    client: Annotated[ClientSettings, Within(only=("write_timeout",))] = ClientSettings()
    program: Annotated[ProgramSettings, Within(only=("pass_environment", "close_delay", "drain"))] = ProgramSettings()


class ConsoleSettings(EndpointSettings, frozen=True, kw_only=True):
    """The page for trying out an endpoint."""

    kind = "console"

    target: Annotated[
        str,
        Setting("Connect the page to the endpoint at this path", "Connect the page to the endpoint at this path; empty for its own path"),
    ] = ""
    access: AccessSettings = AccessSettings()


KINDS: dict[str, type[EndpointSettings]] = {}
"""The kinds of endpoint by their names in a configuration file."""


def register_kind(name: str, struct: type[EndpointSettings]) -> None:
    """Add a kind of endpoint, whose name is `struct.kind` as well. Raises ValueError if two of its settings have one name."""
    if struct.kind != name:
        raise ValueError(f"{struct.__name__} is of the kind {struct.kind!r}, not {name!r}")
    names = [entry.field.name for entry in settings_of(struct)]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{struct.__name__} has two settings of the name {', '.join(sorted(doubled))}")
    KINDS[name] = struct


@cache
def parts_of(struct: type[Part]) -> tuple[tuple[str, type[Part], Within], ...]:
    """Return the parts of a kind of endpoint: for each its name, its struct, and the `Within` that selects its settings."""
    return tuple(_parts(struct))


def _parts(struct: type[Part]) -> Iterator[tuple[str, type[Part], Within]]:
    for owner in reversed(struct.__mro__):
        for name, annotation in get_annotations(owner, eval_str=True).items():
            base = getattr(annotation, "__origin__", annotation)
            if isinstance(base, type) and issubclass(base, Part):
                within = [item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Within)]
                yield name, base, within[0] if within else Within()


def faults_of(endpoint: EndpointSettings) -> Iterator[Fault]:
    """Yield the faults of settings that do not fit together, in each part and between the parts."""
    for name, _, _ in parts_of(type(endpoint)):
        yield from getattr(endpoint, name).faults()
    yield from endpoint.faults()


def needless(endpoint: EndpointSettings) -> Iterator[tuple[Field, str]]:
    """Yield the settings that have no effect because another setting is off or empty, each with the name of the other setting."""
    entries = settings_of(type(endpoint))
    parts = {entry.field.name: getattr(endpoint, entry.part) if entry.part else endpoint for entry in entries}
    for entry in entries:
        for need in filter(None, (entry.field.setting.needs, endpoint.needs.get(entry.field.name, ""))):
            if not getattr(parts[need], need):
                yield entry.field, need


@cache
def settings_of(struct: type[EndpointSettings]) -> tuple[PartField, ...]:
    """Return the settings of a kind of endpoint: its own, then those of its parts."""
    own = [PartField("", field, field.is_required) for field in fields_of(struct)]
    return (
        *own,
        *(
            PartField(name, field, field.is_required or field.name in within.required)
            for name, part, within in parts_of(struct)
            for field in fields_of(part)
            if within.has(field.name)
        ),
    )


for _kind in (BridgeSettings, BroadcastSettings, FilesSettings, CgiSettings, ConsoleSettings):
    register_kind(_kind.kind, _kind)
