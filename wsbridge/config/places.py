"""The lines of a TOML document: where each key, table and array entry stands, by its path.

`tomllib` returns values without positions, so this module scans the text as well. A path is a tuple of keys, and of indices from 0: the
way to a value in the result of `tomllib`.

    a key                    the line of the key
    a table                  the line of its header; without a header, of the first key or header that mentions it
    an entry of [[array]]    the line of its header; the array itself has the place of its first entry
    an item of an array      the line on which the item begins

The scanner accepts more than TOML, because `tomllib` checks the text. It is one pass without recursion, in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wsbridge.errors import Malformed, TooDeep

Path = tuple[str | int, ...]

MAX_LEVELS = 64
"""More levels than any configuration has. `tomllib` recurses twice per level, and needs quadratic time for a key with many dots."""

# The possessive `++` and `*+` never go back. No group is possessive: Python 3.11.2 then misses matches. If a match fails, each
# repetition of a group fails at once, so a match takes linear time.
# Blanks and comments, also over several lines.
BLANK = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*")
PART = re.compile(r"""[ \t]*+(?:([A-Za-z0-9_-]++)|"([^"\\\n]*+(?:\\.[^"\\\n]*+)*)"|'([^'\n]*+)')[ \t]*+""")
SCALAR = re.compile(
    r'''
      """ [^"\\]*+ (?: (?: \\[\s\S] | "(?!"") ) [^"\\]*+ )* """ "{0,2}  # the last quotes before the closing ones are content
    | \'\'\' [^']*+ (?: '(?!'') [^']*+ )* \'\'\' '{0,2}
    | "(?!"") [^"\\\n]*+ (?: \\. [^"\\\n]*+ )* "
    | '(?!'') [^'\n]*+ '
    | [^]["'{},\#\s] [^],}\#\n]*+                                       # a number, a truth value, a date with a space in it
    ''',
    re.VERBOSE,
)
SEPARATOR = re.compile(rf"{BLANK.pattern}(?:,{BLANK.pattern})?")
EQUALS = re.compile("=[ \t]*+")
ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))")
ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}
CLOSING = {"[": "]", "{": "}", '"""': '"""', "'''": "'''"}


def find_places(text: str) -> dict[Path, int]:
    """Return the line, from 1, of each path in a TOML document. A BOM and CR LF are allowed.

    Raises TooDeep, before `tomllib` could overflow its stack, and Malformed for some texts that are not TOML.
    """
    scanner = Scanner(text)
    for _ in scanner.statements():
        pass
    return scanner.places


def nearest(places: Mapping[Path, int], path: Path) -> Path:
    """Return the longest beginning of a path that has a place; empty if none has."""
    return next((path[:length] for length in range(len(path), 0, -1) if path[:length] in places), ())


@dataclass(slots=True)
class _Opened:
    """An array or an inline table that the scanner is in; `size` counts the items so far."""

    opening: str
    path: Path
    line: int
    size: int = 0


class Scanner:
    """One pass over a text, which fills `places`. Only `statements` moves it."""

    def __init__(self, text: str) -> None:
        self.places: dict[Path, int] = {}
        self._text = text
        self._at = 1 if text.startswith("\ufeff") else 0
        self._line = 1
        self._counted = 0
        """The position up to which `_line` counts the lines."""
        self._table: Path = ()
        self._sizes: dict[Path, int] = {}
        """The number of entries of each array of tables so far."""

    def statements(self) -> Iterator[tuple[Path, int]]:
        """Yield the path and the line of each header and key, before its own place and its value enter `places`."""
        self._skip(BLANK)
        while self._at < len(self._text):
            yield from self._header() if self._text.startswith("[", self._at) else self._setting()
            self._skip(BLANK)

    def _header(self) -> Iterator[tuple[Path, int]]:
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        path = self._key((), enters=brackets == 2)
        line = self._now()
        yield path, line
        self._mark(path)
        # Another header or key may have mentioned this table before.
        self.places[path] = line
        self._table = path
        self._expect("]" * brackets)

    def _setting(self) -> Iterator[tuple[Path, int]]:
        path = self._key(self._table)
        yield path, self._now()
        self._mark(path)
        self._value(path)

    def _value(self, path: Path) -> None:
        """Skip `=` and a value, and record the line of each item in it."""
        self._equals()
        opened: list[_Opened] = []
        while True:
            if self._text.startswith(("[", "{"), self._at):
                opened.append(_Opened(self._text[self._at], path, self._now()))
                self._at += 1
            else:
                self._scalar()
            item = self._next_item(opened)
            if item is None:
                return
            path = item

    def _next_item(self, opened: list[_Opened]) -> Path | None:
        """Move to the next item of the innermost container that has one; return its path, or None after the whole value."""
        while opened:
            self._skip(SEPARATOR)
            inner = opened[-1]
            if self._text.startswith(("]", "}"), self._at):
                self._expect(CLOSING[inner.opening])
                opened.pop()
                continue
            if self._at == len(self._text):
                raise Malformed(inner.line, inner.opening)
            if inner.opening == "[":
                path: Path = (*inner.path, inner.size)
                inner.size += 1
                self._mark(path)
            else:
                path = self._key(inner.path)
                self._mark(path)
                self._equals()
            return path
        return None

    def _key(self, table: Path, *, enters: bool = False) -> Path:
        """Skip a key with its dots; return its path from the root and record the tables on it. With `enters`, it begins an array's entry.

        A part that names an array of tables continues in the last entry of the array.
        """
        path = (*table, self._part())
        while self._text.startswith(".", self._at):
            self._at += 1
            self._mark(path)
            if path in self._sizes:
                path = (*path, self._sizes[path] - 1)
            path = (*path, self._part())
        if enters:
            self._mark(path)
            size = self._sizes.get(path, 0)
            self._sizes[path] = size + 1
            path = (*path, size)
        return path

    def _part(self) -> str:
        found = PART.match(self._text, self._at)
        if not found:
            raise Malformed(self._now())
        self._at = found.end()
        bare, basic, literal = found.groups()
        return ESCAPE.sub(_unescaped, basic) if basic else bare or literal or ""

    def _scalar(self) -> None:
        found = SCALAR.match(self._text, self._at)
        if not found:
            opening = next((quotes for quotes in CLOSING if self._text.startswith(quotes, self._at)), "")
            raise Malformed(self._now(), opening)
        self._at = found.end()

    def _equals(self) -> None:
        found = EQUALS.match(self._text, self._at)
        if not found:
            raise Malformed(self._now())
        self._at = found.end()

    def _expect(self, word: str) -> None:
        if not self._text.startswith(word, self._at):
            raise Malformed(self._now())
        self._at += len(word)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()

    def _mark(self, path: Path) -> None:
        line = self._now()
        if len(path) > MAX_LEVELS:
            raise TooDeep(line)
        self.places.setdefault(path, line)

    def _now(self) -> int:
        """Return the line of the current position; each line break is counted once."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


def _unescaped(found: re.Match[str]) -> str:
    *digits, letter = found.groups()
    for code in digits:
        if code:
            return chr(min(int(code, 16), 0x10FFFF))
    return ESCAPED.get(letter, letter)
