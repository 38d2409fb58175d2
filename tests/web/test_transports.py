"""What the transports do not do alike, or not as one needs it."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from tests.support.proc import TRANSPORTS, no_callback_fails, nothing_left, until
from wsbridge.web.transports import end_output, use_fast_transports

RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Told(asyncio.Protocol):
    """Keeps whether it was told of the loss."""

    lost = False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_end_of_output_after_a_reset(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset that has come and was not read yet is no error for whoever ends the output: the loss is told in its turn."""
    for name, value in TRANSPORTS[kind].items():
        monkeypatch.setenv(name, value)
    loop = asyncio.get_running_loop()
    with nothing_left(), no_callback_fails():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        transport, told = await use_fast_transports(loop)(Told, ours)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        theirs.close()
        assert not told.lost
        end_output(transport)
        await until(lambda: told.lost, "the word of the loss")
