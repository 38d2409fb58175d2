"""The settings of a channel: names of exchanges, and settings that conflict."""

from __future__ import annotations

import pytest
from pamqp import commands

from wsbridge.settings.channel import ChannelSettings, exchange_faults


@pytest.mark.parametrize("name", ["x" * 127, "x" * 128, "x" * 250, "a-Z y_.:@#,/+9", *"é!$%&*()=\n\t\"'~;<>?[]{}|\\^`\u0660", "x\n"])
def test_names_at_a_broker(name: str) -> None:
    """At a broker, a name is valid if the library accepts it for the exchange and for its stream. Without a broker, AMQP's bounds apply."""
    faults = [fault.sentence for fault in exchange_faults(name, at_broker=True)]
    try:
        commands.Exchange.Declare(exchange=name).validate()
        commands.Queue.Declare(queue=f"wsbridge.{name}").validate()
    except ValueError:
        assert faults[0].startswith("<exchange> is not a valid name for a broker")
    else:
        assert faults == []
    assert [*exchange_faults(name, at_broker=False)] == []


def test_library_decides_about_the_name_only_at_a_broker() -> None:
    """Only the name of an exchange at a broker must be valid for the broker's library."""
    assert [*ChannelSettings(exchange="ä").faults()] == []
    assert [fault.path for fault in ChannelSettings(exchange="ä", broker="main").faults()] == [("exchange",)]


def test_durable_and_passive() -> None:
    """An exchange that is not declared cannot be declared as durable."""
    (fault,) = ChannelSettings(exchange="x", broker="main", durable=True, passive=True).faults()
    assert fault.path == ("durable",)
