"""Completion in a shell: the proposals for a command line, and a real bash that requests them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deadline import START_DEADLINE, scaled
from tests.support.server import environment
from wsbridge.cli.commands import COMMANDS
from wsbridge.cli.completion import SHELLS, completions
from wsbridge.cli.main import run


def values(*words: str) -> list[str]:
    """Return the proposals for the last word; a type in parentheses means files or folders."""
    return [item.value if item.type == "plain" else f"({item.type})" for item in completions(words[:-1], words[-1])]


@pytest.mark.parametrize(
    ("words", "proposals"),
    [
        ([""], ["(file)", *COMMANDS]),
        (["br"], ["(file)", "bridge", "broadcast"]),
        (["./"], ["(file)"]),
        (["--fra"], ["--framing"]),
        (["-fra"], ["-framing"]),
        (["--framing", "j"], ["json"]),
        (["--framing", ""], ["lines", "chunks", "nul", "prefixed", "json"]),
        (["--framing=j"], ["--framing=json"]),
        (["-framing=n"], ["-framing=nul"]),
        (["--framing", "=", "n"], ["nul"]),
        (["--framing", "="], ["lines", "chunks", "nul", "prefixed", "json"]),
        (["--pty=t"], ["--pty=true"]),
        (["--pty", "=", "t"], ["true"]),
        (["--pty", "="], ["true", "false"]),
        (["--pty", "--no-"], ["--no-guard", "--no-page"]),
        (["--port", "=", "80", "--no-g"], ["--no-guard"]),
        (["--port", "80", "--no-g"], ["--no-guard"]),
        (["--port=80", "--no-g"], ["--no-guard"]),
        (["--port", ""], []),
        (["--port=80", "br"], ["(file)"]),
        (["--staticdir", ""], ["(dir)"]),
        (["--staticdir=p"], ["(dir)"]),
        (["--sslcert", ""], ["(file)"]),
        (["--unixsocket", ""], ["(file)"]),
        (["--nope", "--no-g"], ["--no-guard"]),
        (["cat", "--no-g"], ["(file)"]),
        (["--", "--no-g"], ["(file)"]),
        (["broadcast", "--slow", "c"], ["close"]),
        (["broadcast", "--dir"], []),
        (["broadcast", "--spool-f"], ["--spool-full"]),
        (["publish", "--br"], ["--broker", "--broker-timeout"]),
        (["publish", ""], []),
        (["check", ""], ["(file)"]),
        (["serve", ""], ["(file)"]),
        (["serve", "--watch", "w"], ["(file)"]),
        (["check", "--x"], []),
        (["config", "b"], ["(file)", "bridge", "broadcast"]),
        (["config", "--fra"], ["--framing"]),
        (["config", "--framing", "n"], ["nul"]),
        (["config", "broadcast", "--sl"], ["--slow"]),
        (["config", "broadcast", "b"], ["(file)"]),
        (["schema", ""], []),
        (["completion", ""], [*SHELLS]),
        (["completion", "z"], ["zsh"]),
    ],
)
def test_proposals(words: list[str], proposals: list[str]) -> None:
    """The proposals are the commands, flags and values that are valid there, and files where a program or a file is valid."""
    assert values(*words) == proposals


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag(name: str) -> None:
    """Every flag of a command is proposed, with its help."""
    options = COMMANDS[name].options
    if options:
        found = {item.value: item.help for item in completions([name], "--")}
        assert found == {f"--{option.name}": option.help for option in options}


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script of each shell runs wsbridge."""
    assert run("wsbridge", ["completion", shell], {}) == 0
    assert f"_WSBRIDGE_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    """For an unknown shell, there is no script."""
    assert run("wsbridge", [], {"_WSBRIDGE_COMPLETE": "tcsh_complete"}) == 1
    assert capsys.readouterr().out == ""


ASK = r"""
source <(wsbridge completion bash)
ask() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _wsbridge_completion wsbridge 2>/dev/null
    echo "${COMPREPLY[*]}"
}
complete -p wsbridge
ask wsbridge bro
ask wsbridge --framing = j
ask wsbridge broadcast --slow ""
ask wsbridge --pty --no-
"""


ASKING = scaled(START_DEADLINE) * 5
"""Timeout in seconds: each completion starts Python."""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash(tmp_path: Path) -> None:
    """A real bash completes with the script; it passes `--framing=j` as three words."""
    program = tmp_path / "wsbridge"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m wsbridge "$@"\n')
    program.chmod(0o755)
    variables = environment({"PATH": f"{tmp_path}:/bin:/usr/bin"})
    done = subprocess.run(["bash", "-c", ASK], env=variables, capture_output=True, text=True, timeout=ASKING, check=True)
    first, *proposals = done.stdout.splitlines()
    assert "_wsbridge_completion" in first
    assert proposals == ["broadcast", "json", "drop-oldest latest close", "--no-guard --no-page"]
