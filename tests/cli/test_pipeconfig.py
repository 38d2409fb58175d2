"""From the flags of publish and subscribe to their settings."""

from __future__ import annotations

import pytest

from wsbridge.cli.commands import PUBLISH, SUBSCRIBE, Command
from wsbridge.cli.parse import parse
from wsbridge.cli.pipeconfig import SPOOL_BYTES, make_pipe_settings
from wsbridge.errors import ConfigurationError
from wsbridge.settings import BrokerSettings, ChannelSettings, PipeSettings

URL = "amqp://me:secret@rabbit/"
BROKER = ("--exchange=e", f"--broker={URL}")


def settings(shape: Command, *words: str, variables: dict[str, str] | None = None) -> PipeSettings:
    return make_pipe_settings(parse(words, variables or {}, shape), shape)


def test_broker() -> None:
    """With --broker, the channel is an exchange on that broker."""
    made = settings(PUBLISH, *BROKER, "--replay", "--framing=nul", "--maxline=5", "--confirm-timeout=7")
    assert made == PipeSettings(
        channel=ChannelSettings(exchange="e", replay=True, spool=SPOOL_BYTES),
        broker=BrokerSettings(url=(URL,), confirm_timeout=7.0),
        framing="nul",
        max_message=5,
    )
    assert settings(SUBSCRIBE, *BROKER).broker == BrokerSettings(url=(URL,), confirm_timeout=0.0)


def test_server() -> None:
    """With a URL, the server determines the channel."""
    made = settings(SUBSCRIBE, "--url=ws://h/", "-n", "3", "--since=0-0", "--show-position")
    assert (made.url, made.broker, made.count, made.since, made.show_position) == ("ws://h/", None, 3, "0-0", True)


def test_more_explicit_source() -> None:
    """A flag overrides a variable for the other source."""
    assert settings(PUBLISH, "--url=ws://h/", variables={"WSBRIDGE_BROKER": URL}).broker is None
    assert settings(PUBLISH, *BROKER, variables={"WSBRIDGE_URL": "ws://h/"}).url == ""


@pytest.mark.parametrize(
    ("shape", "words", "needles"),
    [
        (PUBLISH, ["cat"], ["publish reads stdin", "'cat'"]),
        (SUBSCRIBE, ["cat"], ["subscribe prints to stdout"]),
        (PUBLISH, [], ["--broker", "--exchange", "--url"]),
        (PUBLISH, [f"--broker={URL}"], ["--exchange is missing"]),
        (PUBLISH, ["--url=http://me:secret@h/"], ["--url is not a WebSocket URL"]),
        (PUBLISH, ["--url=ws://h/", *BROKER], ["--url and --broker"]),
        (PUBLISH, ["--url=ws://h/", "--durable"], ["--durable cannot be used with --url"]),
        (PUBLISH, ["--url=ws://h/", "--broker-timeout=5"], ["--broker-timeout needs --broker"]),
        (PUBLISH, [*BROKER, "--durable", "--passive"], ["--durable and --passive"]),
        (PUBLISH, [*BROKER, "--maxline=-1"], ["--maxline=-1"]),
        (PUBLISH, [*BROKER, "--loglevel=trace"], []),
        (SUBSCRIBE, [*BROKER, "--since=0-0"], ["--since needs --replay or --url"]),
        (SUBSCRIBE, ["--url=ws://h/", "--since=x"], ["--since=x is not a position"]),
        (SUBSCRIBE, ["--url=ws://h/", "-n", "-1"], ["--n=-1 must not be negative"]),
    ],
)
def test_conflicting_sources(shape: Command, words: list[str], needles: list[str]) -> None:
    """The message names each conflicting flag, and does not show a password."""
    if not needles:
        settings(shape, *words)
        return
    with pytest.raises(ConfigurationError) as caught:
        settings(shape, *words)
    assert [needle for needle in needles if needle not in str(caught.value)] == []
    assert "secret" not in str(caught.value)
