"""A validator for the keywords of JSON Schema that the schema of configuration files uses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
ANNOTATIONS = {"$schema", "title", "description", "default", "$defs"}


def errors(value: Any, schema: Schema, root: Schema) -> list[str]:
    """Return the errors of a value; an unknown keyword is an error of the schema."""
    return [error for keyword, argument in schema.items() for error in _keyword(keyword, argument, value, schema, root)]


def _keyword(keyword: str, argument: Any, value: Any, schema: Schema, root: Schema) -> list[str]:
    if keyword in ANNOTATIONS:
        return []
    return CHECKS[keyword](argument, value, schema, root)


def _type(argument: str, value: Any, schema: Schema, root: Schema) -> list[str]:
    is_right = isinstance(value, TYPES[argument]) and (argument == "boolean" or not isinstance(value, bool))
    return [] if is_right else [f"{value!r} is not of type {argument}"]


def _reference(argument: str, value: Any, schema: Schema, root: Schema) -> list[str]:
    return errors(value, root["$defs"][argument.removeprefix("#/$defs/")], root)


def _properties(argument: Schema, value: Any, schema: Schema, root: Schema) -> list[str]:
    items = value.items() if isinstance(value, dict) else ()
    return [f"{key}: {error}" for key, item in items if key in argument for error in errors(item, argument[key], root)]


def _additional(argument: Any, value: Any, schema: Schema, root: Schema) -> list[str]:
    items = value.items() if isinstance(value, dict) else ()
    more = [(key, item) for key, item in items if key not in schema.get("properties", {})]
    if argument is False:
        return [f"unknown key {key}" for key, _ in more]
    return [f"{key}: {error}" for key, item in more for error in errors(item, argument, root)]


def _items(argument: Schema, value: Any, schema: Schema, root: Schema) -> list[str]:
    items = value if isinstance(value, list) else ()
    return [f"[{index}]: {error}" for index, item in enumerate(items) for error in errors(item, argument, root)]


def _any(argument: list[Schema], value: Any, schema: Schema, root: Schema) -> list[str]:
    found = [errors(value, one, root) for one in argument]
    return [] if [] in found else [f"none fits: {found}"]


def _one(argument: list[Schema], value: Any, schema: Schema, root: Schema) -> list[str]:
    found = [errors(value, one, root) for one in argument]
    return [] if found.count([]) == 1 else [f"not exactly one fits: {found}"]


def _is(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any, Schema, Schema], list[str]]:
    return lambda argument, value, schema, root: [] if test(argument, value) else [f"{value!r} does not fit {argument!r}"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


CHECKS: dict[str, Callable[[Any, Any, Schema, Schema], list[str]]] = {
    "type": _type,
    "$ref": _reference,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
    "anyOf": _any,
    "oneOf": _one,
    "const": _is(lambda argument, value: value == argument),
    "enum": _is(lambda argument, value: value in argument),
    "pattern": _is(lambda argument, value: not isinstance(value, str) or re.search(argument, value) is not None),
    "minimum": _is(lambda argument, value: not _is_number(value) or value >= argument),
    "exclusiveMinimum": _is(lambda argument, value: not _is_number(value) or value > argument),
    "minLength": _is(lambda argument, value: not isinstance(value, str) or len(value) >= argument),
    "minItems": _is(lambda argument, value: not isinstance(value, list) or len(value) >= argument),
    "required": _is(lambda argument, value: not isinstance(value, dict) or set(argument) <= value.keys()),
}
