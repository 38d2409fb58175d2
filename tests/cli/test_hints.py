"""Common mistakes of new users, and the remedies in the errors."""

from __future__ import annotations

import errno
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deadline import START_DEADLINE, scaled
from tests.support.server import environment, free_port
from wsbridge.cli.hints import free_port_near, hint_for_address, hint_for_command, hint_for_listening, hint_in_file
from wsbridge.cli.main import run
from wsbridge.cli.servefile import load
from wsbridge.errors import ListenError
from wsbridge.settings import BridgeSettings, ListenSettings, ProgramSettings, ServerSettings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a script, a file that is not executable, a folder, and `prog` in PATH."""
    for name in ("count.sh", "bin/prog", "scripts/a.sh"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    (tmp_path / "plain.sh").write_text("#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MISTAKES = [
    (["count.sh"], "; the file is in this directory: write ./count.sh"),
    (["plain.sh"], "; the file is in this directory: write ./plain.sh, and make it executable first: chmod +x plain.sh"),
    (["scripts"], "; ./scripts is a directory; write --dir=scripts to serve the scripts in it"),
    (["cuont.sh"], "; did you mean ./count.sh?"),
    (["./cuont.sh"], "; did you mean ./count.sh?"),
    (["scripts/aa.sh"], "; did you mean scripts/a.sh?"),
    (["./count.sh --slow 3"], "; write separate words, without quotes around all of them: ./count.sh --slow 3"),
    (["count.sh --slow"], "; write separate words, without quotes around all of them: ./count.sh --slow"),
    (["prog 'a b' c", "d"], "; write separate words, without quotes around all of them: prog 'a b' c d"),
    (["prog | sort"], "; this line needs a shell: write sh -c 'prog | sort'"),
    (["./count.sh > file"], "; this line needs a shell: write sh -c './count.sh > file'"),
    (["nothing at all"], "; write COMMAND and its arguments as separate words, without quotes around all of them"),
    (["prog 'a"], ""),
    (["xyzzy"], ""),
    (["./xyzzy"], ""),
    (["/no/such/folder/x"], ""),
    ([""], ""),
]


@pytest.mark.parametrize(("argv", "hint"), MISTAKES)
def test_command(argv: list[str], hint: str, here: Path) -> None:
    """For a COMMAND that is not found, the error suggests the working spelling, if there is one."""
    assert hint_for_command(argv, f"{here}/bin") == hint


@pytest.mark.parametrize(("argv", "hint"), [mistake for mistake in MISTAKES if mistake[1]])
def test_hint_is_in_the_first_line(argv: list[str], hint: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The hint is in the first line; the exit status is 1."""
    assert run("wsbridge", argv, {"PATH": f"{here}/bin"}) == 1
    first = capsys.readouterr().err.splitlines()[0]
    assert "COMMAND" in first
    assert hint in first


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("localhost:8080", "--address=localhost:8080 contains a port; write --address=localhost --port=8080"),
        ("127.0.0.1:80", "--address=127.0.0.1:80 contains a port; write --address=127.0.0.1 --port=80"),
        ("[::1]:8080", "--address=[::1]:8080 contains a port; write --address=[::1] --port=8080"),
        (":8080", "--address=:8080 contains a port; write --port=8080"),
        ("http://localhost:8080/", "--address=http://localhost:8080/ is a URL; write --address=localhost --port=8080"),
        ("ws://pi/x", "--address=ws://pi/x is a URL; write --address=pi"),
        ("localhost", ""),
        ("127.0.0.1", ""),
        ("[::1]", ""),
        ("::1", ""),
        ("fe80::1:8080", ""),
        ("", ""),
    ],
)
def test_address(address: str, complaint: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address with a port or a scheme is rejected before the server opens anything."""
    assert hint_for_address(address) == complaint
    if complaint:
        assert run("wsbridge", [f"--address={address}", "prog"], {"PATH": f"{here}/bin"}) == 1
        assert capsys.readouterr().err.startswith(f"wsbridge: {complaint}\n")


def serve(*words: str) -> tuple[int, str]:
    """Run a server with flags that cannot start; return its status and its log."""
    return start(*words, "cat")


def start(*words: str) -> tuple[int, str]:
    """Run a server that fails to start; return its status and its log."""
    done = subprocess.run(
        [sys.executable, "-m", "wsbridge", *words],
        env=environment({}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(START_DEADLINE),
        check=False,
    )
    return done.returncode, done.stdout


def test_port_in_use() -> None:
    """The error for a port in use suggests a free port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, log = serve("--address=127.0.0.1", f"--port={port}")
        assert port < free_port_near("127.0.0.1", port) <= port + 100
    assert status == 3
    assert "address already in use; another program listens on this port; choose another port, such as --port=" in log
    assert "which is free now, or --port=0 for any free port" in log


def test_address_of_another_machine() -> None:
    """The error for an address of no interface says how to list the existing addresses (192.0.2.1 is TEST-NET, RFC 5737)."""
    status, log = serve("--address=192.0.2.1", "--port=0")
    assert (status, "this machine has no such address (`ip address` lists its addresses)" in log) == (3, True)


REASONS = [(errno.EACCES, "ports below 1024 need root"), (errno.EADDRNOTAVAIL, "no such address"), (0, ""), (errno.ENOBUFS, "")]


@pytest.mark.parametrize(("number", "words"), REASONS)
def test_reasons(number: int, words: str) -> None:
    """Each system error with a known remedy has a hint."""
    hint = hint_for_listening(ListenError("cannot", errno=number, host="", port=80), ServerSettings())
    assert (words in hint, bool(hint)) == (True, bool(words))


@pytest.mark.parametrize(
    ("words", "address", "other"),
    [
        (("--redirport={port}",), ":{port}", ":{port}"),
        (("--address=127.0.0.1", "--address=0.0.0.0"), "0.0.0.0:{port}", "127.0.0.1:{port}"),
        (("--address=127.0.0.1", "--address=127.0.0.2", "--address="), ":{port}", "127.0.0.1:{port}"),
    ],
)
def test_own_address(here: Path, words: tuple[str, ...], address: str, other: str) -> None:
    """If one address of the server excludes another, the error names both, and no other program."""
    port = free_port()
    status, log = start(f"--port={port}", *(word.format(port=port) for word in words), "cat")
    assert status == 3
    complaint = f"cannot listen on {address}: address already in use; this server itself listens on {other};"
    assert complaint.format(port=port) in log
    assert "another program" not in log


def test_port_of_redirects() -> None:
    """If the port of --redirport is unavailable, the hint names --redirport."""
    settings = ServerSettings(listeners=(ListenSettings(address=":8443", redirect_port=80),))
    for number, words in ((errno.EACCES, "such as --redirport=8080"), (errno.EADDRINUSE, "choose another port, such as --redirport=")):
        hint = hint_for_listening(ListenError("cannot", errno=number, host="", port=80), settings)
        assert words in hint
        assert "--port" not in hint
    assert "--port=" in hint_for_listening(ListenError("cannot", errno=errno.EACCES, host="", port=443), settings)


PLACES = {"address": "site.toml:2", "redirect_port": "site.toml:3"}
LISTENERS = (
    ListenSettings(address="unix:/run/x/socket"),
    ListenSettings(address="127.0.0.1:8443", redirect_port=80),
    ListenSettings(address="[::1]:0"),
    ListenSettings(address="unix:/run/y/socket"),
)
IN_FILE = [
    (
        ListenError("", errno=errno.EADDRINUSE, host="127.0.0.1", port=8443),
        r'; another program listens on this port; in site\.toml:2, choose another port, such as listen\[2\]\.address="127\.0\.0\.1:\d+",'
        r' which is free now, or listen\[2\]\.address="127\.0\.0\.1:0" for any free port',
    ),
    (
        ListenError("", errno=errno.EACCES, host="127.0.0.1", port=80),
        r"; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; in site\.toml:3, choose another port,"
        r" such as listen\[2\]\.redirect_port=8080",
    ),
    (
        ListenError("", errno=errno.EADDRINUSE, host="127.0.0.1", port=80),
        r"; another program listens on this port; in site\.toml:3, choose another port, such as listen\[2\]\.redirect_port=\d+,"
        r" which is free now",
    ),
    (
        ListenError("", errno=errno.EADDRNOTAVAIL, host="127.0.0.1", port=8443),
        r"; this machine has no such address \(`ip address` lists its addresses\); in site\.toml:2,"
        r' write listen\[2\]\.address=":8443" to listen on all of them',
    ),
    (
        ListenError("", errno=errno.EADDRNOTAVAIL, host="[::1]", port=41000),
        r'; this machine .*; in site\.toml:2, write listen\[3\]\.address=":0" to listen on all of them',
    ),
    (
        ListenError("", errno=errno.EADDRINUSE, path="/run/x/socket"),
        r'; stop that server, or in site\.toml:2, choose another path: listen\[1\]\.address="unix:PATH"',
    ),
    (
        ListenError("", errno=errno.EEXIST, path="/run/y/socket"),
        r'; in site\.toml:2, choose another path: listen\[4\]\.address="unix:PATH"',
    ),
    (ListenError("", errno=errno.EEXIST, path="/run/z/socket"), ""),
    (ListenError("", errno=errno.EADDRINUSE, host="192.0.2.1", port=1), ""),
    (ListenError("", errno=errno.ENOBUFS, host="127.0.0.1", port=8443), ""),
]


@pytest.mark.parametrize(("error", "hint"), IN_FILE)
def test_in_a_file(error: ListenError, hint: str) -> None:
    """With a configuration file, the remedy names the key of the listener and its line, and no flag."""
    command = ("./count.sh", "--port=8080")
    settings = ServerSettings(listeners=LISTENERS, endpoints=(BridgeSettings(program=ProgramSettings(command=command)),))
    found = hint_in_file(error, settings, lambda number, key: (PLACES[key], f"listen[{number + 1}].{key}"))
    assert re.fullmatch(hint, found)
    assert "--" not in found


UNIX_REASONS = [
    (errno.EADDRINUSE, "; stop that server, or choose another path: --unixsocket=PATH"),
    (errno.EEXIST, "; choose another path: --unixsocket=PATH"),
    (errno.ENOENT, "; create the directory /run/x, or choose another path: --unixsocket=PATH"),
    (errno.EACCES, "; give this user write permission for /run/x, or choose another path: --unixsocket=PATH"),
]


@pytest.mark.parametrize(("number", "hint"), UNIX_REASONS)
def test_unix_socket(number: int, hint: str) -> None:
    """If a Unix socket cannot be bound, the hint names --unixsocket."""
    settings = ServerSettings(listeners=LISTENERS)
    assert hint_for_listening(ListenError("cannot", errno=number, path="/run/x/socket"), settings) == hint


ENDPOINT = '[[endpoint]]\nkind = "bridge"\ncommand = ["cat", "--port=1"]\n'


def test_start_from_a_file(here: Path) -> None:
    """A server from a file names the key, the file and the line of the address in use."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken_address = f"127.0.0.1:{taken.getsockname()[1]}"
        (here / "site.toml").write_text(f'include = "more.toml"\n{ENDPOINT}[[listen]]\naddress = "127.0.0.1:0"\n')
        (here / "more.toml").write_text(f'[[listen]]\naddress = "{taken_address}"\n')
        status, log = start("serve", "site.toml")
    assert status == 3
    assert re.search(r'; in more\.toml:2, choose another port, such as listen\[1\]\.address="127\.0\.0\.1:\d+", which is free now', log)
    assert "--" not in log


def test_default_listener_of_a_file(here: Path) -> None:
    """For a file without [[listen]], the remedy is to add this table."""
    (here / "site.toml").write_text(ENDPOINT)
    hint = load("site.toml", {"PATH": "/bin:/usr/bin"}).hint(ListenError("", errno=errno.EACCES, host="", port=8080))
    assert hint.endswith('; in a table [[listen]] of site.toml, choose another port, such as listen[1].address=":8080"')


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--port", "8080"), "--port"),
        (("-port=8080",), "-port=8080"),
        (("a", "--address=::1"), "--address=::1"),
        (("--redirport=80",), "--redirport=80"),
    ],
)
def test_flag_after_command(words: tuple[str, ...], flag: str) -> None:
    """If a flag of wsbridge follows COMMAND, the hint says that it belongs to COMMAND."""
    settings = ServerSettings(endpoints=(BridgeSettings(program=ProgramSettings(command=("./count.sh", *words))),))
    hint = hint_for_listening(ListenError("cannot", errno=errno.EACCES, host="", port=80), settings)
    assert hint.endswith(f"; {flag} comes after COMMAND, so it is an argument of ./count.sh; write flags of the server before COMMAND")


@pytest.mark.parametrize("words", [(), ("--portable",), ("x--port",)])
def test_no_flag_after_command(words: tuple[str, ...]) -> None:
    """Other arguments of COMMAND cause no hint."""
    settings = ServerSettings(endpoints=(BridgeSettings(program=ProgramSettings(command=("./count.sh", *words))),))
    assert "after COMMAND" not in hint_for_listening(ListenError("cannot", errno=errno.EACCES, host="", port=80), settings)


def test_free_port() -> None:
    """For a privileged port, the hint suggests an unprivileged one, unless the range has no free port."""
    assert free_port_near("127.0.0.1", 80) >= 1024
    assert free_port_near("127.0.0.1", 65535) == 0
    assert free_port_near("192.0.2.1", 8080) == 0


@pytest.mark.parametrize(("words", "needle"), [(["help"], "--dir"), (["help", "broadcast"], "--spool"), (["help", "xyz"], "--dir")])
def test_help_as_a_word(words: list[str], needle: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`wsbridge help` prints the same as `--help`, and `wsbridge help broadcast` the help of that command."""
    assert run("wsbridge", words, {}) == 0
    said = capsys.readouterr()
    assert (needle in said.out, said.err) == (True, "")


def test_program_called_help(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a flag or `--`, or when wsbridge is called as websocketd, `help` is COMMAND."""
    for program, words in (("wsbridge", ["--", "help"]), ("wsbridge", ["--port=0", "help"]), ("websocketd", ["help"])):
        assert run(program, words, {"PATH": f"{here}/bin"}) == 1
        assert "COMMAND 'help'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "--exchange is missing"),
        ("amq.temps", "RabbitMQ reserves the names that begin with amq."),
        ("x" * 128, "it has 128 characters; write at most 127 of"),
        ("a*b", "it contains '*'; write at most 127 of"),
        ("größe", "it contains 'ö'"),
        ("a\nb", "it contains '\\n'"),
    ],
)
@pytest.mark.parametrize("shape", ["broadcast", "publish", "subscribe"])
def test_exchange(shape: str, name: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that the broker would reject is rejected before the connection; the error names the invalid part."""
    assert run("wsbridge", [shape, f"--exchange={name}", "--broker=amqp://127.0.0.1:1/"], {}) == 1
    assert reason in capsys.readouterr().err
