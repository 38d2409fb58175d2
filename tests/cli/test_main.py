"""The command itself: exit statuses, and the stream of each output."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.deadline import START_DEADLINE, scaled
from tests.support.server import environment
from wsbridge import __version__
from wsbridge.cli.main import run


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which PATH finds only `prog`."""
    (tmp_path / "prog").write_text("#!/bin/sh\n")
    (tmp_path / "prog").chmod(0o755)
    return {"PATH": str(tmp_path)}


def start(*command: str | Path, variables: Mapping[str, str | None] | None = None) -> tuple[int, str, str]:
    """Run a command to its end; return status, stdout and stderr."""
    done = subprocess.run(
        command,
        env=environment(variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(START_DEADLINE),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def wsbridge(*words: str) -> tuple[int, str, str]:
    return start(sys.executable, "-m", "wsbridge", *words)


@pytest.mark.parametrize("words", [["--version"], ["-version"], ["--port=80", "--version", "no-such-program"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints name and version on stdout, with any other flags, and exits with 0."""
    assert run("/usr/bin/wsbridge", words, {}) == 0
    said = capsys.readouterr()
    assert (said.out.split()[:2], said.out.count("\n"), said.err) == (["wsbridge", __version__], 1, "")


def test_license(capsys: pytest.CaptureFixture[str]) -> None:
    """`--license` prints the license and exits with 0."""
    assert run("wsbridge", ["--license"], {}) == 0
    assert "MIT License" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` exits with 0; called as websocketd, wsbridge prints the help on stderr."""
    assert run("wsbridge", ["--port=80", word, "cat"], {}) == 0
    said = capsys.readouterr()
    assert "--maxframesize" in said.out + said.err
    assert run("/usr/local/bin/websocketd", [word], {}) == 0
    said = capsys.readouterr()
    assert ("--maxframesize" in said.err, said.out) == (True, "")


@pytest.mark.parametrize(
    ("words", "status", "needle"),
    [
        (["--nope"], 2, "flag provided but not defined: -nope"),
        (["--binary=yes", "prog"], 2, "-binary"),
        (["--port=08080", "prog"], 2, "08080"),
        (["no-such-program"], 1, "no-such-program"),
        (["--devconsole"], 1, "COMMAND"),
        (["--dir=.", "prog"], 1, "cannot be used together"),
        (["--loglevel=x", "prog"], 1, "--loglevel"),
    ],
)
def test_complaints(words: list[str], status: int, needle: str, environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage prints one clear line and a short help on stderr, with the right exit status."""
    assert run("wsbridge", words, environ) == status
    said = capsys.readouterr()
    first, empty, *help_lines = said.err.splitlines()
    assert (said.out, needle in first, empty, len(help_lines) < 8) == ("", True, "", True)
    assert "--help" in help_lines[-1]


def test_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments, wsbridge says so on stdout, prints the usage, and exits with 1."""
    assert run("wsbridge", [], {}) == 1
    said = capsys.readouterr()
    assert said.out == "Command line arguments are missing.\n"
    assert "COMMAND" in said.err


def test_invalid_variable(capsys: pytest.CaptureFixture[str]) -> None:
    """The error for an invalid variable names the variable, and does not report missing arguments."""
    assert run("wsbridge", ["broadcast"], {"WSBRIDGE_EXCHANGE": "x", "WSBRIDGE_INPUT": "true"}) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("wsbridge: --input=true: write none, program or exchange (WSBRIDGE_INPUT)\n")
    assert run("wsbridge", ["broadcast", "--input=true"], {"WSBRIDGE_EXCHANGE": "x", "WSBRIDGE_INPUT": "none"}) == 1
    assert capsys.readouterr().err.startswith("wsbridge: --input=true: write none, program or exchange\n")


def test_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    """A word is a subcommand only if it is the very first word of the command line."""
    assert run("wsbridge", ["bridge", "--version"], {}) == 0
    assert capsys.readouterr().out.startswith("wsbridge ")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("wsbridge", ["--port=0", "bridge"]),
        ("wsbridge", ["--devconsole", "bridge", "--version"]),
        ("wsbridge", ["--", "bridge"]),
        ("wsbridge", ["bridge", "bridge"]),
        ("/usr/bin/websocketd", ["bridge", "--version"]),
        ("websocketd", ["--", "bridge"]),
    ],
)
def test_same_word_as_command(program: str, words: list[str], environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """After any flag, after `--`, or called as websocketd, wsbridge takes the first word as COMMAND."""
    assert run(program, words, environ) == 1
    assert "COMMAND 'bridge'" in capsys.readouterr().err


def test_run_as_a_module() -> None:
    """`python -m wsbridge` is the same command."""
    status, out, err = wsbridge("--version")
    assert (status, out.split()[0], err) == (0, "wsbridge", "")
    assert wsbridge("--nope")[0] == 2
    assert wsbridge("--devconsole")[0] == 1


def test_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An internal error prints its traceback; its exit status is not that of a user error, so that a service manager restarts wsbridge."""
    monkeypatch.setattr("wsbridge.cli.main.parse", lambda *words: 1 / 0)
    assert run("wsbridge", ["cat"], {}) == 70
    assert capsys.readouterr().err.endswith("ZeroDivisionError: division by zero\n")


def test_link_named_websocketd(tmp_path: Path) -> None:
    """Called through a symbolic link of that name, wsbridge behaves as websocketd."""
    command, link = tmp_path / "wsbridge", tmp_path / "websocketd"
    command.write_text(f"#!{sys.executable}\nfrom wsbridge.__main__ import main\nmain()\n")
    command.chmod(0o755)
    link.symlink_to(command)
    for called, name in ((command, "wsbridge"), (link, "websocketd")):
        status, out, _ = start(called, "--version")
        assert (status, out.split()[:2]) == (0, [name, __version__])
    status, _, err = start(link, "--nope")
    assert (status, err.startswith("websocketd: ")) == (2, True)


def test_port_in_use() -> None:
    """If the port is in use, wsbridge says so on stdout, exits with 3, and announces no server."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, _ = wsbridge("--address=127.0.0.1", f"--port={port}", "cat")
    assert (status, "Can't start server: " in out, "Starting WebSocket server" in out) == (3, True, False)


@pytest.mark.parametrize(
    "words",
    [
        ["--address=127.0.0.1", "--port=65536"],
        ["--address=::1", "--port=0"],
        ["--address=127.0.0.1", "--address=192.0.2.1", "--port=0"],
        ["--address=127.0.0.1", "--port=0", "--ssl", "--sslcert=/nowhere/c.pem", "--sslkey=/nowhere/k.pem"],
        ["--unixsocket=/nowhere/socket"],
    ],
    ids=["port too high", "IPv6 without brackets", "one of several fails", "no certificate", "no directory"],
)
def test_cannot_listen(words: list[str]) -> None:
    """A port beyond 65535, an address of another machine or an unreadable certificate ends the start with status 3."""
    status, out, _ = wsbridge(*words, "cat")
    assert (status, "Can't start server: " in out, "Starting WebSocket server" in out) == (3, True, False)


@pytest.mark.parametrize(
    ("word", "hint"), [("broadcats", "did you mean the subcommand broadcast?"), ("subscribe.sh", "the subcommand subscribe?"), ("prgo", "")]
)
def test_mistyped_subcommand(word: str, hint: str, environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """If a program is not found and its name resembles a subcommand, the error suggests the subcommand."""
    assert run("wsbridge", [word, "--exchange", "x"], environ) == 1
    first = capsys.readouterr().err.splitlines()[0]
    assert f"COMMAND '{word}'" in first
    assert ("did you mean" in first, hint in first) == (bool(hint), True)
    assert run("wsbridge", ["--loglevel=x", word], environ) == 1
    assert run("wsbridge", [f"./{word}"], environ) == 1
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("end", ["publish", "subscribe"])
def test_unknown_variable(end: str) -> None:
    """publish and subscribe also report an unknown WSBRIDGE_ variable, unless they should print nothing."""
    command = [sys.executable, "-m", "wsbridge", end, "--url=ws://127.0.0.1:1/"]
    for flags, is_logged in ([], True), (["--loglevel=none"], False):
        status, _, err = start(*command, *flags, variables={"WSBRIDGE_EXCHNGE": "x", "WSBRIDGE_PORT": "1"})
        assert status == 4
        assert ("ignoring the environment variable WSBRIDGE_EXCHNGE: no flag uses it\n" in err) is is_logged
        assert "WSBRIDGE_PORT" not in err


@pytest.mark.parametrize("words", [["broadcast", "--port=0", "cat"], ["publish"], ["subscribe"]], ids=lambda words: words[0])
def test_without_the_library_for_a_broker(words: list[str]) -> None:
    """Without aio-pika, a broker is a configuration error: status 1, which prevents restarts, and the package to install."""
    code = "import sys; sys.modules['aio_pika'] = None; from wsbridge.__main__ import main; main()"
    status, out, err = start(sys.executable, "-c", code, words[0], "--exchange=x", "--broker=amqp://127.0.0.1:1/", *words[1:])
    assert (status, f"run: {sys.executable} -m pip install aio-pika" in out + err) == (1, True)
