"""A native client of a RabbitMQ stream that stores its offset, with the frames of the stream protocol (plugin rabbitmq_stream)."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

from tests.support.client import DEADLINE

PEER_PROPERTIES, SASL_HANDSHAKE, SASL_AUTHENTICATE, TUNE, OPEN, STORE_OFFSET, QUERY_OFFSET = 17, 18, 19, 20, 21, 10, 11
VERSION = 1
OK = 1


def string(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


class StreamClient:
    """One connection to the stream listener of a broker, as guest; a context manager."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self._correlation = 0

    def store(self, stream: str, name: str, *offsets: int) -> None:
        """Store consecutive offsets under a name; each is written before the next."""
        for offset in offsets:
            self._send(STORE_OFFSET, string(name) + string(stream) + struct.pack(">Q", offset))
            while self._ask(QUERY_OFFSET, string(name) + string(stream)) != struct.pack(">Q", offset):
                """The broker writes a stored offset a moment later."""

    def _ask(self, key: int, rest: bytes = b"") -> bytes:
        """Send a request; return the answer after its code OK, or b"" for another code."""
        self._correlation += 1
        self._send(key, struct.pack(">I", self._correlation) + rest)
        while True:
            (size,) = struct.unpack(">I", self._read(4))
            frame = self._read(size)
            answered, _, correlation = struct.unpack(">HHI", frame[:8])
            if answered == 0x8000 | key and correlation == self._correlation:
                return frame[10:] if frame[8:10] == struct.pack(">H", OK) else b""

    def _send(self, key: int, rest: bytes) -> None:
        self._socket.sendall(struct.pack(">IHH", 4 + len(rest), key, VERSION) + rest)

    def _read(self, size: int) -> bytes:
        data = self._socket.recv(size, socket.MSG_WAITALL)
        assert len(data) == size, "the broker has closed the connection"
        return data

    def __enter__(self) -> Self:
        self._ask(PEER_PROPERTIES, struct.pack(">I", 0))
        self._ask(SASL_HANDSHAKE)
        self._ask(SASL_AUTHENTICATE, string("PLAIN") + struct.pack(">I", 12) + b"\0guest\0guest")
        (size,) = struct.unpack(">I", self._read(4))
        tune = self._read(size)
        self._send(TUNE, tune[4:])
        self._ask(OPEN, string("/"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()
