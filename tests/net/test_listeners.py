"""Listeners: a name of several addresses, and TLS where descriptors or patience run out."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager

import pytest
from aiohttp import web

from tests.support.client import open_stream
from tests.support.proc import nothing_left, until
from tests.support.server import Server
from tests.support.site import Certificates
from wsbridge.errors import ListenError
from wsbridge.http.connection import HttpServer as Factory
from wsbridge.metrics import Metrics
from wsbridge.net import tls
from wsbridge.net.acceptor import Acceptor
from wsbridge.net.listeners import Listeners, listening
from wsbridge.net.transports import use_fast_transports
from wsbridge.settings import ListenSettings


def listen_on(host: str, loop: asyncio.AbstractEventLoop) -> AbstractAsyncContextManager[Listeners]:
    """Listen on a free port of a host."""
    metrics = Metrics()
    return listening([ListenSettings(address=f"{host}:0")], factory(loop), Acceptor(metrics, loop=loop), metrics, loop)


def test_name_of_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--port=0` every address of a name gets the same port, and those that the machine lacks are left out."""
    found = [
        (family, socket.SOCK_STREAM, 0, "", (address, 0))
        for family, address in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET, "192.0.2.1"),
            (socket.AF_INET, "127.0.0.2"),
            (socket.AF_INET, "127.0.0.1"),
        )
    ]

    async def main() -> None:
        async def getaddrinfo(*_: object, **__: object) -> object:
            return found

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
        async with listen_on("name", loop) as (_, (address,)):
            port = int(address.removeprefix("name:"))
            for host in ("127.0.0.1", "127.0.0.2"):
                socket.create_connection((host, port), 5).close()
        found[:] = found[1:2]
        with pytest.raises(ListenError, match=r"cannot listen on name:0: cannot assign"):
            async with listen_on("name", loop):
                pass

    with nothing_left():
        asyncio.run(main())


@pytest.mark.parametrize("host", ["[]", "[", "]", "::1", "[::1", "a:b", "[[::1]]", "x" * 300, "a..b", "é..b"])
def test_address_that_is_none(host: str) -> None:
    """An address that is none is told in one line, and nothing listens."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reason = "(write an IPv6 address in brackets|the host name is not valid|.*known)"
        with pytest.raises(ListenError, match=rf"cannot listen on .*:0: {reason}"):
            async with listen_on(host, loop):
                pass

    with nothing_left():
        asyncio.run(main())


def test_tls_without_descriptors(certificates: Certificates) -> None:
    """When descriptors run out, clients wait; when there are some again, they are served."""
    limited = ("sh", "-c", 'ulimit -n 40; exec "$@"', "sh")
    with Server(*certificates.server_flags, "--no-guard", "cat", prefix=limited, tls=certificates.context()) as server:
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(open_stream(port=server.port))
            server.wait_for_log("the server accepts no connections until file descriptors are free: ")
        with server.connect() as client:
            client.send_text("served again")
            assert client.receive_text() == "served again"


def test_handshake_has_its_time(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that says nothing, or half a handshake, is let go; so are those that are under way when the listener closes."""
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 0.05)

    async def main() -> None:
        async with tls_listener(certificates) as port:
            for words in (b"", b"\x16\x03\x01"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(words)
                assert await ended(reader)
                writer.close()
            monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 3600)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: len(asyncio.all_tasks()) > 1, "the connection is accepted")
        assert await ended(reader)
        writer.close()

    with nothing_left():
        asyncio.run(main())


@asynccontextmanager
async def tls_listener(certificates: Certificates) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificates.folder}/server.pem", f"{certificates.folder}/server.key")
    sock = socket.create_server(("127.0.0.1", 0))
    opener = tls.TlsOpener(asyncio.Protocol, context, connect=use_fast_transports(loop), metrics=Metrics(), loop=loop)
    acceptor = Acceptor(Metrics(), loop=loop)
    acceptor.listen(sock, opener.open)
    try:
        yield sock.getsockname()[1]
    finally:
        acceptor.close()
        opener.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


def factory(loop: asyncio.AbstractEventLoop) -> Factory:
    """Connections that answer nothing: here it is only looked at who listens."""
    return Factory(lambda _: None, error_page=lambda status, detail: web.Response(status=status), loop=loop)
