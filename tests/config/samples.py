"""A value of each setting other than its default, and strategies for the settings of servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from wsbridge.channel.ring import Join, Slow
from wsbridge.rules.restarts import Restart
from wsbridge.settings import (
    BrokerSettings,
    Busy,
    EndpointSettings,
    Input,
    ListenSettings,
    ProcessSettings,
    ServerSettings,
    SpoolFull,
)
from wsbridge.settings.declare import Kind, fields_of
from wsbridge.settings.endpoint import KINDS, PartField, faults_of, parts_of, settings_of


def samples(folder: Path, program: Path) -> dict[str, Any]:
    """Return a value of each setting of a server, by name; the values conflict as little as possible."""
    return {
        # The process.
        "hosts": ("a.example", "*.b.example"),
        "trust_proxy": ("10.0.0.0/8", "unix"),
        "reverse_lookup": True,
        "keepalive_timeout": 0.125,
        "guard": False,
        "max_sessions": 5,
        "log_level": "debug",
        "log_format": "json",
        # A program.
        "command": (str(program), "-x", 'a "b" \\ \t\n\x7f é'),
        "scripts": str(folder),
        "framing": "nul",
        "max_program_message": 1000,
        "pass_stderr": True,
        "pty": True,
        "pty_size": "80x24",
        "pass_environment": ("HOME",),
        "close_delay": 0.016,
        "drain": 90.0,
        # Clients and access.
        "max_client_message": 5 * 1024**3,
        "ping": 0.0,
        "write_timeout": 1.23456789,
        "send_buffer": 0,
        "compress": True,
        "same_origin": True,
        "origins": ("a.com", "https://b.com:81"),
        "max_programs": 0,
        "busy": Busy.CLOSE,
        "subprotocols": ("a", "b"),
        "headers": ("A: b", "C: d" * 50),
        "headers_websocket": ("E: f",),
        "headers_http": ("G: h",),
        # HTTP.
        "files": str(folder),
        "dotfiles": True,
        "cgi": str(folder),
        "max_body": 0,
        "body_timeout": 0.5,
        "console": True,
        "page": False,
        "status": False,
        # A channel.
        "exchange": "temps",
        "through": True,
        "input": Input.EXCHANGE,
        "restart": Restart.NEVER,
        "history": 0,
        "history_size": 1,
        "join": Join.LAST,
        "queue": 2,
        "slow": Slow.CLOSE,
        "max_clients": 3,
        "broker": "main",
        "replay": True,
        "replay_size": 4,
        "durable": True,
        "passive": True,
        "spool": 5,
        "spool_full": SpoolFull.DROP_OLDEST,
        # An endpoint.
        "path": "/a/b",
        "target": "/a/b",
        # A broker.
        "url": ("amqp://u:secret@h/", "amqps://h/v,w"),
        "timeout": 1.5,
        "confirm_timeout": 0.0,
        # A listener.
        "address": "127.0.0.1:8081",
        "redirect_port": 8082,
        "mode": "640",
        "owner": "0",
        "group": "0",
    }


def endpoint_of(kind: str, values: dict[str, Any]) -> EndpointSettings:
    """Return an endpoint of a kind, with the settings that the kind has."""
    entries = settings_of(KINDS[kind])

    def of(part: str) -> dict[str, Any]:
        return {entry.field.name: values[entry.field.name] for entry in entries if entry.part == part and entry.field.name in values}

    parts = {name: part(**{**within.fixed, **of(name)}) for name, part, within in parts_of(KINDS[kind])}
    return KINDS[kind](**of(""), **parts)


def pick(draw: st.DrawFn, entries: tuple[PartField, ...], values: dict[str, Any]) -> dict[str, Any]:
    """Draw some of the settings of a kind."""
    names = [entry.field.name for entry in entries if entry.field.name in values and not entry.is_required]
    chosen = draw(st.sets(st.sampled_from(names))) if names else set()
    required = {entry.field.name for entry in entries if entry.is_required}
    return {name: value_of(draw, next(e for e in entries if e.field.name == name), values[name]) for name in sorted(chosen | required)}


def value_of(draw: st.DrawFn, entry: PartField, sample: Any) -> Any:
    """Draw a value of a setting: any number within its bounds, or the sample of another type."""
    least = 1 if entry.field.setting.is_positive else 0
    match entry.field.kind:
        case Kind.INTEGER | Kind.SIZE:
            return draw(st.integers(least, 2**62))
        case Kind.SECONDS:
            return draw(st.floats(least, 1e9))
        case Kind.CHOICE:
            return entry.field.type(draw(st.sampled_from(entry.field.choices)))
    return sample


@st.composite
def endpoints(draw: st.DrawFn, values: dict[str, Any], path: str) -> EndpointSettings:
    """Draw an endpoint with settings that do not conflict."""
    kind = draw(st.sampled_from(("bridge", "broadcast", "files", "cgi", "console")))
    chosen = {**pick(draw, settings_of(KINDS[kind]), values), "path": path, "target": ""}
    chosen.pop("hosts", None)
    if kind == "bridge":
        chosen.setdefault("command", values["command"])
        chosen.pop("scripts", None)
    if kind == "broadcast":
        chosen |= {"command": values["command"], "broker": "main", "through": False, "durable": False}
    if not chosen.get("pty"):
        chosen.pop("pty_size", None)
    if not chosen.get("replay"):
        chosen.pop("replay_size", None)
    if chosen.get("pass_stderr"):
        chosen["framing"] = "lines"
    if chosen.get("console"):
        chosen["page"] = True
    endpoint = endpoint_of(kind, chosen)
    assert [*faults_of(endpoint)] == []
    return endpoint


@st.composite
def servers(draw: st.DrawFn, values: dict[str, Any]) -> ServerSettings:
    """Draw the settings of a server."""
    process = tuple(PartField("", field, False) for field in fields_of(ProcessSettings))
    ports = draw(st.lists(st.integers(1, 65535), max_size=3, unique=True))
    return ServerSettings(
        server=ProcessSettings(**pick(draw, process, values)),
        listeners=tuple(ListenSettings(address=f"[::1]:{port}") for port in ports) or (ListenSettings(address=":8080"),),
        endpoints=tuple(draw(endpoints(values, f"/{number}")) for number in range(draw(st.integers(1, 3)))),
        brokers={"main": BrokerSettings(url=values["url"])},
    )
