"""Go's syntax for flags (Go's package flag)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsbridge.cli.gostyle import to_click
from wsbridge.errors import UsageError

FLAGS = {"port": True, "dir": True, "header": True, "header-ws": True, "binary": False, "devconsole": False, "version": False}
"""The flags of these tests; True means that the flag takes a value."""


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
    """A flag has one or two hyphens; a value follows after `=` or as a word, a boolean's only after `=`.

    The first other word is COMMAND.
    """
    assert to_click(words, FLAGS) == clicked


@pytest.mark.parametrize("words", [["-h"], ["--h"], ["-help"], ["--help"], ["--port=80", "-h", "cat"], ["--binary", "--help"]])
def test_help(words: list[str]) -> None:
    """-h and --help before COMMAND request the help."""
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
    """Errors use Go's wording; the parser does not guess abbreviated flags, and does not split joined short flags."""
    with pytest.raises(UsageError) as caught:
        to_click(words, FLAGS)
    assert str(caught.value) == message


words_of_any_kind = st.sampled_from(["--port", "--port=1", "-binary", "--binary=0", "--", "-", "", "cat", "--dir", "-h", "x=y"])


@settings(deadline=None)
@given(st.lists(words_of_any_kind | st.text(max_size=4)))
def test_command_is_unchanged(words: list[str]) -> None:
    """COMMAND and its arguments stay unchanged after any flags; the parser raises nothing but UsageError."""
    try:
        clicked = to_click(words, FLAGS)
    except UsageError:
        return
    if clicked != ["--help"]:
        flags, command = clicked[: clicked.index("--")], clicked[clicked.index("--") + 1 :]
        assert words[len(words) - len(command) :] == command
        assert all(flag.startswith("--") and "=" in flag for flag in flags)
