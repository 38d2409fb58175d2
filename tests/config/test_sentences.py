"""Sentences about settings, with keys in place of flags."""

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
        ("<command> is missing: add <scripts>", "command", "missing: add scripts"),
        ("<url> is not a URL", "url", "not a URL"),
    ],
)
def test_keys(sentence: str, name: str, shown: str) -> None:
    """A sentence follows the path of its setting, so it does not begin with the name."""
    assert in_keys(sentence, name) == shown


def test_mentioned() -> None:
    """The settings that a sentence mentions, in order."""
    assert mentioned("cannot use <key>=/k: it does not match <certificate>=/c") == ["key", "certificate"]


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("max_program", "unknown key; did you mean max_programs?"),
        ("maxforks", "unknown key; did you mean max_programs?"),
        ("send_timeout", "unknown key; did you mean write_timeout?"),
        ("MAX-Programs", "unknown key; did you mean max_programs?"),
        ("max_sessions", "unknown key here; max_sessions is a key of [server]; move it there"),
        ("hosts", "unknown key here; hosts is a key of [server] and of [[endpoint]]; move it there"),
        ("url", "unknown key here; url is a key of [broker.NAME]; move it there"),
        ("broker", "unknown key here; broker is a key of [[endpoint]]; move it there"),
        ("kind", "unknown key here; kind is a key of [[endpoint]]; move it there"),
        ("sslcert", "unknown key; did you mean certificate? certificate is a key of [[listen]]"),
        ("port", 'unknown key; write the port into address of [[listen]]: address = ":8080"'),
        ("include", "unknown key; write include at the top of the file, above the first table"),
        ("xyzzy", "unknown key; remove it"),
    ],
)
def test_unknown(key: str, sentence: str) -> None:
    """The fault for an unknown key suggests the most similar key, or the table that has the key."""
    assert unknown(key, ["max_programs", "write_timeout", "path"]) == sentence


def test_no_guess() -> None:
    """A file with very many unknown keys is reported without the slow search for similar keys."""
    known = ["max_programs", "url"]
    assert unknown("max_program", known, guesses=False) == "unknown key; remove it"
    assert unknown("maxforks", known, guesses=False) == "unknown key; did you mean max_programs?"


def test_either() -> None:
    """A list of choices uses TOML's strings."""
    assert (either(["a"]), either(["a", "b"]), either("abc")) == ('"a"', '"a" or "b"', '"a", "b" or "c"')
