"""What a stranger writes into the properties of a message does not end our connection.

AMQP asks neither an encoding of a short string nor sense of a timestamp, nor does it bound how deep a table nests (0-9-1, 4.2.5).
pamqp, with which aio-pika reads, raises at all three, and the connection is closed; a stream would bring the same message again,
for ever. So the decoders that can fail are replaced, in the mappings by which pamqp looks them up, by ones that cannot.
"""

from __future__ import annotations

from typing import Any

from pamqp import decode

DEPTH = 8
"""Tables within tables that are read; the broker's own nest two deep."""
SIZES = {kind: size for kinds, size in (("tbB", 1), ("su", 2), ("Iif", 4), ("D", 5), ("lLdT", 8), ("V\0", 0)) for kind in kinds.encode()}
"""Bytes of a field's value, by its kind; those of the others are counted by their first four."""
TABLE, ARRAY = b"FA"


def install() -> None:
    """Let pamqp read in this way, in all of this process."""
    decode.METHODS |= {"shortstr": short_string, "table": table, "timestamp": timestamp}
    decode.TABLE_MAPPING |= {b"T": timestamp}


def short_string(value: bytes) -> tuple[int, str]:
    """Decode a short string, with U+FFFD for what is not UTF-8. Like all here, return the bytes that it takes up, and it."""
    end = 1 + value[0]
    return end, value[1:end].decode(errors="replace")


def timestamp(value: bytes) -> tuple[int, Any]:
    """Decode a timestamp; None is a year that Python does not count."""
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
    """Return where a field ends, and its value; None is a table or an array that lies too deep."""
    kind = data[at]
    begin = at + 1
    size = SIZES.get(kind)
    end = begin + (4 + int.from_bytes(data[begin : begin + 4]) if size is None else size)
    if kind not in (TABLE, ARRAY):
        return end, decode.TABLE_MAPPING[data[at:begin]](data[begin:end])[1]
    if not depth:
        return end, None
    read = _table if kind == TABLE else _array
    return end, read(data[begin + 4 : end], depth - 1)
