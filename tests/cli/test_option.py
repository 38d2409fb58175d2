"""Flags, derived from the declarations of settings."""

from __future__ import annotations

import pytest

from wsbridge.cli.commands import COMMANDS
from wsbridge.cli.option import flags, in_flags
from wsbridge.mentions import MENTION
from wsbridge.settings import AccessSettings, ClientSettings, HttpSettings, ProgramSettings
from wsbridge.settings.declare import Kind

EVERY = {option.name: option for command in COMMANDS.values() for option in command.options}


def test_derived() -> None:
    """Name, default, metavar and unit follow from the declaration; the default uses the unit of the flag."""
    ping, drain, origins, page = (
        *flags(ClientSettings, "ping"),
        *flags(ProgramSettings, "drain"),
        *flags(AccessSettings, "origins"),
        *flags(HttpSettings, "page"),
    )
    assert (ping.name, ping.default, ping.metavar, ping.kind, ping.read("2s")) == ("pingms", 25_000, "MS", Kind.SECONDS, 2000)
    assert (drain.variable, drain.default) == ("WSBRIDGE_DRAINMS", 2000)
    assert (origins.default, origins.shown) == (None, "--origin=LIST")
    assert (page.shown, page.default, page.is_boolean) == ("--no-page", False, True)


def test_mentions() -> None:
    """A mentioned setting becomes its flag; a setting without a flag becomes the nearest flag."""
    sentence = "<max_programs> <page> <command> <broker> <url> <timeout> <address> <scripts>"
    assert in_flags(sentence) == "--maxforks --no-page COMMAND --broker --broker --broker-timeout --address --dir"


@pytest.mark.parametrize("name", EVERY)
def test_every_mention_is_resolved(name: str) -> None:
    """No text of a flag contains an unresolved mention."""
    option = EVERY[name]
    assert not MENTION.search(option.help + option.description + (option.default_shown or ""))
