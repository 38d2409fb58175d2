"""The settings of an exchange, built from the settings of a broker and of a channel."""

from __future__ import annotations

from wsbridge.bus.exchange import ExchangeSettings, exchange_settings
from wsbridge.settings import BrokerSettings, ChannelSettings, SpoolFull


def test_defaults() -> None:
    """The defaults are those of the declared settings."""
    assert exchange_settings(BrokerSettings(url=("amqp://a/",)), ChannelSettings(exchange="x")) == ExchangeSettings(("amqp://a/",))


def test_each_setting() -> None:
    """Each setting of a broker and of a channel sets its own field."""
    channel = ChannelSettings(
        exchange="x", replay=True, replay_size=5, durable=True, passive=True, spool=6, spool_full=SpoolFull.DROP_OLDEST
    )
    made = exchange_settings(BrokerSettings(url=("a", "b"), timeout=1.5, confirm_timeout=2.5), channel)
    assert made == ExchangeSettings(
        ("a", "b"),
        replay=True,
        replay_bytes=5,
        durable=True,
        passive=True,
        spool_bytes=6,
        spool_drops=True,
        timeout=1.5,
        confirm_timeout=2.5,
    )
