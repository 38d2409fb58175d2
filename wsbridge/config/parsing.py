"""Turns the bytes of one file into its tables and the lines of their paths, or names the line that is not TOML."""

from __future__ import annotations

import codecs
import tomllib
from typing import Any

from wsbridge.config.places import MAX_LEVELS, Path, find_places
from wsbridge.config.syntax import explain
from wsbridge.errors import InvalidFile, Malformed, TooDeep

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def parse(content: bytes) -> tuple[dict[str, Any], dict[Path, int]]:
    """Return the tables of a file, and the line of each path in them. A BOM is allowed; an empty file has no tables.

    Raises InvalidFile.
    """
    text = _decode(content)
    try:
        places = find_places(text)
    except TooDeep as error:
        raise InvalidFile(error.line, f"more than {MAX_LEVELS} levels of keys, arrays or tables; reduce the nesting") from None
    except Malformed:
        # tomllib refuses it as well, and knows the column.
        places = {}
    try:
        return tomllib.loads(text), places
    except RecursionError:
        raise InvalidFile(0, "arrays or tables have too many levels; reduce the nesting") from None
    except ValueError as error:
        raise InvalidFile(*explain(text, error)) from None


def _decode(content: bytes) -> str:
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if content.startswith(UTF_16):
            raise InvalidFile(0, "the file is UTF-16; save it as UTF-8") from None
        lines = content[: error.start].split(b"\n")
        column = len(lines[-1].decode()) + 1
        byte = content[error.start]
        raise InvalidFile(len(lines), f"not UTF-8 at column {column} (byte 0x{byte:02X}); save the file as UTF-8") from None
