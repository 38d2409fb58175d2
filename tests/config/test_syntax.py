"""Texts that are not TOML: the line, and the correct syntax."""

from __future__ import annotations

import tomllib
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wsbridge.config.syntax import MISTAKES, explain


def maybe_why(text: str) -> tuple[int, str] | None:
    """Return the reason why a text is not TOML; None if it is TOML."""
    try:
        tomllib.loads(text)
    except ValueError as error:
        return explain(text, error)
    return None


def why(text: str) -> tuple[int, str]:
    found = maybe_why(text)
    assert found is not None
    return found


QUOTES = "write a string in quotes"
NEEDS_QUOTES = "A-Z, a-z, 0-9, _ and - needs quotes; write it in quotes"


@pytest.mark.parametrize(
    ("text", "column", "sentence"),
    [
        ("name = hello", 8, f'the value is not a number, true or false; {QUOTES}: name = "…"'),
        ("path = /usr/bin", 8, f'{QUOTES}: path = "…"'),
        ("a = [x, y]", 6, QUOTES),
        ("address = 127.0.0.1", 16, f'the value is more than a number or a boolean; {QUOTES}: address = "…"'),
        ("timeout = 10s", 13, f'{QUOTES}: timeout = "…"'),
        ("a = [10s, 20s]", 8, QUOTES),
        ("a = {b = 10s}", 12, QUOTES),
        ("a = 1 2", 7, "write one key and its value on each line"),
        ("mode = 0660", 9, "write 0o660 for an octal number"),
        ("day = 2024-02-30T00:00:00", 7, "no such date or time exists"),
        ("x = True", 5, "write true and false in lower case"),
        ("x = yes # now", 5, "write true or false"),
        ("x = [on, off]", 6, "write true or false"),
        ("x = null", 5, "TOML has no null; remove the key"),
        ("x = .5", 5, "write 0.5, not .5"),
        ("x = “abc”", 5, "write \" or ' around a string"),
        ("x = ", 5, "the value is missing; write x = and a value"),
        ("x = # none", 5, "the value is missing; write x = and a value"),
        ("x = [1,,2]", 8, "a value is missing before this character"),
        ("x == 1", 4, "write a single = between the key and its value"),
        ("x => 1", 4, "write a single = between the key and its value"),
        ("port 8080", 6, "write = between the key and its value"),
        ("port\t8080", 6, "write = between the key and its value"),
        ("port: 8080", 5, "write = instead of : between the key and its value"),
        ("port", 5, "the key has no value; write = and a value after the key"),
        ("max programs = 3", 5, NEEDS_QUOTES),
        ("größe = 3", 3, NEEDS_QUOTES),
        ("a. = 1", 4, "write it after the dot, or remove the dot"),
        ("= 1", 1, "the key is missing; write a key before ="),
        ("// comment", 1, "a comment begins with #; write # instead"),
        ("; comment", 1, "a comment begins with #; write # instead"),
        ('{"a": 1}', 1, "the file looks like JSON"),
        ("]", 1, "no line above opens this bracket; remove it"),
        ("@x = 1", 1, "a line begins with a key, with a [table] or with #"),
        ("a = 1, b = 2", 6, "a key and its value end with the line"),
        ("a = 1; b = 2", 6, "a key and its value end with the line"),
        ("a = 'x' // c", 9, "a comment begins with #; write # instead of //"),
        ('a = "b"c"', 8, 'write \\" for a quotation mark in a string'),
        ("[server] port = 1", 10, "write each key of a table on a line of its own"),
        ("[server", 8, "the header of a table is not closed; write ] after its name"),
        ("[[endpoint]", 11, "the header of an array of tables is not closed; write ]] after its name"),
        ("[my table]", 5, NEEDS_QUOTES),
        ("[größe]", 4, NEEDS_QUOTES),
        ("[]", 2, "the name of the table is missing"),
        ("a = [1 2]", 8, "a comma is missing between two items"),
        ('a = ["x" "y"]', 10, "a comma is missing between two items"),
        ("a = {b = 1 c = 2}", 12, "a comma is missing between two keys, or } is missing after the last"),
        ('x = "abc', 9, "the string is not closed on its line; write a quotation mark at its end"),
        ("x = 'abc", 9, "the string is not closed on its line; write a quotation mark at its end"),
        ('x = "abc\ny = 1', 9, "the string is not closed on its line; write a quotation mark at its end"),
        (r'x = "C:\Users"', 10, "the escape is not a character; write \\u and four"),
        (r'x = "C:\dir"', 10, "write \\\\ for a backslash, or the string between ' and '"),
        (r'x = "\ud800"', 12, "the escape is not a character"),
        ("a\u00a0= 1", 2, "U+00A0 (NO-BREAK SPACE) is not allowed here; remove this character"),
        ("a = 1 # \x07", 9, "U+0007 (an unnamed character) is not allowed here; remove this character"),
        ("a = {b = 1, b = 2}", 18, "the inline table has a key twice; remove one of the two"),
    ],
)
@pytest.mark.parametrize("before", ["", "\n# comment\n[other]\r\nx = [\n 1]\n"])
def test_common_slips(text: str, column: int, sentence: str, before: str) -> None:
    """The most common mistakes have a line, a column and a remedy, at any position."""
    line, found = why(before + text)
    if before and "JSON" in sentence:
        return
    assert line == before.count("\n") + 1
    start, _, rest = found.partition(": ")
    assert start == f"invalid TOML at column {column}"
    assert sentence in rest


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = {b = 1,}", "remove the comma"),
        ("a = {b = 1,\n  c = 2}", "write it on one line, or as a [table]"),
        ("a = {b = 1\n}", "write it on one line, or as a [table]"),
    ],
)
def test_inline_tables_of_toml_1_1(text: str, sentence: str) -> None:
    """A version of tomllib without TOML 1.1 needs an inline table on one line."""
    if (found := maybe_why(text)) is not None:
        assert sentence in found[1]


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("\na = [1, 2\n\n", 2, "the [ in this line is not closed; write ] after the last item"),
        ('\nhosts = ["a",\nport = 80\n[server]\n', 2, "the [ in this line is not closed; write ] after the last item"),
        ("a = {b = 1, c = {", 1, "the { in this line is not closed; write } after the last key"),
        ('a = """\nb = 1\n', 1, 'the """ in this line is not closed; write """ at the end of the string'),
        ("a = 1\nb = '''\n''\n", 2, "the ''' in this line is not closed; write ''' at the end of the string"),
    ],
)
def test_open_brackets(text: str, line: int, sentence: str) -> None:
    """An unclosed bracket is reported in its own line, not in the line where tomllib detects it."""
    assert why(text) == (line, f"invalid TOML: {sentence}")


def test_closed_brackets_around_an_error() -> None:
    """A bracket that a later line closes does not affect an error between them."""
    assert why('hosts = [\n  {tags = ["x", "y" }\n]')[0] == 2
    assert why("hosts = [\n  a,\n]") == (2, f'invalid TOML at column 3: the value is not a number, true or false; {QUOTES}: key = "…"')


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("a = 1\na = 1", 2, "line 1 already sets a; remove one of the two"),
        ("a = [\n 1\n]\nb = 1\r\na = [\n3]", 5, "line 1 already sets a; remove one of the two"),
        ("[x]\n[[e]]\n[[e]]\nb = 1\nb = 2", 5, "line 4 already sets e[2].b; remove one of the two"),
        ("a.b = 1\na.b.c = 2", 2, "line 1 already defines a.b, and this line cannot extend it; define a.b.c there, or rename it"),
        ("a = {b = 1}\na.c = 2", 2, "line 1 already defines a, and this line cannot extend it; define a.c there, or rename it"),
        ("a = {b = 1}\n[a.c]", 2, "line 1 already defines a, and this line cannot extend it; define a.c there, or rename it"),
        ("[a.b]\n[a]\nb.c = 1", 3, "line 1 already defines a.b, and this line cannot extend it; define a.b.c there, or rename it"),
        (
            "[e]\na = 1\n\n [ e ] # twice",
            4,
            "line 1 already defines e; write all its keys into one table, or write [[e]] above each entry of an array",
        ),
        ("[e.f]\n[e]\n[e]", 3, "line 2 already defines e; write all its keys into one table, or write [[e]] above each entry of an array"),
        ("[[e]]\n[e]", 2, "line 1 already defines e; write all its keys into one table, or write [[e]] above each entry of an array"),
        ("[e]\n[[e]]", 2, "line 1 already defines e; write all its keys into one table, or write [[e]] above each entry of an array"),
        ("e = []\n[[e]]", 2, "line 1 already defines e; write all its keys into one table, or write [[e]] above each entry of an array"),
        (
            '"a b".c.d = 1\n["a b".c]',
            2,
            'line 1 already defines "a b".c; write all its keys into one table, or write [["a b".c]] above each entry of an array',
        ),
    ],
)
def test_duplicates(text: str, line: int, sentence: str) -> None:
    """A duplicate key or table is reported with both lines."""
    assert why(text) == (line, sentence)


@pytest.mark.parametrize(
    "text",
    [
        "password = hunter2",
        "password = 7hunter2",
        "password = [hunter2]",
        "password hunter2",
        "password = 'a' hunter2",
        "password = {a = hunter2",
        "password = 'hunter2",
    ],
)
def test_values_stay_secret(text: str) -> None:
    """An error never repeats a value: it may be a password without quotes."""
    assert "hunter2" not in why(text)[1]


def test_unknown_message() -> None:
    """An unknown message of another tomllib version is passed on."""
    assert explain("a\nb", ValueError("Strange {thing} (at line 2, column 1)")) == (
        2,
        "invalid TOML at column 1: strange {thing}; correct the line",
    )


def test_every_slip_is_reachable() -> None:
    """No table entry hides a later entry with the same message: only the last entry of a message has no conditions."""
    for slip, after in pairwise(MISTAKES):
        assert slip.before or slip.rest or slip.message != after.message


@given(text=st.text(alphabet="ab=[]{}\"'\\#\n\r\t .,:1é\0", max_size=40) | st.text())
@example(text="a" * 100_000)
@example(text=" " * 100_000 + "x")
@example(text="[" + "] " * 50_000)
@example(text="a = 1\n" * 1000 + "a = 2")
def test_any_text(text: str) -> None:
    """For any text that tomllib rejects, there is one line of text, with a line number in the file."""
    if (found := maybe_why(text)) is not None:
        line, sentence = found
        assert 0 < line <= text.count("\n") + 1
        assert sentence.isprintable()
        assert len(sentence) < 400
