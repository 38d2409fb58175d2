"""Bytes of request bodies in a buffer for their script."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from tests.support.proc import nothing_left, until
from wsbridge.errors import Refused
from wsbridge.http.buffering import MEMORY_BYTES, BodyBuffer, BufferSpace


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


async def everything(buffer: BodyBuffer) -> bytes:
    data = b""
    while piece := await buffer.get():
        data += piece
    return data


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("sizes", [(), (1,), (MEMORY_BYTES,), (MEMORY_BYTES + 1,), (10, MEMORY_BYTES, 3), (50_000,) * 40])
async def test_in_and_out(sizes: tuple[int, ...]) -> None:
    """The buffer returns all bytes in order, from memory and from the file."""
    pieces, before = [os.urandom(size) for size in sizes], descriptors()
    buffer = BodyBuffer(BufferSpace(0))
    for piece in pieces:
        await buffer.put(piece)
    buffer.end()
    assert buffer.size == sum(sizes)
    assert (descriptors() > before) == (sum(sizes) > MEMORY_BYTES)
    assert await everything(buffer) == b"".join(pieces)
    buffer.close()
    assert descriptors() == before


async def test_both_at_once() -> None:
    """A writer and a reader may work at the same time; an empty buffer reuses its file from the beginning."""
    space = BufferSpace(1_000_000)
    buffer = BodyBuffer(space)
    pieces = [os.urandom(30_000) for _ in range(300)]

    async def fill() -> None:
        for piece in pieces:
            try:
                await buffer.put(piece)
            except Refused:
                await buffer.wait_drained()
                buffer.put_in_memory(piece)
        buffer.end()

    async with asyncio.TaskGroup() as group:
        got = group.create_task(everything(buffer))
        group.create_task(fill())
    assert got.result() == b"".join(pieces)
    buffer.close()
    assert space.reserve(4_000_000), "the buffer did not release its space"


async def test_bound_of_one_body() -> None:
    """A body over the limit is refused with 413; the earlier bytes stay available."""
    buffer = BodyBuffer(BufferSpace(100_000))
    await buffer.put(b"x" * 100_000)
    with pytest.raises(Refused) as refused:
        await buffer.put(b"y")
    assert refused.value.status == 413
    buffer.end()
    assert await everything(buffer) == b"x" * 100_000
    buffer.close()


async def test_bound_of_all_bodies() -> None:
    """All bodies share the space of four; another body is refused with 503 until a body releases space."""
    space = BufferSpace(100_000)
    buffers = [BodyBuffer(space) for _ in range(5)]
    for buffer in buffers[:4]:
        await buffer.put(b"x" * 100_000)
    with pytest.raises(Refused) as refused:
        await buffers[4].put(b"x" * 100_000)
    assert (refused.value.status, "Retry-After" in refused.value.headers) == (503, True)
    await buffers[4].put(b"in memory")
    buffers[0].close()
    await buffers[4].put(b"x" * 90_000)
    for buffer in buffers:
        buffer.close()
    assert space.reserve(400_000)


async def test_close_while_the_disk_works() -> None:
    """If a buffer closes while another thread uses its descriptor, that thread closes the descriptor afterwards."""
    before = descriptors()
    buffer = BodyBuffer(BufferSpace(0))
    writing = asyncio.get_running_loop().create_task(buffer.put(b"x" * 20_000_000))
    await until(lambda: descriptors() > before, "the file")
    writing.cancel()
    await asyncio.wait((writing,))
    buffer.close()
    await until(lambda: descriptors() == before, "the end of the file")
