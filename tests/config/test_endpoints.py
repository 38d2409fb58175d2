"""The endpoints of a configuration file: kinds, defaults and conflicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pytest

from tests.config.files import Folder
from wsbridge.settings import BridgeSettings, CgiSettings, ClientSettings, EndpointSettings, FilesSettings, register_kind
from wsbridge.settings.declare import Setting
from wsbridge.settings.endpoint import KINDS

BRIDGE = '[[endpoint]]\nkind = "bridge"\ncommand = "./count.sh"\n'
BROADCAST = '[[endpoint]]\nkind = "broadcast"\nexchange = "x"\n'


class EchoSettings(EndpointSettings, frozen=True, kw_only=True):
    """Settings of an endpoint that returns each message."""

    kind = "echo"

    prefix: Annotated[str, Setting("Send this before each message")] = ""
    client: ClientSettings = ClientSettings()


@pytest.fixture
def echo() -> Iterator[None]:
    """Register a kind of endpoint for the tests."""
    register_kind("echo", EchoSettings)
    yield
    del KINDS["echo"]


def test_new_kind(folder: Folder, echo: None) -> None:
    """A new kind needs one struct and one registration."""
    (endpoint,) = folder.settings('[[endpoint]]\nkind = "echo"\nprefix = "> "\nping = "5s"').endpoints
    assert endpoint == EchoSettings(prefix="> ", client=ClientSettings(ping=5.0))
    assert folder.faults('[[endpoint]]\nkind = "echo"\nprefixx = 1') == ["3: endpoint[1].prefixx: unknown key; did you mean prefix?"]
    assert folder.faults('[[endpoint]]\nkind = "ehco"') == ['2: endpoint[1].kind: unknown kind "ehco"; did you mean "echo"?']


def test_defaults(folder: Folder) -> None:
    """A key of the endpoint overrides the default of its kind, which overrides the default of all kinds."""
    text = (
        '[defaults]\nping = 1\nwrite_timeout = 1\ndrain = 1\nexchange = "x"\n[defaults.bridge]\nwrite_timeout = 2\n'
        f"drain = 2\n[defaults.files]\ndotfiles = true\nfiles = 'public'\n{BRIDGE}path = '/a'\ndrain = 3\n"
        "[[endpoint]]\nkind = 'files'\npath = '/b'\n"
    )
    bridge, files = folder.settings(text).endpoints
    assert isinstance(bridge, BridgeSettings)
    assert isinstance(files, FilesSettings)
    assert (bridge.client.ping, bridge.client.write_timeout, bridge.program.drain) == (1.0, 2.0, 3.0)
    assert (files.client.write_timeout, files.program.drain, files.http.dotfiles) == (1.0, 1.0, True)
    assert files.http.files == f"{folder.path}/public"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("ping = -1", "2: defaults.ping: -1 must not be negative"),
        ("path = '/x'", "2: defaults.path: each endpoint has its own path; remove it"),
        ("kind = 'x'", "2: defaults.kind: each endpoint has its own kind; remove it"),
        ("pong = 1", "2: defaults.pong: unknown key; did you mean ping?"),
        (
            "[defaults.bridge]\nexchange = 'x'",
            '3: defaults.bridge.exchange: an endpoint of kind "bridge" has no such key; kind "broadcast" has it',
        ),
        ("max_sessions = 1", "2: defaults.max_sessions: unknown key here; max_sessions is a key of [server]; move it there"),
        ("[defaults.bridge]\nping = 'x'", '3: defaults.bridge.ping: "x": write a number of seconds, or a time such as 500ms, 25s or 1m'),
        ("[defaults.bridgee]", "2: defaults.bridgee: unknown key; did you mean bridge?"),
        ("bridge = 1", "2: defaults.bridge: expected a table, got an integer; write [defaults.bridge]"),
        ("cgi = 'nowhere'", "2: defaults.cgi: nowhere is not a directory; create it, or correct the name"),
        (
            "console = true\npage = false",
            "2: defaults.console: console serves a page, and page = false turns all pages off; use only one of them",
        ),
        (
            "pass_stderr = true\n[defaults.bridge]\nframing = 'nul'",
            "2: defaults.pass_stderr: cannot be used with framing=nul: its JSON records are lines of text (wsbridge.toml:4 sets framing)",
        ),
        ("[defaults.bridge]\ncgi = 'nowhere'", "3: defaults.bridge.cgi: nowhere is not a directory; create it, or correct the name"),
    ],
)
def test_wrong_defaults(folder: Folder, text: str, fault: str) -> None:
    """The fault of a default is reported once, at its own place."""
    assert folder.faults(f"[defaults]\n{text}\n{BRIDGE}{BRIDGE}path = '/b'") == [fault]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("[[endpoint]]", ['1: endpoint[1].kind: missing: add kind = "bridge", "broadcast", "files", "cgi" or "console"']),
        (
            "[[endpoint]]\nkind = 'files\"'\nfiles = 5\nexchange = ''\nxyz = 1\nhosts = ['a', 1]",
            [
                """2: endpoint[1].kind: unknown kind 'files"'; did you mean "files"?""",
                "3: endpoint[1].files: expected a string, got 5",
                "5: endpoint[1].xyz: unknown key; remove it",
                "6: endpoint[1].hosts[2]: expected a string, got 1",
            ],
        ),
        ("[[endpoint]]\nkind = 1", ['2: endpoint[1].kind: expected "bridge", "broadcast", "files", "cgi" or "console", got 1']),
        (
            f"{BRIDGE}exchange = 'x'\nfoo = 1",
            [
                '4: endpoint[1].exchange: an endpoint of kind "bridge" has no such key; kind "broadcast" has it',
                "5: endpoint[1].foo: unknown key; remove it",
            ],
        ),
        ('[[endpoint]]\nkind = "bridge"', ["1: endpoint[1].command: missing: add command, or scripts for a folder of scripts"]),
        (
            f"{BRIDGE}[defaults]\nscripts = 'public'",
            ["3: endpoint[1].command: command and scripts cannot be used together; use only one of them (wsbridge.toml:5 sets scripts)"],
        ),
        (f"{BRIDGE}scripts = 'public'", ["3: endpoint[1].command: command and scripts cannot be used together; use only one of them"]),
        ('[[endpoint]]\nkind = "files"', ["1: endpoint[1].files: missing: add files"]),
        ('[[endpoint]]\nkind = "cgi"\ncgi = ""', ["3: endpoint[1].cgi: empty; write a value"]),
        ('[[endpoint]]\nkind = "broadcast"\ncommand = "./count.sh"', ["1: endpoint[1].exchange: missing: add exchange"]),
        (f"{BRIDGE}pty_size = '80x24'", ["4: endpoint[1].pty_size: needs pty"]),
        (f"{BRIDGE}pass_stderr = true\nframing = 'nul'", ["4: endpoint[1].pass_stderr: cannot be used with framing=nul: "]),
        (f"{BROADCAST}input = 'exchange'\nrestart = 'never'", ["5: endpoint[1].restart: needs command"]),
        (
            f"{BROADCAST}input = 'exchange'\nreplay = true\nspool = 5",
            ["5: endpoint[1].replay: needs broker", "6: endpoint[1].spool: needs broker"],
        ),
        (f"{BROADCAST}", ["3: endpoint[1].exchange: the channel has no source of messages: specify command, broker or input=exchange"]),
        (f"{BROADCAST}input = 'exchangee'", ['4: endpoint[1].input: expected "none", "program" or "exchange", got "exchangee"']),
        (f"{BROADCAST}through = true\ncommand = 5", ["5: endpoint[1].command: expected an array of strings, got 5"]),
        (f"{BRIDGE}command = 1", ["4: "]),
        (
            '[[endpoint]]\nkind = "bridge"\ncommand = "./plain.txt"',
            ["3: endpoint[1].command: unable to locate specified command 'plain.txt': it is not exec"],
        ),
        (
            '[[endpoint]]\nkind = "bridge"\ncommand = "none-such"',
            ["3: endpoint[1].command: unable to locate specified command 'none-such' in OS path"],
        ),
        (
            f"{BRIDGE}files = 'nowhere'\nmax_programs = -1",
            ["4: endpoint[1].files: nowhere is not a directory", "5: endpoint[1].max_programs: -1"],
        ),
    ],
)
def test_faults(folder: Folder, text: str, faults: list[str]) -> None:
    """A fault of one setting does not hide the fault of another, and does not cause one of a third."""
    found = folder.faults(text)
    assert [fault for fault, beginning in zip(found, faults, strict=True) if not fault.startswith(beginning)] == []


def test_cgi(folder: Folder) -> None:
    """An endpoint may serve CGI scripts alone."""
    (endpoint,) = folder.settings('[[endpoint]]\nkind = "cgi"\ncgi = "public"').endpoints
    assert isinstance(endpoint, CgiSettings)
    assert endpoint.http.cgi == f"{folder.path}/public"
