"""From flags to settings: the defaults, and conflicts between flags."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from wsbridge import __version__
from wsbridge.cli.config import make_settings
from wsbridge.cli.parse import parse
from wsbridge.errors import ConfigurationError, UsageError
from wsbridge.rules.forwarded import parse_trusted
from wsbridge.rules.origins import Rules, parse_allowed
from wsbridge.settings import (
    PLAIN,
    BridgeSettings,
    Busy,
    CgiSettings,
    FilesSettings,
    ListenSettings,
    ProgramSettings,
    ServerSettings,
    TerminalSize,
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a program, a file that is not executable, directories, and one of them in PATH."""
    for name in ("bin", "scripts", "relative"):
        (tmp_path / name).mkdir()
    for program in ("bin/prog", "scripts/prog", "relative/only-here"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "bin" / "data").write_text("")
    (tmp_path / "plain.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(here: Path, *words: str, name: str = "wsbridge", environ: Mapping[str, str] | None = None) -> ServerSettings:
    return make_settings(parse(words, {}), {"PATH": f"{here}/bin", **(environ or {})}, name=name)


def test_defaults(here: Path) -> None:
    """The settings of a command line with COMMAND alone."""
    program = ProgramSettings(command=(f"{here}/bin/prog", "-x", "a b"))
    listeners = (ListenSettings(address=":80"),)
    assert settings(here, "prog", "-x", "a b") == ServerSettings(endpoints=(BridgeSettings(program=program),), listeners=listeners)


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["--binary"], "program.framing", "chunks"),
        (["--binary", "--framing=chunks"], "program.framing", "chunks"),
        (["--binary=false", "--framing=json"], "program.framing", "json"),
        (["--framing=nul"], "program.framing", "nul"),
        (["--framing=prefixed"], "program.framing", "prefixed"),
        (["--passstderr"], "program.pass_stderr", True),
        (["--pty"], "program.terminal", PLAIN),
        (["--pty", "--pty-size=132x43"], "program.terminal", TerminalSize(132, 43)),
        (["--pty", "--pty-size=0x0"], "program.terminal", TerminalSize(0, 0)),
        (["--pty", "--pty-size=65535x65535"], "program.terminal", TerminalSize(65535, 65535)),
        (["--maxline=0"], "program.max_program_message", 0),
        (["--closems=0x10"], "program.close_delay", 0.016),
        (["--maxframesize=0"], "client.max_client_message", 0),
        (["--maxframesize=-1"], "client.max_client_message", 0),
        (["--pingms=0"], "client.ping", 0),
        (["--pingms=500"], "client.ping", 0.5),
        (["--send-timeout=0"], "client.write_timeout", 0.0),
        (["--send-timeout=1.5"], "client.write_timeout", 1.5),
        (["--compress"], "client.compress", True),
        (["--maxforks=3"], "access.max_programs", 3),
        (["--busy=close"], "access.busy", Busy.CLOSE),
        (["--busy=429"], "access.busy", Busy.STATUS),
        (["--subprotocol=a, b", "--subprotocol=c,"], "access.subprotocols", ("a", "b", "c")),
        (["--reverselookup"], "server.reverse_lookup", True),
        (["--trust-proxy=10.0.0.0/8,unix"], "server.trusted", parse_trusted("10.0.0.0/8,unix")),
        (["--sameorigin"], "access.rules", Rules(same=True)),
        (["--host=A.example, b.example", "--host=*.c.example"], "server.host_names", ("a.example", "b.example", "*.c.example")),
        (["--origin=a.com, https://b.com:81"], "access.rules", Rules(allowed=parse_allowed("a.com,https://b.com:81"))),
        (["--origin=,"], "access.rules", Rules(allowed=())),
        (["--origin="], "access.rules", Rules()),
        (["--header=x-some-name: a: b "], "access.http_headers", (("X-Some-Name", "a: b"),)),
        (["--header=X-API:1", "--header=X-API: 2"], "access.websocket_headers", (("X-Api", "1"), ("X-Api", "2"))),
        (["--header=Tab: a\tb"], "access.http_headers", (("Tab", "a\tb"),)),
        (["--maxbody=0"], "http.max_body", 0),
        (["--keepalive-timeout=5"], "server.keepalive_timeout", 5.0),
        (["--body-timeout=0"], "http.body_timeout", 0.0),
        (["--header=Empty"], "access.http_headers", (("Empty", ""),)),
        (["--header-ws=A: 1"], "access.websocket_headers", (("A", "1"),)),
        (["--header-http=A: 1"], "access.http_headers", (("A", "1"),)),
        (["--passenv= HOME,NOWHERE,"], "program.pass_environment", ("HOME", "NOWHERE")),
        (["--passenv="], "program.pass_environment", ()),
        (["--devconsole"], "http.console", True),
        (["--no-guard"], "server.guard", False),
        (["--no-page"], "http.page", False),
        (["--loglevel=debug"], "server.log_level", "debug"),
        (["--log-format=json"], "server.log_format", "json"),
        (["--once"], "once", True),
    ],
)
def test_each_flag(here: Path, words: list[str], path: str, value: object) -> None:
    """Each flag sets the setting that it names."""
    made = settings(here, *words, "prog")
    of_server = path.startswith(("server.", "once"))
    assert reduce(getattr, path.split("."), made if of_server else made.endpoints[0]) == value


TLS = {"certificate": "c", "key": "k"}


@pytest.mark.parametrize(
    ("words", "listeners"),
    [
        (["--port=8080"], [{"address": ":8080"}]),
        (["--port=0"], [{"address": ":0"}]),
        (["--address=127.0.0.1", "--address=[::1]"], [{"address": "127.0.0.1:80"}, {"address": "[::1]:80"}]),
        (["--address=[::1]", "--address=127.0.0.1", "--address=[::1]"], [{"address": "[::1]:80"}, {"address": "127.0.0.1:80"}]),
        (["--unixsocket=s"], [{"address": "unix:s"}]),
        (["--unixsocket=s", "--port=0"], [{"address": ":0"}, {"address": "unix:s"}]),
        (["--unixsocket=s", "--address=127.0.0.1"], [{"address": "127.0.0.1:80"}, {"address": "unix:s"}]),
        (["--unixsocket=s", "--redirport=8081"], [{"address": ":80", "redirect_port": 8081}, {"address": "unix:s"}]),
        (["--unixsocket=a", "--unixsocket=s", "--unixsocket-mode=640"], [{"address": "unix:s", "mode": "640"}]),
        (["--unixsocket=s", "--unixsocket-owner=0", "--unixsocket-group=0"], [{"address": "unix:s", "owner": "0", "group": "0"}]),
        (["--redirport=8081"], [{"address": ":80", "redirect_port": 8081}]),
        (["--redirport=0"], [{"address": ":80"}]),
        (["--ssl", "--sslcert=c", "--sslkey=k"], [{"address": ":443", **TLS}]),
        (["--ssl", "--sslcert=c", "--sslkey=k", "--sslca=a"], [{"address": ":443", "client_ca": "a", **TLS}]),
        (
            ["--ssl", "--sslcert=c", "--sslkey=k", "--port=8443", "--unixsocket=s"],
            [{"address": ":8443", **TLS}, {"address": "unix:s", **TLS}],
        ),
    ],
)
def test_listeners(here: Path, words: list[str], listeners: list[dict[str, Any]]) -> None:
    """The flags for listening result in one listener for each address."""
    assert settings(here, *words, "prog").listeners == tuple(ListenSettings(**values) for values in listeners)


def test_called_as_websocketd(here: Path) -> None:
    """Called as websocketd, wsbridge uses its SERVER_SOFTWARE, serves no introduction page, and logs no further URLs."""
    made = settings(here, "prog", name="websocketd")
    (endpoint,) = made.endpoints
    assert isinstance(endpoint, BridgeSettings)
    assert (made.software, made.names_urls, endpoint.http.page) == (f"websocketd/{__version__}", False, False)


@pytest.mark.parametrize(
    ("words", "served"),
    [
        (["--dir=scripts"], ("{here}/scripts", "", "")),
        (["--dir=scripts/../scripts/"], ("{here}/scripts", "", "")),
        (["--staticdir=scripts"], ("", "{here}/scripts", "")),
        (["--cgidir=scripts"], ("", "", "{here}/scripts")),
        (["--dir=scripts", "--staticdir=bin", "--cgidir=.", "--devconsole"], ("{here}/scripts", "{here}/bin", "{here}")),
    ],
)
def test_directories(here: Path, words: list[str], served: tuple[str, ...]) -> None:
    """Directories become absolute; a server may serve only files or only CGI; the console works with all of them."""
    (endpoint,) = settings(here, *words).endpoints
    assert isinstance(endpoint, BridgeSettings | FilesSettings | CgiSettings)
    found = (endpoint.program.scripts, endpoint.http.files, endpoint.http.cgi)
    assert found == tuple(path.format(here=here) for path in served)
    assert endpoint.kind == ("bridge" if served[0] else "files" if served[1] else "cgi")
    assert endpoint.program.command == ()


@pytest.mark.parametrize(
    ("word", "resolved"),
    [
        ("prog", "{here}/bin/prog"),
        ("./scripts/prog", "./scripts/prog"),
        ("scripts/prog", "scripts/prog"),
        ("scripts/../bin/prog", "scripts/../bin/prog"),
    ],
)
def test_command_is_resolved(here: Path, word: str, resolved: str) -> None:
    """wsbridge searches PATH for COMMAND; a word with a slash stays unchanged."""
    (endpoint,) = settings(here, word, "x").endpoints
    assert isinstance(endpoint, BridgeSettings)
    assert endpoint.program.command == (resolved.format(here=here), "x")


@pytest.mark.parametrize("path", [".", "", "relative", "nowhere:relative"])
def test_command_through_a_relative_path(here: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A match through a relative part of PATH is rejected: its meaning depends on the current directory."""
    if path in (".", ""):
        monkeypatch.chdir(here / "relative")
    with pytest.raises(ConfigurationError, match="only-here"):
        settings(here, "only-here", environ={"PATH": path + ":/nowhere"})


WRONG = [
    ([], ["COMMAND", "--dir", "--staticdir", "--cgidir"]),
    (["--devconsole"], ["COMMAND", "--dir", "--staticdir", "--cgidir"]),
    (["--port=8080", "--header=A: 1"], ["COMMAND"]),
    (["--dir=scripts", "prog"], ["cannot be used together", "COMMAND", "--dir"]),
    (["--dir=missing"], ["--dir", "missing", "director"]),
    (["--dir=plain.txt"], ["--dir", "plain.txt", "director"]),
    (["--staticdir=missing", "prog"], ["--staticdir", "missing", "director"]),
    (["--cgidir=plain.txt", "prog"], ["--cgidir", "plain.txt", "director"]),
    (["missing"], ["COMMAND", "missing"]),
    (["data"], ["COMMAND", "data"]),
    ([""], ["COMMAND"]),
    (["-"], ["COMMAND", "-"]),
    (["./missing"], ["COMMAND", "./missing"]),
    (["./plain.txt"], ["COMMAND", "./plain.txt", "chmod +x"]),
    (["./scripts"], ["COMMAND", "./scripts", "--dir"]),
    (["--binary", "--passstderr", "prog"], ["--binary", "--passstderr"]),
    (["--framing=chunks", "--passstderr", "prog"], ["--framing=chunks", "--passstderr"]),
    (["--framing=json", "--passstderr", "prog"], ["--framing=json", "--passstderr"]),
    (["--binary", "--framing=json", "prog"], ["--binary", "--framing=json"]),
    (["--framing=xml", "prog"], ["--framing", "xml", "lines", "chunks", "nul", "prefixed", "json"]),
    (["--loglevel=verbose", "prog"], ["--loglevel", "verbose", "debug", "access", "fatal"]),
    (["--loglevel=INFO", "prog"], ["--loglevel", "INFO", "info"]),
    (["--log-format=xml", "prog"], ["--log-format", "xml", "text", "json"]),
    (["--busy=never", "prog"], ["--busy", "never", "429", "close"]),
    (["--ssl", "prog"], ["--ssl", "--sslcert", "--sslkey"]),
    (["--ssl", "--sslcert=c", "prog"], ["--ssl", "--sslcert", "--sslkey"]),
    (["--ssl", "--sslkey=k", "prog"], ["--ssl", "--sslcert", "--sslkey"]),
    (["--sslcert=c", "prog"], ["--ssl", "--sslcert", "--sslkey"]),
    (["--sslkey=k", "prog"], ["--ssl", "--sslcert", "--sslkey"]),
    (["--sslcert=c", "--sslkey=k", "prog"], ["--ssl", "--sslcert", "--sslkey"]),
    (["--subprotocol=a b", "prog"], ["--subprotocol", "a b"]),
    (["--subprotocol=a;b", "prog"], ["--subprotocol", "a;b"]),
    (["--host=a.example:80", "prog"], ["--host", "a.example:80", "without scheme, port and path"]),
    (["--origin=a.com/path", "prog"], ["--origin", "a.com/path", "[scheme://]host[:port]"]),
    (["--trust-proxy=localhost", "prog"], ["--trust-proxy", "localhost", "10.0.0.0/8"]),
    (["--header=a b: c", "prog"], ["--header", "a b: c", "Name: value"]),
    (["--header=: c", "prog"], ["--header", "Name: value"]),
    (["--header-ws=A: b\r\nC: d", "prog"], ["--header-ws", "control character"]),
    (["--header-http=A\nB: c", "prog"], ["--header-http", "Name: value"]),
    (["--header=A: b\x1b[1m", "prog"], ["--header", "control character", "remove it"]),
    (["--header=A: b\x7f", "prog"], ["--header", "control character"]),
    (["--header=transfer-encoding: chunked", "prog"], ["--header", "transfer-encoding", "remove it"]),
    (["--header-http=Content-Length: 3", "prog"], ["--header-http", "Content-Length", "remove it"]),
    (["--header-ws=Connection: close", "prog"], ["--header-ws", "Connection", "remove it"]),
    (["--header-ws=Upgrade: h2c", "prog"], ["--header-ws", "Upgrade", "remove it"]),
    (["--header-ws=Sec-WebSocket-Accept: x", "prog"], ["--header-ws", "Sec-WebSocket-Accept", "remove it"]),
    (["--maxbody=-1", "prog"], ["--maxbody", "negative"]),
    (["--body-timeout=-1", "prog"], ["--body-timeout", "negative"]),
    (["--keepalive-timeout=-0.5", "prog"], ["--keepalive-timeout", "negative"]),
    (["--header-ws=Sec-WebSocket-Extensions: x", "prog"], ["--header-ws", "--compress"]),
    (["--once", "--staticdir=scripts"], ["--once", "COMMAND"]),
    (["--send-timeout=-1", "prog"], ["--send-timeout", "-1"]),
    (["--no-page", "--devconsole", "prog"], ["--no-page", "--devconsole"]),
    (["--maxline=-1", "prog"], ["--maxline", "-1"]),
    (["--pty-size=80x24", "prog"], ["--pty-size", "--pty"]),
    *(
        (["--pty", f"--pty-size={size}", "prog"], ["--pty-size", "132x43"])
        for size in ("80", "80x", "x24", "80X24", "-1x24", "80x24x2", "65536x24", "80x99999", "wide")
    ),
    (["--sendbuffer=-1", "prog"], ["--sendbuffer", "-1"]),
]


@pytest.mark.parametrize(("words", "needles"), WRONG, ids=[ascii(" ".join(words)) for words, _ in WRONG])
def test_conflicting_flags(here: Path, words: list[str], needles: list[str]) -> None:
    """The message names each conflicting flag and the remedy, in one line; the exit status is 1."""
    with pytest.raises(ConfigurationError) as caught:
        settings(here, *words)
    message = str(caught.value)
    assert [needle for needle in needles if needle not in message] == []
    assert message.isprintable()
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("text", ["nan", "-nan", "NaN"])
def test_time_is_a_number(here: Path, text: str) -> None:
    """A timeout that is not a number is rejected."""
    with pytest.raises((ConfigurationError, UsageError), match="send-timeout"):
        settings(here, f"--send-timeout={text}", "prog")
