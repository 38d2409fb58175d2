"""Go's spelling of flags, integers and booleans (Go's packages flag and strconv)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsbridge.cli.gostyle import parse_bool, parse_int, parse_unsigned, to_click
from wsbridge.errors import UsageError

SAYS_SOMETHING = r"\S"

FLAGS = {"port": True, "dir": True, "header": True, "header-ws": True, "binary": False, "devconsole": False, "version": False}
"""The flags of these tests; those that are True take a value."""


@pytest.mark.parametrize(
    ("words", "clicked"),
    [
        ([], ["--"]),
        (["cat"], ["--", "cat"]),
        (["-port", "80", "cat"], ["--port=80", "--", "cat"]),
        (["--port", "80", "cat"], ["--port=80", "--", "cat"]),
        (["-port=80", "cat"], ["--port=80", "--", "cat"]),
        (["--port=80", "cat"], ["--port=80", "--", "cat"]),
        (["--binary", "cat"], ["--binary=true", "--", "cat"]),
        (["-binary", "cat"], ["--binary=true", "--", "cat"]),
        (["--binary=false", "cat"], ["--binary=false", "--", "cat"]),
        (["--binary=T", "cat"], ["--binary=T", "--", "cat"]),
        (["--binary", "false"], ["--binary=true", "--", "false"]),
        (["--port=80", "--binary", "-devconsole", "cat"], ["--port=80", "--binary=true", "--devconsole=true", "--", "cat"]),
        (["--port=1", "--port=2", "cat"], ["--port=1", "--port=2", "--", "cat"]),
        (["--dir=", "cat"], ["--dir=", "--", "cat"]),
        (["--dir", "", "cat"], ["--dir=", "--", "cat"]),
        (["--header", "N: v=w", "cat"], ["--header=N: v=w", "--", "cat"]),
        (["--header-ws=N: v=w", "cat"], ["--header-ws=N: v=w", "--", "cat"]),
        (["--port", "-5", "cat"], ["--port=-5", "--", "cat"]),
        (["--header", "--port=80", "cat"], ["--header=--port=80", "--", "cat"]),
        (["--dir", "--", "cat"], ["--dir=--", "--", "cat"]),
        (["cat", "--port=80"], ["--", "cat", "--port=80"]),
        (["--port=80", "cat", "--devconsole", "-x", "--", "--help"], ["--port=80", "--", "cat", "--devconsole", "-x", "--", "--help"]),
        (["--", "cat"], ["--", "cat"]),
        (["--port=80", "--", "--devconsole"], ["--port=80", "--", "--devconsole"]),
        (["--", "--", "cat"], ["--", "--", "cat"]),
        (["-", "x"], ["--", "-", "x"]),
        (["", "--port=80"], ["--", "", "--port=80"]),
        (["--port=80", ""], ["--port=80", "--", ""]),
        (["8080", "--port=80"], ["--", "8080", "--port=80"]),
    ],
)
def test_spellings(words: list[str], clicked: list[str]) -> None:
    """One hyphen or two, a value after `=` or as the next word, a boolean's only after `=`; the first other word is COMMAND."""
    assert to_click(words, FLAGS) == clicked


@pytest.mark.parametrize("words", [["-h"], ["--h"], ["-help"], ["--help"], ["--port=80", "-h", "cat"], ["--binary", "--help"]])
def test_help(words: list[str]) -> None:
    """Help is asked for by -h and --help, before COMMAND."""
    assert to_click(words, FLAGS) == ["--help"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nope", "cat"], "flag provided but not defined: -nope"),
        (["-x"], "flag provided but not defined: -x"),
        (["--Port=80"], "flag provided but not defined: -Port; did you mean -port?"),
        (["--por=80"], "flag provided but not defined: -por; did you mean -port?"),
        (["-pb"], "flag provided but not defined: -pb"),
        (["--binary", "--nope"], "flag provided but not defined: -nope"),
        (["--port"], "flag needs an argument: -port"),
        (["--binary", "-dir"], "flag needs an argument: -dir"),
        (["---port=80"], "bad flag syntax: ---port=80"),
        (["---"], "bad flag syntax: ---"),
        (["--=80"], "bad flag syntax: --=80"),
        (["-=80"], "bad flag syntax: -=80"),
    ],
)
def test_errors(words: list[str], message: str) -> None:
    """What cannot be read is said in Go's words; a flag is never guessed from its beginning, nor are short ones joined."""
    with pytest.raises(UsageError) as caught:
        to_click(words, FLAGS)
    assert str(caught.value) == message


words_of_any_kind = st.sampled_from(["--port", "--port=1", "-binary", "--binary=0", "--", "-", "", "cat", "--dir", "-h", "x=y"])


@settings(deadline=None)
@given(st.lists(words_of_any_kind | st.text(max_size=4)))
def test_command_is_left_alone(words: list[str]) -> None:
    """Whatever comes before it, COMMAND and what follows are the last words, unchanged; nothing but UsageError is raised."""
    try:
        clicked = to_click(words, FLAGS)
    except UsageError:
        return
    if clicked != ["--help"]:
        flags, command = clicked[: clicked.index("--")], clicked[clicked.index("--") + 1 :]
        assert words[len(words) - len(command) :] == command
        assert all(flag.startswith("--") and "=" in flag for flag in flags)


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_true(text: str) -> None:
    """Go's spellings of true."""
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False"])
def test_false(text: str) -> None:
    """Go's spellings of false."""
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "on", "y", "tRUE", "2", " true", "true ", "truetrue"])
def test_no_boolean(text: str) -> None:
    """Anything else is no boolean."""
    with pytest.raises(ValueError, match=SAYS_SOMETHING):
        parse_bool(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("80", 80),
        ("-1", -1),
        ("+80", 80),
        ("0x1F90", 8080),
        ("0X1f90", 8080),
        ("0x_1F_90", 8080),
        ("1_000", 1000),
        ("1_2_3", 123),
        ("010", 8),
        ("0_10", 8),
        ("00", 0),
        ("-010", -8),
        ("0o17", 15),
        ("0O1_7", 15),
        ("0b101", 5),
        ("0B_1", 1),
        ("-0x10", -16),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_integer(text: str, number: int) -> None:
    """An integer as in Go source; a leading 0 is octal."""
    assert parse_int(text) == number


NO_INTEGERS = ["", " ", "x", "8080x", "08080", "09", "0x", "0b", "0o", "0b2", "_1", "1_", "1__0", "0_", "0x1_", "--1", "+-1", "-"]


@pytest.mark.parametrize("text", [*NO_INTEGERS, " 1", "1 ", "1\n", "1.0", "1e3", "٣", "9223372036854775808", "-9223372036854775809"])
def test_no_integer(text: str) -> None:
    """Anything else is none, one beyond 64 bits neither; what is said is for people, not Python's own words."""
    with pytest.raises(ValueError, match=SAYS_SOMETHING) as caught:
        parse_int(text)
    assert "literal" not in str(caught.value)
    assert "base" not in str(caught.value)


def test_unsigned() -> None:
    """An unsigned integer is one without a sign, not even a plus."""
    assert [parse_unsigned(text) for text in ("0", "0x10", "010", "1_000")] == [0, 16, 8, 1000]
    for text in ("-1", "+1", "-0", *NO_INTEGERS):
        with pytest.raises(ValueError, match=SAYS_SOMETHING):
            parse_unsigned(text)
