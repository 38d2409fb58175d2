"""The writer of a pipe: data waits for room, and the writer reports the end of the reader once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from tests.support.proc import until
from wsbridge.process.pipewriter import PipeWriter

BIG = b"0123456789abcdef" * 65536
"""More bytes than a pipe holds."""


class Pipe:
    """A pipe with its writer; `events` lists the callbacks of the writer."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        os.set_blocking(self.read_end, False)
        self.writer = PipeWriter(
            write_end,
            drained=lambda: self.events.append("drained"),
            lost=lambda: self.events.append("lost"),
            loop=asyncio.get_running_loop(),
        )

    def read(self) -> bytes:
        """Return the contents of the pipe."""
        try:
            return os.read(self.read_end, len(BIG))
        except BlockingIOError:
            return b""

    def close_reader(self) -> None:
        if self.read_end >= 0:
            os.close(self.read_end)
            self.read_end = -1


@pytest.fixture
async def pipe() -> AsyncIterator[Pipe]:
    made = Pipe()
    yield made
    made.writer.close()
    made.close_reader()


async def test_room(pipe: Pipe) -> None:
    """The writer writes data at once if the pipe has room, and calls no callback."""
    assert pipe.writer.write(b"one")
    assert pipe.writer.write(b"two")
    assert pipe.read() == b"onetwo"
    assert (pipe.events, pipe.writer.flushed) == ([], 0)


async def test_no_room(pipe: Pipe) -> None:
    """Without room, the data waits in order with later data. The writer reports `drained` when the reader has read all of it."""
    assert not pipe.writer.write(BIG)
    assert not pipe.writer.write(b"end")
    assert pipe.events == []
    read = bytearray()

    def has_come() -> bool:
        read.extend(pipe.read())
        return len(read) == len(BIG) + 3

    await until(has_come, "all that was written")
    assert bytes(read) == BIG + b"end"
    await until(lambda: pipe.events == ["drained"], "the report")
    assert 0 < pipe.writer.flushed < len(BIG) + 3
    assert pipe.writer.write(b"more")


async def test_closed_reader(pipe: Pipe) -> None:
    """The end of the reader closes the writer. Without waiting data, the writer reports only `lost`."""
    pipe.close_reader()
    assert pipe.writer.write(b"one")
    assert (pipe.events, pipe.writer.is_open) == (["lost"], False)


async def test_closed_reader_while_data_waits(pipe: Pipe) -> None:
    """The writer drops the waiting data, and the source may continue."""
    assert not pipe.writer.write(BIG)
    pipe.close_reader()
    await until(lambda: pipe.events == ["lost", "drained"], "the reports")
    assert (bytes(pipe.writer.pending), pipe.writer.is_open) == (b"", False)


async def test_close(pipe: Pipe) -> None:
    """`close` drops the waiting data and calls no callback. It is idempotent."""
    assert not pipe.writer.write(BIG)
    pipe.writer.close()
    pipe.writer.close()
    await asyncio.sleep(0)
    assert (pipe.events, bytes(pipe.writer.pending), pipe.writer.is_open) == ([], b"", False)
