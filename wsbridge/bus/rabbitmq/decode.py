"""Decoders that accept any message properties, so that an external publisher cannot close the connection of this process.

AMQP prescribes neither the encoding of a short string nor a valid date in a timestamp. It also does not bound the depth of nested
tables (0-9-1, 4.2.5). aio-pika decodes with pamqp, which raises an exception in all three cases, and the connection closes. A
stream would deliver the same message again after each reconnect, for ever. So `install` replaces the decoders that can fail, in
the mappings by which pamqp finds them. The replacements cannot fail.
"""

from __future__ import annotations

from typing import Any

from pamqp import decode

DEPTH = 8
"""Maximum depth of nested tables that are decoded; the broker's own tables nest two deep."""
SIZES = {kind: size for kinds, size in (("tbB", 1), ("su", 2), ("Iif", 4), ("D", 5), ("lLdT", 8), ("V\0", 0)) for kind in kinds.encode()}
"""Bytes of a field's value, by its type. A value of any other type begins with its length in four bytes."""
TABLE, ARRAY = b"FA"


def install() -> None:
    """Replace pamqp's decoders, for the whole process."""
    decode.METHODS |= {"shortstr": short_string, "table": table, "timestamp": timestamp}
    decode.TABLE_MAPPING |= {b"T": timestamp}


def short_string(value: bytes) -> tuple[int, str]:
    """Decode a short string, with U+FFFD for bytes that are not UTF-8.

    Like all decoders here, it returns the number of bytes that the value occupies, and the value.
    """
    end = 1 + value[0]
    return end, value[1:end].decode(errors="replace")


def timestamp(value: bytes) -> tuple[int, Any]:
    """Decode a timestamp; the value is None for a year outside Python's range."""
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return 8, None


def table(value: bytes) -> tuple[int, Any]:
    """Decode a field table."""
    end = 4 + int.from_bytes(value[:4])
    return end, _table(value[4:end], DEPTH)


def _table(data: bytes, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        length, key = short_string(data[at : at + 256])
        at, found[key] = _field(data, at + length, depth)
    return found


def _array(data: bytes, depth: int) -> list[Any]:
    found: list[Any] = []
    at = 0
    while at < len(data):
        at, field = _field(data, at, depth)
        found.append(field)
    return found


def _field(data: bytes, at: int, depth: int) -> tuple[int, Any]:
    """Return the end of a field, and its value. The value is None for a table or an array that is nested too deep."""
    kind = data[at]
    start = at + 1
    size = SIZES.get(kind)
    end = start + (4 + int.from_bytes(data[start : start + 4]) if size is None else size)
    if kind not in (TABLE, ARRAY):
        return end, decode.TABLE_MAPPING[data[at:start]](data[start:end])[1]
    if not depth:
        return end, None
    read = _table if kind == TABLE else _array
    return end, read(data[start + 4 : end], depth - 1)
