"""Declarations of settings: the text of every setting, and the form in which a text mentions another setting."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
import pytest

from wsbridge.mentions import MENTION, mention
from wsbridge.settings.broker import BrokerSettings
from wsbridge.settings.declare import Fault, Field, Kind, Part, Setting, bound_fault, check_fault, field_of, fields_of
from wsbridge.settings.endpoint import KINDS, parts_of
from wsbridge.settings.listen import ListenSettings
from wsbridge.settings.process import ProcessSettings
from wsbridge.settings.program import ProgramSettings

PARTS = (
    *(ListenSettings, ProcessSettings, BrokerSettings, *KINDS.values()),
    *dict.fromkeys(part for kind in KINDS.values() for _, part, _ in parts_of(kind)),
)
EVERY = [field for part in PARTS for field in fields_of(part)]
NAMES = {field.name for field in EVERY}


def test_every_field_is_declared() -> None:
    """Each field of a part is a setting, or a part itself."""
    for part in PARTS:
        declared = {field.name for field in fields_of(part)} | {name for name, _, _ in parts_of(part)}
        assert set(part.__struct_fields__) == declared, part


@pytest.mark.parametrize("field", EVERY, ids=lambda field: field.name)
def test_texts(field: Field) -> None:
    """A text is a sentence without its full stop, and mentions only settings."""
    setting = field.setting
    for text in filter(None, (setting.help, setting.description, setting.of_key, setting.default_shown)):
        assert text[-1] != "."
        assert set(MENTION.findall(text)) <= NAMES


@pytest.mark.parametrize("field", EVERY, ids=lambda field: field.name)
def test_texts_name_no_flag(field: Field) -> None:
    """A text mentions a setting by its name, so that the command line and a configuration file can each use their own spelling."""
    assert not re.search(r"(?<!\w)--[a-z]", re.sub(r"\]\([^)]*\)", "", field.setting.help + field.setting.description))


@pytest.mark.parametrize("field", EVERY, ids=lambda field: field.name)
def test_defaults_are_valid(field: Field) -> None:
    """The default of a setting passes its bounds and its check, and has its kind."""
    if field.is_required:
        return
    assert [*bound_fault(field, field.default, ""), *check_fault(field, field.default)] == []
    kinds = {Kind.BOOLEAN: bool, Kind.INTEGER: int, Kind.SIZE: int, Kind.SECONDS: float, Kind.TEXT: str, Kind.TEXTS: tuple}
    assert isinstance(field.default, kinds.get(field.kind, str)) or field.default is None
    assert field.kind is not Kind.CHOICE or field.default in field.choices


def test_needs_are_settings() -> None:
    """A setting may only need another setting of the same part."""
    for part in PARTS:
        assert {field.setting.needs for field in fields_of(part)} - {""} <= {field.name for field in fields_of(part)}


def test_fields() -> None:
    """A field has the kind, the default and the choices of its annotation. Fields of a base class come first."""
    framing, pty = field_of(ProgramSettings, "framing"), field_of(ProgramSettings, "pty")
    assert (framing.kind, framing.default, framing.choices[:2]) == (Kind.CHOICE, "lines", ("lines", "chunks"))
    assert (pty.kind, pty.default, pty.is_required) == (Kind.BOOLEAN, False, False)
    assert field_of(BrokerSettings, "url").is_required
    assert [field.name for field in fields_of(KINDS["console"])] == ["path", "hosts", "target"]


def test_mention() -> None:
    """Each mention of a setting gets the given form; other text in angle brackets is unchanged."""
    assert mention("<max_programs> and <A-Z>, <>", str.upper) == "MAX_PROGRAMS and <A-Z>, <>"
    assert mention("nothing", str.upper) == "nothing"


class Bounded(Part, frozen=True, kw_only=True):
    """Bounds of each kind."""

    low: Annotated[int, Setting("x", minimum=0)] = 0
    positive: Annotated[int, Setting("x", is_positive=True)] = 1


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("low", 0, None),
        ("low", -1, "<low>=-1 must not be negative"),
        ("positive", 1, None),
        ("positive", 0, "<positive>=0 must be more than 0"),
    ],
)
def test_bounds(name: str, value: int, sentence: str | None) -> None:
    """A number outside its bounds is a fault, which shows the value as the user wrote it."""
    found = [fault.sentence for fault in bound_fault(field_of(Bounded, name), value, str(value))]
    assert found == ([sentence] if sentence else [])


def test_fault_of_a_part() -> None:
    """The path of a fault begins with the path of its part."""
    assert Fault(("ping",), "x").within("endpoint", 2) == Fault(("endpoint", 2, "ping"), "x")


def test_parts_are_frozen() -> None:
    """Settings are immutable."""
    with pytest.raises(AttributeError):
        ProcessSettings().guard = False  # type: ignore[misc]
    assert msgspec.structs.replace(ProcessSettings(), guard=False) != ProcessSettings()
