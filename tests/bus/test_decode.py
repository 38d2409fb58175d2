"""The properties of AMQP messages: `decode` agrees with pamqp on all that pamqp can read, and reads the rest without an error."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode as pamqp_decode
from pamqp import encode

from wsbridge.bus.rabbitmq import decode

decode.install()

NAMES = st.text(max_size=20).filter(lambda name: len(name.encode()) < 128)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, width=32)
    | st.text(max_size=300)
    | st.binary(max_size=300).map(bytearray)
    | st.decimals(0, 4000, places=2).map(Decimal)
    | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))
)
FIELDS = st.recursive(SCALARS, lambda field: st.lists(field, max_size=3) | st.dictionaries(NAMES, field, max_size=3), max_leaves=9)


@given(st.dictionaries(NAMES, FIELDS, max_size=5), st.binary(max_size=9))
def test_tables(fields: dict[str, Any], rest: bytes) -> None:
    """`decode` reads a table as pamqp does, up to a maximum depth, and ignores the bytes after it."""
    encoded = encode.field_table(fields)
    read = decode.table(encoded + rest)
    if depth(fields) <= decode.DEPTH:
        assert read == pamqp_decode.field_table(encoded)
    assert read[0] == len(encoded)


def depth(field: Any) -> int:
    """Return the number of nesting levels of tables and lists within a field."""
    inner = field.values() if isinstance(field, dict) else field if isinstance(field, list) else ()
    return max((depth(one) + isinstance(one, dict | list) for one in inner), default=0)


def test_depth() -> None:
    """The decoder drops levels that are too deep, and keeps the fields beside them."""
    deepest: Any = {"at": 0}
    for level in range(1, decode.DEPTH + 3):
        deepest = {"inner": deepest, "at": level}
    _, found = decode.table(encode.field_table(deepest))
    for level in reversed(range(2, decode.DEPTH + 3)):
        assert found["at"] == level
        found = found["inner"]
    assert found is None


def test_names_of_fields() -> None:
    """In the name of a field, the decoder replaces each byte that is not UTF-8."""
    assert decode.table(b"\0\0\0\5" + b"\2\xe4xt\1" + b"V") == (9, {"\N{REPLACEMENT CHARACTER}x": True})


@pytest.mark.parametrize(("value", "text"), [(b"\0", ""), (b"\2abc", "ab"), (b"\4te\xe4t", "te\N{REPLACEMENT CHARACTER}t")])
def test_short_strings(value: bytes, text: str) -> None:
    """A short string ends at its length, and the decoder replaces each byte that is not UTF-8."""
    assert decode.short_string(value) == (value[0] + 1, text)


@pytest.mark.parametrize("seconds", [2**63, 2**64 - 1, 253_402_300_800_000])
def test_times_out_of_range(seconds: int) -> None:
    """The decoder returns None for a timestamp outside the range of Python."""
    assert decode.timestamp(struct.pack(">Q", seconds)) == (8, None)
