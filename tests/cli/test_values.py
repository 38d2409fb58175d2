"""Values of flags as values of settings, and the checks of each value."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wsbridge.channel.ring import Slow
from wsbridge.cli.commands import BROADCAST
from wsbridge.cli.parse import parse
from wsbridge.cli.values import check_needs, check_values, value_of
from wsbridge.errors import ConfigurationError
from wsbridge.settings import AccessSettings, BrokerSettings, ChannelSettings, ClientSettings, HttpSettings, ProcessSettings
from wsbridge.settings.declare import Part, field_of

URL = "--broker=amqp://a/"


@pytest.mark.parametrize(
    ("part", "name", "given", "value"),
    [
        (ClientSettings, "ping", 500, 0.5),
        (ClientSettings, "write_timeout", 1.5, 1.5),
        (ClientSettings, "max_client_message", -1, 0),
        (AccessSettings, "max_programs", 3, 3),
        (AccessSettings, "origins", "", None),
        (AccessSettings, "origins", ",", ()),
        (AccessSettings, "origins", "a, b,", ("a", "b")),
        (AccessSettings, "subprotocols", ("a, b", "c"), ("a", "b", "c")),
        (AccessSettings, "headers", ("A: 1, 2",), ("A: 1, 2",)),
        (ProcessSettings, "trust_proxy", "", ()),
        (HttpSettings, "page", True, False),
        (ChannelSettings, "slow", "close", Slow.CLOSE),
        (BrokerSettings, "url", ("amqp://a,b/",), ("amqp://a,b/",)),
    ],
)
def test_value(part: type[Part], name: str, given: Any, value: object) -> None:
    """A value with the unit and the syntax of the flag becomes a value of the setting."""
    assert value_of(field_of(part, name), given) == value


def checked(*words: str, variables: dict[str, str] | None = None) -> SimpleNamespace:
    flags = parse(words, variables or {}, BROADCAST)
    check_values(BROADCAST.options, flags)
    check_needs(BROADCAST.options, flags)
    return flags


@pytest.mark.parametrize(
    ("words", "need"),
    [
        (["--spool=5"], "--spool needs --broker"),
        (["--replay-bytes=5"], "--replay-bytes needs --broker"),
        ([URL, "--replay-bytes=5"], "--replay-bytes needs --replay"),
        (["--broker-timeout=5"], "--broker-timeout needs --broker"),
        (["--pty-size=80x24"], "--pty-size needs --pty"),
        (["--durable"], "--durable needs --broker"),
    ],
)
def test_needs(words: list[str], need: str) -> None:
    """A flag without effect is rejected; the error names the nearest flag that is missing."""
    with pytest.raises(ConfigurationError, match=f"^{need}$"):
        checked(*words)


def test_variables_without_effect() -> None:
    """A variable without effect is neither rejected nor checked, unless it switches something on."""
    checked(variables={"WSBRIDGE_SPOOL": "-5", "WSBRIDGE_PTY_SIZE": "x"})
    with pytest.raises(ConfigurationError, match="--replay needs --broker"):
        checked(variables={"WSBRIDGE_REPLAY": "true"})


def test_first_fault() -> None:
    """The error shows the value as the user wrote it, in the unit of the flag."""
    with pytest.raises(ConfigurationError, match=r"^--pingms=-1 must not be negative$"):
        checked("--pingms=-1")
    with pytest.raises(ConfigurationError, match=r"^--slow=x: write drop-oldest, latest or close$"):
        checked("--slow=x")
