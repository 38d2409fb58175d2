"""The public form of URLs: the address without secrets."""

from __future__ import annotations

import pytest

from wsbridge.rules.urls import hidden, shown, without_user


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://user:secret@host:8080/temps?since=7", "ws://host:8080/temps"),
        ("wss://host", "wss://host/"),
        ("ws://[::1]:80/", "ws://[::1]:80/"),
        ("ws://a@b:c@host/", "ws://host/"),
    ],
)
def test_shown(url: str, address: str) -> None:
    """The form has the path, but no user, password or query."""
    assert shown(url) == address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://guest:secret@rabbit/", "amqp://rabbit:5672/"),
        ("amqps://rabbit:/vhost", "amqps://rabbit:5671/vhost"),
        ("amqp://[2001:db8::1]", "amqp://[2001:db8::1]:5672/"),
        ("amqp://rabbit:7/", "amqp://rabbit:7/"),
    ],
)
def test_shown_with_a_port(url: str, address: str) -> None:
    """With the default ports of the schemes, the form always has a port."""
    assert shown(url, {"amqp": 5672, "amqps": 5671}) == address


def test_without_user() -> None:
    """The texts of libraries lose the user and the password of each URL."""
    assert without_user("not http://u:p@h/ but wss://x@y/z") == "not http://…@h/ but wss://…@y/z"


def test_hidden() -> None:
    """A user's value loses the user and the password of a URL, whatever the password contains."""
    assert hidden("amqp://me:a b@c/d@h/v") == "amqp://…@h/v"
    assert hidden("/etc/amqp:/me:x@h") == "/etc/amqp:/…@h"
    assert [hidden(value) for value in ("a@b", "http://h/x", "", "git@h:/x")] == ["a@b", "http://h/x", "", "git@h:/x"]
