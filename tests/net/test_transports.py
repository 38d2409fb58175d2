"""The differences between the kinds of transports that `wsbridge.net.transports` hides."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable

import pytest

from tests.support.proc import TRANSPORTS, no_callback_fails, nothing_left, until
from tests.support.site import Certificates
from wsbridge.net.transports import (
    acknowledged_bytes,
    end_output,
    limit_unsent,
    outstanding_bytes,
    socket_of,
    use_fast_transports,
    waiting_bytes,
)

RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class LossRecorder(asyncio.Protocol):
    """Records the loss of its connection."""

    lost = False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


@pytest.fixture(params=TRANSPORTS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of transport, in turn."""
    for name, value in TRANSPORTS[request.param].items():
        monkeypatch.setenv(name, value)
    return str(request.param)


def connected() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection. The second end resets it at close."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    return ours, theirs


@pytest.mark.usefixtures("kind")
async def test_end_of_output_after_a_reset() -> None:
    """If an unread reset is pending, `end_output` raises no error. The transport reports the loss in a later iteration."""
    with nothing_left(), no_callback_fails():
        ours, theirs = connected()
        transport, recorder = await use_fast_transports(asyncio.get_running_loop())(LossRecorder, ours)
        theirs.close()
        assert not recorder.lost
        end_output(transport)
        await until(lambda: recorder.lost, "the notification of the loss")


ASKED: dict[str, Callable[[asyncio.Transport], object]] = {
    "socket": socket_of,
    "waiting": waiting_bytes,
    "outstanding": outstanding_bytes,
    "taken": lambda transport: acknowledged_bytes(transport, 0),
    "limit": lambda transport: limit_unsent(transport, 1000),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
async def test_questions_during_the_loss(ask: Callable[[asyncio.Transport], object], kind: str, certificates: Certificates) -> None:
    """The functions accept a TLS transport in every loop iteration: before its loss, between the loss and `connection_lost`, and later."""
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.folder / "server.pem", certificates.folder / "server.key")
    with nothing_left(), no_callback_fails():
        ours, theirs = connected()
        (transport, recorder), (client, _) = await asyncio.gather(
            use_fast_transports(loop)(LossRecorder, ours, ssl=context),
            loop.create_connection(LossRecorder, sock=theirs, ssl=certificates.context(), server_hostname="localhost"),
        )
        client.abort()
        seen = []
        while not recorder.lost:
            ask(transport)
            seen.append(socket_of(transport) is not None)
            await asyncio.sleep(0)
        ask(transport)
        assert seen[0]
        if kind == "asyncio":
            # Without such an iteration, the test would prove nothing.
            assert not seen[-1]
        await until(lambda: socket_of(transport) is None, "the end of the socket")
