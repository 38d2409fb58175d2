"""From the flags of broadcast to settings: the value of each flag, conflicts between flags, and the secrecy of passwords."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path

import pytest

from wsbridge.channel.ring import Join, Slow
from wsbridge.cli.commands import BROADCAST
from wsbridge.cli.config import make_settings
from wsbridge.cli.parse import parse
from wsbridge.errors import ConfigurationError, UsageError
from wsbridge.rules.restarts import Restart
from wsbridge.settings import (
    BroadcastSettings,
    BrokerSettings,
    ChannelSettings,
    Input,
    ProgramSettings,
    Role,
    ServerSettings,
    SpoolFull,
)

URL = "amqp://me:secret@rabbit/vhost"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a program."""
    (tmp_path / "prog").write_text("#!/bin/sh\n")
    (tmp_path / "prog").chmod(0o755)
    (tmp_path / "files").mkdir()
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(*words: str, environ: Mapping[str, str] | None = None) -> ServerSettings:
    return make_settings(parse(words, environ or {}, BROADCAST), {"PATH": "/nowhere"}, name="wsbridge", shape=BROADCAST)


def broadcast(made: ServerSettings) -> BroadcastSettings:
    """Return the only endpoint."""
    (endpoint,) = made.endpoints
    assert isinstance(endpoint, BroadcastSettings)
    return endpoint


def test_defaults(here: Path) -> None:
    """The settings of a broadcast of COMMAND without flags: no broker, no messages from browsers, and a page."""
    made = settings("--exchange=temps", "./prog")
    assert made.endpoints == (BroadcastSettings(channel=ChannelSettings(exchange="temps"), program=ProgramSettings(command=("./prog",))),)
    assert made.brokers == {}
    assert broadcast(made).role is Role.PRODUCER
    assert broadcast(made).client.send_buffer == 0


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["--through", "--input=exchange"], "role", Role.THROUGH),
        (["--through", f"--broker={URL}"], "role", Role.THROUGH),
        (["--input=program"], "channel.input", Input.PROGRAM),
        (["--input=exchange"], "channel.input", Input.EXCHANGE),
        (["--history=7"], "channel.history", 7),
        (["--history-bytes=8"], "channel.history_size", 8),
        (["--join=last"], "channel.join", Join.LAST),
        (["--queue=9"], "channel.queue", 9),
        (["--slow=close"], "channel.slow", Slow.CLOSE),
        (["--restart=never"], "channel.restart", Restart.NEVER),
        (["--maxclients=10"], "channel.max_clients", 10),
        (["--devconsole"], "http.console", True),
        (["--no-status"], "http.status", False),
        (["--maxforks=3"], "access.max_programs", 3),
        ([f"--broker={URL}"], "channel.broker", "main"),
        ([f"--broker={URL}", "--replay"], "channel.replay", True),
        ([f"--broker={URL}", "--replay", "--replay-bytes=5"], "channel.replay_size", 5),
        ([f"--broker={URL}", "--durable"], "channel.durable", True),
        ([f"--broker={URL}", "--passive"], "channel.passive", True),
        ([f"--broker={URL}", "--spool=11"], "channel.spool", 11),
        ([f"--broker={URL}", "--broker-timeout=1.5"], "main.timeout", 1.5),
        ([f"--broker={URL}", "--confirm-timeout=0"], "main.confirm_timeout", 0),
        ([f"--broker={URL}", "--spool-full=drop-oldest"], "channel.spool_full", SpoolFull.DROP_OLDEST),
        (["--broker=amqps://[::1]:5671/"], "main.url", ("amqps://[::1]:5671/",)),
        (["--broker=amqps://h/?heartbeat=5&cafile=ca.pem"], "main.url", ("amqps://h/?heartbeat=5&cafile=ca.pem",)),
    ],
)
def test_each_flag(here: Path, words: list[str], path: str, value: object) -> None:
    """Each flag sets the setting that it names."""
    made = settings("--exchange=temps", *words, "./prog")
    first, *rest = path.split(".")
    start = made.brokers["main"] if first == "main" else getattr(broadcast(made), first)
    assert reduce(getattr, rest, start) == value


@pytest.mark.parametrize(
    "words",
    [
        ["--broker=amqp://a/,amqps://u:p%2Cw@b/v"],
        ["--broker", "amqp://a/", "--broker", "amqps://u:p%2Cw@b/v"],
        ["--broker= amqp://a/ , amqps://u:p%2Cw@b/v ,"],
        ["--broker=amqp://a/,,amqps://u:p%2Cw@b/v", "--broker=amqp://a/", "--broker="],
    ],
)
def test_addresses_of_a_broker(here: Path, words: list[str]) -> None:
    """Commas or repeated flags separate addresses; each address counts once, in the order of the command line."""
    expected = {"main": BrokerSettings(url=("amqp://a/", "amqps://u:p%2Cw@b/v"))}
    assert settings("--exchange=temps", *words, "./prog").brokers == expected
    variables = {"WSBRIDGE_BROKER": "\n".join(word.removeprefix("--broker=") for word in words if word != "--broker")}
    assert settings("--exchange=temps", "./prog", environ=variables).brokers == expected
    assert settings("--exchange=temps", "--broker=", "./prog", environ=variables).brokers == {}


@pytest.mark.parametrize("url", ["amqp://me:pass,word@h/", "amqp://h/v,w", "amqp://me:,@h/"])
def test_comma_that_is_no_separator(here: Path, url: str) -> None:
    """A comma without an address after it belongs to the password or to the virtual host."""
    assert settings("--exchange=temps", f"--broker={url}", "./prog").brokers == {"main": BrokerSettings(url=(url,))}


def test_gateway(here: Path) -> None:
    """Without COMMAND, broadcast passes on messages from the broker or from browsers."""
    for words in ([f"--broker={URL}"], ["--input=exchange"]):
        assert broadcast(settings("--exchange=temps", *words)).role is Role.NONE
        # --drainms applies to the CGI scripts, and switching a feature off is always permitted.
        assert broadcast(settings("--exchange=temps", *words, "--cgidir=files", "--drainms=5", "--pty=false")).program.drain == 0.005
    channel = broadcast(settings("--exchange=temps", f"--broker={URL}", "--durable=false", "--passive")).channel
    assert (channel.durable, channel.passive) == (False, True)


def test_variables(here: Path) -> None:
    """Every flag is also a variable, so that the broker's password need not be on the command line."""
    made = settings("./prog", environ={"WSBRIDGE_EXCHANGE": "temps", "WSBRIDGE_BROKER": URL, "WSBRIDGE_REPLAY": "true"})
    assert broadcast(made).channel == ChannelSettings(exchange="temps", broker="main", replay=True)
    assert made.brokers == {"main": BrokerSettings(url=(URL,))}
    # In a file of variables for several commands, a variable without effect causes no error.
    made = settings("./prog", environ={"WSBRIDGE_EXCHANGE": "temps", "WSBRIDGE_SPOOL": "5", "WSBRIDGE_REPLAY_BYTES": "6"})
    assert made.brokers == {}


WRONG = [
    (["./prog"], ["--exchange"]),
    (["--exchange=", "./prog"], ["--exchange"]),
    (["--exchange=amq.fanout", "./prog"], ["--exchange", "amq."]),
    (["--exchange=" + "x" * 256, "./prog"], ["--exchange", "255"]),
    (["--exchange=" + "x" * 128, f"--broker={URL}", "./prog"], ["--exchange", "127"]),
    (["--exchange=é", f"--broker={URL}", "./prog"], ["--exchange", "A-Z", "127"]),
    (["--exchange=e"], ["COMMAND", "--broker", "--input=exchange"]),
    (["--exchange=e", "--through", "--input=exchange"], ["--through", "COMMAND"]),
    (["--exchange=e", "--input=program", f"--broker={URL}"], ["--input=program", "COMMAND"]),
    (["--exchange=e", "--input=program", "--through", f"--broker={URL}", "./prog"], ["--input=program", "--through"]),
    (["--exchange=e", "--through", "./prog"], ["--through", "--broker", "--input=exchange"]),
    (["--exchange=e", "--input=all", "./prog"], ["--input", "all", "none", "program", "exchange"]),
    (["--exchange=e", "--join=first", "./prog"], ["--join", "first", "history", "last", "none"]),
    (["--exchange=e", "--slow=never", "./prog"], ["--slow", "never", "drop-oldest", "latest", "close"]),
    (["--exchange=e", "--restart=no", "./prog"], ["--restart", "no", "always", "on-failure", "never"]),
    (["--exchange=e", "--history=-1", "./prog"], ["--history", "-1"]),
    (["--exchange=e", "--queue=-1", "./prog"], ["--queue", "-1"]),
    (["--exchange=e", "--replay", "./prog"], ["--replay", "--broker"]),
    (["--exchange=e", "--durable", "./prog"], ["--durable", "--broker"]),
    (["--exchange=e", "--passive", "./prog"], ["--passive", "--broker"]),
    (["--exchange=e", f"--broker={URL}", "--spool-full=wait", "./prog"], ["--spool-full", "wait", "block", "drop-oldest"]),
    (["--exchange=e", f"--broker={URL}", "--spool=-1", "./prog"], ["--spool", "-1"]),
    (["--exchange=e", f"--broker={URL}", "--broker-timeout=0", "./prog"], ["--broker-timeout", "more than 0"]),
    (["--exchange=e", f"--broker={URL}", "--confirm-timeout=-1", "./prog"], ["--confirm-timeout", "-1"]),
    (["--exchange=e", "--confirm-timeout=5", "./prog"], ["--confirm-timeout", "--broker"]),
    (["--exchange=e", f"--broker={URL}", "--replay", "--replay-bytes=0", "./prog"], ["--replay-bytes", "0"]),
    *(
        (["--exchange=e", f"--broker={url}", "./prog"], ["--broker", "amqp://"])
        for url in ("x", "http://me:secret@h/", "amqp:///", "amqp://h:x/")
    ),
    *(
        (["--exchange=e", f"--broker={URL},{second}", "./prog"], ["--broker", *needles])
        for second, needles in (
            ("http://me:secret@h/", ["address 2 of 2", "amqp://"]),
            ("amqp://h:x/", ["address 2 of 2", "amqp://"]),
            ("amqp://me:sec/ret@h/", ["address 2 of 2", "%2F"]),
            ("amqp://h/?keyfile=nothing.pem", ["address 2 of 2", "nothing.pem"]),
        )
    ),
    (["--exchange=e", "--broker=amqp://me:secret@a,b,c/", "./prog"], ["--broker", "comma", "amqp://"]),
    (["--exchange=e", "--framing=xml", "./prog"], ["--framing", "xml"]),
    (["--exchange=e", "--maxclients=-3", "./prog"], ["--maxclients", "-3"]),
    *(
        (["--exchange=e", word, "./prog"], [word.partition("=")[0], "--broker"])
        for word in ("--spool=5", "--spool-full=block", "--replay-bytes=5")
    ),
    (["--exchange=e", f"--broker={URL}", "--replay-bytes=5", "./prog"], ["--replay-bytes", "--replay"]),
    (["--exchange=e", f"--broker={URL}", "--durable", "--passive", "./prog"], ["--durable", "--passive"]),
    *(
        (["--exchange=e", f"--broker={URL}", word], [word.partition("=")[0], "COMMAND"])
        for word in ("--restart=never", "--pty", "--pty-size=80x24", "--framing=nul", "--binary")
    ),
    (["--exchange=e", f"--broker={URL}?cafil=x", "./prog"], ["--broker", "'cafil'", "cafile"]),
    (["--exchange=e", f"--broker={URL}?heartbeat=soon", "./prog"], ["--broker", "heartbeat", "seconds"]),
    (["--exchange=e", f"--broker={URL}?heartbeat=5&keyfile=nothing.pem", "./prog"], ["--broker", "keyfile", "nothing.pem"]),
]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("keyfile", "-----BEGIN ENCRYPTED PRIVATE KEY-----", "the key is encrypted"),
        ("keyfile", "-----BEGIN CERTIFICATE-----", "it contains a certificate, not a private key"),
        ("keyfile", "", "the file is empty"),
        ("certfile", "-----BEGIN PRIVATE KEY-----", "it contains a private key, not a certificate"),
        ("cafile", "hello", "it is not PEM"),
    ],
)
def test_unusable_file_of_the_broker(here: Path, name: str, content: str, words: str) -> None:
    """If a file in the broker's URL is unusable, the error names the file and the reason before anything starts."""
    (here / "x.pem").write_text(content)
    with pytest.raises(ConfigurationError, match=rf"--broker: the {name} in its URL, x\.pem, cannot be used: {words}"):
        settings("--exchange=e", f"--broker={URL}?{name}=x.pem", "./prog")


@pytest.mark.parametrize(("words", "needles"), WRONG, ids=[ascii(" ".join(words))[:60] for words, _ in WRONG])
def test_conflicts(here: Path, words: list[str], needles: list[str]) -> None:
    """The message names each conflicting flag, is one line, and does not show a password."""
    with pytest.raises(ConfigurationError) as caught:
        settings(*words)
    message = str(caught.value)
    assert [needle for needle in needles if needle not in message] == []
    assert message.isprintable()
    assert "secret" not in message


@pytest.mark.parametrize("word", ["--dir=files", "--once", "--passstderr", "--sendbuffer=1"])
def test_flags_only_of_the_bridge(word: str) -> None:
    """broadcast does not have flags that have no meaning for it."""
    with pytest.raises(UsageError, match="not defined"):
        parse([word], {}, BROADCAST)
