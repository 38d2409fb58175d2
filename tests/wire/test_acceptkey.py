"""The value of Sec-WebSocket-Accept: known pairs of key and value, and the white space around a key."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.wire.acceptkey import accept_value

RFC_KEY, RFC_VALUE = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of RFC 6455, section 1.3."""

KEYS = st.binary(min_size=16, max_size=16).map(lambda nonce: base64.b64encode(nonce).decode())


@pytest.mark.parametrize(
    ("key", "value"),
    [(RFC_KEY, RFC_VALUE), ("x3JJHMbDL1EzLkh9GBhXDw==", "HSmrc0sMlYUkAGmm5OPpG2HaGWk=")],
    ids=["RFC 6455, section 1.3", "Wikipedia, WebSocket"],
)
def test_known_values(key: str, value: str) -> None:
    """The server answers a published key with its published value."""
    assert accept_value(key) == value


@pytest.mark.parametrize(("before", "after"), [(" ", ""), ("", " "), ("\t", "\t"), ("  \t", "\t  "), ("", "\r\n")])
def test_white_space_around_the_key(before: str, after: str) -> None:
    """The value does not depend on white space around the key (RFC 6455, section 4.2.2)."""
    assert accept_value(f"{before}{RFC_KEY}{after}") == RFC_VALUE


@pytest.mark.parametrize("key", [RFC_KEY.replace("HNh", "H Nh"), RFC_KEY.lower(), RFC_KEY.rstrip("="), ""])
def test_other_key(key: str) -> None:
    """A key with a space inside, another case or other padding has another value."""
    assert accept_value(key) != RFC_VALUE


@given(KEYS, KEYS)
def test_form(key: str, other: str) -> None:
    """A value is 20 bytes in base64, and two keys have the same value only if they are equal."""
    assert len(base64.b64decode(accept_value(key), validate=True)) == 20
    assert (accept_value(key) == accept_value(other)) == (key == other)
