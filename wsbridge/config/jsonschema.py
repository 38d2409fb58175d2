"""The JSON schema (draft 2020-12) that editors use to check and complete a configuration file.

It comes from the declarations of the settings. It contains types, names, bounds and choices. Only `wsbridge check` makes the other checks.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from wsbridge.config.convert import TABLES
from wsbridge.config.sentences import in_keys
from wsbridge.config.values import COMMAND
from wsbridge.settings import BrokerSettings, ListenSettings, ProcessSettings
from wsbridge.settings.declare import Field, Kind, Part, fields_of
from wsbridge.settings.endpoint import KINDS, EndpointSettings, settings_of

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")
SEE = re.compile(r"; see \[[^]]+\]\([^)]+\)")
"""A reference to a page of the documentation, which an editor cannot open."""
NUMBER = r"[0-9](_?[0-9])*(\.[0-9]+)?"
UNIT_OF_TIME = "(ms|[sS]|[sS][eE][cC]|[mM]|[mM][iI][nN]|[hH]|[dD])"
SIZE: Schema = {
    "description": 'A number of bytes, or a size such as "64k" or "16MiB".',
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": rf"^{NUMBER} ?([kKmMgGtT]?[bB]?|[kKmMgGtT][iI][bB])$"}],
}
SECONDS: Schema = {
    "description": 'A number of seconds, or a time such as "500ms", "25s" or "1m30s".',
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": rf"^({NUMBER} ?{UNIT_OF_TIME} ?)+$|^{NUMBER}([eE][+-]?[0-9]+)?$"},
    ],
}
SECRET: Schema = {
    "description": "A string, or where it is kept: in an environment variable or in a file.",
    "oneOf": [
        {"type": "string", "minLength": 1},
        *(
            {"type": "object", "properties": {key: {"type": "string"}}, "required": [key], "additionalProperties": False}
            for key in ("env", "file")
        ),
    ],
}
SHARED = {"size": SIZE, "seconds": SECONDS, "secret": SECRET}
STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
TYPES: dict[Kind, Schema] = {
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.INTEGER: {"type": "integer"},
    Kind.SIZE: {"$ref": "#/$defs/size"},
    Kind.SECONDS: {"$ref": "#/$defs/seconds"},
    Kind.TEXT: {"type": "string"},
    Kind.TEXTS: STRINGS,
}


def schema() -> Schema:
    """Return the schema of a whole file, as JSON's types."""
    return {
        "$schema": DRAFT,
        "title": "wsbridge configuration",
        "description": "The file that `wsbridge serve` reads.",
        **_object(
            {
                "include": {
                    "description": "Read these files as well: names or patterns, relative to this file.",
                    "oneOf": [{"type": "string"}, STRINGS],
                },
                **dict(zip(TABLES, _tables(), strict=True)),
            }
        ),
        "$defs": {**SHARED, **{kind: _endpoint(struct) for kind, struct in KINDS.items()}},
    }


def _tables() -> tuple[Schema, ...]:
    """Return the schemas of the tables, in the order of `TABLES`."""
    listen = _part(ListenSettings)
    endpoint = {"oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in KINDS]}
    return (
        _part(ProcessSettings),
        {"description": _doc(ListenSettings), "type": "array", "items": listen},
        {"description": "What the server serves.", "type": "array", "items": endpoint},
        {"description": "Brokers by their names.", "type": "object", "additionalProperties": _part(BrokerSettings)},
        _defaults(),
    )


def _endpoint(struct: type[EndpointSettings]) -> Schema:
    entries = settings_of(struct)
    properties = {"kind": {"const": struct.kind}, **{entry.field.name: _setting(entry.field) for entry in entries}}
    return _object(properties, ["kind", *(entry.field.name for entry in entries if entry.is_required)], description=_doc(struct))


def _defaults() -> Schema:
    """Return the schema of `[defaults]`: the settings of all kinds, and a table for each kind."""
    of_kinds = {
        kind: {entry.field.name: _setting(entry.field) for entry in settings_of(struct) if entry.field.name != "path"}
        for kind, struct in KINDS.items()
    }
    properties = {name: setting for settings in of_kinds.values() for name, setting in settings.items()}
    for kind, settings in of_kinds.items():
        table = _object(settings, description=f"Values for the endpoints of the kind {kind}.")
        # A few kinds and settings have the same name, such as files.
        properties[kind] = {"anyOf": [properties[kind], table]} if kind in properties else table
    return _object(properties, description="Values for all endpoints.")


def _part(part: type[Part]) -> Schema:
    fields = fields_of(part)
    required = [field.name for field in fields if field.is_required]
    return _object({field.name: _setting(field) for field in fields}, required, description=_doc(part))


def _object(properties: Schema, required: list[str] | None = None, **more: Any) -> Schema:
    return {
        **more,
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _setting(field: Field) -> Schema:
    made: Schema = {"description": _description(field), **_type(field)}
    if field.kind is Kind.INTEGER and field.setting.minimum is not None:
        made["minimum"] = field.setting.minimum
    if field.setting.is_positive:
        made["exclusiveMinimum"] = 0
    if field.default not in (msgspec.NODEFAULT, None, "", ()):
        made["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    return made


def _type(field: Field) -> Schema:
    if field.setting.is_secret:
        one = {"$ref": "#/$defs/secret"}
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
    if field.name == COMMAND:
        return {"oneOf": [{"type": "string"}, {**STRINGS, "minItems": 1}]}
    return {"enum": [*field.choices]} if field.kind is Kind.CHOICE else TYPES[field.kind]


def _description(field: Field) -> str:
    setting = field.setting
    text = setting.of_key or setting.description or setting.help
    return LINK.sub(r"\1", SEE.sub("", in_keys(text, field.name))) + "."


def _doc(struct: type[Part]) -> str:
    return (struct.__doc__ or "").partition("\n")[0]
