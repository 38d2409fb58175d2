"""The settings of access: headers, origins and subprotocols in the form that the server uses."""

from __future__ import annotations

import pytest

from wsbridge.rules.origins import Rules, parse_allowed
from wsbridge.settings.access import AccessSettings, parse_header
from wsbridge.settings.declare import check_fault, field_of


def test_rules() -> None:
    """Without a list, every origin may connect; with an empty list, none may."""
    assert AccessSettings().rules == Rules()
    assert AccessSettings(origins=(), same_origin=True).rules == Rules(same=True, allowed=())
    assert AccessSettings(origins=("a.com", "https://b.com")).rules == Rules(allowed=parse_allowed("a.com,https://b.com"))


def test_headers() -> None:
    """The headers of every response come before those of one kind."""
    access = AccessSettings(headers=("a: 1",), headers_websocket=("b: 2",), headers_http=("c-d: 3",))
    assert access.websocket_headers == (("A", "1"), ("B", "2"))
    assert access.http_headers == (("A", "1"), ("C-D", "3"))


@pytest.mark.parametrize("text", ["a b: c", ": c", "A: b\x00", "A: \x7f", "Content-Length: 3", "Sec-WebSocket-Extensions: x"])
@pytest.mark.parametrize("name", ["headers", "headers_websocket", "headers_http"])
def test_wrong_header(name: str, text: str) -> None:
    """A header that the server cannot send is a fault of its setting."""
    (fault,) = check_fault(field_of(AccessSettings, name), (text,))
    assert fault.path == (name, 0)
    assert fault.sentence.startswith(f"<{name}>")


def test_header() -> None:
    """The name of a header gets its usual capitalization, and its value loses surrounding blanks."""
    assert parse_header("x-a-b:  c: d ") == ("X-A-B", "c: d")


@pytest.mark.parametrize(("name", "value"), [("origins", ("a b",)), ("subprotocols", ("a b",))])
def test_wrong_value(name: str, value: tuple[str, ...]) -> None:
    """An origin that cannot match, and a subprotocol that is no token, are faults."""
    (fault,) = check_fault(field_of(AccessSettings, name), value)
    assert fault.sentence.startswith(f"<{name}>: 'a b'")
