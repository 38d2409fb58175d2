"""How texts name a setting."""

from __future__ import annotations

from wsbridge.cli.option import in_flags
from wsbridge.cli.option import written as flag
from wsbridge.mentions import mention, use, written


def test_keys_until_told_otherwise() -> None:
    """A text contains keys, until the process decides for flags."""
    assert written("no slot is free (<max_programs>)") == "no slot is free (max_programs)"
    use(flag)
    assert written("no slot is free (<max_programs>)") == "no slot is free (--maxforks)" == in_flags("no slot is free (<max_programs>)")


def test_text_without_a_mention() -> None:
    """Other text stays as it is."""
    assert mention("a < b > c <B> <1>", str.upper) == "a < b > c <B> <1>"
