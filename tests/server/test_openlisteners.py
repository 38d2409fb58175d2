"""A reload opens, changes and closes listeners. Established connections stay, and a change that fails changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.server.test_serve import PASSED
from tests.support.client import Client, Refused, open_stream
from tests.support.configured import Configure, Configured, bridge, listener
from tests.support.server import free_port, wait_until
from tests.support.site import NEW_CERTIFICATE, Certificates

CAT = bridge("/cat", "exec cat")
REFUSED = (ConnectionRefusedError, FileNotFoundError)


def tcp(port: int, host: str = "127.0.0.1", **keys: Any) -> str:
    return listener(f"{host}:{port}", **keys)


def echoes(client: Client) -> None:
    """Check that a session continues."""
    client.send_text("hello")
    assert client.receive_text() == "hello"


@contextmanager
def session(server: Configured, **where: Any) -> Iterator[Client]:
    """Open a session, and check at the end that it still works."""
    with server.connect("/cat", **where) as client:
        echoes(client)
        yield client
        echoes(client)


def is_open(server: Configured, **where: Any) -> bool:
    with suppress(*REFUSED), server.connect("/cat", **where) as client:
        echoes(client)
        return True
    return False


def serial(tls: ssl.SSLContext, port: int) -> str:
    """Return the serial number of the certificate that a new connection gets."""
    with open_stream(port=port, tls=tls) as stream:
        assert isinstance(stream.sock, ssl.SSLSocket)
        found = stream.sock.getpeercert()
        assert found
        return str(found["serialNumber"])


def test_add_and_remove(configured: Configure, tmp_path: Path) -> None:
    """Listeners are added and removed. A connection stays open after its listener was removed, and no new one is accepted."""
    first, second, path = free_port(), free_port(), tmp_path / "socket"
    server = configured(tcp(first), CAT)
    with session(server, port=first), ExitStack() as stack:
        verdict = server.reload(tcp(second), listener(f"unix:{path}"), tcp(first), CAT)
        assert verdict == f"reloaded {server.file}: added listener 127.0.0.1:{second}, listener unix:{path}"
        for where in ({"port": second}, {"unix": path}):
            stack.enter_context(session(server, **where))
        assert server.reload(tcp(second), CAT) == f"reloaded {server.file}: removed listener unix:{path}, listener 127.0.0.1:{first}"
        assert not path.exists()
        assert [is_open(server, port=port) for port in (first, second)] == [False, True]
        assert not is_open(server, unix=path)


@pytest.mark.parametrize("order", [("127.0.0.1", ""), ("", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_other_addresses_of_one_port(configured: Configure, order: tuple[str, str]) -> None:
    """A listener moves from one address to all addresses of a port, and back."""
    port = free_port()
    before, after = order
    server = configured(tcp(port, before), CAT)
    with session(server, port=port):
        verdict = server.reload(tcp(port, after), CAT)
        assert verdict == f"reloaded {server.file}: added listener {after}:{port}; removed listener {before}:{port}"
        assert is_open(server, port=port)
        with socket.socket() as holder, pytest.raises(OSError, match="in use"):
            holder.bind(("127.0.0.1", port))


def test_move(configured: Configure, tmp_path: Path) -> None:
    """A listener moves to another port, or to another path."""
    ports, paths = (free_port(), free_port()), (tmp_path / "a", tmp_path / "b")
    server = configured(tcp(ports[0]), listener(f"unix:{paths[0]}"), CAT)
    with session(server, port=ports[0]), session(server, unix=paths[0]):
        server.reload(tcp(ports[1]), listener(f"unix:{paths[1]}"), CAT)
        assert [is_open(server, port=port) for port in ports] == [False, True]
        assert [is_open(server, unix=path) for path in paths] == [False, True]
        assert [path.exists() for path in paths] == [False, True]


def test_redirect_port(configured: Configure) -> None:
    """A redirect port is added to a listener and removed from it; the main port stays."""
    port, extra = free_port(), free_port()
    server = configured(tcp(port), CAT)
    with session(server, port=port):
        server.reload(tcp(port, redirect_port=extra), CAT)
        assert server.get("/x", port=extra).value("Location") == f"http://127.0.0.1:{port}/x"
        assert is_open(server, port=port)
        server.reload(tcp(port), CAT)
        with pytest.raises(ConnectionRefusedError):
            server.get("/x", port=extra)
        assert is_open(server, port=port)
        # The former redirect port becomes a serving port.
        server.reload(tcp(port, redirect_port=extra), CAT)
        server.reload(tcp(extra), CAT)
        assert [is_open(server, port=number) for number in (port, extra)] == [False, True]


def test_unix_mode(configured: Configure, tmp_path: Path) -> None:
    """The mode of a Unix socket changes in place: no connection is refused meanwhile."""
    path = tmp_path / "socket"
    server = configured(listener(), listener(f"unix:{path}"), CAT)
    inode = path.stat().st_ino
    with session(server, unix=path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        verdict = server.reload(listener(), listener(f"unix:{path}", mode="666"), CAT)
        assert verdict == f"reloaded {server.file}: changed listener unix:{path}"
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_ino) == (0o666, inode)
        # Another server has taken the path: the change does not touch its socket.
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            verdict = server.reload(listener(), listener(f"unix:{path}", mode="600"), CAT)
            assert verdict.startswith(f"not reloaded: cannot listen on {path}: another file replaced the socket")


# TLS


@pytest.fixture
def issued(certificates: Certificates, tmp_path: Path) -> Path:
    """A folder with the certificate and key of a server, and another pair in `new`."""
    for name in ("server.pem", "server.key"):
        shutil.copy(certificates.folder / name, tmp_path / name)
    issue(certificates, tmp_path / "new")
    return tmp_path


def issue(certificates: Certificates, folder: Path) -> None:
    """Issue another certificate for the server."""
    folder.mkdir()
    signed = ("-CA", certificates.folder / "ca.pem", "-CAkey", certificates.folder / "ca.key")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    files = ("-keyout", folder / "server.key", "-out", folder / "server.pem")
    subprocess.run([*NEW_CERTIFICATE, *names, *signed, *files], check=True, capture_output=True)


def secure(port: int, **keys: Any) -> str:
    return tcp(port, certificate="server.pem", key="server.key", **keys)


def test_renewed_certificate(configured: Configure, certificates: Certificates, issued: Path) -> None:
    """A reload reads certificates again. A connection keeps the certificate that it began with."""
    port, tls = free_port(), certificates.context()
    server = configured(secure(port), CAT, tls=tls)
    old = serial(tls, port)
    with session(server, port=port):
        assert server.hang_up() == f"reloaded {server.file}: nothing has changed"
        for name in ("server.key", "server.pem"):
            os.replace(issued / "new" / name, issued / name)
        assert server.hang_up() == f"reloaded {server.file}: changed certificate of listener 127.0.0.1:{port}"
        assert serial(tls, port) != old
        assert is_open(server, port=port)


def test_certificate_that_does_not_fit(configured: Configure, certificates: Certificates, issued: Path) -> None:
    """A key that does not fit its certificate changes nothing; once both are there, the next reload takes them."""
    port, tls = free_port(), certificates.context()
    server = configured(secure(port), CAT, tls=tls)
    old = serial(tls, port)
    with session(server, port=port):
        os.replace(issued / "new/server.key", issued / "server.key")
        assert server.reload(secure(port), CAT, bridge("/new", "exec cat")).startswith("not reloaded: ")
        assert re.search(r"listen\[1\]\.key: .*does not match", server.log)
        assert serial(tls, port) == old
        assert server.refusal("/new", port=port).status == 404
        os.replace(issued / "new/server.pem", issued / "server.pem")
        assert server.hang_up().startswith(f"reloaded {server.file}: added /new; changed certificate")
        assert serial(tls, port) != old


def test_failed_change_renews_no_certificate(configured: Configure, certificates: Certificates, issued: Path) -> None:
    """If another listener cannot open, the certificates of the others stay as they are."""
    port, tls = free_port(), certificates.context()
    server = configured(secure(port), CAT, tls=tls)
    old = serial(tls, port)
    for name in ("server.key", "server.pem"):
        os.replace(issued / "new" / name, issued / name)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert server.reload(secure(port), tcp(taken.getsockname()[1]), CAT).startswith("not reloaded")
        assert serial(tls, port) == old
    assert server.reload(secure(port), CAT).startswith("reloaded")
    assert serial(tls, port) != old


def test_tls_on_and_off(configured: Configure, certificates: Certificates, issued: Path) -> None:
    """An address changes to TLS and back. Existing connections stay unchanged; new connections get the listener's current setting."""
    port, tls = free_port(), certificates.context()
    server = configured(tcp(port), CAT)
    with session(server, port=port):
        assert server.reload(secure(port), CAT) == f"reloaded {server.file}: changed listener 127.0.0.1:{port}"
        with session(server, port=port, tls=tls):
            server.reload(secure(port, client_ca=certificates.folder / "ca.pem"), CAT)
            with pytest.raises((ssl.SSLError, Refused, ConnectionError, AssertionError)):
                server.connect("/cat", port=port, tls=tls).receive_text()
            assert is_open(server, port=port, tls=certificates.context("client"))
            server.reload(tcp(port), CAT)
            assert is_open(server, port=port)


# Failures


def test_failed_move_keeps_the_old_address(configured: Configure) -> None:
    """A listener that closed for a replacement opens again if another new listener cannot open."""
    port = free_port()
    server = configured(tcp(port), CAT)
    with session(server, port=port), socket.create_server(("127.0.0.1", 0)) as taken:
        verdict = server.reload(tcp(port, "0.0.0.0"), tcp(taken.getsockname()[1]), CAT)
        assert verdict.startswith("not reloaded")
        assert is_open(server, port=port)
        assert server.reload(tcp(port), CAT) == f"reloaded {server.file}: nothing has changed"
        assert is_open(server, port=port)


def test_failed_change_keeps_inherited_sockets(configured: Configure) -> None:
    """A socket of systemd stays open if a change fails: it could not be opened again."""
    passed = free_port()
    server = configured(listener(), listener("systemd:web"), CAT, prefix=(sys.executable, "-S", "-E", "-c", PASSED, str(passed)))
    with session(server, port=passed), socket.create_server(("127.0.0.1", 0)) as taken:
        assert server.reload(listener(), tcp(taken.getsockname()[1]), CAT).startswith("not reloaded: cannot listen on 127.0.0.1:")
        assert is_open(server, port=passed)
        assert server.reload(listener(), listener("systemd:web"), CAT) == f"reloaded {server.file}: nothing has changed"
        assert server.reload(listener(), CAT) == f"reloaded {server.file}: removed listener systemd:web"
        verdict = server.reload(listener(), listener("systemd:web"), CAT)
        assert verdict.startswith("not reloaded: cannot listen on the inherited sockets web")


def test_unrelated_failure_closes_nothing(configured: Configure, tmp_path: Path) -> None:
    """If a new listener cannot open for an unrelated reason, the old listener stays open throughout."""
    port = free_port()
    server = configured(tcp(port), CAT)
    with session(server, port=port), open_stream(port=port) as stream:
        inode = listening_inode(port)
        assert server.reload(listener("unix:/nosuchfolder/socket"), CAT).startswith("not reloaded")
        assert listening_inode(port) == inode
        assert stream.sock.getpeername() == ("127.0.0.1", port)


def test_unix_path_in_use_closes_nothing(configured: Configure, tmp_path: Path) -> None:
    """A removed TCP listener stays open if the new Unix path is in use: they do not exclude each other."""
    port, path = free_port(), tmp_path / "socket"
    server = configured(tcp(port), CAT)
    with session(server, port=port), socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        inode = listening_inode(port)
        verdict = server.reload(listener(f"unix:{path}"), CAT)
        assert verdict.startswith(f"not reloaded: cannot listen on {path}: address already in use")
        assert listening_inode(port) == inode


def listening_inode(port: int) -> str:
    """Return the inode of the socket that listens on a port of 127.0.0.1."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = [row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
    return inode


def test_free_ports(configured: Configure) -> None:
    """Several listeners may request a free port. Each gets its own, and closes when it is removed."""
    server = configured(listener(), listener(), CAT)
    wait_until(lambda: len(addresses(server)) == 2, "both addresses")
    ports = addresses(server)
    with session(server, port=ports[0]), session(server, port=ports[1]):
        assert server.hang_up() == f"reloaded {server.file}: nothing has changed"
        assert [is_open(server, port=port) for port in ports] == [True, True]
        server.reload(listener(), CAT)
        assert [is_open(server, port=port) for port in ports] == [True, False]
        server.reload(listener(":0"), CAT)
        assert [is_open(server, port=port) for port in ports] == [False, False]


def addresses(server: Configured) -> list[int]:
    return [int(port) for port in re.findall(r"Starting WebSocket server +: ws://\S+:(\d+)/", server.log)]
