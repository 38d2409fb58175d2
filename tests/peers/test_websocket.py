"""The end of a client's connection, over TCP and over TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from tests.support.client import DEADLINE
from tests.support.deadline import scaled
from tests.support.proc import TRANSPORTS, no_callback_fails, nothing_left, until
from tests.support.site import Certificates
from wsbridge.flow import Batch, End
from wsbridge.http.connection import MASK
from wsbridge.metrics import Metrics
from wsbridge.net import transports
from wsbridge.net.hangup import Hangups
from wsbridge.net.transports import use_fast_transports
from wsbridge.peers.websocket import WebSocketPeer
from wsbridge.settings import ClientSettings

UNMASKED = b"\x81\x02hi"
CLOSE_1002 = b"\x88"


class Session:
    """A sink that closes its client when the client ends, as a session does."""

    client: WebSocketPeer

    def write(self, batch: Batch) -> None:
        """Ignore the batch."""

    def end(self, reason: End) -> None:
        self.client.end(reason)


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("more", [b"", b"x" * 3_000_000], ids=["silent", "sending"])
async def test_end_after_a_violation(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, kind: str, is_tls: bool, more: bytes
) -> None:
    """After a protocol violation, the client gets the close frame and the end at once, even while it still sends. No timer delays them."""
    for name, value in TRANSPORTS[kind].items():
        monkeypatch.setenv(name, value)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.folder / "server.pem", certificates.folder / "server.key")
    loop = asyncio.get_running_loop()
    with nothing_left(), no_callback_fails(), socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        secure = {"ssl": certificates.context(), "server_hostname": "localhost"} if is_tls else {}
        (transport, _), (reader, writer) = await asyncio.gather(
            use_fast_transports(loop)(asyncio.Protocol, ours, ssl=context if is_tls else None),
            asyncio.open_connection(sock=theirs, **secure),
        )
        hangups, session = Hangups(loop), Session()
        settings = ClientSettings(ping=0)
        client = WebSocketPeer(
            transport,
            settings=settings,
            close_wait=3600.0,
            mask=MASK,
            deflate=None,
            hangups=hangups,
            metrics=Metrics(),
            fields={},
            loop=loop,
        )
        session.client = client
        transport.set_protocol(client)
        client.join(session, client.close)
        try:
            async with asyncio.timeout(scaled(6 * DEADLINE)):
                writer.write(UNMASKED + more)
                answer = await reader.read()
                writer.transport.abort()
                await client.wait_closed()
                await until(lambda: not transports._LINGERING, "the end of the rest")
        finally:
            hangups.close()
    assert answer.startswith(CLOSE_1002)
    assert answer[2:4] == (1002).to_bytes(2)


async def test_client_that_sends_before_the_join() -> None:
    """Data from a client counts for its heartbeat while its program is still starting, so the server does not drop the client."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
        settings, hangups = ClientSettings(ping=1000), Hangups(loop)
        client = WebSocketPeer(
            transport, settings=settings, mask=MASK, deflate=None, hangups=hangups, metrics=Metrics(), fields={}, loop=loop
        )
        transport.set_protocol(client)
        assert client._heartbeat is not None
        began = client._heartbeat.received_at
        await until(lambda: loop.time() > began, "a tick of the clock")
        client.data_received(b"\x8a\x80\0\0\0\0")
        assert client._heartbeat.received_at > began
        transport.abort()
        await client.wait_closed()
        hangups.close()
