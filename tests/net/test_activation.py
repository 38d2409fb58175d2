"""Socket activation: a process inherits listening sockets, from systemd's own tool and from a test program."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.client import connect
from tests.support.deadline import DEADLINE, scaled
from tests.support.server import ROOT, free_port, listens, wait_until
from tests.support.tool import command

ACTIVATE = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(word), fcntl.F_DUPFD_CLOEXEC, 100) for word in sys.argv[1].split(",") if word]
for word in sys.argv[1].split(","):
    if word:
        os.close(int(word))
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
variables = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), **dict(word.split("=") for word in sys.argv[2].split())}
os.execve(sys.argv[3], sys.argv[3:], {**os.environ, **variables})
"""
"""Starts a program as systemd does, with descriptors from 3 up. Its arguments: descriptors, variables, and the command line."""

REPORT = """
import os
from wsbridge.errors import ListenError
from wsbridge.net.activation import inherited_sockets

try:
    found = inherited_sockets(os.environ, os.getpid())
except ListenError as error:
    print(error)
else:
    print({name: [(sock.fileno(), sock.family.name, sock.get_inheritable()) for sock in socks] for name, socks in found.items()})
"""

SERVE = f"""
import asyncio, os, sys
from wsbridge.metrics import Metrics
from wsbridge.server.server import Server
from wsbridge.settings import BridgeSettings, ListenSettings, ProcessSettings, ProgramSettings, ServerSettings

async def main():
    program = ProgramSettings(
        command=("/bin/sh", "-c", 'env | grep -c LISTEN_; exec "$@"', "sh", *{command("descriptors")!r}),
        pass_environment=("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
    )
    settings = ServerSettings(
        server=ProcessSettings(guard=False),
        endpoints=(BridgeSettings(program=program),),
        listeners=(ListenSettings(address="systemd:web"),),
    )
    return await Server(settings, Metrics()).run()

sys.exit(asyncio.run(main()))
"""
"""A server of inherited sockets. Its program prints how many variables of socket activation it has, then its descriptors."""

Words = Sequence[str]


def activated(socks: Sequence[int], variables: str, *code: str) -> Words:
    """Return the command line of a Python program that inherits these sockets."""
    return (sys.executable, "-S", "-E", "-c", ACTIVATE, ",".join(map(str, socks)), variables, sys.executable, "-c", *code)


def reported(*fds: int, variables: str = "") -> str:
    """Return what a process with these descriptors prints about its inherited sockets."""
    words = activated(fds, variables, REPORT)
    environment = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, pass_fds=fds, env=environment, capture_output=True, text=True, check=True, timeout=scaled(DEADLINE)
    ).stdout.strip()


@pytest.fixture
def sockets(tmp_path: Path) -> Callable[..., socket.socket]:
    """Makes sockets; the fixture closes them at the end of the test."""
    with ExitStack() as stack:

        def make(kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET, *, listening: bool = True) -> socket.socket:
            sock = stack.enter_context(socket.socket(family, kind))
            sock.bind(f"{tmp_path}/s" if family == socket.AF_UNIX else ("127.0.0.1", 0))
            if listening:
                sock.listen()
            return sock

        yield make  # type: ignore[misc]


def test_names_of_inherited_sockets(sockets: Callable[..., socket.socket]) -> None:
    """Inherited sockets are grouped by name, in order, and are close-on-exec. Without LISTEN_FDNAMES, each is `unknown`."""
    fds = [sock.fileno() for sock in (sockets(), sockets(family=socket.AF_UNIX), sockets())]
    by_name = "{'web': [(3, 'AF_INET', False), (5, 'AF_INET', False)], 'a.socket': [(4, 'AF_UNIX', False)]}"
    assert reported(*fds, variables="LISTEN_FDNAMES=web:a.socket:web") == by_name
    assert reported(*fds[:2]) == "{'unknown': [(3, 'AF_INET', False), (4, 'AF_UNIX', False)]}"


@pytest.mark.parametrize("variables", ["LISTEN_PID=1", "LISTEN_PID=", "LISTEN_FDS=0", "LISTEN_FDS=0 LISTEN_FDNAMES="])
def test_variables_for_another_process_are_ignored(sockets: Callable[..., socket.socket], variables: str) -> None:
    """The process ignores variables that are for another process, and those that announce no socket."""
    assert reported(sockets().fileno(), variables=variables) == "{}"


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ("LISTEN_FDS=two", "LISTEN_FDS=two is not a number of descriptors"),
        ("LISTEN_FDS=-1", "LISTEN_FDS=-1 is not a number of descriptors"),
        ("LISTEN_FDNAMES=a:b", "LISTEN_FDNAMES has 2 names for 1 descriptors"),
        ("LISTEN_FDS=2", "cannot use the inherited descriptor 4 (unknown): bad file descriptor"),
    ],
)
def test_invalid_variables(sockets: Callable[..., socket.socket], variables: str, complaint: str) -> None:
    """An invalid variable is an error with one sentence that names it."""
    assert complaint in reported(sockets().fileno(), variables=variables)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("file", "socket operation on non-socket"),
        ("datagram", "it is not a TCP or Unix stream socket"),
        ("packets", "it is not a TCP or Unix stream socket"),
        ("bound", "it does not listen"),
        ("connection", "it does not listen"),
    ],
)
def test_descriptor_that_does_not_listen(sockets: Callable[..., socket.socket], kind: str, complaint: str) -> None:
    """The error for a descriptor that cannot accept names its number and its name, and states the requirement for the socket unit."""
    good = sockets()
    with ExitStack() as stack:
        match kind:
            case "file":
                fd = stack.enter_context(open(os.devnull)).fileno()
            case "datagram":
                fd = sockets(socket.SOCK_DGRAM, listening=False).fileno()
            case "packets":
                fd = sockets(socket.SOCK_SEQPACKET, socket.AF_UNIX).fileno()
            case "bound":
                fd = sockets(listening=False).fileno()
            case "connection":
                fd = stack.enter_context(socket.create_connection(good.getsockname())).fileno()
        said = reported(good.fileno(), fd, variables="LISTEN_FDNAMES=good:bad")
    assert said == f"cannot use the inherited descriptor 4 (bad): {complaint}; the socket unit needs ListenStream= and Accept=no"


@pytest.mark.parametrize("how", ["by hand", "systemd-socket-activate"])
def test_server_of_inherited_sockets(how: str) -> None:
    """A server accepts on an inherited socket, including clients that connected earlier. Its programs inherit neither sockets nor
    variables."""
    port, fds = free_port(), []
    with ExitStack() as stack:
        if how == "by hand":
            sock = socket.create_server(("127.0.0.1", port))
            fds = [sock.fileno()]
            words = activated(fds, "LISTEN_FDNAMES=web", SERVE)
        else:
            if (tool := shutil.which(how)) is None:
                pytest.skip(f"there is no {how}")
            words = (tool, f"--listen=127.0.0.1:{port}", "--fdname=web", f"--setenv=PYTHONPATH={ROOT}", sys.executable, "-c", SERVE)
        process = subprocess.Popen(words, pass_fds=fds, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
        stack.enter_context(process)
        stack.callback(process.kill)
        if fds:
            sock.close()
        wait_until(lambda: listens(process.pid, port), "the listening socket")
        for _ in range(2):
            with connect(port=port) as client:
                count, *descriptors = client.receive_lines()
                assert (count, [line.split()[0] for line in descriptors]) == ("0", ["0", "1", "2"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(scaled(DEADLINE)) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
