"""The part of an AMQP 1.0 client that sends one message to a RabbitMQ. Its frames are constants, and the broker's frames are not
checked."""

from __future__ import annotations

import asyncio

SASL_HEADER, AMQP_HEADER = b"AMQP\x03\x01\0\0", b"AMQP\0\x01\0\0"
INIT, OUTCOME = 0x41, 0x44
OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, CLOSE = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x18
SOURCE, TARGET = 0x28, 0x29
DATA, SEQUENCE, VALUE = 0x75, 0x76, 0x77
NULL, FALSE, ZERO, EMPTY_LIST = b"\x40", b"\x42", b"\x43", b"\x45"
ACCEPTED = 0x24


def uint(number: int) -> bytes:
    return b"\x70" + number.to_bytes(4)


def binary(data: bytes) -> bytes:
    return b"\xb0" + len(data).to_bytes(4) + data


def string(text: str) -> bytes:
    return b"\xb1" + len(text.encode()).to_bytes(4) + text.encode()


def symbol(text: str) -> bytes:
    return b"\xa3" + bytes((len(text),)) + text.encode()


def described(descriptor: int, value: bytes) -> bytes:
    return bytes((0, 0x53, descriptor)) + value


def record(descriptor: int, *fields: bytes) -> bytes:
    """Return a described list."""
    items = b"".join(fields)
    return described(descriptor, b"\xd0" + (len(items) + 4).to_bytes(4) + len(fields).to_bytes(4) + items)


def frame(body: bytes, kind: int = 0) -> bytes:
    return (len(body) + 8).to_bytes(4) + bytes((2, kind, 0, 0)) + body


async def send(port: int, address: str, sections: bytes) -> None:
    """Send one message, as guest, to an address of RabbitMQ; return when the broker has accepted it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def until(performative: int) -> bytes:
        while True:
            size = int.from_bytes(await reader.readexactly(4))
            body = (await reader.readexactly(size - 4))[4:]
            if body[2:3] == bytes((performative,)):
                return body
            assert body[2:3] != bytes((CLOSE,)), body

    try:
        writer.write(SASL_HEADER + frame(record(INIT, symbol("PLAIN"), binary(b"\0guest\0guest")), 1))
        await reader.readexactly(8)
        await until(OUTCOME)
        writer.write(AMQP_HEADER)
        await reader.readexactly(8)
        target = record(TARGET, string(address))
        link = (string("a link"), ZERO, FALSE, NULL, NULL, record(SOURCE, string("here")), target, NULL, NULL, ZERO)
        writer.write(frame(record(OPEN, string("a test"), string("127.0.0.1"))))
        writer.write(frame(record(BEGIN, NULL, ZERO, uint(100), uint(100))))
        writer.write(frame(record(ATTACH, *link)))
        await until(FLOW)
        writer.write(frame(record(TRANSFER, ZERO, ZERO, binary(b"1"), ZERO, FALSE) + sections))
        disposition = await until(DISPOSITION)
        assert bytes((0, 0x53, ACCEPTED)) in disposition, disposition
        writer.write(frame(record(CLOSE)))
    finally:
        writer.close()
