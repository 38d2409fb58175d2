"""One value of a configuration file as the value of a setting, or the sentence that names its error."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from wsbridge.config.commands import for_line
from wsbridge.config.faults import show_type
from wsbridge.config.sentences import either, in_keys
from wsbridge.errors import WrongValue
from wsbridge.rules.numbers import LARGEST, OUT_OF_RANGE
from wsbridge.rules.units import parse_seconds, parse_size
from wsbridge.rules.urls import hidden
from wsbridge.settings.broker import with_files
from wsbridge.settings.declare import Field, Kind, bound_fault, check_fault, item_fault
from wsbridge.settings.listen import UNIX

T = TypeVar("T")

LONGEST_SHOWN = 40
"""Characters of a value that a sentence shows."""
COMMAND = "command"
HERE = re.compile(r"^(\./+)+")
EXPECTED = {
    Kind.BOOLEAN: "true or false",
    Kind.INTEGER: "an integer",
    Kind.SIZE: 'a size, such as 65536 or "16MiB"',
    Kind.SECONDS: 'a time in seconds, such as 25 or "500ms"',
    Kind.TEXT: "a string",
    Kind.TEXTS: "an array of strings",
}


def wrong(sentence: str) -> WrongValue:
    """Return the error for a value as a whole."""
    return WrongValue(((), sentence))


def each(read: Callable[[Any], T], items: Iterable[Any]) -> tuple[T, ...]:
    """Return the items of an array as `read` reads them. Raises WrongValue for all items at fault."""
    values, faults = [], []
    for index, item in enumerate(items):
        try:
            values.append(read(item))
        except WrongValue as error:
            faults += [((index, *path), sentence) for path, sentence in error.faults]
    if faults:
        raise WrongValue(*faults)
    return tuple(values)


def read_value(field: Field, value: Any, *, folder: str) -> Any:
    """Return the value of a setting; relative names of files are relative to `folder`. Raises WrongValue."""
    read = _read(field, value)
    for fault in (*bound_fault(field, read, show(value)), *check_fault(field, read)):
        raise wrong(in_keys(fault.sentence, field.name))
    return located(field, read, folder)


def located(field: Field, value: Any, folder: str) -> Any:
    """Return a value in which relative names of files are relative to `folder`."""
    if field.setting.is_secret:
        return tuple(with_files(url, lambda name: os.path.join(folder, name)) for url in value)
    if field.setting.place:
        return os.path.join(folder, value) if value else value
    if field.name == COMMAND and value and "/" in value[0]:
        return (os.path.join(folder, HERE.sub("", value[0])), *value[1:])
    if isinstance(value, str) and value.startswith(UNIX) and field.name == "address":
        return UNIX + os.path.join(folder, value.removeprefix(UNIX))
    return value


def show(value: object) -> str:
    """Return a value as an error shows it: short, on one line, and without the items of a container."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and not _is_integer(value):
        # Python refuses to write an integer of more than 4300 digits.
        return "an integer of more than 64 bits"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return show_type(value)
    value = hidden(value)
    shown = value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}…"
    return f'"{shown}"' if shown.isprintable() and '"' not in shown else ascii(shown)


def _read(field: Field, value: Any) -> Any:
    match field.kind:
        case Kind.BOOLEAN if isinstance(value, bool):
            return value
        case Kind.INTEGER if _is_integer(value):
            return value
        case Kind.SIZE if _is_integer(value) or isinstance(value, str):
            return _measured(parse_size, value) if isinstance(value, str) else value
        case Kind.SECONDS if _is_number(value) or isinstance(value, str):
            return _measured(parse_seconds, value) if isinstance(value, str) else float(value)
        case Kind.TEXT if isinstance(value, str):
            return _text(value)
        case Kind.TEXTS if field.name == COMMAND:
            return _command(value)
        case Kind.TEXTS if isinstance(value, list):
            return each(partial(_item, field), value)
        case Kind.CHOICE:
            if value in field.choices:
                return field.type(value)
            raise wrong(f"expected {either(field.choices)}, got {show(value)}")
    remedy = f"; write [{show(value)}]" if field.kind is Kind.TEXTS and isinstance(value, str) else ""
    raise wrong(f"expected {EXPECTED[field.kind]}, got {show(value)}{remedy}")


def _command(value: Any) -> tuple[str, ...]:
    """Return a command: an array of words, or a program without arguments."""
    if isinstance(value, str):
        if len(value.split()) > 1:
            raise wrong(f"expected a program or an array, got {show(value)}; {for_line(value)}")
        value = [value]
    if not isinstance(value, list):
        raise wrong(f"expected an array of strings, got {show(value)}")
    command = each(_string, value)
    if not command or not command[0].strip():
        raise wrong("expected a program and its arguments, got an empty command")
    return command


def _item(field: Field, item: Any) -> str:
    text = _string(item)
    if not text.strip():
        raise wrong("the string is empty; write a value, or remove it")
    for fault in item_fault(field, text):
        raise wrong(in_keys(fault.sentence, field.name))
    return text


def _string(item: Any) -> str:
    if not isinstance(item, str):
        raise wrong(f"expected a string, got {show(item)}")
    return _text(item)


def _text(value: str) -> str:
    if "\0" in value:
        raise wrong("the string contains the character U+0000; remove it")
    return value


def _measured(parse: Callable[[str], float], value: str) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        remedy = f"write at most {LARGEST}" if str(error) == OUT_OF_RANGE else str(error)
        raise wrong(f"{show(value)}: {remedy}") from None


def _is_integer(value: object) -> bool:
    """Whether a value is a TOML integer, which has 64 bits; `tomllib` also reads longer ones."""
    return isinstance(value, int) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _is_number(value: object) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))
