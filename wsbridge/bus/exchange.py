"""The settings of one exchange on a broker, as the bus needs them: derived from the settings of the broker and of the channel."""

from __future__ import annotations

from dataclasses import dataclass

from wsbridge.settings import BrokerSettings, ChannelSettings, SpoolFull


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """One exchange on a broker. The URLs contain passwords: wsbridge never shows them."""

    urls: tuple[str, ...]
    """One or more addresses, tried in turn: for example the nodes of a cluster."""
    replay: bool = False
    replay_bytes: int = 256 * 1024 * 1024
    durable: bool = False
    passive: bool = False
    """Use an existing fanout exchange; do not declare it."""
    spool_bytes: int = 64 * 1024 * 1024
    spool_drops: bool = False
    """Whether a full spool drops the oldest messages instead of pausing the publisher."""
    timeout: float = 10.0
    """Seconds without a byte from the broker after which a request to it fails."""
    confirm_timeout: float = 30.0
    """Seconds without progress after which an unconfirmed publish has failed; 0: no limit."""


def exchange_settings(broker: BrokerSettings, channel: ChannelSettings) -> ExchangeSettings:
    """Return the settings of a channel's exchange on a broker."""
    return ExchangeSettings(
        urls=broker.url,
        replay=channel.replay,
        replay_bytes=channel.replay_size,
        durable=channel.durable,
        passive=channel.passive,
        spool_bytes=channel.spool,
        spool_drops=channel.spool_full is SpoolFull.DROP_OLDEST,
        timeout=broker.timeout,
        confirm_timeout=broker.confirm_timeout,
    )
