"""`wsbridge.remote`: what comes, whenever it comes, is for the sink in the order in which it was sent."""

from __future__ import annotations

import asyncio
import socket

import pytest

from wsbridge.flow import Batch, End, Kind
from wsbridge.remote import Remote
from wsbridge.wire import frames


class Heard:
    """A sink that keeps all."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.reason: End | None = None

    def write(self, batch: Batch) -> None:
        self.messages += map(bytes, batch.messages)

    def end(self, reason: End) -> None:
        self.reason = reason


def text(message: bytes) -> bytes:
    return frames.head(0x80 | Kind.TEXT, len(message)) + message


@pytest.mark.parametrize("cut", range(len(text(b"one") + text(b"two")) + 1))
@pytest.mark.parametrize("then", ["data", "end", "turn"])
async def test_what_came_with_the_upgrade_is_first(cut: int, then: str) -> None:
    """What came with the upgrade comes before all that is read later, also before what is read, or the end, in the same turn."""
    loop, heard = asyncio.get_running_loop(), Heard()
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    data = text(b"one") + text(b"two")
    early, late = (data[:cut], data[cut:]) if then == "data" else (data, b"")
    remote = Remote(transport, heard, early=early, limit=0, pings=False, loop=loop)
    assert heard.messages == []
    match then:
        case "data":
            remote.data_received(late)
        case "end":
            remote.connection_lost(None)
        case _:
            await asyncio.sleep(0)
    assert heard.messages == [b"one", b"two"]
    await asyncio.sleep(0)
    assert heard.messages == [b"one", b"two"]
    remote.connection_lost(None)
    transport.abort()
    theirs.close()
    await asyncio.sleep(0)
