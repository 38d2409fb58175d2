"""The kinds of endpoint: the settings of each, and settings that conflict."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from wsbridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    ChannelSettings,
    EndpointSettings,
    Input,
    ProgramSettings,
    Role,
    register_kind,
)
from wsbridge.settings.declare import Setting, check_fault, field_of
from wsbridge.settings.endpoint import KINDS, faults_of, settings_of


def names(kind: str) -> set[str]:
    return {entry.field.name for entry in settings_of(KINDS[kind])}


def test_kinds() -> None:
    """Each kind has the settings that affect it."""
    assert set(KINDS) == {"bridge", "broadcast", "files", "cgi", "console"}
    assert {"scripts", "pass_stderr", "send_buffer"} <= names("bridge")
    assert not {"scripts", "pass_stderr", "send_buffer"} & names("broadcast")
    assert {"status", "max_clients", "broker"} <= names("broadcast")
    assert {"files", "write_timeout", "drain"} <= names("files")
    assert not {"command", "ping", "status"} & names("files")
    assert "files" not in names("cgi")


def test_required() -> None:
    """A kind declares its required settings."""
    required = {kind: {entry.field.name for entry in settings_of(struct) if entry.is_required} for kind, struct in KINDS.items()}
    assert required == {"bridge": set(), "broadcast": {"exchange"}, "files": {"files"}, "cgi": {"cgi"}, "console": set()}


def test_two_settings_of_one_name() -> None:
    """A configuration file lists the settings of a kind in one table, so no two may have the same name."""

    class Doubled(EndpointSettings, frozen=True, kw_only=True):
        kind = "doubled"
        ping: Annotated[str, Setting("x")] = ""
        program: ProgramSettings = ProgramSettings()
        drain: Annotated[str, Setting("x")] = ""

    with pytest.raises(ValueError, match="Doubled has two settings of the name drain"):
        register_kind("doubled", Doubled)
    assert "doubled" not in KINDS


@pytest.mark.parametrize("path", ["", "count", "/count/", "//", "/a//b", "/a/../b", "/.", "/a?b", "/a#b", "/a%20b", "/a\n", "/\u202e"])
def test_path(path: str) -> None:
    """A path is clean, and begins with a slash; only the root ends with one."""
    field = field_of(EndpointSettings, "path")
    assert [fault for right in ("/a/b.c", "/", "/a b", "/100%", "/é") for fault in check_fault(field, right)] == []
    assert [fault.path for fault in check_fault(field_of(EndpointSettings, "path"), path)] == [("path",)]


def test_bridge() -> None:
    """A bridge has a program or a folder of scripts."""
    for program in (ProgramSettings(command=("cat",)), ProgramSettings(scripts="x")):
        assert [*faults_of(BridgeSettings(program=program))] == []
    for program in (ProgramSettings(), ProgramSettings(command=("cat",), scripts="x")):
        assert [fault.path for fault in faults_of(BridgeSettings(program=program))] == [("command",)]


CAT = ("cat",)


@pytest.mark.parametrize(
    ("command", "channel", "path"),
    [
        ((), {"through": True, "broker": "main"}, "through"),
        (CAT, {"through": True}, "through"),
        ((), {"input": Input.PROGRAM, "broker": "main"}, "input"),
        (CAT, {"input": Input.PROGRAM, "through": True, "broker": "main"}, "input"),
        ((), {}, "exchange"),
        (CAT, {}, None),
        ((), {"broker": "main"}, None),
        ((), {"input": Input.EXCHANGE}, None),
        (CAT, {"through": True, "input": Input.EXCHANGE}, None),
    ],
)
def test_broadcast(command: tuple[str, ...], channel: dict[str, Any], path: str | None) -> None:
    """A channel needs a source of messages, and so does a program that reads messages."""
    endpoint = BroadcastSettings(channel=ChannelSettings(exchange="x", **channel), program=ProgramSettings(command=command))
    assert [fault.path for fault in faults_of(endpoint)] == ([(path,)] if path else [])


def test_role() -> None:
    """The settings determine the role of the channel's program."""
    channel, program = ChannelSettings(exchange="x"), ProgramSettings(command=CAT)
    through = ChannelSettings(exchange="x", through=True)
    endpoints = (BroadcastSettings(channel=channel), BroadcastSettings(channel=channel, program=program))
    assert [endpoint.role for endpoint in endpoints] == [Role.NONE, Role.PRODUCER]
    assert BroadcastSettings(channel=through, program=program).role is Role.THROUGH


def test_host_names() -> None:
    """The hosts of an endpoint are normalized, whatever their case and order."""
    assert EndpointSettings(hosts=("B.example", "a.example", "b.example", "::1")).host_names == ("[::1]", "a.example", "b.example")


def test_parts_of_every_kind() -> None:
    """A part that a kind lacks has its defaults, which have no effect. Settings have a part of that name only if the kind has it."""
    none = EndpointSettings()
    assert (none.program.command, none.http.files, none.access.same_origin, none.client.ping, none.broker_name) == ((), "", False, 25.0, "")
    program, channel = ProgramSettings(command=CAT), ChannelSettings(exchange="x", broker="main")
    endpoints: tuple[EndpointSettings, ...] = (BridgeSettings(program=program), BroadcastSettings(program=program, channel=channel))
    assert [(endpoint.program.command, endpoint.broker_name) for endpoint in endpoints] == [(CAT, ""), (CAT, "main")]
