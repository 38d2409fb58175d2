"""Sentences about settings, with keys instead of flags."""

from __future__ import annotations

import pytest

from wsbridge.config.sentences import either, in_keys, mentioned, unknown


@pytest.mark.parametrize(
    ("sentence", "name", "shown"),
    [
        ("<pty_size>=80 is not a size", "pty_size", "80 is not a size"),
        ("<origins>: 'x' cannot match", "origins", "'x' cannot match"),
        ("<through> needs <command>, the program", "through", "needs command, the program"),
        ("<durable> and <passive> cannot be used together", "durable", "durable and passive cannot be used together"),
        ("<console> serves a page, and <page> turns it off", "console", "console serves a page, and page = false turns it off"),
        ("<input>=program needs <command>", "through", "input=program needs command"),
        ("no <command>", "command", "no command"),
    ],
)
def test_keys(sentence: str, name: str, shown: str) -> None:
    """A sentence follows the path of its setting, so it does not repeat the name at its beginning."""
    assert in_keys(sentence, name) == shown


def test_mentioned() -> None:
    """The settings of a sentence, in their order."""
    assert mentioned("cannot use <key>=/k: it does not match <certificate>=/c") == ["key", "certificate"]


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("max_program", "unknown key; did you mean max_programs?"),
        ("maxforks", "unknown key; did you mean max_programs?"),
        ("send_timeout", "unknown key; did you mean write_timeout?"),
        ("xyzzy", "unknown key; remove it"),
    ],
)
def test_unknown(key: str, sentence: str) -> None:
    """An unknown key names the nearest known one, or the one that the flag of this name sets."""
    assert unknown(key, ["max_programs", "write_timeout", "path"]) == sentence


def test_either() -> None:
    """A list of choices is written as TOML writes strings."""
    assert (either(["a"]), either(["a", "b"]), either("abc")) == ('"a"', '"a" or "b"', '"a", "b" or "c"')
