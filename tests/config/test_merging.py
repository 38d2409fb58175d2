"""The merged tables of several files: concatenation, merging and conflicts."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from wsbridge.config.faults import Place
from wsbridge.config.merging import ConfigFile, Merged
from wsbridge.config.places import find_places


def merged(*texts: str) -> Merged:
    """Merge files with the names a, b, c in the folders /a, /b, /c."""
    return Merged([ConfigFile(name, f"/{name}", tomllib.loads(text), find_places(text)) for name, text in zip("abc", texts, strict=False)])


@pytest.mark.parametrize(
    ("texts", "tables"),
    [
        ([""], {}),
        (["", "a = 1"], {"a": 1}),
        (["a = 1", "b = 1"], {"a": 1, "b": 1}),
        (["[[e]]\nx = 1\n[[e]]\nx = 2", "", "[[e]]\nx = 3"], {"e": [{"x": 1}, {"x": 2}, {"x": 3}]}),
        (["e = [{x = 1}]", "[[e]]\nx = 2"], {"e": [{"x": 1}, {"x": 2}]}),
        (["e = []", "[[e]]\nx = 2", "e = []"], {"e": [{"x": 2}]}),
        (["[s]\na = 1\n[s.t]\nx = 1", "s.b = 2\n[s.t]\ny = 2\n[u]"], {"s": {"a": 1, "b": 2, "t": {"x": 1, "y": 2}}, "u": {}}),
    ],
)
def test_merge(texts: list[str], tables: dict[str, Any]) -> None:
    """Arrays of tables are concatenated in the order of the files, and tables are merged at every level."""
    result = merged(*texts)
    assert (result.tables, result.faults) == (tables, [])


@pytest.mark.parametrize(
    ("texts", "tables", "faults"),
    [
        (["\na = 1", "a = 1"], {"a": 1}, ["b:1: a: a:2 already sets this key; remove one of the two"]),
        (
            ["s.t.x = 1", "[s.t]\nx = 2\ny = 3"],
            {"s": {"t": {"x": 1, "y": 3}}},
            ["b:2: s.t.x: a:1 already sets this key; remove one of the two"],
        ),
        (["h = ['x']", "h = ['y']"], {"h": ["x"]}, ["b:1: h: a:1 already sets this key; remove one of the two"]),
        (["h = ['x']", "h = [{}]"], {"h": ["x"]}, ["b:1: h: a:1 already sets this key; remove one of the two"]),
        (["h = [{}]", "h = ['x']"], {"h": [{}]}, ["b:1: h: a:1 already sets this key; remove one of the two"]),
        (["[[s.h]]", "[[s.h]]"], {"s": {"h": [{}]}}, ["b:1: s.h: a:1 already sets this key; remove one of the two"]),
        (["[s]\nx = 1", "s = 1"], {"s": {"x": 1}}, ["b:1: s: a:1 already sets this key; remove one of the two"]),
        (["[e]", "[[e]]"], {"e": {}}, ["b:1: e: a:1 defines e as one table; write [e] here, or [[e]] in both places"]),
        (["[[e]]", "[e]"], {"e": [{}]}, ["b:1: e: a:1 defines e as an array of tables; write [[e]] here"]),
        (
            ["a = 1\nb = 1", "b = 2", "a = 3\nc = 1"],
            {"a": 1, "b": 1, "c": 1},
            [*("b:1: b: a:2 already sets this key; remove one of the two", "c:1: a: a:1 already sets this key; remove one of the two")],
        ),
    ],
)
def test_conflicts(texts: list[str], tables: dict[str, Any], faults: list[str]) -> None:
    """A key in two files is an error that names both places; the first value stays, and the other keys are merged."""
    result = merged(*texts)
    assert (result.tables, list(map(str, result.faults))) == (tables, faults)


def test_files_of_paths() -> None:
    """Each path in the merged tables maps to its file and its line."""
    result = merged("[s]\na = 1\n[[e]]\nx = 1\n[[e]]", "[[e]]\n[e.t]\nx = 1\n[s]\nb = 2\nc.d = 1", "e = [{x = 1},\n{}]\n")

    def place(*path: str | int) -> Place:
        file, local = result.find(path)
        assert file.folder == f"/{file.name}"
        return file.place(local)

    assert len(result.tables["e"]) == 5
    assert place("e") == Place("a", 3)
    assert [place("e", index) for index in range(5)] == [Place("a", 3), Place("a", 5), Place("b", 1), Place("c", 1), Place("c", 2)]
    assert place("e", 0, "x") == Place("a", 4)
    assert place("e", 1, "x") == Place("a", 5)
    assert place("e", 2, "t", "x") == Place("b", 3)
    assert place("e", 3, "x") == Place("c", 1)
    assert place("s") == Place("a", 1)
    assert place("s", "a") == Place("a", 2)
    assert place("s", "b") == Place("b", 5)
    assert place("s", "c", "d", "missing") == Place("b", 6)
    assert place("s", "missing") == Place("a", 1)
    assert place("e", 9) == place("e", -1) == Place("a", 3)
    assert place("missing", "x") == place() == Place("a", 0)


def test_index_in_its_file() -> None:
    """A fault counts entries within the file that it names."""
    result = merged("[[e]]\n[[e]]", "[[e]]\nx = 1")
    file, local = result.find(("e", 2, "x"))
    assert str(file.fault(local, "wrong")) == "b:2: e[1].x: wrong"
