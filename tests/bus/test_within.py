"""bus/rabbitmq/transport.py: work with a time limit, whose cancellation can raise another error."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tests.support.proc import no_callback_fails
from wsbridge.bus.rabbitmq.transport import within


async def stubborn() -> None:
    """Turn a cancellation into another error, as aio-pika does for a call on a closed channel."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise RuntimeError("the channel is closed") from None


async def collected() -> None:
    """Let the cancelled work end and collect it: asyncio logs an unretrieved error when it collects the task."""
    current = asyncio.current_task()
    if left := {task for task in asyncio.all_tasks() if task is not current}:
        await asyncio.wait(left)
    del left
    gc.collect()


async def test_error_of_cancelled_work() -> None:
    """Nothing logs the error of work whose caller was cancelled."""
    with no_callback_fails():
        caller = asyncio.create_task(within(600, stubborn()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait((caller,))
        assert caller.cancelled()
        del caller
        await collected()


async def test_error_of_late_work() -> None:
    """Nothing logs the error of work that was cancelled at its time limit."""
    with no_callback_fails():
        assert not await within(0, stubborn())
        await collected()


async def test_error_in_time() -> None:
    """The error of work that ends in time reaches the caller."""

    async def fails() -> None:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        await within(600, fails())
