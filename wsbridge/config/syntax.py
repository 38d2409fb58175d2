"""Explains why a text is not TOML: the line, and a sentence that names the error and its correction.

`tomllib` finds the error. A table of common mistakes translates its message, by the text before and after the position. A sentence
never repeats a value: an unquoted password would appear in a log.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from typing import NamedTuple

from wsbridge.config.faults import show_path
from wsbridge.config.places import Path, Scanner, find_places, nearest
from wsbridge.errors import Malformed, TooDeep

POSITION = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
DUPLICATE = re.compile("Cannot (?:declare|overwrite|mutate|redefine) ")
KEY = re.compile(r"""\s*+([\w."'-]{1,60}+)\s*+[=:]""")
LONG_NUMBER = re.compile("[0-9][0-9_]{4000}")
UNCLOSED = {
    "[": "write ] after the last item",
    "{": "write } after the last key",
    '"""': 'write """ at the end of the string',
    "'''": "write ''' at the end of the string",
}
INLINE_TABLE = "an inline table must end on the line where it begins; write it on one line, or as a [table]"


class Mistake(NamedTuple):
    """A mistake is recognized by three patterns: of tomllib's message, and of the line before and from the position.

    In the sentence, {key} stands for the key of the line.
    """

    message: str
    before: str
    rest: str
    sentence: str


MISTAKES = (
    Mistake("Invalid value", "", r"(#|$)", "the value is missing; write {key} = and a value"),
    Mistake("Invalid value", "", "[“”„‘’«»`]", "this character is not a TOML quotation mark; write \" or ' around a string"),
    Mistake("Invalid value", "", "(?i:true|false)\\b", "write true and false in lower case"),
    Mistake("Invalid value", "", r"(?i:yes|no|on|off)\s*([],}#]|$)", "the value is not a TOML boolean; write true or false"),
    Mistake("Invalid value", "", r"(?i:null|none|nil)\s*([],}#]|$)", "TOML has no null; remove the key"),
    Mistake("Invalid value", "", "[=>]", "write a single = between the key and its value"),
    Mistake("Invalid value", "", r"[+-]?\.[0-9]", "a number begins with a digit; write 0.5, not .5"),
    Mistake("Invalid value", "", r"[,\]})]", "a value is missing before this character; write the value, or remove the character"),
    Mistake("Invalid value", "", "", 'the value is not a number, true or false; write a string in quotes: {key} = "…"'),
    Mistake("Invalid date", "", "", "no such date or time exists; correct it, or write a string in quotes"),
    Mistake("Expected newline", r"^\s*\[.*\]\s*$", "", "write each key of a table on a line of its own, below the header of the table"),
    Mistake(
        "Expected newline", "", "[,;]", "a key and its value end with the line; remove this character, and write the next key on a new line"
    ),
    Mistake("Expected newline", "", "//", "a comment begins with #; write # instead of //"),
    Mistake("Expected newline", "", "\r", "a carriage return alone does not end a line; save the file with LF or CR LF at the line ends"),
    Mistake(
        "Expected newline",
        r"[=,[]\s*[+-]?0$",
        "[0-9]",
        "a number has no leading zero; write 0o660 for an octal number, or a string in quotes",
    ),
    Mistake("Expected newline", r"""["']\s*$""", "", 'the string ends before this column; write \\" for a quotation mark in a string'),
    Mistake("Expected newline", r"[\w.+-]$", r"\S", 'the value is more than a number or a boolean; write a string in quotes: {key} = "…"'),
    Mistake("Expected newline", "", "", "write one key and its value on each line"),
    Mistake("Expected '=' after", "", ":", "write = instead of : between the key and its value"),
    Mistake("Expected '=' after", "", r"(#|$)", "the key has no value; write = and a value after the key"),
    Mistake(
        "Expected '=' after", "", "[^\"'=]+=", "a key with characters other than A-Z, a-z, 0-9, _ and - needs quotes; write it in quotes"
    ),
    Mistake("Expected '=' after", "", "", "write = between the key and its value"),
    Mistake("Invalid statement", "", "//|;|--|%|/\\*", "a comment begins with #; write # instead"),
    Mistake("Invalid statement", "^$", r"\{", "the file looks like JSON; write TOML: one key = value on each line"),
    Mistake("Invalid statement", "", "=", "the key is missing; write a key before ="),
    Mistake("Invalid statement", "", "[]})]", "no line above opens this bracket; remove it"),
    Mistake("Invalid statement", "", "", "a line begins with a key, with a [table] or with #; correct the line"),
    Mistake(
        "Invalid initial",
        r"[,{]\s*$",
        r"(#|$)",
        INLINE_TABLE,
    ),
    Mistake("Invalid initial", r",\s*$", r"\}", "an inline table must not have a comma after its last key; remove the comma"),
    Mistake("Invalid initial", r"\[\s*$", r"\]", "the name of the table is missing; write it between the brackets"),
    Mistake("Invalid initial", r"\.\s*$", "", "a part of the key is missing; write it after the dot, or remove the dot"),
    Mistake("Invalid initial", "", "", "a key with characters other than A-Z, a-z, 0-9, _ and - needs quotes; write it in quotes"),
    Mistake("Expected '\\]\\]'", "", "", "the header of an array of tables is not closed; write ]] after its name"),
    Mistake("Expected '\\]'", "", r"[^]]+\]", "a name with characters other than A-Z, a-z, 0-9, _ and - needs quotes; write it in quotes"),
    Mistake("Expected '\\]'", "", "", "the header of a table is not closed; write ] after its name"),
    Mistake("Unclosed array", r"[\w.+-]$", r"[\w.:%/+-]", "the value is more than a number or a boolean; write a string in quotes"),
    Mistake("Unclosed array", "", "", "a comma is missing between two items, or ] is missing after the last item"),
    Mistake("Unclosed inline", "", r"(#|$)", INLINE_TABLE),
    Mistake("Unclosed inline", r"[\w.+-]$", r"[\w.:%/+-]", "the value is more than a number or a boolean; write a string in quotes"),
    Mistake("Unclosed inline", "", "", "a comma is missing between two keys, or }} is missing after the last key"),
    Mistake("(Illegal|Found invalid) character '\\\\n'", "", "", "the string is not closed on its line; write a quotation mark at its end"),
    Mistake('(Unterminated|Expected "\'")', "", "", "the string is not closed on its line; write a quotation mark at its end"),
    Mistake("Unescaped", "", "", "a backslash begins an escape such as \\n; write \\\\ for a backslash, or the string between ' and '"),
    Mistake(
        "Invalid hex|Escaped character", "", "", "the escape is not a character; write \\u and four hexadecimal digits, or \\U and eight"
    ),
    Mistake("Duplicate inline", "", "", "the inline table has a key twice; remove one of the two"),
)


def explain(text: str, error: ValueError) -> tuple[int, str]:
    """Return the line and the sentence for a text without a BOM that `tomllib` refused. Lines count from 1; 0 is an unknown line."""
    text = text.replace("\r\n", "\n")
    found = POSITION.fullmatch(str(error))
    if not found:
        return _number(text)
    message, *position = found.groups()
    lines = text.split("\n")
    line, column = map(int, position) if position[0] else (len(lines), len(lines[-1]) + 1)
    if unclosed := _unclosed(text, line, is_at_end=not position[0]):
        return unclosed
    if DUPLICATE.match(message):
        return _duplicate("\n".join([*lines[: line - 1], lines[line - 1][: column - 1]]))
    key = KEY.match(lines[line - 1])
    sentence = _mistake(message, lines[line - 1][: column - 1], lines[line - 1][column - 1 :]).format(key=key[1] if key else "key")
    return line, f"invalid TOML at column {column}: {sentence}"


def _mistake(message: str, before: str, rest: str) -> str:
    """Return the sentence for a message of tomllib, by the line before and from the position."""
    if rest and not rest[0].isprintable() and rest[0] not in "\t\r":
        return f"U+{ord(rest[0]):04X} ({unicodedata.name(rest[0], 'an unnamed character')}) is not allowed here; remove this character"
    for mistake in MISTAKES:
        if re.match(mistake.message, message) and re.search(mistake.before, before) and re.match(mistake.rest, rest):
            return mistake.sentence
    return f"{message[:1].lower()}{message[1:]}; correct the line".replace("{", "{{").replace("}", "}}")


def _number(text: str) -> tuple[int, str]:
    """Return the line and the sentence for a number of too many digits: tomllib passes the error of `int` on, without a position."""
    found = LONG_NUMBER.search(text)
    return text.count("\n", 0, found.start()) + 1 if found else 0, "a number is too long; write fewer than 4000 digits"


def _unclosed(text: str, line: int, *, is_at_end: bool) -> tuple[int, str] | None:
    """Return the line and the sentence for a bracket, or three quotes, that is open at the error in `line`; None if none is."""
    try:
        find_places(text)
    except TooDeep:
        return None
    except Malformed as found:
        if found.opening and (is_at_end or found.line < line):
            return found.line, f"invalid TOML: the {found.opening} in this line is not closed; {UNCLOSED[found.opening]}"
    return None


def _duplicate(text: str) -> tuple[int, str]:
    """Return the line and the sentence for a text whose last statement, perhaps cut off, defines what is already defined."""
    scanner = Scanner(text)
    path: Path = ()
    defined: Path = ()
    line = earlier = 0
    with suppress(Malformed):
        for found, number in scanner.statements():
            # The path of an array's entry ends in its index.
            path, line = found if isinstance(found[-1], str) else found[:-1], number
            defined = nearest(scanner.places, path)
            earlier = scanner.places.get(defined, 0)
    name = show_path(path)
    if defined != path:
        return (
            line,
            f"line {earlier} already defines {show_path(defined)}, and this line cannot extend it; define {name} there, or rename it",
        )
    if text.split("\n")[line - 1].lstrip().startswith("["):
        remedy = f"write all its keys into one table, or write [[{name}]] above each entry of an array"
        return line, f"line {earlier} already defines {name}; {remedy}"
    return line, f"line {earlier} already sets {name}; remove one of the two"
