"""The commands for a configuration file: check, config and schema."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.deadline import START_DEADLINE, scaled
from tests.support.server import environment
from tests.support.site import Certificates
from wsbridge.cli.commands import BRIDGE, BROADCAST
from wsbridge.cli.config import make_settings
from wsbridge.cli.filecommands import check_listeners
from wsbridge.cli.main import run
from wsbridge.cli.option import Option
from wsbridge.cli.parse import parse
from wsbridge.config.convert import convert
from wsbridge.config.document import read_document
from wsbridge.config.write import absolute, secrets_of, write
from wsbridge.errors import ConfigurationError, UsageError
from wsbridge.settings import ServerSettings
from wsbridge.settings.declare import Kind

VALID = '[[endpoint]]\nkind = "bridge"\npath = "/count"\ncommand = "./count.sh"\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a program."""
    (tmp_path / "count.sh").write_text("#!/bin/sh\n")
    (tmp_path / "count.sh").chmod(0o755)
    (tmp_path / "public").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str, variables: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    status = run("wsbridge", words, {"PATH": "/bin", **(variables or {})})
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_valid_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a valid file, check prints a summary of its content."""
    (here / "a.toml").write_text(VALID)
    assert said(capsys, "check", "a.toml") == (0, "a.toml: 1 endpoint, 1 listener: valid\n", "")
    (here / "a.toml").write_text(VALID + VALID.replace('"/count"', '"/b"') + "[[listen]]\naddress = ':1'\n[[listen]]\naddress = ':2'\n")
    assert said(capsys, "check", "a.toml")[1] == "a.toml: 2 endpoints, 2 listeners: valid\n"


def test_invalid_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """check prints one line for each mistake on stderr, with the file as the user named it; the exit status is 1."""
    (here / "a.toml").write_text(VALID + "max_programs = 'ten'\nfoo\t= 1\n[servers]\n")
    assert said(capsys, "check", "./a.toml") == (
        1,
        "",
        './a.toml:5: endpoint[1].max_programs: expected an integer, got "ten"\n'
        "./a.toml:6: endpoint[1].foo: unknown key; remove it\n"
        "./a.toml:7: servers: unknown key; did you mean server?\n",
    )
    status, out, err = said(capsys, "check", "none.toml")
    assert (status, out, err.count("\n"), err.startswith("none.toml: ")) == (1, "", 1, True)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["check"], "wsbridge: check needs one FILE"),
        (["check", "a", "b"], "wsbridge: check accepts one FILE; remove 'b'"),
        (["check", "--port=80", "a"], "wsbridge: flag provided but not defined: -port; it is a flag of bridge"),
        (["serve"], "wsbridge: serve needs one FILE"),
        (["serve", "a", "b"], "wsbridge: serve accepts one FILE; remove 'b'"),
        (["serve", "a", "--watch"], "wsbridge: flags precede FILE; write serve --watch a"),
        (["schema", "x"], "wsbridge: schema accepts no arguments; remove 'x'"),
        (["completion"], "wsbridge: completion needs the name of a shell: bash, zsh or fish"),
        (["completion", "tcsh"], "wsbridge: completion needs the name of a shell: bash, zsh or fish"),
    ],
)
def test_wrong_usage(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage prints one line and the usage of the command; the exit status is 2."""
    status, out, err = said(capsys, *words)
    assert (status, out, err.splitlines()[0]) == (2, "", complaint)
    assert f"Usage: wsbridge {words[0]}" in err
    assert f"Try 'wsbridge {words[0]} --help'" in err


COMMAND_LINES: list[list[str]] = [
    ["./count.sh", "--port=5", "a b"],
    ["--port=8080", "--pty", "--binary", "--maxline=64k", "--pingms=500", "--origin=a.com", "--header=A: b", "--no-page", "./count.sh"],
    ["--dir=public", "--staticdir=public", "--cgidir=public", "--devconsole", "--closems=1500", "--no-guard", "--loglevel=debug"],
    ["--staticdir=public", "--dotfiles", "--maxforks=-1"],
    ["--cgidir=public", "--maxbody=0"],
    ["--address=127.0.0.1", "--address=[::1]", "--port=0", "--unixsocket=s", "--unixsocket-mode=660", "--redirport=8081", "./count.sh"],
    ["--address=127.0.0.1", "--address=[::1]", "--address=127.0.0.1", "./count.sh"],
    ["broadcast", "--exchange=x", "--join=last", "--queue=5", "--slow=close", "--maxclients=3", "--no-status", "./count.sh"],
    ["broadcast", "--exchange=x", "--broker=amqp://u:secret@h/,amqp://i/", "--replay", "--replay-bytes=5M", "--spool-full=drop-oldest"],
    ["broadcast", "--exchange=x", "--broker=amqp://h/", "--through", "--restart=never", "--pty", "--pty-size=80x24", "./count.sh"],
    ["bridge", "--trust-proxy=10.0.0.0/8,unix", "--host=a.b,*.c.d", "--subprotocol=a,b", "--passenv=", "--origin=,", "./count.sh"],
]


@pytest.mark.parametrize("words", COMMAND_LINES, ids=lambda words: " ".join(words)[:50])
def test_file_equals_command_line(words: Sequence[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that config prints has the same settings as the command line, and shows no password."""
    status, out, err = said(capsys, "config", *words)
    assert (status, err) == (0, "")
    assert "secret" not in out
    (here / "elsewhere").mkdir()
    (here / "elsewhere/a.toml").write_text(out)
    environ = {"PATH": "/bin", "WSBRIDGE_BROKER": "amqp://u:secret@h/,amqp://i/"}
    shape = BROADCAST if words[0] == "broadcast" else None
    flags = parse(words[1:], {}, shape) if shape else parse([word for word in words if word != "bridge"], {})
    made = make_settings(flags, environ, name="wsbridge", **({"shape": shape} if shape else {}))
    assert convert(read_document("elsewhere/a.toml"), environ=environ) == absolute(made, str(here))


TEXTS = {
    "address": ("127.0.0.1", "[::1]", "localhost"),
    "broker": ("amqp://u:secret@h/", "amqp://h/,amqps://i/v?heartbeat=5"),
    "cgidir": ("public",),
    "dir": ("public",),
    "exchange": ("x", "a b"),
    "header": ("A: b", "A:", "X-Y: é"),
    "header-http": ("C: d\te",),
    "header-ws": ("E: f,g",),
    "host": ("a.com", "*.b.com, C", "*"),
    "origin": ("a.com, https://b.com:8", "*", "", "null"),
    "passenv": ("A,B", ""),
    "pty-size": ("80x24",),
    "staticdir": (".", "./public/"),
    "subprotocol": ("a", "b, c", "x,,y"),
    "trust-proxy": ("10.0.0.0/8, unix", "::1"),
    "unixsocket": ("s", "./t", "/tmp/u", "a b"),
    "unixsocket-group": ("0", "root"),
    "unixsocket-mode": ("660", "0600", "0o777"),
    "unixsocket-owner": ("root",),
}
NUMBERS = st.integers(-2, 2**63 - 1).map(str) | st.sampled_from(["1k", "16MiB", "1.5k", "0x10", "010", "1_000"])
TIMES = st.floats(0, 1e9).map(str) | st.integers(0, 10**7).map(str) | st.sampled_from(["25s", "500ms", "1m30s", "0.1s", "1.0005s", "1e3"])
SHAPES = {"bridge": BRIDGE, "broadcast": BROADCAST}
OTHERS = {"version", "license", "once", "watch", "sslcert", "sslkey", "sslca", "ssl"}


def values_of(option: Option) -> st.SearchStrategy[str]:
    if option.kind is Kind.BOOLEAN:
        return st.sampled_from(["true", "false"])
    if option.kind is Kind.SECONDS:
        return TIMES
    if option.kind in (Kind.SIZE, Kind.INTEGER):
        return NUMBERS if "port" not in option.name else st.integers(0, 65535).map(str)
    choices = option.field.choices if option.field is not None else ()
    return st.sampled_from(choices or TEXTS[option.name])


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[str, list[str], dict[str, str]]:
    """Draw a command line and variables; some of them cannot be served."""
    name = draw(st.sampled_from(sorted(SHAPES)))
    shape = SHAPES[name]
    words, variables = [], {}
    for option in draw(st.lists(st.sampled_from([option for option in shape.options if option.name not in OTHERS]), max_size=8)):
        value = draw(values_of(option))
        if draw(st.booleans()):
            words.append(f"--{option.name}={value}")
        else:
            variables[option.variable] = value
    words += ["--exchange=x"] if shape is BROADCAST else []
    arguments = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=9), max_size=2)
    return name, [*words, "--", "./count.sh", *draw(arguments)] if draw(st.booleans()) else words, variables


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command_lines())
@example(("bridge", ["--port=81", "--redirport=81", "--", "./count.sh"], {}))
@example(("bridge", ["--address=::1", "--address=::", "--", "./count.sh"], {}))
def test_any_command_line(here: Path, line: tuple[str, list[str], dict[str, str]]) -> None:
    """For any command line that can be served, the printed file is valid and has the same effect."""
    name, words, variables = line
    shape = SHAPES[name]
    try:
        made = make_settings(parse(words, variables, shape), {"PATH": "/bin"}, name="wsbridge", shape=shape)
        check_listeners(made)
    except (ConfigurationError, UsageError):
        return
    text = write(absolute(made, str(here)))
    (here / "a.toml").write_text(text)
    back = convert(read_document("a.toml"), environ={"PATH": "/bin", **secrets_of(made)})
    assert isinstance(back, ServerSettings), back
    assert write(back) == text


@pytest.mark.parametrize(
    ("words", "status", "needle"),
    [
        (["--port=65536", "./count.sh"], 1, "cannot listen on :65536: use a port from 0 to 65535"),
        (["--port=80", "--redirport=-1", "./count.sh"], 1, "cannot listen on :-1: use a port"),
        (["--address=::1", "./count.sh"], 1, "write an IPv6 address in brackets"),
        (["--address=[::g]", "./count.sh"], 1, "--address=[::g]:80 is not an address"),
        (["--port=81", "--redirport=81", "./count.sh"], 1, "cannot listen on :81; this server itself listens on :81"),
        (
            ["--port=81", "--address=127.0.0.1", "--address=0.0.0.0", "./count.sh"],
            1,
            "0.0.0.0:81; this server itself listens on 127.0.0.1:81",
        ),
        (["serve", "a.toml"], 2, "config accepts a command line of wsbridge or of wsbridge broadcast, not of wsbridge serve"),
        (["--once", "./count.sh"], 1, "--once has no equivalent in a configuration file"),
        (["--nope"], 2, "flag provided but not defined: -nope"),
        (["--maxline=-1", "./count.sh"], 1, "--maxline=-1 must not be negative"),
        (["broadcast", "./count.sh"], 1, "--exchange is missing"),
        (["publish"], 2, "not of wsbridge publish"),
        ([], 1, "nothing to serve"),
    ],
)
def test_command_line_without_a_server(words: list[str], status: int, needle: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that no server accepts cannot be printed as a file."""
    found = said(capsys, "config", *words)
    assert (found[0], needle in found[2]) == (status, True)
    assert found[1] == ""


def test_files_of_a_broker(here: Path, certificates: Certificates, capsys: pytest.CaptureFixture[str]) -> None:
    """The file names in the address of a broker become absolute, like other file names."""
    (here / "ca.pem").write_bytes((certificates.folder / "ca.pem").read_bytes())
    out = said(capsys, "config", "broadcast", "--exchange=x", "--broker=amqps://h/v?heartbeat=5&cafile=ca.pem")[1]
    assert f'url = "amqps://h/v?heartbeat=5&cafile={here}/ca.pem"\n' in out


def test_variables_without_effect(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file leaves out a variable that has no effect on the server."""
    variables = {"WSBRIDGE_PTY_SIZE": "80x24", "WSBRIDGE_SPOOL": "-1", "WSBRIDGE_REPLAY_BYTES": "0"}
    out = said(capsys, "config", "broadcast", "--exchange=x", "./count.sh", variables=variables)[1]
    assert (
        out
        == f'[[listen]]\naddress = ":80"\n\n[[endpoint]]\npath = "/"\nkind = "broadcast"\nexchange = "x"\ncommand = ["{here}/count.sh"]\n'
    )


def test_variables(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Variables have the effect of flags."""
    assert 'address = ":8081"' in said(capsys, "config", "./count.sh", variables={"WSBRIDGE_PORT": "8081"})[1]


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema is JSON."""
    status, out, _ = said(capsys, "schema")
    assert (status, json.loads(out)["$schema"]) == (0, "https://json-schema.org/draft/2020-12/schema")


@pytest.mark.parametrize("name", ["check", "config", "schema", "completion"])
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has its help, also with `help` before the command."""
    for words in ([name, "--help"], ["help", name]):
        status, out, err = said(capsys, *words)
        assert (status, f"wsbridge {name}" in out, err) == (0, True, "")


def test_import() -> None:
    """Neither a server with flags nor its help loads a module for configuration files."""
    code = "import sys, wsbridge.cli.main; sys.exit(any(name.startswith(('wsbridge.config', 'tomllib')) for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment({}), timeout=scaled(START_DEADLINE), check=False)
    assert done.returncode == 0
