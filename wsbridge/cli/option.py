"""A flag: derived from the declaration of a setting, or declared only for the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from wsbridge.mentions import mention
from wsbridge.rules.numbers import parse_bool, parse_int
from wsbridge.rules.units import parse_milliseconds, parse_seconds, parse_size, parse_unsigned_milliseconds
from wsbridge.settings.broker import BrokerSettings
from wsbridge.settings.declare import Field, Kind, Part, Unit, field_of, fields_of
from wsbridge.settings.endpoint import KINDS, parts_of
from wsbridge.settings.listen import ListenSettings
from wsbridge.settings.process import ProcessSettings

PREFIX = "WSBRIDGE_"
METAVARS = {Kind.INTEGER: "N", Kind.SIZE: "BYTES", Kind.SECONDS: "SECONDS"}
COMMAND_WORD = "COMMAND"

READERS: Mapping[Kind, Callable[[str], Any]] = {
    Kind.BOOLEAN: parse_bool,
    Kind.INTEGER: parse_int,
    Kind.SIZE: parse_size,
    Kind.SECONDS: parse_seconds,
}
"""The readers of values; a value of another kind is the text itself."""
TIME_READERS: Mapping[Unit, Callable[[str], Any]] = {
    Unit.SECONDS: parse_seconds,
    Unit.MILLISECONDS: parse_milliseconds,
    Unit.UNSIGNED_MILLISECONDS: parse_unsigned_milliseconds,
}


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One flag. `default` is in the flag's own unit; `metavar` stands for the value in the help."""

    name: str
    help: str
    kind: Kind = Kind.BOOLEAN
    default: Any = None
    metavar: str = ""
    is_repeatable: bool = False
    description: str = ""
    """The text of the documentation, in Markdown; empty if it is the help."""
    default_shown: str | None = None
    """The default as the documentation shows it, in Markdown; None to derive it from `default`."""
    unit: Unit = Unit.SECONDS
    part: type[Part] | None = None
    field: Field | None = None
    """The setting that the flag sets, and its part; None for a flag that exists only on the command line."""

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")

    @property
    def is_boolean(self) -> bool:
        return self.kind is Kind.BOOLEAN

    @property
    def shown(self) -> str:
        return f"--{self.name}" + (f"={self.metavar}" if not self.is_boolean else "")

    @property
    def read(self) -> Callable[[str], Any]:
        """The function that reads a value of the flag. It raises ValueError."""
        return TIME_READERS[self.unit] if self.kind is Kind.SECONDS else READERS.get(self.kind, str)


def flags(part: type[Part], *names: str) -> tuple[Option, ...]:
    """Return the flags of some settings of a part."""
    return tuple(_flag(part, field_of(part, name)) for name in names)


def written(name: str) -> str:
    """Return how the command line writes a setting that a text mentions."""
    return _MENTIONS.get(name, f"<{name}>")


def in_flags(sentence: str) -> str:
    """Return a sentence with each mentioned setting written as its flag."""
    return mention(sentence, written)


def _flag(part: type[Part], field: Field) -> Option:
    setting = field.setting
    return Option(
        name=setting.flag,
        kind=field.kind,
        help=in_flags(setting.help),
        default=_default(field),
        metavar=setting.metavar or ("MS" if setting.unit is not Unit.SECONDS else METAVARS.get(field.kind, "")),
        is_repeatable=setting.is_repeatable,
        description=in_flags(setting.description),
        default_shown=None if setting.default_shown is None else in_flags(setting.default_shown),
        unit=setting.unit,
        part=part,
        field=field,
    )


def _default(field: Field) -> Any:
    """Return the default in the form in which a flag has it."""
    setting = field.setting
    if setting.is_repeatable:
        return None
    if field.is_required:
        return ""
    if setting.is_inverted:
        return False
    if field.kind is Kind.SECONDS and setting.unit is not Unit.SECONDS:
        return round(field.default * 1000)
    if field.kind is Kind.TEXTS:
        return None if field.default is None else ",".join(field.default)
    return str(field.default) if field.kind is Kind.CHOICE else field.default


def _mentions() -> dict[str, str]:
    parts = [part for kind in KINDS.values() for _, part, _ in parts_of(kind)]
    every = [field for part in (ListenSettings, ProcessSettings, BrokerSettings, *parts) for field in fields_of(part)]
    mentions = {field.name: f"--{field.setting.flag}" for field in every if field.setting.flag}
    # The names of brokers are not on the command line, which has one broker at most, and a listener is several flags.
    return {**mentions, "command": COMMAND_WORD, "broker": "--broker", "url": "--broker", "address": "--address"}


_MENTIONS = _mentions()
