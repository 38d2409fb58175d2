"""Error texts about a broker: the error, the broker's address, and the remedy. No text contains a password."""

from __future__ import annotations

import re
import ssl
from ipaddress import ip_address
from urllib.parse import urlsplit

from aio_pika import exceptions

from wsbridge.errors import reason_of
from wsbridge.mentions import written
from wsbridge.rules.urls import shown

PORTS = {"amqp": 5672, "amqps": 5671}
FORCED = 320
"""The reply code of a connection that an operator closes, or that closes because the broker stops: no request is its cause."""
LINK_ERRORS = (*exceptions.CONNECTION_EXCEPTIONS, TimeoutError, EOFError)
"""Exceptions that aio-pika raises when a connection or a channel fails."""

REPR = re.compile(r"\w+\(\d+, '([^']*)'\)")
"""Matches the repr of an OSError."""
DIFFERS = re.compile(r"inequivalent arg '(\S+)' for .* current is '(\S+)'")
"""Matches RabbitMQ's refusal (406) to redeclare an object with other properties: the property, and its current value."""


class NoChannelLeft(exceptions.AMQPError):
    """A connection has as many channels as the broker permits."""

    def __init__(self, channel_max: int) -> None:
        super().__init__(f"its connection has {channel_max} channels, and the broker permits no more (channel_max)")


def is_refusal(error: BaseException) -> bool:
    """Whether the broker has closed a connection because of an error in a request."""
    return isinstance(error, exceptions.ConnectionClosed) and FORCED not in error.args


def why_closed(error: BaseException | None) -> str:
    """Return the reason for the closure of a connection, as far as it is known."""
    text = REPR.sub(r"\1", str(error or ""))
    return f"the connection was closed: {text}" if text else "the connection was closed"


def _why_not_guest(user: str, url: str) -> str:
    """Return a hint about the user guest that RabbitMQ's error omits (`loopback_users`)."""
    if user != "guest" or is_loopback(urlsplit(url).hostname or ""):
        return ""
    return "; RabbitMQ accepts guest only from its own machine: add another user there (rabbitmqctl add_user, set_permissions)"


def is_loopback(host: str) -> bool:
    """Whether the host of a URL is this machine, by name or by address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _how_it_differs(text: str) -> str:
    """Return the remedy for an exchange that differs from its declaration, derived from RabbitMQ's error text."""
    found = DIFFERS.search(text)
    match found.groups() if found else None:
        case ("type", current):
            remedy = "bind a fanout to it, for all routing keys, and use that fanout"
            return f"its type is {current}, but a channel needs a fanout; {remedy}"
        case ("durable", "true"):
            return written("it is durable; add <durable>, or <passive> if another application declares it")
        case ("durable", _):
            return written("it is not durable; remove <durable>")
    return written("it exists with other properties; add <passive> to use it unchanged")


def explain(error: BaseException, url: str, exchange: str) -> str:
    """Return the cause of a broker error, and the remedy. The text does not contain the password."""
    where = shown(url, PORTS)
    user = urlsplit(url).username or "guest"
    # aio-pika wraps the OSError of a failed connection attempt in its own error.
    cause = error.__cause__
    match cause if isinstance(cause, OSError) else error:
        case exceptions.ProbableAuthenticationError() | exceptions.AuthenticationError():
            return f"the broker at {where} refuses the user {user} with this password{_why_not_guest(user, url)}"
        case exceptions.InvalidFrameError() if "Connection.Close" in str(error):
            # This error has lost the broker's own reply text, NOT_ALLOWED.
            hint = "check that it exists, and that the user has permissions for it"
            return f"the broker at {where} denies the user {user} access to this virtual host; {hint}"
        case exceptions.ChannelPreconditionFailed() if "x-max-length-bytes" in str(error) and "current is none" not in str(error):
            return f"the broker at {where} has the stream of {exchange} with a different value of {written('<replay_size>')} ({error})"
        case exceptions.ChannelPreconditionFailed() if "for queue" in str(error):
            return f"the broker at {where} has a queue wsbridge.{exchange} that is not a stream of wsbridge ({error})"
        case exceptions.ChannelPreconditionFailed():
            return f"the broker at {where} refuses exchange {exchange}: {_how_it_differs(str(error))} ({error})"
        case exceptions.ChannelNotFoundEntity() if "inaccessible" in str(error):
            hint = "the node that stores it is down; if that node has lost it permanently, delete the stream"
            return f"the broker at {where} cannot reach the stream of exchange {exchange}: {hint} ({error})"
        case exceptions.ChannelNotFoundEntity():
            return f"the broker at {where} has no exchange {exchange}, and {written('<passive>')} does not declare it ({error})"
        case exceptions.ChannelClosed() if "ACCESS_REFUSED" in str(error):
            return f"the broker at {where} denies the user {user} access to exchange {exchange} ({error})"
        case NoChannelLeft():
            return f"the broker at {where} cannot be used for exchange {exchange}: {error}; raise channel_max in its configuration"
        case exceptions.ConnectionClosed():
            return f"the broker at {where} closed the connection ({error}); check the virtual host"
        case TimeoutError():
            return f"the broker at {where} does not answer"
        case ssl.SSLCertVerificationError() as reason:
            why = f"{reason.verify_message}; name its CA with ?cafile="
            return f"the broker at {where} has a certificate that this machine does not trust: {why}"
        case ssl.SSLError() as reason:
            return f"the broker at {where} failed the TLS handshake: {reason.reason or reason}"
        case FileNotFoundError():
            why = "a file that its URL names (cafile, certfile, keyfile) does not exist"
            return f"the broker at {where} cannot be used: {why}"
        case OSError() as reason:
            return f"the broker at {where} cannot be reached: {reason_of(reason)}; is RabbitMQ running there?"
    return f"the broker at {where} cannot be used: {type(error).__name__}: {error}"
