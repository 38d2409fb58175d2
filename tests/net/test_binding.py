"""Binding: the server binds the sockets of every address to the same port. If one bind fails, it keeps none."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tests.support.proc import nothing_left
from tests.support.server import free_port
from wsbridge.errors import ListenError
from wsbridge.net.binding import Bound, bind
from wsbridge.settings import ListenSettings


async def bind_here(address: str = "127.0.0.1:0", *, redirect_port: int = 0) -> Bound:
    return await bind(ListenSettings(address=address, redirect_port=redirect_port), asyncio.get_running_loop(), inherited={})


async def test_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--port=0`, every address of a name gets the same port. The server skips addresses that the machine lacks."""
    found = [
        (family, socket.SOCK_STREAM, 0, "", (address, 0))
        for family, address in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET, "192.0.2.1"),
            (socket.AF_INET, "127.0.0.2"),
            (socket.AF_INET, "127.0.0.1"),
        )
    ]

    async def getaddrinfo(*_: object, **__: object) -> object:
        return found

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    with nothing_left():
        bound = await bind_here("name:0")
        port = int(bound.addresses[0].removeprefix("name:"))
        for host in ("127.0.0.1", "127.0.0.2"):
            socket.create_connection((host, port), 5).close()
        bound.close()
        found[:] = found[1:2]
        with pytest.raises(ListenError, match=r"cannot listen on name:0: cannot assign"):
            await bind_here("name:0")


@pytest.mark.parametrize("host", ["[]", "[", "]", "::1", "[::1", "a:b", "[[::1]]", "x" * 300, "a..b", "é..b"])
async def test_invalid_address(host: str) -> None:
    """An invalid address is an error of one line, and nothing listens."""
    reason = "(write an IPv6 address in brackets|the host name is not valid|.*known)"
    with nothing_left(), pytest.raises(ListenError, match=rf"cannot listen on .*:0: {reason}"):
        await bind_here(f"{host}:0")


@pytest.mark.parametrize("port", [-1, 65536])
async def test_invalid_port(port: int) -> None:
    """The error for an invalid port states the valid range."""
    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}: use a port from 0 to 65535"):
        await bind_here(f"127.0.0.1:{port}")


@pytest.mark.parametrize(("address", "redirect_port"), [("127.0.0.1:0", 65536), ("192.0.2.1:0", 0), ("unix:/no/such/folder/s", 0)])
async def test_failed_bind_leaves_no_socket(address: str, redirect_port: int) -> None:
    """If one of several addresses cannot be bound, none stays bound."""
    with nothing_left(), pytest.raises(ListenError, match="cannot listen on "):
        await bind_here(address, redirect_port=redirect_port)


async def test_every_socket_listens(tmp_path: Path) -> None:
    """Every socket listens from the start. The redirect port is not among the addresses."""
    path = tmp_path / "s"
    with nothing_left():
        tcp, unix = await bind_here(redirect_port=free_port()), await bind_here(f"unix:{path}")
        port = tcp.main[0].getsockname()[1]
        assert (tcp.addresses, unix.addresses) == ([f"127.0.0.1:{port}"], [str(path)])
        assert [port for _, port in tcp.redirects] == [port]
        for sock in (*tcp.sockets, *unix.sockets):
            with socket.socket(sock.family) as client:
                client.connect(sock.getsockname())
        tcp.close()
        unix.close()
        assert not path.exists()


@pytest.mark.parametrize(
    ("family", "bound_to", "shown"),
    [
        (socket.AF_INET, ("127.0.0.1", 0), "127.0.0.1:{port}"),
        (socket.AF_INET, ("", 0), f"{socket.gethostname()}:{{port}}"),
        (socket.AF_INET6, ("::1", 0), "[::1]:{port}"),
        (socket.AF_UNIX, "\0wsbridge-test-{pid}", "@wsbridge-test-{pid}"),
    ],
    ids=["ipv4", "everywhere", "ipv6", "abstract"],
)
async def test_addresses_of_inherited_sockets(family: socket.AddressFamily, bound_to: tuple[str, int] | str, shown: str) -> None:
    """The address of an inherited socket is shown like any other. An address in the abstract namespace begins with @."""
    if family is socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("there is no IPv6")
    sock = socket.socket(family)
    sock.bind(bound_to.format(pid=os.getpid()) if isinstance(bound_to, str) else bound_to)
    sock.listen()
    where = {"pid": os.getpid(), "port": sock.getsockname()[1] if family is not socket.AF_UNIX else ""}
    bound = await bind(ListenSettings(address="systemd:"), asyncio.get_running_loop(), inherited={"unknown": [sock]})
    assert bound.addresses == [shown.format(**where)]
    bound.close()
