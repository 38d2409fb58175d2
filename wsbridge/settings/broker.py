"""The RabbitMQ broker that carries channels between nodes."""

import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from wsbridge.settings.declare import Part, Seconds, Setting

BETWEEN_ADDRESSES = re.compile(r"\s*,\s*(?=[a-z]+://|,|$)", re.IGNORECASE)
"""Matches between two addresses. A comma elsewhere belongs to a user, a password or a virtual host."""
FILES = ("cafile", "certfile", "keyfile")
BROKER_PARAMETERS = ("heartbeat", *FILES)
"""Parameters that the query of a broker's URL may have."""
BROKER_SCHEMES = ("amqp", "amqps")
WRITE_A_BROKER_URL = "not a broker URL; write amqp://user:password@host:port/vhost, or amqps://"


def split_addresses(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return each address of these lists as a separate item, without duplicates."""
    return tuple(dict.fromkeys(url for text in texts for url in BETWEEN_ADDRESSES.split(text.strip()) if url))


def check_url(subject: str, url: str, schemes: tuple[str, ...], what: str) -> None:
    """Check a URL. Raises ValueError, which names `subject` but does not show the URL: it may contain a password."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        # urlsplit ignores tabs and newlines.
        is_one = is_one and url.isprintable() and " " not in (parts.hostname or "")
    except ValueError:
        is_one = False
    if is_one and "," in (parts.hostname or ""):
        raise ValueError(f"{subject} has a comma in its host; begin each address with {schemes[0]}://")
    # If a password contains a slash, the rest of it would count as the path, which messages show.
    _, *behind_host = re.split("[/?#]", url.partition("://")[2], maxsplit=1)
    if "@" in "".join(behind_host):
        raise ValueError(f"{subject} has an @ after its host; in the user name, password and path, write @ as %40, / as %2F, : as %3A")
    if not is_one:
        raise ValueError(f"{subject} is {what}")


def with_files(url: str, locate: Callable[[str], str]) -> str:
    """Return a URL in which `locate` has replaced the names of files."""
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    query = [(name, locate(value) if name in FILES and value else value) for name, value in given]
    # Encoding may change the form of a query, so leave one that stays the same.
    return url if query == given else urlunsplit(parts._replace(query=urlencode(query, safe="/", quote_via=quote)))


def name_of_address(number: int, count: int) -> str:
    """Return the words for an address in an error, which do not show the address."""
    return f"<url> (address {number} of {count})" if count > 1 else "<url>"


def _check_addresses(urls: tuple[str, ...]) -> None:
    for number, url in enumerate(urls, 1):
        subject = name_of_address(number, len(urls))
        check_url(subject, url, BROKER_SCHEMES, WRITE_A_BROKER_URL)
        _check_query(subject, url)


def _check_query(subject: str, url: str) -> None:
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in BROKER_PARAMETERS:
            raise ValueError(f"{subject}: unknown parameter {name!r} in its URL, which accepts {', '.join(BROKER_PARAMETERS)}")
        if name == "heartbeat" and not (value.isascii() and value.isdecimal()):
            raise ValueError(f"{subject}: the heartbeat parameter in its URL is not a number of seconds")


class BrokerSettings(Part, frozen=True, kw_only=True):
    """The RabbitMQ broker that carries channels between nodes."""

    url: Annotated[
        tuple[str, ...],
        Setting(
            "Carry the channel between nodes over RabbitMQ: amqp://user:password@host/vhost, or amqps://; "
            "try several addresses in turn, separated by commas or repeated",
            (
                "Carry the channel through RabbitMQ: `amqp://user:password@host:port/vhost`, or `amqps://`. Separate "
                "[several addresses](broker.md#several-addresses) by commas, or repeat the flag"
            ),
            (
                "The address of the broker, `amqp://user:password@host:port/vhost` or `amqps://`, or several that are tried in turn: "
                'for example the nodes of a cluster. Keep a password out of the file: `url = { env = "NAME" }`'
            ),
            flag="broker",
            metavar="URL",
            is_repeatable=True,
            is_secret=True,
            check=_check_addresses,
        ),
    ]
    """One or more addresses, tried in turn. They contain passwords: wsbridge never shows them."""
    timeout: Annotated[
        Seconds,
        Setting(
            "Reconnect when the broker does not answer within this time, in seconds",
            "Reconnect when the broker does not answer within this time; also the connect timeout",
            flag="broker-timeout",
            is_positive=True,
            needs="url",
        ),
    ] = 10.0
    """Seconds without a byte from the broker after which a request to it fails."""
    confirm_timeout: Annotated[
        Seconds,
        Setting(
            "Reconnect when a publish stays unconfirmed without progress for this long, in seconds; alarms do not count (0: never)",
            "Reconnect when the broker does not confirm a publish within this time; the time of an alarm does not count (0: never)",
            flag="confirm-timeout",
            minimum=0,
            needs="url",
        ),
    ] = 30.0
    """Seconds without progress after which an unconfirmed publish has failed; 0: no limit."""
