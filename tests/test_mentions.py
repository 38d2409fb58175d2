"""The form in which a text mentions a setting."""

from __future__ import annotations

from wsbridge.cli.option import in_flags
from wsbridge.cli.option import written as flag
from wsbridge.mentions import mention, use, written


def test_keys_by_default() -> None:
    """A text contains keys, unless the process selects flags."""
    assert written("no slot is free (<max_programs>)") == "no slot is free (max_programs)"
    use(flag)
    assert written("no slot is free (<max_programs>)") == "no slot is free (--maxforks)" == in_flags("no slot is free (<max_programs>)")


def test_text_without_a_mention() -> None:
    """Other text is unchanged."""
    assert mention("a < b > c <B> <1>", str.upper) == "a < b > c <B> <1>"
