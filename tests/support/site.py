"""Servers for the tests of HTTP and WebSockets: one site behind each kind of listener, with both kinds of transports."""

from __future__ import annotations

import base64
import os
import random
import shlex
import ssl
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.proc import TRANSPORTS
from tests.support.server import Server
from tests.support.tool import command

LISTENERS = ("tcp", "unix", "tls", "mutual-tls")

BIG = random.Random(1).randbytes(3_000_000)

FLAGS = ("--compress", "--subprotocol=chat,superchat")
"""The application protocols of the site's server over TLS."""

SAY = 'eval "$(printf %s "$QUERY_STRING" | base64 -d)"'
"""Runs the words of its query; see `say` below."""

SCRIPTS = {
    "echo": "exec cat",
    "pid": "echo $$; exec cat",
    "unreading": f"echo $$; exec {shlex.join(command('ticks'))}",
    "flood": f"echo $$; exec {shlex.join(command('flood', '0.2'))}",
    "env": "exec env",
    "say": SAY,
}
"""The programs of the site."""

TEXT = 'echo "Content-Type: text/plain"; echo; '
CGI = {
    "echo": TEXT + "exec cat",
    "env": TEXT + "exec env",
    "count": TEXT + "exec wc -c",
    "say": SAY,
}
"""The CGI scripts of the site."""

FILES = {
    "big.bin": BIG,
    "small.txt": b"small\n",
    "page/index.html": b"<p>a page</p>\n",
    "list/b.txt": b"b\n",
    "list/.hidden": b"hidden\n",
    "list/a & <b>.txt": b"a\n",
    "list/sub/c.css": b"c\n",
    "style.css": b"p {}\n",
    "code.js": b"1\n",
    "image.png": b"\x89PNG",
    "thing.unknown": b"?",
    "scripts/page.html": b"<p>beside the programs</p>\n",
    "cgi/library": b"the source of a program\n",
    "../outside/secret": b"this lies outside of what is served\n",
}
"""The files of the site and their contents."""


SECRET = b"outside of what is served"

NEW_CERTIFICATE = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
    *("-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
)
"""Makes a certificate and its key. Python 3.13 refuses a certificate that can sign others and has no key usage."""


@dataclass(frozen=True, slots=True)
class Site:
    """A directory of files, with the programs and the CGI scripts in it, and a file outside it."""

    root: Path

    @property
    def public(self) -> Path:
        return self.root / "public"

    @property
    def flags(self) -> tuple[str, ...]:
        return (f"--staticdir={self.public}", f"--dir={self.public}/scripts", f"--cgidir={self.public}/cgi")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    public = made.public
    for folder in ("", "scripts", "cgi", "page", "list", "list/sub", "../outside"):
        (public / folder).mkdir()
    for folder, scripts in (("scripts", SCRIPTS), ("cgi", CGI)):
        for name, text in scripts.items():
            write_script(public / folder / name, text)
    for name, content in FILES.items():
        (public / name).write_bytes(content)
    (public / "inside").symlink_to("small.txt")
    (public / "out").symlink_to("../outside/secret")
    (public / "outdir").symlink_to("../outside")
    (public / "program").symlink_to("scripts/echo")
    (public / "cgi-program").symlink_to("cgi/env")
    os.mkfifo(public / "fifo")
    return made


@dataclass(frozen=True, slots=True)
class Certificates:
    """Certificates of a server, a client, the CA that signed both, and an unrelated one."""

    folder: Path

    @property
    def server_flags(self) -> tuple[str, ...]:
        return ("--ssl", f"--sslcert={self.folder}/server.pem", f"--sslkey={self.folder}/server.key")

    @property
    def ca_flag(self) -> str:
        return f"--sslca={self.folder}/ca.pem"

    def context(self, client: str | None = None) -> ssl.SSLContext:
        """A client's context: it trusts the CA, and shows the certificate of `client`."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if client is not None:
            context.load_cert_chain(self.folder / f"{client}.pem", self.folder / f"{client}.key")
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key")
    for name, subject, options in (
        ("ca", "/CN=Test CA", ()),
        ("server", "/CN=localhost", ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *signed)),
        ("client", "/CN=client", signed),
        ("stranger", "/CN=stranger", ()),
    ):
        words = (*NEW_CERTIFICATE, "-subj", subject, *options)
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        subprocess.run([*words, *files], cwd=folder, check=True, capture_output=True)
    return Certificates(folder)


@pytest.fixture(scope="session", params=TRANSPORTS)
def transports(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment for aiofastnet's transports in one run of the test, and for the loop's own in the other."""
    if request.param == "aiofastnet":
        pytest.importorskip("aiofastnet")
    return TRANSPORTS[request.param]


@pytest.fixture(scope="session", params=LISTENERS)
def shared_listener_server(
    request: pytest.FixtureRequest,
    transports: dict[str, str],
    site: Site,
    certificates: Certificates,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """The site's server, behind one kind of listener."""
    options: dict[str, Any] = {"env": transports}
    flags = site.flags
    match request.param:
        case "unix":
            path = str(tmp_path_factory.mktemp("socket") / "s")
            options |= {"listen": (f"--unixsocket={path}",), "unix": path}
        case "tls":
            flags += certificates.server_flags
            options |= {"tls": certificates.context()}
        case "mutual-tls":
            flags += (*certificates.server_flags, certificates.ca_flag)
            options |= {"tls": certificates.context("client")}
    with Server(*flags, **options) as server:
        yield server
    assert_sound(server)


@pytest.fixture
def listener_server(shared_listener_server: Server) -> Iterator[Server]:
    """The site, behind each kind of listener in turn; the server's own methods connect in that way."""
    yield shared_listener_server
    assert_sound(shared_listener_server)


@pytest.fixture(scope="session")
def server_of_the_site(transports: dict[str, str], site: Site) -> Iterator[Server]:
    """The site's server over TCP, with both kinds of transports."""
    with Server(*site.flags, *FLAGS, env=transports) as server:
        yield server
    assert_sound(server)


@pytest.fixture
def served(server_of_the_site: Server) -> Iterator[Server]:
    """The site over TCP, with both kinds of transports."""
    yield server_of_the_site
    assert_sound(server_of_the_site)


Serve = Callable[..., Server]
TRACEBACKS: defaultdict[Server, int] = defaultdict(int)
"""The number of tracebacks that a server has already shown."""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server for one test: `serve("--binary", "cat")`."""
    servers: list[Server] = []
    with ExitStack() as stack:

        def start(*words: object, **options: Any) -> Server:
            servers.append(Server(*map(str, words), **options))
            return stack.enter_context(servers[-1])

        yield start
    for server in servers:
        assert_sound(server)


def shell_path(script: str) -> str:
    """The path at which a program or a CGI script of the site runs these words of shell."""
    return "/say?" + base64.b64encode(script.encode()).decode()


def assert_sound(server: Server) -> None:
    """Check that a server shows no traceback, whatever its clients and programs did. Each traceback fails one test only.

    A traceback of a program does not count: INT may reach a Python program before it is ready.
    """
    shown = "\n".join(line for line in (server.log + server.errors).splitlines() if "| stderr " not in line)
    before, TRACEBACKS[server] = TRACEBACKS[server], shown.count("Traceback")
    assert TRACEBACKS[server] == before, shown


def write_script(path: Path, text: str, *, mode: int = 0o755) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    os.chmod(path, mode)
    return path
