"""Remedies for commands of a configuration file that are not found."""

from __future__ import annotations

import pytest

from tests.config.files import Folder
from wsbridge.config.commands import for_line, hint_for_command


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["count.sh", "10"], '; the file is beside this one: write "./count.sh"'),
        (["plain.txt"], '; the file is beside this one: write "./plain.txt", and make it executable: chmod +x %s/plain.txt'),
        (["public"], '; public is a folder beside this file: write scripts = "public" to serve the scripts in it'),
        (["cuont.sh"], '; did you mean "./count.sh"?'),
        (["./cuont.sh"], '; did you mean "./count.sh"?'),
        (["public/../cuont.sh"], '; did you mean "./count.sh"?'),
        (["xyzzy"], "; install the program, or write its path"),
        (["./xyzzy"], "; create the file, or correct the name"),
        (["/no/such/folder/x"], "; create the file, or correct the name"),
        (["./plain.txt"], ""),
        (["./count.sh 10"], '; write an array: ["./count.sh", "10"]'),
        ([" count.sh"], '; write an array: ["count.sh"]'),
        (["./a b", "c"], "; create the file, or correct the name"),
    ],
)
def test_hint(folder: Folder, command: list[str], hint: str) -> None:
    """The error for a command that is not found shows the correct entry, if wsbridge can derive it."""
    assert hint_for_command(command, str(folder.path)) == hint.replace("%s", str(folder.path))


@pytest.mark.parametrize(
    ("line", "array"),
    [
        ("./a 'b c' d", '["./a", "b c", "d"]'),
        ("a | b", '["sh", "-c", "a | b"]'),
        ("a 'b", '["a", "\'b"]'),
        ('a "é\\n"', '["a", "é\\\\n"]'),
    ],
)
def test_line(line: str, array: str) -> None:
    """The error for a command line in one string shows it as an array, or as an argument of a shell."""
    assert for_line(line) == f"write an array: {array}"
