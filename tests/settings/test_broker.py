"""The addresses of a broker: the parser splits a text into addresses, and reports a wrong address without its password."""

from __future__ import annotations

import os

import pytest

from wsbridge.settings.broker import BrokerSettings, check_url, split_addresses, with_files
from wsbridge.settings.declare import check_fault, field_of


@pytest.mark.parametrize(
    ("texts", "urls"),
    [
        ((), ()),
        (("",), ()),
        ((" amqp://a/ , amqps://b/ ,",), ("amqp://a/", "amqps://b/")),
        (("amqp://a/", "amqp://a/,amqp://b/"), ("amqp://a/", "amqp://b/")),
        (("amqp://u:p,w@a/v,w",), ("amqp://u:p,w@a/v,w",)),
    ],
)
def test_split(texts: tuple[str, ...], urls: tuple[str, ...]) -> None:
    """A comma before a scheme separates addresses; duplicates are dropped."""
    assert split_addresses(texts) == urls


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://me:secret@h/", "not a broker URL"),
        ("amqp://me:secret@h /", "not a broker URL"),
        ("amqp://me:secret@h\n/", "not a broker URL"),
        ("amqp://me:secret@a,b/", "comma in its host"),
        ("amqp://me:sec/ret@h/", "write @ as %40"),
        ("amqp://me:secret@h/?x=1", "unknown parameter 'x'"),
        ("amqp://me:secret@h/?heartbeat=soon", "the heartbeat parameter in its URL is not a number"),
    ],
)
def test_wrong_address(url: str, words: str) -> None:
    """The error for a wrong address has its number and the reason, but no password."""
    (fault,) = check_fault(field_of(BrokerSettings, "url"), ("amqp://a/", url))
    assert fault.sentence.startswith("<url> (address 2 of 2)")
    assert words in fault.sentence
    assert "secret" not in fault.sentence
    (fault,) = check_fault(field_of(BrokerSettings, "url"), (url,))
    assert fault.sentence.startswith(("<url> ", "<url>: "))


@pytest.mark.parametrize(
    ("url", "located"),
    [
        ("amqps://u:p@h/v?cafile=a b.pem&heartbeat=5&keyfile=/k", "amqps://u:p@h/v?cafile=/etc/a%20b.pem&heartbeat=5&keyfile=/k"),
        ("amqps://h/v?cafile=/a:b%20c", "amqps://h/v?cafile=/a:b%20c"),
        ("amqp://h/?heartbeat=5", "amqp://h/?heartbeat=5"),
        ("amqps://h/?cafile=", "amqps://h/?cafile="),
        ("amqp://h", "amqp://h"),
    ],
)
def test_files(url: str, located: str) -> None:
    """A relative file name is joined to the folder; a URL without files is unchanged."""
    assert with_files(url, lambda name: os.path.join("/etc", name)) == located


def test_other_schemes() -> None:
    """The same check accepts URLs of other schemes."""
    check_url("--url", "ws://h/", ("ws", "wss"), "")
    with pytest.raises(ValueError, match="--url is none"):
        check_url("--url", "amqp://h/", ("ws", "wss"), "none")
