"""Remedies for a command of a configuration file that names no program, as the file writes them."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence

from wsbridge.process.spawn import is_executable, near_program
from wsbridge.rules.urls import hidden

SHELL_CHARACTERS = re.compile(r"[|&;<>$`*?]")


def hint_for_command(command: Sequence[str], folder: str) -> str:
    """Return the remedy that follows the error about a command without a program; it may be empty.

    The command is that of the file, and not resolved. `folder` is the folder of the configuration file.
    """
    word = command[0]
    if word != word.strip() or (len(command) == 1 and len(word.split()) > 1):
        return f"; {for_line(word)}"
    if "/" in word:
        path = os.path.join(folder, word)
        return "" if os.path.lexists(path) else f"; {_similar(path, folder) or 'create the file, or correct the name'}"
    local = os.path.join(folder, word)
    if os.path.isdir(local):
        return f'; {word} is a folder beside this file: write scripts = "{word}" to serve the scripts in it'
    if os.path.isfile(local):
        more = "" if is_executable(local) else f", and make it executable: chmod +x {local}"
        return f'; the file is beside this one: write "./{word}"{more}'
    return f"; {_similar(local, folder) or 'install the program, or write its path'}"


def for_line(line: str) -> str:
    """Return the array to write instead of a command line in one string."""
    line = hidden(line)
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    if SHELL_CHARACTERS.search(line):
        words = ["sh", "-c", line.strip()]
    return f"write an array: {json.dumps(words, ensure_ascii=False)}"


def _similar(path: str, folder: str) -> str:
    near = near_program(path)
    return f'did you mean "./{os.path.relpath(near, folder)}"?' if near else ""
