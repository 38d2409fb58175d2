"""One value of a configuration file: each type, and its faults."""

from __future__ import annotations

from typing import Any

import pytest

from wsbridge.channel.ring import Slow
from wsbridge.config.values import WrongValue, each, located, read_value, show, wrong
from wsbridge.settings import (
    AccessSettings,
    ChannelSettings,
    ClientSettings,
    EndpointSettings,
    HttpSettings,
    ListenSettings,
    ProcessSettings,
    ProgramSettings,
)
from wsbridge.settings.declare import Part, field_of

CASES = [
    (ProgramSettings, "pty", True, True),
    (AccessSettings, "max_programs", 5, 5),
    (ClientSettings, "send_buffer", 65536, 65536),
    (ClientSettings, "send_buffer", "64KiB", 65536),
    (ClientSettings, "ping", 25, 25.0),
    (ClientSettings, "ping", 0.5, 0.5),
    (ClientSettings, "ping", "1m30s", 90.0),
    (ClientSettings, "ping", "500ms", 0.5),
    (ChannelSettings, "exchange", "x", "x"),
    (ChannelSettings, "slow", "close", Slow.CLOSE),
    (AccessSettings, "origins", [], ()),
    (AccessSettings, "subprotocols", ["a", "b"], ("a", "b")),
    (ProgramSettings, "framing", "nul", "nul"),
    (ProgramSettings, "command", "cat", ("cat",)),
    (ProgramSettings, "command", ["./a", "./b"], ("/etc/a", "./b")),
    (ProgramSettings, "command", ["bin/a"], ("/etc/bin/a",)),
    (ProgramSettings, "command", ".//./a", ("/etc/a",)),
    (ProgramSettings, "command", ["../a"], ("/etc/../a",)),
    (ProgramSettings, "command", ["/bin/a b"], ("/bin/a b",)),
    (HttpSettings, "files", "public", "/etc/public"),
    (HttpSettings, "files", "/srv", "/srv"),
    (HttpSettings, "files", "", ""),
    (ListenSettings, "certificate", "a.pem", "/etc/a.pem"),
    (ListenSettings, "address", "unix:run/s", "unix:/etc/run/s"),
    (ListenSettings, "address", "[::1]:80", "[::1]:80"),
]


@pytest.mark.parametrize(("part", "name", "given", "value"), CASES)
def test_value(part: type[Part], name: str, given: Any, value: object) -> None:
    """A value from a file gets the type of its setting; a file name is relative to the folder of the configuration file."""
    assert read_value(field_of(part, name), given, folder="/etc") == value


WRONG = [
    (ProgramSettings, "pty", 1, "expected true or false, got 1"),
    (AccessSettings, "max_programs", True, "expected an integer, got true"),
    (AccessSettings, "max_programs", 1.5, "expected an integer, got 1.5"),
    (AccessSettings, "max_programs", "ten", 'expected an integer, got "ten"'),
    (AccessSettings, "max_programs", -1, "-1 must not be negative"),
    (ClientSettings, "send_buffer", 1.5, 'expected a size, such as 65536 or "16MiB", got 1.5'),
    (ClientSettings, "send_buffer", "5x", '"5x": write a number of bytes, or a size such as 64k or 16MiB'),
    (ClientSettings, "ping", float("nan"), 'expected a time in seconds, such as 25 or "500ms", got nan'),
    (ClientSettings, "ping", "soon", '"soon": write a number of seconds, or a time such as 500ms, 25s or 1m'),
    (ClientSettings, "ping", -0.5, "-0.5 must not be negative"),
    (ChannelSettings, "replay_size", 0, "0 must be more than 0"),
    (ChannelSettings, "exchange", [], "expected a string, got an array"),
    (ChannelSettings, "exchange", "a\0", "the string contains the character U+0000; remove it"),
    (ChannelSettings, "slow", "never", 'expected "drop-oldest", "latest" or "close", got "never"'),
    (AccessSettings, "busy", 429, 'expected "429" or "close", got 429'),
    (AccessSettings, "origins", "a.com", 'expected an array of strings, got "a.com"; write ["a.com"]'),
    (ProgramSettings, "pty_size", "80", "80 is not a size; write columns and rows, such as 132x43"),
    (ProgramSettings, "command", "./a 5", 'got "./a 5"; write an array: ["./a", "5"]'),
    (ProgramSettings, "command", [], "got an empty command"),
    (ProgramSettings, "command", ["", "x"], "got an empty command"),
    (ProgramSettings, "command", 5, "expected an array of strings, got 5"),
]


@pytest.mark.parametrize(("part", "name", "given", "sentence"), WRONG)
def test_wrong_value(part: type[Part], name: str, given: Any, sentence: str) -> None:
    """The fault of a value is one sentence, which follows the path of the setting."""
    with pytest.raises(WrongValue) as caught:
        read_value(field_of(part, name), given, folder="/etc")
    ((path, found),) = caught.value.faults
    assert (path, sentence in found) == ((), True)


ITEMS = [
    (
        AccessSettings,
        "subprotocols",
        ["a", 1, "b", True, "\0", "b c", " "],
        [
            ((1,), "expected a string, got 1"),
            ((3,), "expected a string, got t"),
            ((4,), "the string contains the "),
            ((5,), "'b c' is not a valid tok"),
            ((6,), "the string is empty; wri"),
        ],
    ),
    (AccessSettings, "headers", ["a b: c", "A: b"], [((0,), "'a b: c' is not a header")]),
    (AccessSettings, "headers_http", ["A: b", "Sec-WebSocket-Extensions: x"], [((1,), "the handshake negotiates")]),
    (AccessSettings, "origins", ["a.com", "ws://a", "a b"], [((1,), "'ws://a' cannot match an"), ((2,), "'a b' cannot match any o")]),
    (ProcessSettings, "hosts", ["a", "localhost", "a:1"], [((1,), "localhost is always acce"), ((2,), "a:1 is not a host name; ")]),
    (ProcessSettings, "trust_proxy", ["unix", "x"], [((1,), "'x' does not appear to b")]),
    (ProgramSettings, "pass_environment", ["PATH", ""], [((1,), "the string is empty; wri")]),
    (
        EndpointSettings,
        "hosts",
        ["a.com.", "*.b", "a:1", "é.com"],
        [((2,), "a:1 is not a host name; "), ((3,), "é.com: write the name as")],
    ),
    (ProgramSettings, "command", ["a", 1, "", []], [((1,), "expected a string, got 1"), ((3,), "expected a string, got a")]),
]


@pytest.mark.parametrize(("part", "name", "given", "faults"), ITEMS)
def test_each_item(part: type[Part], name: str, given: list[Any], faults: list[tuple[tuple[int, ...], str]]) -> None:
    """Every invalid item is reported with its index."""
    with pytest.raises(WrongValue) as caught:
        read_value(field_of(part, name), given, folder="/")
    assert [(path, sentence[:24]) for path, sentence in caught.value.faults] == faults


def test_each() -> None:
    """All items are read before the first fault is raised."""

    def refuse(item: object) -> object:
        raise wrong("no")

    assert each(int, "12") == (1, 2)
    with pytest.raises(WrongValue, match="no; no"):
        each(refuse, "12")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "true"),
        (5, "5"),
        ("ten", '"ten"'),
        ("x" * 50, '"' + "x" * 40 + '…"'),
        ("a\nb", "'a\\nb'"),
        ('a"b', "'a\"b'"),
        ([1], "an array"),
        ({}, "a table"),
    ],
)
def test_show(value: object, shown: str) -> None:
    """A value is shown on one short line, a container by its type."""
    assert show(value) == shown


def test_located() -> None:
    """Only file names are relative to a folder."""
    assert located(field_of(ChannelSettings, "exchange"), "a/b", "/etc") == "a/b"
    assert located(field_of(ListenSettings, "owner"), "unix:x", "/etc") == "unix:x"
