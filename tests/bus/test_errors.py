"""Errors of a broker: what happened, where, and what to do."""

from __future__ import annotations

import aiormq.exceptions
import pytest
from aio_pika import exceptions

from wsbridge.bus.rabbitmq.errors import NoChannelLeft, explain, is_loopback, is_refusal

REFUSED = exceptions.ProbableAuthenticationError("ACCESS_REFUSED - Login was refused")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_guest_on_the_same_machine(host: str) -> None:
    """On the broker's own machine, guest may connect, so the error names the password."""
    said = explain(REFUSED, f"amqp://guest:secret@{host}/", "temps")
    assert said == f"the broker at amqp://{host}:5672/ refuses the user guest with this password"


@pytest.mark.parametrize(
    "url", ["amqp://guest:secret@rabbit/", "amqp://rabbit/", "amqps://guest:secret@192.168.2.9/", "amqp://[2001:db8::1]/"]
)
def test_guest_elsewhere(url: str) -> None:
    """From another machine, RabbitMQ rejects its user guest with any password: the error says so, and what to do."""
    said = explain(REFUSED, url, "temps")
    assert "accepts guest only from its own machine" in said
    assert "rabbitmqctl add_user" in said
    assert "secret" not in said


def test_another_user_elsewhere() -> None:
    """The advice for guest does not appear for another user."""
    assert (
        explain(REFUSED, "amqp://me:secret@rabbit/", "temps") == "the broker at amqp://rabbit:5672/ refuses the user me with this password"
    )


def test_no_channel_left() -> None:
    """The error for a broker without free channels names the broker and the setting."""
    said = explain(NoChannelLeft(3), "amqp://rabbit/", "temps")
    assert said == (
        "the broker at amqp://rabbit:5672/ cannot be used for exchange temps: its connection has 3 channels, "
        "and the broker permits no more (channel_max); raise channel_max in its configuration"
    )


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (aiormq.exceptions.ConnectionInternalError("INTERNAL_ERROR"), True),
        (exceptions.ConnectionClosed(530, "NOT_ALLOWED"), True),
        (exceptions.ConnectionClosed(320, "CONNECTION_FORCED - a test"), False),
        (exceptions.AMQPConnectionError("Server connection reset"), False),
    ],
    ids=repr,
)
def test_refusal(error: Exception, is_it: bool) -> None:
    """Only the error of a request counts as a refusal, not a close by an operator, a restart or a lost socket."""
    assert is_refusal(error) is is_it


@pytest.mark.parametrize(
    ("host", "is_it"), [("localhost", True), ("127.0.0.1", True), ("::1", True), ("rabbit", False), ("10.0.0.1", False), ("", False)]
)
def test_loopback(host: str, is_it: bool) -> None:
    """A name or an address of the loopback interface is this machine; a name that needs DNS may be any machine."""
    assert is_loopback(host) is is_it
