"""From the values of flags to the values of settings: units, lists and enums; and the checks of each value."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, TypeVar

from wsbridge.cli.option import Option, in_flags
from wsbridge.errors import ConfigurationError
from wsbridge.settings.broker import split_addresses
from wsbridge.settings.declare import Fault, Field, Kind, Part, Unit, bound_fault, check_fault, field_of

MILLISECONDS = 1000
P = TypeVar("P", bound=Part)


def raise_first(faults: Iterable[Fault]) -> None:
    """Raise ConfigurationError for the first fault, with settings written as flags."""
    for fault in faults:
        raise ConfigurationError(in_flags(fault.sentence))


def check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigurationError unless a value is one of the choices."""
    if value not in choices:
        raise ConfigurationError(f"--{flag}={value}: write {', '.join(choices[:-1])} or {choices[-1]}")


def check_values(options: Iterable[Option], flags: SimpleNamespace) -> None:
    """Check the value of each flag by itself. Raises ConfigurationError.

    This function does not check a flag whose value has no effect: a variable may set it for many servers.
    """
    for option in options:
        field, value = option.field, getattr(flags, option.attribute)
        if field is None or (option.part is not None and missing_need(option.part, field, flags)):
            continue
        if field.kind is Kind.CHOICE:
            check_choice(option.name, value, field.choices)
        if not field.setting.is_clamped:
            raise_first(bound_fault(field, value, str(value)))
        raise_first(check_fault(field, value_of(field, value)))


def check_needs(options: Iterable[Option], flags: SimpleNamespace) -> None:
    """Raise ConfigurationError for a flag that has no effect without another flag.

    A variable counts only if it turns something on: a file of variables for many servers may set the others.
    """
    for option in options:
        if option.field is None or option.part is None:
            continue
        value = getattr(flags, option.attribute)
        counts = value if option.is_boolean else option.attribute in flags.given
        if counts and (need := missing_need(option.part, option.field, flags)):
            raise ConfigurationError(in_flags(f"<{option.field.name}> needs <{need}>"))


def check_needless(names: Iterable[str], flags: SimpleNamespace, missing: str) -> None:
    """Raise ConfigurationError for a flag on the command line that has no effect without `missing`."""
    for name in names:
        attribute = name.replace("-", "_")
        if attribute in flags.given and getattr(flags, attribute) is not False:
            raise ConfigurationError(f"--{name} needs {missing}")


def missing_need(part: type[Part], field: Field, flags: SimpleNamespace) -> str:
    """Return the name of the setting that a setting needs and that is not given; empty if nothing is missing."""
    need = field.setting.needs
    if not need or getattr(flags, _FLAG_OF_NEED.get(need, need)):
        return ""
    if need in _FLAG_OF_NEED:
        return need
    return missing_need(part, field_of(part, need), flags) or need


def value_of(field: Field, value: Any) -> Any:
    """Return the value of a setting from the value of its flag."""
    setting = field.setting
    if setting.is_inverted:
        return not value
    if field.kind is Kind.SECONDS:
        return value if setting.unit is Unit.SECONDS else value / MILLISECONDS
    if field.kind is Kind.CHOICE:
        return field.type(value)
    if field.kind is Kind.TEXTS:
        return _texts(field, value)
    if setting.is_clamped and setting.minimum is not None:
        return max(setting.minimum, value)
    return value


def with_addresses(flags: SimpleNamespace) -> SimpleNamespace:
    """Return the flags with each address of `--broker` as a separate item, for a command that has this flag."""
    return SimpleNamespace(**{**vars(flags), "broker": split_addresses(flags.broker)}) if hasattr(flags, "broker") else flags


def part_of(part: type[P], options: Iterable[Option], flags: SimpleNamespace, **more: Any) -> P:
    """Return a part with the values of those of its flags that a command has; `more` are values of other settings."""
    values = {
        option.field.name: value_of(option.field, getattr(flags, option.attribute))
        for option in options
        if option.field is not None and option.part is part
    }
    return part(**{**values, **more})


def _texts(field: Field, value: Any) -> tuple[str, ...] | None:
    if not field.setting.has_commas:
        return tuple(value)
    if not field.setting.is_repeatable:
        if not value and field.default is None:
            return None
        value = (value,)
    return tuple(entry for text in value for entry in map(str.strip, text.split(",")) if entry)


_FLAG_OF_NEED = {"broker": "broker", "url": "broker"}
"""The flag for a need that is not the name of a flag's setting in the same part."""
