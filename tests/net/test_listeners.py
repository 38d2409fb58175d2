"""Listeners open, close, renew and change independently; established connections keep their certificate and their endpoint."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.client import open_stream
from tests.support.deadline import DEADLINE, scaled
from tests.support.proc import no_callback_fails, nothing_left, until
from tests.support.server import Server, free_port
from tests.support.site import Certificates
from wsbridge.errors import ListenError
from wsbridge.metrics import Metrics
from wsbridge.net import tls
from wsbridge.net.acceptor import Acceptor, Pace
from wsbridge.net.listeners import Factory, Incoming, Listener, Listeners
from wsbridge.net.transports import use_fast_transports
from wsbridge.settings import ListenSettings, TlsSettings


def replace(settings: Any, *, tls: TlsSettings | None = None, **changes: object) -> Any:
    """Return settings with other values; `tls` names the three files."""
    if tls is not None:
        changes |= {"certificate": tls.certificate, "key": tls.key, "client_ca": tls.client_ca or ""}
    return msgspec.structs.replace(settings, **changes)


LOCAL = ListenSettings(address="127.0.0.1:0")


class Echo(Incoming):
    """Sends its greeting, then echoes the received data."""

    def __init__(self, house: House, greeting: str = "") -> None:
        self._house = house
        self._greeting = greeting

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._greeting.encode())
        self._house.connected.add(self)

    def data_received(self, data: bytes) -> None:
        if self._house.closes_at_data:
            self._house.listeners.close()
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.connected.discard(self)


class House:
    """Listeners with connections that echo. While `has_room` is false, clients wait in the kernel's queue."""

    def __init__(self, *, inherited: dict[str, list[socket.socket]] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.has_room = True
        self.closes_at_data = False
        self.connected: set[Echo] = set()
        self.acceptor = Acceptor(Metrics(), loop=loop, has_room=lambda: self.has_room, pace=Pace(room_seconds=3600))
        self.listeners = Listeners(
            lambda sock=None: Echo(self), self.acceptor, Metrics(), loop, redirect=self.redirect, inherited=inherited
        )
        self.clients = ExitStack()

    def redirect(self, scheme: str, port: int) -> Factory:
        """Make a redirect server that sends the scheme and the port of its target."""
        return lambda sock=None: Echo(self, f"{scheme} {port}")

    async def open(self, settings: ListenSettings = LOCAL) -> Listener:
        return await self.listeners.open(settings)

    def dial(self, listener: Listener, context: ssl.SSLContext | None = None) -> Talk:
        """Connect to the first address of a listener; with a context, the client does not begin the handshake yet."""
        return self.dial_address(listener.addresses[0], context)

    def dial_address(self, address: str, context: ssl.SSLContext | None = None) -> Talk:
        if address.startswith("/"):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address)
        else:
            host, _, port = address.rpartition(":")
            sock = socket.create_connection((host, int(port)), scaled(DEADLINE))
        sock.setblocking(False)
        return Talk(self.clients.enter_context(sock), context)


class Talk:
    """A client, over TLS if it has a context. It can stop in the middle of its handshake."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context and context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def begin(self) -> None:
        """Send the client's first flight of the handshake and receive the server's flight, without answering it."""
        assert self._tls is not None
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        await self._send()
        await self._receive()

    async def finish(self, early: bytes = b"") -> str:
        """Complete the handshake, and send data immediately after it; return the common name of the server's certificate."""
        assert self._tls is not None
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._send()
                await self._receive()
        if early:
            self._tls.write(early)
        await self._send()
        certificate = self._tls.getpeercert()
        assert certificate is not None
        return dict(pair[0] for pair in certificate["subject"])["commonName"]

    async def echo(self, words: bytes = b"hello") -> bytes:
        """Send words and return the answer."""
        if self._tls is None:
            await self._loop.sock_sendall(self.sock, words)
        else:
            self._tls.write(words)
            await self._send()
        return await self.read()

    async def read(self) -> bytes:
        """Return the next data, or b"" at the end of the connection."""
        if self._tls is None:
            return await self._loop.sock_recv(self.sock, 1 << 16)
        while True:
            try:
                return self._tls.read()
            except ssl.SSLWantReadError:
                await self._receive()

    async def is_ended(self) -> bool:
        """Wait for the end of the connection, and ignore the data before it."""
        try:
            while await self._loop.sock_recv(self.sock, 1 << 16):
                pass
        except ConnectionResetError:
            pass
        return True

    async def _send(self) -> None:
        await self._loop.sock_sendall(self.sock, self._outgoing.read())

    async def _receive(self) -> None:
        data = await self._loop.sock_recv(self.sock, 1 << 16)
        assert data, "the server closed the connection"
        self._incoming.write(data)


@asynccontextmanager
async def a_house(*, inherited: dict[str, list[socket.socket]] | None = None) -> AsyncIterator[House]:
    """Yield a house. After the block, no socket, task or connection of it remains."""
    with no_callback_fails(), nothing_left():
        house = House(inherited=inherited)
        try:
            async with asyncio.timeout(scaled(4 * DEADLINE)):
                yield house
        finally:
            house.listeners.close()
            house.clients.close()
            mine = asyncio.current_task()
            await until(lambda: not house.connected and asyncio.all_tasks() == {mine}, "the end of every connection")


@pytest.fixture
def on_both_transports(transports: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in transports.items():
        monkeypatch.setenv(name, value)


# TLS files


def renew(listener: Listener) -> None:
    """Load the certificate files as they are now."""
    if (renewal := listener.renewal()) is not None:
        listener.renew(renewal)


@pytest.fixture
def files(certificates: Certificates, tmp_path: Path) -> TlsSettings:
    """A server's certificate and key, in files that belong to this test."""
    settings = TlsSettings(f"{tmp_path}/certificate.pem", f"{tmp_path}/key.pem")
    put(certificates, "server", settings)
    return settings


def put(certificates: Certificates, name: str, settings: TlsSettings) -> None:
    shutil.copy(certificates.folder / f"{name}.pem", settings.certificate)
    shutil.copy(certificates.folder / f"{name}.key", settings.key)


@pytest.fixture
def trusting(certificates: Certificates) -> ssl.SSLContext:
    """A client context that accepts every certificate of the CA, whatever name it has."""
    context = certificates.context()
    context.check_hostname = False
    return context


def spoil(certificates: Certificates, files: TlsSettings, how: str) -> None:
    match how:
        case "wrong":
            shutil.copy(certificates.folder / "stranger.key", files.key)
        case "damaged":
            Path(files.certificate).write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        case "missing":
            os.unlink(files.certificate)


SPOILT = {"wrong": "it does not match", "damaged": "damaged certificate", "missing": "no such file or directory"}


@pytest.mark.usefixtures("on_both_transports")
async def test_renewal(certificates: Certificates, files: TlsSettings, trusting: ssl.SSLContext) -> None:
    """A renewed certificate applies to handshakes that begin later. Established connections and handshakes in progress keep the old one."""
    async with a_house() as house:
        listener = await house.open(replace(LOCAL, tls=files))
        established, under_way, silent = (house.dial(listener, trusting) for _ in range(3))
        assert await established.finish() == "localhost"
        await under_way.begin()
        put(certificates, "client", files)
        renew(listener)
        assert await established.echo() == b"hello"
        assert await under_way.finish() == "localhost"
        assert await under_way.echo() == b"hello"
        assert await silent.finish() == "client"
        late = house.dial(listener, trusting)
        assert await late.finish() == "client"
        assert await late.echo() == b"hello"


@pytest.mark.usefixtures("on_both_transports")
@pytest.mark.parametrize("how", SPOILT)
async def test_failed_renewal(certificates: Certificates, files: TlsSettings, trusting: ssl.SSLContext, how: str) -> None:
    """Unusable files are an error, and every connection keeps the certificate in use. A later renewal can succeed."""
    async with a_house() as house:
        listener = await house.open(replace(LOCAL, tls=files))
        established, under_way = (house.dial(listener, trusting) for _ in range(2))
        await established.finish()
        await under_way.begin()
        spoil(certificates, files, how)
        with pytest.raises(ListenError, match=SPOILT[how]):
            renew(listener)
        assert await established.echo() == b"hello"
        assert await under_way.finish() == "localhost"
        assert await house.dial(listener, trusting).finish() == "localhost"
        put(certificates, "client", files)
        renew(listener)
        assert await house.dial(listener, trusting).finish() == "client"


async def test_renewal_of_unchanged_files(certificates: Certificates, files: TlsSettings) -> None:
    """A renewal does not read unchanged files again."""
    async with a_house() as house:
        listener = await house.open(replace(LOCAL, tls=files))
        assert listener.renewal() is None
        put(certificates, "client", files)
        renew(listener)
        assert listener.renewal() is None
        put(certificates, "server", files)
        listener.change(replace(LOCAL, tls=files))
        assert listener.renewal() is None


async def test_renewal_without_tls() -> None:
    """Without TLS, a renewal does nothing."""
    async with a_house() as house:
        listener = await house.open()
        renew(listener)
        assert await house.dial(listener).echo() == b"hello"


async def test_renewal_of_the_client_ca(certificates: Certificates, files: TlsSettings, tmp_path: Path) -> None:
    """A renewal also reads the clients' CA: the server then accepts clients of the new CA, and refuses those of the old one."""
    ca = tmp_path / "ca.pem"
    shutil.copy(certificates.folder / "ca.pem", ca)
    async with a_house() as house:
        listener = await house.open(replace(LOCAL, tls=replace(files, client_ca=str(ca))))
        first = house.dial(listener, certificates.context("client"))
        await first.finish()
        assert await first.echo() == b"hello"
        shutil.copy(certificates.folder / "stranger.pem", ca)
        renew(listener)
        second = house.dial(listener, certificates.context("client"))
        await second.finish()
        with pytest.raises(ssl.SSLError):
            await second.echo()
        assert await first.echo() == b"hello"


# Closing


@pytest.mark.usefixtures("on_both_transports")
async def test_close_of_one_listener(files: TlsSettings, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    """If one of three listeners closes, its handshakes end and its connections stay. The other listeners still accept."""
    path = tmp_path / "s"
    async with a_house() as house:
        plain = await house.open()
        secure = await house.open(replace(LOCAL, tls=files))
        unix = await house.open(ListenSettings(address=f"unix:{path}"))
        established, under_way, silent = (house.dial(secure, trusting) for _ in range(3))
        await established.finish()
        await under_way.begin()
        await until(lambda: len(asyncio.all_tasks()) == 3, "the handshakes under way")
        secure.close()
        secure.close()
        assert await under_way.is_ended()
        assert await silent.is_ended()
        with pytest.raises(ConnectionRefusedError):
            house.dial(secure)
        assert await established.echo() == b"hello"
        for listener in (plain, unix):
            assert await house.dial(listener).echo() == b"hello"
        unix.close()
        assert not path.exists()
        assert await house.dial(plain).echo() == b"hello"
        assert (await house.open(replace(LOCAL, address=secure.addresses[0]))).addresses == secure.addresses


@pytest.mark.usefixtures("on_both_transports")
async def test_close_during_the_end_of_a_handshake(files: TlsSettings, trusting: ssl.SSLContext) -> None:
    """Data in the last segment of a handshake may close the listener (`--once`). The connection is established by then, and stays."""
    async with a_house() as house:
        listener = await house.open(replace(LOCAL, tls=files))
        client = house.dial(listener, trusting)
        await client.begin()
        house.closes_at_data = True
        await client.finish(early=b"only one")
        assert await client.read() == b"only one"
        assert await client.echo() == b"hello"
        with pytest.raises(ConnectionRefusedError):
            house.dial(listener)


async def test_close_keeps_the_path_of_a_successor(tmp_path: Path) -> None:
    """A listener that closes removes its Unix path, unless the path belongs to another socket by then."""
    path = tmp_path / "s"
    async with a_house() as house:
        listener = await house.open(ListenSettings(address=f"unix:{path}"))
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
            listener.close()
            assert path.exists()


async def test_close_during_an_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server closes during a name lookup, it opens nothing."""
    async with a_house() as house:
        loop = asyncio.get_running_loop()
        asked, answer = asyncio.Event(), loop.create_future()

        async def getaddrinfo(*_: object, **__: object) -> object:
            asked.set()
            return await answer

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
        opening = asyncio.create_task(house.open(replace(LOCAL, address="name:0")))
        await asked.wait()
        house.listeners.close()
        answer.set_result([(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))])
        with pytest.raises(ListenError, match=r"cannot listen on name:\d+: the server is shutting down"):
            await opening


# The same address


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_address_in_use(kind: str, tmp_path: Path) -> None:
    """Two listeners cannot share an address: the second fails, and the first continues."""
    async with a_house() as house:
        first = await house.open(LOCAL if kind == "tcp" else ListenSettings(address=f"unix:{tmp_path}/s"))
        port = int(first.addresses[0].rpartition(":")[2]) if kind == "tcp" else None
        with pytest.raises(ListenError, match="address already in use") as raised:
            await house.open(replace(first.settings, address=f"127.0.0.1:{port}" if port else first.settings.address))
        path = first.settings.unix_path or ""
        assert (raised.value.errno, raised.value.port, raised.value.path) == (errno.EADDRINUSE, port or 0, path)
        assert await house.dial(first).echo() == b"hello"


# Changes


@pytest.mark.usefixtures("on_both_transports")
async def test_change_of_tls(certificates: Certificates, files: TlsSettings, trusting: ssl.SSLContext) -> None:
    """A listener can add TLS, change its files and drop TLS. Queued clients get the new setting; established connections are unaffected."""
    async with a_house() as house:
        listener = await house.open()
        plain = house.dial(listener)
        assert await plain.echo() == b"hello"

        house.has_room = False
        waiting = [house.dial(listener, trusting) for _ in range(10)]
        listener.change(replace(LOCAL, tls=files))
        house.has_room = True
        house.acceptor.room()
        assert [await client.finish() for client in waiting] == ["localhost"] * 10
        under_way = house.dial(listener, trusting)
        await under_way.begin()

        others = TlsSettings(f"{certificates.folder}/client.pem", f"{certificates.folder}/client.key")
        listener.change(replace(LOCAL, tls=others))
        assert listener.settings.tls == others
        late = house.dial(listener, trusting)
        assert await late.finish() == "client"

        listener.change(LOCAL)
        assert await house.dial(listener).echo() == b"hello"
        assert await under_way.finish() == "localhost"
        for client in (plain, *waiting, under_way, late):
            assert await client.echo() == b"hello"

        # The end of TLS also aborts handshakes that are still in progress.
        listener.change(replace(LOCAL, tls=files))
        last = house.dial(listener, trusting)
        await last.begin()
        listener.change(LOCAL)
        listener.close()
        assert await last.is_ended()


async def test_redirect_of_a_changed_listener(files: TlsSettings) -> None:
    """The redirect server redirects to the listener's current scheme."""
    async with a_house() as house:
        port = free_port()
        listener = await house.open(replace(LOCAL, redirect_port=port))
        main = listener.addresses[0].rpartition(":")[2]
        assert await house.dial_address(f"127.0.0.1:{port}").read() == f"http {main}".encode()
        listener.change(replace(listener.settings, tls=files))
        assert await house.dial_address(f"127.0.0.1:{port}").read() == f"https {main}".encode()


async def test_change_of_rights(tmp_path: Path) -> None:
    """The mode of a Unix socket changes in place, and the server accepts a client that is already in the queue."""
    path = tmp_path / "s"
    settings = ListenSettings(address=f"unix:{path}")
    async with a_house() as house:
        listener = await house.open(settings)
        house.has_room = False
        waiting = house.dial(listener)
        inode = path.stat().st_ino
        listener.change(replace(settings, mode="666"))
        assert (path.stat().st_mode & 0o777, path.stat().st_ino) == (0o666, inode)
        house.has_room = True
        house.acceptor.room()
        assert await waiting.echo() == b"hello"


@pytest.mark.parametrize("how", [*SPOILT, "rights"])
async def test_failed_change(certificates: Certificates, files: TlsSettings, trusting: ssl.SSLContext, tmp_path: Path, how: str) -> None:
    """A change that fails in part changes nothing: neither the certificate nor the mode."""
    path = tmp_path / "s"
    settings = replace(ListenSettings(address=f"unix:{path}"), tls=files)
    async with a_house() as house:
        listener = await house.open(settings)
        if how == "rights":
            put(certificates, "client", files)
            path.unlink()
            path.write_text("")
            reason = "another file replaced the socket"
        else:
            spoil(certificates, files, how)
            reason = SPOILT[how]
        before = path.stat()
        with pytest.raises(ListenError, match=reason):
            listener.change(replace(settings, mode="666"))
        assert (listener.settings, path.stat().st_mode) == (settings, before.st_mode)
        if how != "rights":
            assert await house.dial(listener, trusting).finish() == "localhost"


async def test_change_of_the_address(tmp_path: Path) -> None:
    """The addresses of a listener cannot change; other addresses need another listener. A closed listener cannot change."""
    async with a_house() as house:
        listener = await house.open()
        for other in (
            replace(LOCAL, address="127.0.0.2:0"),
            replace(LOCAL, address="127.0.0.1:1"),
            replace(LOCAL, address=f"unix:{tmp_path}/s"),
            replace(LOCAL, redirect_port=1),
            replace(LOCAL, address="systemd:"),
        ):
            with pytest.raises(ListenError, match=r"cannot change the addresses of the listener at 127\.0\.0\.1:\d+; close it"):
                listener.change(other)
        assert listener.settings == LOCAL
        listener.close()
        with pytest.raises(ListenError, match="it is closed"):
            listener.change(LOCAL)


# Inherited sockets


async def test_inherited(tmp_path: Path, files: TlsSettings, trusting: ssl.SSLContext) -> None:
    """A listener accepts on all inherited sockets of a name, and can change. It does not remove a path that it did not create."""
    path = tmp_path / "s"
    first, second = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    unix.listen()
    addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (first, second)]
    async with a_house(inherited={"web": [first, unix], "admin": [second]}) as house:
        settings = ListenSettings(address="systemd:web")
        early = house.dial_address(addresses[0], trusting)
        listener = await house.open(replace(settings, tls=files))
        assert listener.addresses == [addresses[0], str(path)]
        assert await early.finish() == "localhost"
        listener.change(settings)
        for address in listener.addresses:
            assert await house.dial_address(address).echo() == b"hello"
        with pytest.raises(ListenError, match=r"the inherited sockets web: no unused inherited socket has this name \(unused: admin\)"):
            await house.open(settings)
        rest = await house.open(ListenSettings(address="systemd:"))
        assert rest.addresses == addresses[1:]
        with pytest.raises(ListenError, match="no unused inherited socket"):
            await house.open(ListenSettings(address="systemd:"))
        listener.close()
        assert path.exists()
        with pytest.raises(ConnectionRefusedError):
            house.dial_address(addresses[0])
        assert await house.dial(rest).echo() == b"hello"


async def test_unused_inherited_sockets(files: TlsSettings) -> None:
    """If `open` fails, the inherited sockets stay available for the next call. At shutdown, the server closes the unused sockets."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with a_house(inherited={"web": [sock.dup()]}) as house:
            os.unlink(files.key)
            with pytest.raises(ListenError, match="cannot read key"):
                await house.open(replace(ListenSettings(address="systemd:web"), tls=files))
            listener = await house.open(ListenSettings(address="systemd:web"))
            assert await house.dial(listener).echo() == b"hello"
        async with a_house(inherited={"web": [sock.dup()]}):
            pass


# Under pressure


def test_tls_without_descriptors(certificates: Certificates) -> None:
    """When descriptors run out, clients wait. When descriptors are free again, the server accepts the clients."""
    limited = ("sh", "-c", 'ulimit -n 40; exec "$@"', "sh")
    with Server(*certificates.server_flags, "--no-guard", "cat", prefix=limited, tls=certificates.context()) as server:
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(open_stream(port=server.port))
            server.wait_for_log("the server accepts no connections until file descriptors are free: ")
        with server.connect() as client:
            client.send_text("served again")
            assert client.receive_text() == "served again"


def test_handshake_timeout(certificates: Certificates) -> None:
    """The server disconnects a client that sends nothing or half a handshake. A listener that closes also ends its handshakes."""

    async def main() -> None:
        async with tls_listener(certificates, handshake_timeout=0.05) as port:
            for words in (b"", b"\x16\x03\x01"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(words)
                assert await ended(reader)
                writer.close()
        async with tls_listener(certificates, handshake_timeout=3600) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: len(asyncio.all_tasks()) > 1, "the connection is accepted")
        assert await ended(reader)
        writer.close()

    with nothing_left():
        asyncio.run(main())


@asynccontextmanager
async def tls_listener(certificates: Certificates, *, handshake_timeout: float) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificates.folder}/server.pem", f"{certificates.folder}/server.key")
    sock = socket.create_server(("127.0.0.1", 0))
    opener = tls.TlsOpener(
        asyncio.Protocol, context, connect=use_fast_transports(loop), metrics=Metrics(), timeout=handshake_timeout, loop=loop
    )
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
