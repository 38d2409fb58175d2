"""The text of a fault in a configuration: one line with a place, a path and a sentence."""

from __future__ import annotations

import datetime
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsbridge.config.faults import LONGEST_KEY, Fault, Place, show_name, show_path, show_type
from wsbridge.config.places import Path


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (
            Fault(Place("wsbridge.toml", 17), "endpoint[2].max_programs", 'expected an integer, got "ten"'),
            'wsbridge.toml:17: endpoint[2].max_programs: expected an integer, got "ten"',
        ),
        (Fault(Place("conf.d/a.toml", 3), "", "invalid TOML"), "conf.d/a.toml:3: invalid TOML"),
        (Fault(Place("/etc/wsbridge.toml", 0), "", "no such file"), "/etc/wsbridge.toml: no such file"),
        (Fault(Place("a\nb.toml", 1), "x", "y"), "'a\\nb.toml':1: x: y"),
    ],
)
def test_text(fault: Fault, text: str) -> None:
    """The text of a fault contains the file, the line and the setting, as far as they are known, and the sentence."""
    assert str(fault) == text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("server",), "server"),
        (("endpoint", 1, "max_programs"), "endpoint[2].max_programs"),
        (("a", 0, 11), "a[1][12]"),
        (("a b", "c.d", ""), '"a b"."c.d".""'),
        (("größe", 'say "\\"', "\n\t\r"), '"größe"."say \\"\\\\\\""."\\n\\t\\r"'),
        (("\0\u2028\u202e", "\U000e0001"), '"\\u0000\\u2028\\u202E"."\\U000E0001"'),
    ],
)
def test_paths(path: Path, text: str) -> None:
    """An index counts from 1; a key that is not bare is in quotes, and unprintable characters are escapes."""
    assert show_path(path) == text


@given(key=st.text(st.characters(exclude_categories=["Cs"]), max_size=LONGEST_KEY))
def test_shown_key_is_toml(key: str) -> None:
    """A user can copy a key from a fault into the file: it is one printable line."""
    shown = show_path((key,))
    assert shown.isprintable()
    assert tomllib.loads(f"{shown} = 1") == {key: 1}


def test_long_key() -> None:
    """A long key is shortened."""
    assert len(show_path(("k" * 1_000_000,))) < LONGEST_KEY + 10


def test_odd_names() -> None:
    """The fault shows a file name as the user gave it, unless the name would break the line or the terminal."""
    assert show_name("conf.d/é b.toml") == "conf.d/é b.toml"
    assert show_name("a\x1b[2J") == "'a\\x1b[2J'"
    assert show_name("\udcff.toml") == "'\\udcff.toml'"
    assert show_name("") == "''"
    assert show_name("amqp://me:secret@host/") == "amqp://…@host/"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("x", "a string"),
        (True, "a boolean"),
        (1, "an integer"),
        (1.5, "a float"),
        ([], "an array"),
        ({}, "a table"),
        (datetime.date(2024, 1, 1), "a date or time"),
    ],
)
def test_types(value: object, name: str) -> None:
    """Types have their TOML names."""
    assert show_type(value) == name
