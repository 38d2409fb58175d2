"""From flags to settings: the defaults as they were decided, and what cannot be asked for together."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import reduce
from pathlib import Path

import pytest

from wsbridge import __version__
from wsbridge.cli.config import make_settings
from wsbridge.cli.parse import parse
from wsbridge.errors import ConfigurationError, UsageError
from wsbridge.process.terminal import PLAIN
from wsbridge.rules.forwarded import parse_trusted
from wsbridge.rules.hosts import Hosts, own_names
from wsbridge.rules.origins import Rules, parse_allowed
from wsbridge.settings import (
    AccessSettings,
    ClientSettings,
    EndpointSettings,
    HttpSettings,
    ListenSettings,
    ProgramSettings,
    ServerSettings,
    TerminalSize,
    TlsSettings,
)

OWN_NAMES = own_names(socket.gethostname(), Path("/etc/hosts").read_text())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a program, a file that is none, directories, and one of them in PATH."""
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


def found_in(made: ServerSettings, path: str) -> object:
    """Return a value of the only endpoint, or of the server."""
    (endpoint,) = made.endpoints
    return reduce(getattr, path.split("."), endpoint if hasattr(endpoint, path.split(".")[0]) else made)


def test_defaults(here: Path) -> None:
    """What a command line of COMMAND alone comes to."""
    assert settings(here, "prog", "-x", "a b") == ServerSettings(
        endpoints=(
            EndpointSettings(
                program=ProgramSettings(
                    argv=(f"{here}/bin/prog", "-x", "a b"),
                    directory=None,
                    framing="lines",
                    max_message_bytes=16 * 1024 * 1024,
                    close_ms=0,
                    pty=None,
                    pass_stderr=False,
                ),
                client=ClientSettings(max_frame_bytes=1024 * 1024, ping_ms=25_000, send_timeout=60.0, compress=False),
                access=AccessSettings(
                    origins=Rules(same=False, allowed=None),
                    hosts=Hosts(own=OWN_NAMES),
                    max_sessions=1024,
                    busy_close=False,
                    subprotocols=(),
                    passed={"PATH": f"{here}/bin"},
                    headers=(),
                    headers_ws=(),
                    headers_http=(),
                ),
                http=HttpSettings(static_directory=None, cgi_directory=None, page=""),
            ),
        ),
        trusted=parse_trusted(""),
        reverse_lookup=False,
        software=f"wsbridge/{__version__}",
        listen=ListenSettings(hosts=("",), port=80, unix_path=None, tls=None, redirect_port=None),
        guard=True,
        once=False,
    )


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["--binary"], "program.framing", "chunks"),
        (["--binary", "--framing=chunks"], "program.framing", "chunks"),
        (["--binary=false", "--framing=json"], "program.framing", "json"),
        (["--framing=nul"], "program.framing", "nul"),
        (["--framing=prefixed"], "program.framing", "prefixed"),
        (["--passstderr"], "program.pass_stderr", True),
        (["--pty"], "program.pty", PLAIN),
        (["--pty", "--pty-size=132x43"], "program.pty", TerminalSize(132, 43)),
        (["--pty", "--pty-size=0x0"], "program.pty", TerminalSize(0, 0)),
        (["--pty", "--pty-size=65535x65535"], "program.pty", TerminalSize(65535, 65535)),
        (["--maxline=0"], "program.max_message_bytes", 0),
        (["--closems=0x10"], "program.close_ms", 16),
        (["--maxframesize=0"], "client.max_frame_bytes", 0),
        (["--maxframesize=-1"], "client.max_frame_bytes", 0),
        (["--pingms=0"], "client.ping_ms", 0),
        (["--pingms=500"], "client.ping_ms", 500),
        (["--send-timeout=0"], "client.send_timeout", 0.0),
        (["--send-timeout=1.5"], "client.send_timeout", 1.5),
        (["--compress"], "client.compress", True),
        (["--maxforks=3"], "access.max_sessions", 3),
        (["--busy=close"], "access.busy_close", True),
        (["--busy=429"], "access.busy_close", False),
        (["--subprotocol=a, b", "--subprotocol=c,"], "access.subprotocols", ("a", "b", "c")),
        (["--reverselookup"], "reverse_lookup", True),
        (["--trust-proxy=10.0.0.0/8,unix"], "trusted", parse_trusted("10.0.0.0/8,unix")),
        (["--sameorigin"], "access.origins", Rules(same=True)),
        (["--sameorigin"], "access.hosts", Hosts(own=OWN_NAMES, is_strict=True)),
        (
            ["--host=A.example", "--host=*.b.example"],
            "access.hosts",
            Hosts(("a.example", "*.b.example"), OWN_NAMES),
        ),
        (["--origin=a.com, https://b.com:81"], "access.origins", Rules(allowed=parse_allowed("a.com,https://b.com:81"))),
        (["--origin=,"], "access.origins", Rules(allowed=())),
        (["--origin="], "access.origins", Rules()),
        (["--header=x-some-name: a: b "], "access.headers", (("X-Some-Name", "a: b"),)),
        (["--header=X-API:1", "--header=X-API: 2"], "access.headers", (("X-Api", "1"), ("X-Api", "2"))),
        (["--header=Tab: a\tb"], "access.headers", (("Tab", "a\tb"),)),
        (["--maxbody=0"], "http.max_body_bytes", 0),
        (["--keepalive-timeout=5"], "timings.keepalive_seconds", 5.0),
        (["--body-timeout=0"], "http.body_seconds", 0.0),
        (["--header=Empty"], "access.headers", (("Empty", ""),)),
        (["--header-ws=A: 1"], "access.headers_ws", (("A", "1"),)),
        (["--header-http=A: 1"], "access.headers_http", (("A", "1"),)),
        (["--passenv=HOME,NOWHERE"], "access.passed", {"HOME": "/home/me"}),
        (["--passenv="], "access.passed", {}),
        (["--devconsole"], "http.page", "Developer console"),
        (["--port=8080"], "listen.port", 8080),
        (["--port=0"], "listen.port", 0),
        (["--address=127.0.0.1", "--address=[::1]"], "listen.hosts", ("127.0.0.1", "[::1]")),
        (["--unixsocket=s"], "listen.port", None),
        (["--unixsocket=s", "--port=0"], "listen.port", 0),
        (["--unixsocket=s", "--port=8080"], "listen.port", 8080),
        (["--unixsocket=s", "--address=127.0.0.1"], "listen.port", 80),
        (["--unixsocket=s", "--redirport=8081"], "listen.port", 80),
        (["--unixsocket=a", "--unixsocket=s"], "listen.unix_path", "s"),
        (["--redirport=8081"], "listen.redirect_port", 8081),
        (["--redirport=0"], "listen.redirect_port", None),
        (["--ssl", "--sslcert=c", "--sslkey=k"], "listen.tls", TlsSettings("c", "k", None)),
        (["--ssl", "--sslcert=c", "--sslkey=k", "--sslca=a"], "listen.tls", TlsSettings("c", "k", "a")),
        (["--ssl", "--sslcert=c", "--sslkey=k"], "listen.port", 443),
        (["--ssl", "--sslcert=c", "--sslkey=k", "--port=8443"], "listen.port", 8443),
        (["--no-guard"], "guard", False),
        (["--once"], "once", True),
    ],
)
def test_each_flag(here: Path, words: list[str], path: str, value: object) -> None:
    """Each flag comes to the setting that it names."""
    made = settings(here, *words, "prog", environ={"HOME": "/home/me"})
    assert found_in(made, path) == value


def test_called_as_websocketd(here: Path) -> None:
    """Called as websocketd, SERVER_SOFTWARE says so."""
    assert settings(here, "prog", name="websocketd").software == f"websocketd/{__version__}"


@pytest.mark.parametrize(
    ("words", "served"),
    [
        (["--dir=scripts"], ("{here}/scripts", None, None)),
        (["--dir=scripts/../scripts/"], ("{here}/scripts", None, None)),
        (["--staticdir=scripts"], (None, "{here}/scripts", None)),
        (["--cgidir=scripts"], (None, None, "{here}/scripts")),
        (["--dir=scripts", "--staticdir=bin", "--cgidir=.", "--devconsole"], ("{here}/scripts", "{here}/bin", "{here}")),
    ],
)
def test_directories(here: Path, words: list[str], served: tuple[str | None, ...]) -> None:
    """Directories are made absolute; a server of files or CGI alone is allowed; the console goes with all of them."""
    made = settings(here, *words)
    (endpoint,) = made.endpoints
    found = (endpoint.program.directory, endpoint.http.static_directory, endpoint.http.cgi_directory)
    assert found == tuple(path and path.format(here=here) for path in served)
    assert endpoint.program.argv == ()


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
    """COMMAND is looked for in PATH; a word with a slash is kept as it was typed."""
    assert settings(here, word, "x").endpoints[0].program.argv == (resolved.format(here=here), "x")


@pytest.mark.parametrize("path", [".", "", "relative", "nowhere:relative"])
def test_command_through_a_relative_path(here: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit through a relative part of PATH is refused: what it names depends on where one stands."""
    if path in (".", ""):
        monkeypatch.chdir(here / "relative")
    with pytest.raises(ConfigurationError, match="only-here"):
        settings(here, "only-here", environ={"PATH": path + ":/nowhere"})


WRONG = [
    ([], ["COMMAND", "--dir", "--staticdir", "--cgidir"]),
    (["--devconsole"], ["COMMAND", "--dir", "--staticdir", "--cgidir"]),
    (["--port=8080", "--header=A: 1"], ["COMMAND"]),
    (["--dir=scripts", "prog"], ["ambiguous", "COMMAND", "--dir"]),
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
def test_what_cannot_be_done(here: Path, words: list[str], needles: list[str]) -> None:
    """The message names each flag that has to do with it and what to do; it is one line; the exit status is 1."""
    with pytest.raises(ConfigurationError) as caught:
        settings(here, *words)
    message = str(caught.value)
    assert [needle for needle in needles if needle not in message] == []
    assert message.isprintable()
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("text", ["nan", "-nan", "NaN"])
def test_a_time_is_a_number(here: Path, text: str) -> None:
    """A timeout that is no number is refused."""
    with pytest.raises((ConfigurationError, UsageError), match="send-timeout"):
        settings(here, f"--send-timeout={text}", "prog")
