"""Random TOML documents with the line of each path, in every form that TOML has for a key, a table, an array and a string."""

from __future__ import annotations

import string
from typing import Any, NamedTuple

from hypothesis import strategies as st

from wsbridge.config.places import Path

BARE = set(string.ascii_letters + string.digits + "_-")


class Document(NamedTuple):
    text: str
    places: dict[Path, int]


class Scalar(NamedTuple):
    text: str


class Inline(NamedTuple):
    """A table between braces."""

    table: dict[str, Any]


class Entries(NamedTuple):
    """An array of tables with a header for each."""

    tables: list[dict[str, Any]]


ODD_SCALARS = [
    *("1", "-0.5e10", "0xff", "+inf", "nan", "true", "false", "1979-05-27 07:32:00", "1979-05-27T07:32:00.5Z", "07:32:00"),
    *('""', "''", '"a # ] } [ { , = b"', "'c:\\x # \"]'", r'"\"]"', r'"\\"', r'"\U0001F600\t"'),
    *('"""\n] # " "" = [x]\n"""', '"""a\\""""', '"""a""""', '"""a"""""', '""""""', '"""\\\\"""', '"""\\\n   folded"""'),
    *("'''\n[x]\n'' # \\'''", "'''a''''", "'''a'''''", "''''''"),
]

text_without_control = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
keys = (
    st.sampled_from(["a", "b", "c", "1", "-"])
    | st.sampled_from(["", " ", "a.b", '"', "'", "\\", "é", "\t", "]", "#", "="])
    | st.text(max_size=4)
)
pieces = st.lists(st.sampled_from(['"', "#", "]", "\n", "é", "'", "[x]\n", '\\"', "\\\\", "a = 1"]), max_size=8)


def basic(value: str) -> str:
    """Return a basic string with every other optional escape."""
    return "".join(
        character
        if character.isalnum() and index % 2
        else f"\\u{ord(character):04X}"
        if ord(character) < 0x10000
        else f"\\U{ord(character):08X}"
        for index, character in enumerate(value)
    ).join('""')


def multiline(found: list[str]) -> str:
    content = "".join(found)
    while '"""' in content:
        content = content.replace('"""', '""\\"')
    return f'"""{content}"""' if not content.endswith('"') or content.endswith('\\"') else f'"""{content}x"""'


scalars = (
    st.sampled_from(ODD_SCALARS)
    | text_without_control.map(basic)
    | text_without_control.filter(lambda value: "'" not in value).map(lambda value: f"'{value}'")
    | pieces.map(multiline)
).map(Scalar)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3).map(Inline), max_leaves=4
)
tables = st.recursive(
    st.dictionaries(keys, values, max_size=3),
    lambda inner: st.dictionaries(keys, values | inner | st.lists(inner, min_size=1, max_size=2).map(Entries), min_size=1, max_size=3),
    max_leaves=8,
)


class Writer:
    """Writes a document, and records the line of each path."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._written: list[str] = []
        self._line = 1
        self.places: dict[Path, int] = {}

    @property
    def text(self) -> str:
        return "".join(self._written)

    def document(self, table: dict[str, Any]) -> None:
        self._body(table, (), ())

    def _body(self, table: dict[str, Any], path: Path, header: tuple[str, ...]) -> None:
        """Write the keys of the current table, then its subtables."""
        below = {}
        for key, value in table.items():
            is_dotted = isinstance(value, dict) and self._is_flat(value) and self._one_of(False, True)
            if isinstance(value, Entries) or (isinstance(value, dict) and not is_dotted):
                below[key] = value
            else:
                self._setting((key,), value, path)
        self._below(below, path, header)

    def _below(self, below: dict[str, Any], path: Path, header: tuple[str, ...]) -> None:
        for key, value in below.items():
            if isinstance(value, Entries):
                for index, table in enumerate(value.tables):
                    self._header((*header, key), (*path, key), index=index)
                    self._body(table, (*path, key, index), (*header, key))
            else:
                self._table(value, (*path, key), (*header, key))

    def _table(self, table: dict[str, Any], path: Path, header: tuple[str, ...]) -> None:
        """Write a table with its header, before or after its subtables; an implicit table needs no header."""
        inner = {key: value for key, value in table.items() if isinstance(value, dict | Entries)}
        if inner and self._one_of(False, True):
            self._below(inner, path, header)
            rest = {key: value for key, value in table.items() if key not in inner}
            if rest or self._one_of(False, True):
                self._header(header, path)
                self._body(rest, path, header)
        else:
            self._header(header, path)
            self._body(table, path, header)

    def _header(self, header: tuple[str, ...], path: Path, *, index: int | None = None) -> None:
        self._noise()
        for end in range(1, len(path)):
            self._mark(path[:end])
        brackets = "[]" if index is None else "[[]]"
        half = len(brackets) // 2
        self._write(brackets[:half], self._dotted(header), brackets[half:])
        if index is None:
            self.places[path] = self._line
        else:
            self._mark(path)
            self._mark((*path, index))
        self._end()

    def _setting(self, key: tuple[str, ...], value: Any, table: Path) -> None:
        """Write a key and its value; for a table, dotted keys can continue the key."""
        if isinstance(value, dict):
            for inner, item in value.items():
                self._setting((*key, inner), item, table)
            return
        self._noise()
        self._pair(key, value, table)
        self._end()

    def _pair(self, key: tuple[str, ...], value: Any, table: Path) -> None:
        for end in range(1, len(key) + 1):
            self._mark((*table, *key[:end]))
        self._write(self._dotted(key), self._one_of("=", " = ", "\t="), self._one_of("", " "))
        self._value(value, (*table, *key))

    def _value(self, value: Any, path: Path) -> None:
        match value:
            case Scalar(text):
                self._write(text)
            case list():
                self._write("[")
                for index, item in enumerate(value):
                    self._gap()
                    self._mark((*path, index))
                    self._value(item, (*path, index))
                    self._gap()
                    if index < len(value) - 1 or self._one_of(False, True):
                        self._write(",")
                self._gap()
                self._write("]")
            case Inline(table):
                self._write("{", self._one_of("", " "))
                for index, (key, item) in enumerate(table.items()):
                    if index:
                        self._write(self._one_of(",", " , "))
                    self._pair((key,), item, path)
                self._write(self._one_of("", " "), "}")

    def _dotted(self, parts: tuple[str, ...]) -> str:
        return self._one_of(".", " . ").join(map(self._key, parts))

    def _key(self, key: str) -> str:
        forms = [basic(key)]
        if key and set(key) <= BARE:
            forms.append(key)
        if "'" not in key and key.isprintable():
            forms.append(f"'{key}'")
        return self._one_of(*forms)

    def _gap(self) -> None:
        """Write optional text between the items of an array."""
        self._write(self._one_of("", "", " ", "\n", "\t\n\n", ' # ] " """ \n'))

    def _noise(self) -> None:
        """Write optional text between two statements."""
        self._write(self._one_of("", "", "\n", " \t\n", "# a = [ ''' \n", "  "))

    def _end(self) -> None:
        self._write(self._one_of("\n", "\n", " # ] \"'\n"))

    def _write(self, *texts: str) -> None:
        for text in texts:
            self._written.append(text)
            self._line += text.count("\n")

    def _mark(self, path: Path) -> None:
        self.places.setdefault(path, self._line)

    def _is_flat(self, table: dict[str, Any]) -> bool:
        """Return whether dotted keys can write a table: it has a key, and no header below it."""
        return bool(table) and all(
            self._is_flat(value) if isinstance(value, dict) else not isinstance(value, Entries) for value in table.values()
        )

    def _one_of(self, *choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A document with lines that end in LF or CR LF, with or without a BOM and a newline at the end."""
    writer = Writer(draw)
    writer.document(draw(tables))
    text = writer.text
    if draw(st.booleans()):
        text = text.removesuffix("\n")
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return Document(draw(st.sampled_from(["", "\ufeff"])) + text, writer.places)
