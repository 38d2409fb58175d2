"""A proxy to a broker that parses the broker's frames, and can drop the frames that a test names."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

METHOD = 1
HEAD = struct.Struct(">BHI")
"""Type, channel and size of a frame, before its payload and the end byte (AMQP 0-9-1, 2.3.5)."""

METHODS = {
    (10, 60): "connection.blocked", (20, 11): "channel.open-ok", (20, 41): "channel.close-ok", (40, 11): "exchange.declare-ok",
    (50, 11): "queue.declare-ok", (50, 21): "queue.bind-ok", (60, 11): "basic.qos-ok", (60, 21): "basic.consume-ok",
    (60, 31): "basic.cancel-ok", (60, 60): "basic.deliver", (60, 80): "basic.ack", (85, 11): "confirm.select-ok",
}  # fmt: skip
"""The frames that a test may name, by class and method."""


class Frame(NamedTuple):
    """A frame that the broker sends."""

    kind: int
    channel: int
    method: str
    """The name of the method; for the header and the body of a delivery, `basic.deliver`."""


class AmqpLink:
    """A proxy on its own port. `drops` selects the broker's frames to drop; at first, it drops none."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []
        self.drops: Callable[[Frame], bool] = lambda frame: False
        self.dropped: Counter[str] = Counter()
        self.refuses = False
        """Whether the proxy closes new connections at once."""
        self.accepted = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def cut(self) -> None:
        """Close all connections; new connections work as before."""
        while self._writers:
            self._writers.pop().transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        self.accepted += 1
        their_reader, their_writer = await asyncio.open_connection(*self._target)
        self._writers += (writer, their_writer)
        await asyncio.gather(self._to_broker(reader, their_writer), self._to_client(their_reader, writer))

    async def _to_broker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _to_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        content: dict[int, str] = {}
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(HEAD.size)
                kind, channel, size = HEAD.unpack(head)
                payload = await reader.readexactly(size + 1)
                if kind == METHOD:
                    content[channel] = METHODS.get(struct.unpack(">HH", payload[:4]), "")
                frame = Frame(kind, channel, content.get(channel, "") if channel else "")
                if self.drops(frame):
                    self.dropped[frame.method] += kind == METHOD
                else:
                    writer.write(head + payload)
                    await writer.drain()
        writer.close()


@asynccontextmanager
async def amqp_link(port: int) -> AsyncIterator[AmqpLink]:
    """Run a proxy to a broker's port on this machine."""
    link = AmqpLink(("127.0.0.1", port))
    server = await asyncio.start_server(link._connected, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        link.cut()
