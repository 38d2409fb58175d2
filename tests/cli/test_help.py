"""The texts of `--help`: they are complete, and fit the terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.deadline import scaled
from tests.support.server import environment
from wsbridge.cli.commands import BRIDGE, BROADCAST, COMMANDS, OPTIONS, Command
from wsbridge.cli.help import full_help, help_width, short_help


def test_help() -> None:
    """The help lists every flag under a heading, has examples, and uses the name of the command."""
    for name in ("wsbridge", "websocketd"):
        text = full_help(name, width=110)
        assert [option.name for option in OPTIONS if f"  --{option.name}" not in text] == []
        assert f"{name} --port 8080" in text
        assert "WSBRIDGE_" in text
        assert f"{name} --help" in short_help(name)
    assert "websocketd" not in full_help("wsbridge", width=110)


@pytest.mark.parametrize("width", [60, 80, 110])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_width_of_help(command: Command, width: int) -> None:
    """No line of the help is longer than the terminal is wide, and a wrapped example can be pasted into a shell."""
    text = full_help("wsbridge", command, width=width)
    assert [line for line in text.splitlines() if len(line) > width] == []
    joined = text.replace(" \\\n      ", " ")
    assert [words for words, _ in command.examples if f"  wsbridge {words}" not in joined] == []
    assert [what for _, what in command.examples if what not in " ".join(text.replace("#", "").split())] == []


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("name", ["wsbridge", "websocketd"])
def test_blank_lines(name: str, command: Command) -> None:
    """One blank line separates the sections of the help."""
    text = full_help(name, command, width=80)
    assert "\n\n\n" not in text
    assert "\n\nExamples:\n" in text


WIDTHS = [("60", 60), ("100", 100), ("300", 110), ("1", 40), ("0", 80), ("", 80), ("x", 80), ("-5", 80)]


@pytest.mark.parametrize(("columns", "width"), WIDTHS)
def test_columns(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS sets the width, within bounds; without it and without a terminal, the help is 80 columns wide."""
    monkeypatch.setattr("os.get_terminal_size", lambda fd: (_ for _ in ()).throw(OSError(25, "no terminal")))
    assert help_width({"COLUMNS": columns}) == width


def test_terminal_of_a_pager() -> None:
    """If stdout is a pipe to a pager, the terminal of stderr or stdin sets the width."""
    ours, theirs = os.openpty()
    script = f"stty cols 72 && {sys.executable} -m wsbridge --help | cat"
    streams = {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": theirs}
    with subprocess.Popen(["sh", "-c", script], env=environment({"COLUMNS": None}), **streams) as shell:
        text = shell.communicate(timeout=scaled(60))[0].decode()
    os.close(ours)
    os.close(theirs)
    assert 60 < max(map(len, text.splitlines())) <= 72


def test_sizes_in_help() -> None:
    """The help shows sizes with their unit, in a form that a user can enter."""
    text = " ".join(full_help("wsbridge", BROADCAST, width=110).split())
    for default in ("16 MiB", "1 MiB", "64 MiB", "256 MiB"):
        assert re.search(rf"[(;] ?default {default}\)", text)
    assert "16777216" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(name: str) -> None:
    """The help of each command lists each of its flags and the other commands, in lines that fit a terminal."""
    text = full_help("wsbridge", COMMANDS[name], width=110)
    assert [option.name for option in COMMANDS[name].options if f"--{option.name}" not in text and f"-{option.name} " not in text] == []
    assert all(f"wsbridge {other} " in text for other in COMMANDS if other not in (name, BRIDGE.name))
    assert max(map(len, text.splitlines())) <= 120
    assert "--help" in short_help("wsbridge", COMMANDS[name])
