"""The lines of a TOML document: exactly the paths that tomllib finds."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.config.documents import Document, documents
from wsbridge.config.places import MAX_LEVELS, Path, find_places, nearest
from wsbridge.errors import Malformed, TooDeep

MIB = 1024 * 1024


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of each value in the tables that tomllib returns."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths_of(item, (*path, key))


@given(document=documents())
def test_any_document(document: Document) -> None:
    """The scanner finds the paths that tomllib finds, in every syntax, each in its line."""
    assert set(document.places) == set(paths_of(tomllib.loads(document.text.removeprefix("\ufeff"))))
    assert find_places(document.text) == document.places


EXAMPLE = """\
# A comment, then the tables of a server.
name = "x"
server.port = 80
server.'a b'."c\\"d" = 1

[[endpoint]]
path = "/a"

[[endpoint]]
path = "/b"
max_programs = 3
  [endpoint.limits]
  rate = { per = "s", count = 3 }
  [[endpoint.header]]
  x = 1
  [[endpoint.header]]
hosts = [ # a comment ]
  "a",
  '''
]''', "c",

  [1, 2],
]

[broker.main]
url = {env = "URL"}
[broker]
text = \"\"\"
[no.table]
a = 1 # "\"\"\"
last = true
"""


def test_example() -> None:
    """The scanner finds the line of every key and table, in each syntax."""
    assert find_places(EXAMPLE) == {
        ("name",): 2,
        ("server",): 3,
        ("server", "port"): 3,
        ("server", "a b"): 4,
        ("server", "a b", 'c"d'): 4,
        ("endpoint",): 6,
        ("endpoint", 0): 6,
        ("endpoint", 0, "path"): 7,
        ("endpoint", 1): 9,
        ("endpoint", 1, "path"): 10,
        ("endpoint", 1, "max_programs"): 11,
        ("endpoint", 1, "limits"): 12,
        ("endpoint", 1, "limits", "rate"): 13,
        ("endpoint", 1, "limits", "rate", "per"): 13,
        ("endpoint", 1, "limits", "rate", "count"): 13,
        ("endpoint", 1, "header"): 14,
        ("endpoint", 1, "header", 0): 14,
        ("endpoint", 1, "header", 0, "x"): 15,
        ("endpoint", 1, "header", 1): 16,
        ("endpoint", 1, "header", 1, "hosts"): 17,
        ("endpoint", 1, "header", 1, "hosts", 0): 18,
        ("endpoint", 1, "header", 1, "hosts", 1): 19,
        ("endpoint", 1, "header", 1, "hosts", 2): 20,
        ("endpoint", 1, "header", 1, "hosts", 3): 22,
        ("endpoint", 1, "header", 1, "hosts", 3, 0): 22,
        ("endpoint", 1, "header", 1, "hosts", 3, 1): 22,
        ("broker",): 27,
        ("broker", "main"): 25,
        ("broker", "main", "url"): 26,
        ("broker", "main", "url", "env"): 26,
        ("broker", "text"): 28,
        ("broker", "last"): 31,
    }


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", {}),
        ("\ufeff", {}),
        ("\n# only a comment", {}),
        ("\ufeff\r\na = 1\r\nb = 2", {("a",): 2, ("b",): 3}),
        ('"" = 1', {("",): 1}),
        ("a = ['x', [], {}]", {("a",): 1, ("a", 0): 1, ("a", 1): 1, ("a", 2): 1}),
        ("[a.b.c]\n\n[a]\n[a.b]", {("a",): 3, ("a", "b"): 4, ("a", "b", "c"): 1}),
        ("[[a.b]]\n[[a.b]]\n[a.b.c]", {("a",): 1, ("a", "b"): 1, ("a", "b", 0): 1, ("a", "b", 1): 2, ("a", "b", 1, "c"): 3}),
        ("[[a]]\n[[a.b]]\n[[a]]\n[a.b]", {("a",): 1, ("a", 0): 1, ("a", 0, "b"): 2, ("a", 0, "b", 0): 2, ("a", 1): 3, ("a", 1, "b"): 4}),
        # TOML 1.1, which later versions of tomllib support
        ('a = {\n  b = "\\e\\x41", # comment\n  "\\x42" = 1,\n}\nc = 2', {("a",): 1, ("a", "b"): 2, ("a", "B"): 3, ("c",): 5}),
    ],
)  # fmt: skip
def test_places(text: str, places: dict[Path, int]) -> None:
    """A path has the line of its own definition, or else the first line that implies it."""
    assert find_places(text) == places


def test_nearest_path() -> None:
    """A value without its own place has the place of the nearest enclosing path."""
    places = find_places("[[a]]\nb = 1")
    assert nearest(places, ("a", 0, "b")) == ("a", 0, "b")
    assert nearest(places, ("a", 0, "missing", "too")) == ("a", 0)
    assert nearest(places, ("a", 7)) == ("a",)
    assert nearest(places, ("c",)) == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = " + "[" * 100_000, 2),
        ("a = 1\nb = " + "{a=" * 100_000, 2),
        ("a = 1\n" + ".".join("a" * 100_000) + " = 1", 2),
        ("a = 1\n[" + ".".join("a" * 100_000) + "]", 2),
        ("[[" + ".".join("a" * 100_000) + "]]", 1),
        ("a = " + "[" * MAX_LEVELS + "\n1" + "]" * MAX_LEVELS, 2),
    ],
    ids=["arrays", "inline tables", "key", "header", "header of an array", "one level too many"],
)
def test_too_many_levels(text: str, line: int) -> None:
    """Nesting too deep for tomllib is an error with its line, in linear time and without recursion."""
    with pytest.raises(TooDeep) as caught:
        find_places(text)
    assert caught.value.line == line


def test_as_many_levels_as_allowed() -> None:
    """tomllib reads everything within the allowed number of levels."""
    levels = MAX_LEVELS - 1
    text = "a = " + "[" * levels + "1" + "]" * levels
    assert set(find_places(text)) == set(paths_of(tomllib.loads(text)))


@pytest.mark.parametrize(
    ("text", "line", "opening"),
    [
        ("a = [\n1, 2", 1, "["),
        ("a = 1\nb = {c = [1], ", 2, "{"),
        ('a = 1\nb = """x\n""\n', 2, '"""'),
        ("a = '''x\n''\n", 1, "'''"),
        ("a = [1}\n", 1, ""),
        ('a = "x\n', 1, ""),
        ("a = 'x\n", 1, ""),
        ("\na b = 1", 2, ""),
        ("a = ", 1, ""),
        ("[a\nb = 1", 1, ""),
        ("[[a]\nb = 1", 1, ""),
        ("\n\n= 1", 3, ""),
        ("a. = 1", 1, ""),
        ("\0", 1, ""),
    ],
)
def test_malformed(text: str, line: int, opening: str) -> None:
    """The scanner names an unclosed bracket or quote."""
    with pytest.raises(Malformed) as caught:
        find_places(text)
    assert (caught.value.line, caught.value.opening) == (line, opening)


broken = st.lists(
    st.sampled_from(["a", "=", ".", "[", "]", "[[", "]]", "{", "}", ",", '"', "'", '"""', "'''", "\\", "#", "\n", "\r", " ", "1"]),
    max_size=30,
)


@given(text=broken.map("".join) | st.text())
@example(text="a = '''''")
def test_any_text(text: str) -> None:
    """For any text, the scanner ends, and it reads everything that tomllib reads."""
    try:
        tables = tomllib.loads(text.removeprefix("\ufeff"))
    except ValueError:
        try:
            find_places(text)
        except (Malformed, TooDeep):
            pass
    else:
        assert set(find_places(text)) == set(paths_of(tables))


@pytest.mark.parametrize(
    "text",
    [
        "[[a]]\n" * (MIB // 6),
        "".join(f"[t{index}]\n" for index in range(100_000)),
        "x = [" + "1," * (MIB // 2) + "]",
        "x = [\n" + "{a.b = 1},\n" * (MIB // 12) + "]",
        "x = " + "[" * (MAX_LEVELS - 2) + "1," * (MIB // 2) + "]" * (MAX_LEVELS - 2),
        'x = "' + "\\n" * (MIB // 2) + '"',
        'x = """' + '""\\""' * (MIB // 5) + '"""',
        "x = '''" + "''\n" * (MIB // 3) + "'''",
        'x = """' + '"' * 2 + "a" * MIB,
        '"' + "\\" * MIB,
        "#" * MIB,
        "\n" * MIB,
        " " * MIB,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_linear_time(text: str) -> None:
    """A document of 1 MiB takes at most seconds of CPU time, whatever it contains."""
    began = time.process_time()
    try:
        find_places(text)
    except Malformed:
        pass
    assert time.process_time() - began < 10
