"""How a setting is declared: a typed field of a struct, with a `Setting` as its annotation.

    ping: Annotated[Seconds, Setting("Ping the client …", flag="pingms", unit=Unit.MILLISECONDS, minimum=0)] = 25.0

The field's name is the key in a configuration file. wsbridge.cli derives flags, variables, help and documentation from the
declarations; wsbridge.config derives keys, checks and the JSON schema.

A text mentions another setting as `<name>`. The command line writes `--flag` for it, and a configuration file the key.

The modules of the parts have no `from __future__ import annotations`: evaluating their annotations from strings would cost 2 ms
of each start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, StrEnum
from functools import cache
from inspect import get_annotations
from typing import Annotated, Any, Literal, NamedTuple, get_origin

import msgspec

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE


class Kind(Enum):
    """The kind of a setting's value."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    SIZE = "size"
    SECONDS = "seconds"
    TEXT = "text"
    TEXTS = "texts"
    CHOICE = "choice"


class Unit(Enum):
    """The default unit of a time on the command line."""

    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    UNSIGNED_MILLISECONDS = "unsigned milliseconds"
    """Like `MILLISECONDS`, but any sign is refused, as in websocketd."""


Size = Annotated[int, Kind.SIZE]
"""A number of bytes."""
Seconds = Annotated[float, Kind.SECONDS]


class Setting(msgspec.Struct, frozen=True):
    """The texts and the bounds of a setting; its field holds the name, the type and the default."""

    help: str
    """The effect of the setting, for `--help`: one line, verb first."""
    description: str = ""
    """The text of the documentation, in Markdown; empty if it is the help."""
    of_key: str = ""
    """The description of the key in the JSON schema; empty if it is the description."""
    flag: str = ""
    """The name of the flag, without hyphens; empty for a setting without a flag of its own."""
    metavar: str = ""
    """The word for the value in the help; empty to derive it from the kind."""
    default_shown: str | None = None
    """The default as the documentation shows it, in Markdown; None to derive it from the default."""
    unit: Unit = Unit.SECONDS
    minimum: int | None = None
    is_positive: bool = False
    """Whether the value must be more than 0."""
    is_clamped: bool = False
    """Whether a flag accepts a lower value and treats it as `minimum`, as in websocketd."""
    is_inverted: bool = False
    """Whether the flag sets False."""
    is_repeatable: bool = False
    """Whether the flag may occur several times."""
    has_commas: bool = False
    """Whether the flag holds a list that is separated by commas."""
    is_secret: bool = False
    """Whether the value may contain a password, and so is never shown."""
    place: Literal["", "file", "folder"] = ""
    """Whether the value names a file or a folder, relative to the configuration file; empty for neither."""
    needs: str = ""
    """The name of a setting of the same part that this setting needs: without it, this setting has no effect."""
    choices: tuple[str, ...] = ()
    """The possible values, if the type is no enum."""
    check: Callable[[Any], None] | None = None
    """Raises ValueError for an invalid value, with a sentence that mentions the setting."""
    check_item: Callable[[str], None] | None = None
    """The same for one item of an array, so that each invalid item is a fault of its own."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all structs of settings."""

    def faults(self) -> Iterator[Fault]:
        """Yield the faults of settings of this part that do not fit together."""
        yield from ()


class Field(NamedTuple):
    """A declared setting."""

    name: str
    kind: Kind
    type: Any
    """The enum of a CHOICE; else the type of the value."""
    default: Any
    """`msgspec.NODEFAULT` for a setting that must be given."""
    setting: Setting

    @property
    def is_required(self) -> bool:
        return self.default is msgspec.NODEFAULT

    @property
    def choices(self) -> tuple[str, ...]:
        if self.setting.choices or self.kind is not Kind.CHOICE:
            return self.setting.choices
        return tuple(choice.value for choice in self.type)


class Fault(NamedTuple):
    """A mistake in the settings."""

    path: tuple[str | int, ...]
    """The setting: only its name, or `("endpoint", 2, "max_programs")`."""
    sentence: str
    """The mistake and its remedy; it mentions settings as `<name>`."""

    def within(self, *path: str | int) -> Fault:
        """Return the fault of a part that has a path itself."""
        return Fault((*path, *self.path), self.sentence)


@cache
def fields_of(part: type[Part]) -> tuple[Field, ...]:
    """Return the settings of a part that are declared with a `Setting`, in order."""
    defaults = (msgspec.NODEFAULT,) * (len(part.__struct_fields__) - len(part.__struct_defaults__)) + part.__struct_defaults__
    by_name = dict(zip(part.__struct_fields__, defaults, strict=True))
    return tuple(
        _field(name, annotation, by_name[name])
        for owner in reversed(part.__mro__)
        for name, annotation in get_annotations(owner, eval_str=True).items()
        if any(isinstance(item, Setting) for item in getattr(annotation, "__metadata__", ()))
    )


def field_of(part: type[Part], name: str) -> Field:
    """Return one setting of a part."""
    return next(field for field in fields_of(part) if field.name == name)


def bound_fault(field: Field, value: Any, shown: str) -> Iterator[Fault]:
    """Yield the fault of a number outside its bounds; `shown` is the value as the user wrote it."""
    setting = field.setting
    if setting.is_positive and value <= 0:
        yield Fault((field.name,), f"<{field.name}>={shown} must be more than 0")
    elif setting.minimum is not None and value < setting.minimum:
        yield Fault((field.name,), f"<{field.name}>={shown} must not be negative")


def check_fault(field: Field, value: Any) -> Iterator[Fault]:
    """Yield the faults that the field's own checks find in a value; the path of an item's fault ends in its index."""
    yield from _complaint(field.setting.check, value, field.name)
    if field.setting.check_item is not None:
        for index, item in enumerate(value or ()):
            yield from _complaint(field.setting.check_item, item, field.name, index)


def item_fault(field: Field, item: str) -> Iterator[Fault]:
    """Yield the fault that the field's own check finds in one item of an array."""
    yield from _complaint(field.setting.check_item, item, field.name)


def _complaint(check: Callable[[Any], None] | None, value: Any, *path: str | int) -> Iterator[Fault]:
    try:
        if check is not None:
            check(value)
    except ValueError as error:
        yield Fault(path, str(error))


def _field(name: str, annotation: Any, default: Any) -> Field:
    kind: Kind | None = None
    for item in annotation.__metadata__:
        if isinstance(item, Kind):
            kind = item
        elif isinstance(item, Setting):
            setting = item
    base = annotation.__origin__
    return Field(name, kind or _kind_of(base, setting), base, default, setting)


def _kind_of(base: Any, setting: Setting) -> Kind:
    if isinstance(base, type) and issubclass(base, StrEnum):
        return Kind.CHOICE
    if base is str:
        return Kind.CHOICE if setting.choices else Kind.TEXT
    if base is bool:
        return Kind.BOOLEAN
    if base is int:
        return Kind.INTEGER
    assert get_origin(base) is not None, base
    return Kind.TEXTS
