"""From the flags of `publish` and `subscribe` to their settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from wsbridge.channel.position import parse_position
from wsbridge.cli.commands import SUBSCRIBE, Command
from wsbridge.cli.values import check_choice, check_needs, check_values, part_of, raise_first, with_addresses
from wsbridge.errors import ConfigurationError
from wsbridge.logs import LEVELS
from wsbridge.resolve import broker_faults
from wsbridge.settings import BrokerSettings, ChannelSettings, PipeSettings
from wsbridge.settings.broker import check_url
from wsbridge.settings.channel import exchange_faults

OF_THE_BROKER = ("broker", "exchange", "replay", "durable", "passive")
SPOOL_BYTES = 8 * 1024 * 1024
"""Bytes that `publish` has read and the broker has not confirmed: twice the volume that is under way at once."""


def make_pipe_settings(flags: SimpleNamespace, shape: Command) -> PipeSettings:
    """Return the settings of `publish` or `subscribe`. Raises ConfigurationError."""
    if flags.command:
        stream = "prints to stdout" if shape is SUBSCRIBE else "reads stdin"
        raise ConfigurationError(f"{shape.name} {stream} and accepts no COMMAND; remove {flags.command[0]!r}")
    check_choice("loglevel", flags.loglevel, tuple(LEVELS))
    flags = _one_source(with_addresses(flags))
    if flags.url:
        _check_remote(flags.url)
    elif not flags.broker:
        raise ConfigurationError(
            "no channel specified: use --broker and --exchange, or use --url with the URL of a wsbridge server;"
            " without a broker, a channel exists only in its server"
        )
    else:
        raise_first(exchange_faults(flags.exchange, at_broker=True))
    check_needs(shape.options, flags)
    check_values(shape.options, flags)
    if flags.durable and flags.passive and flags.given >= {"durable", "passive"}:
        raise ConfigurationError("--durable and --passive cannot be used together: --passive does not declare the exchange")
    broker = _broker(flags, shape)
    position = _position(flags, has_positions=not flags.broker or flags.replay) if shape is SUBSCRIBE else {}
    return PipeSettings(
        channel=part_of(ChannelSettings, shape.options, flags, spool=SPOOL_BYTES),
        broker=broker,
        url=flags.url,
        framing=flags.framing,
        max_message=flags.maxline,
        **position,
    )


def _one_source(flags: SimpleNamespace) -> SimpleNamespace:
    """Return the flags with either a URL or a broker.

    A flag on the command line for one of the two overrides a variable for the other. Raises ConfigurationError if both are
    equally explicit.
    """
    given = flags.given
    if not flags.url or (flags.broker and "broker" in given and "url" not in given):
        return SimpleNamespace(**{**vars(flags), "url": ""})
    if flags.broker and ("broker" in given) == ("url" in given):
        raise ConfigurationError("--url and --broker cannot be used together; use only one of them")
    for flag in OF_THE_BROKER:
        if flag in given:
            raise ConfigurationError(f"--{flag} cannot be used with --url: the server configures its channel itself; remove --{flag}")
    return SimpleNamespace(**{**vars(flags), **dict.fromkeys(OF_THE_BROKER, ""), "broker": ()})


def _check_remote(url: str) -> None:
    try:
        check_url("--url", url, ("ws", "wss"), "not a WebSocket URL; write ws://host:port/ or wss://host:port/")
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _broker(flags: SimpleNamespace, shape: Command) -> BrokerSettings | None:
    """Return the broker, or None without one. `subscribe` publishes nothing and waits for no confirm."""
    if not flags.broker:
        return None
    broker = part_of(BrokerSettings, shape.options, flags, **({"confirm_timeout": 0.0} if shape is SUBSCRIBE else {}))
    raise_first(broker_faults(broker))
    return broker


def _position(flags: SimpleNamespace, *, has_positions: bool) -> dict[str, Any]:
    """Return the checked values of `--n`, `--since` and `--show-position`."""
    for flag, value in (("since", flags.since), ("show-position", flags.show_position)):
        if value and not has_positions:
            raise ConfigurationError(f"--{flag} needs --replay or --url: without --replay, the broker stores no messages")
    if flags.since and parse_position(flags.since) is None:
        raise ConfigurationError(f"--since={flags.since} is not a position; use a position that --show-position prints")
    if flags.n < 0:
        raise ConfigurationError(f"--n={flags.n} must not be negative")
    return {"count": flags.n, "since": flags.since, "show_position": flags.show_position}
