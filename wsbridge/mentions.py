"""How texts name a setting: by its flag, or by its key in a configuration file.

A text below wsbridge.cli mentions a setting as `<max_programs>`. The process decides once, at its start, how to write it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MENTION = re.compile(r"<([a-z_]+)>")

Write = Callable[[str], str]
"""Returns how to write the name of a setting."""


def mention(sentence: str, write: Write) -> str:
    """Return a sentence in which `write` gives the form of each mentioned setting."""
    return MENTION.sub(lambda found: write(found[1]), sentence) if "<" in sentence else sentence


def _key(name: str) -> str:
    return name


_write: Write = _key


def use(write: Write) -> None:
    """Write settings in this form from now on; before the first call, texts contain keys."""
    global _write
    _write = write


def written(sentence: str) -> str:
    """Return a sentence in which each mentioned setting has the form that `use` selected."""
    return mention(sentence, _write)
