"""Sentences about settings as a configuration file writes them: keys instead of flags."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache

from wsbridge.mentions import MENTION, mention
from wsbridge.settings.broker import BrokerSettings
from wsbridge.settings.declare import Field, fields_of
from wsbridge.settings.endpoint import KINDS, settings_of
from wsbridge.settings.listen import ListenSettings
from wsbridge.settings.process import ProcessSettings

SUBJECT = re.compile(r"<([a-z_]+)>(?:=|: | is | (?=needs |has |cannot be used with ))")
"""The beginning of a sentence that names the setting at fault. The path before the sentence names it already."""

ELSEWHERE = {
    "include": "write include at the top of the file, above the first table",
    "port": 'write the port into address of [[listen]]: address = ":8080"',
    "unixsocket": 'write the path into address of [[listen]]: address = "unix:PATH"',
    "ssl": "certificate and key of [[listen]] turn on TLS",
    "binary": 'write framing = "chunks" into [[endpoint]]',
}
"""Remedies for some keys that a table does not have."""


def in_keys(sentence: str, name: str) -> str:
    """Return the sentence of a fault of the setting `name`, as it follows the path of that setting."""
    subject = SUBJECT.match(sentence)
    if subject and subject[1] == name:
        sentence = sentence[subject.end() :]
    return mention(sentence, _key)


def mentioned(sentence: str) -> list[str]:
    """Return the names of the settings that a sentence mentions, in order."""
    return MENTION.findall(sentence)


def unknown(key: str, known: Iterable[str], *, guesses: bool = True) -> str:
    """Return the sentence for a key that a table does not know: the key that the user probably meant, and its table.

    The key may be spelt as a flag. Without `guesses`, the sentence does not name the nearest known key: the search takes 0.2 ms.
    """
    known = list(known)
    plain = key.lower().replace("-", "_")
    meant = plain if plain in _homes() else _names().get(plain.replace("_", "-"), plain)
    if meant in known:
        return f"unknown key; did you mean {meant}?"
    if hint := ELSEWHERE.get(plain):
        return f"unknown key; {hint}"
    if tables := _homes().get(meant):
        belongs = f"{meant} is a key of {' and of '.join(tables)}"
        return f"unknown key here; {belongs}; move it there" if meant == key else f"unknown key; did you mean {meant}? {belongs}"
    near = get_close_matches(key, known, 1) if guesses else []
    return f"unknown key; did you mean {near[0]}?" if near else "unknown key; remove it"


def either(choices: Iterable[str]) -> str:
    """Return a list of strings for a sentence, as TOML writes them: `"a", "b" or "c"`."""
    *most, last = (f'"{choice}"' for choice in choices)
    return f"{', '.join(most)} or {last}" if most else last


def every_field() -> list[Field]:
    """Return the settings of all tables."""
    parts = (ProcessSettings, ListenSettings, BrokerSettings)
    return [
        *(entry.field for kind in KINDS.values() for entry in settings_of(kind)),
        *(field for part in parts for field in fields_of(part)),
    ]


def _key(name: str) -> str:
    """Return how a file writes a setting; one that a flag can only turn off is mentioned because it is off."""
    return f"{name} = false" if any(field.name == name and field.setting.is_inverted for field in every_field()) else name


@cache
def _homes() -> dict[str, list[str]]:
    """Return the tables that know a key."""
    parts = {"[server]": ProcessSettings, "[[listen]]": ListenSettings, "[broker.NAME]": BrokerSettings}
    tables = {table: {field.name for field in fields_of(part)} for table, part in parts.items()}
    tables["[[endpoint]]"] = {"kind", *(entry.field.name for kind in KINDS.values() for entry in settings_of(kind))}
    return {key: [table for table, keys in tables.items() if key in keys] for key in set().union(*tables.values())}


@cache
def _names() -> dict[str, str]:
    """Return the name of each setting by its flag."""
    return {field.setting.flag: field.name for field in every_field() if field.setting.flag}
