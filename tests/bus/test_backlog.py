"""The backlog of a receiver: it makes calls at once, queues them under backpressure, and then makes them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from tests.support.proc import turns
from wsbridge.bus.backlog import Backlog


class Calls:
    """A backlog, and the names of the calls that it has made."""

    def __init__(self) -> None:
        self.backlog = Backlog()
        self.made: list[str] = []

    def do(self, *names: str) -> None:
        for name in names:
            self.backlog.do(partial(self.made.append, name))

    def do_and(self, name: str, then: Callable[[], None]) -> None:
        """Add a call that records its name and then calls `then`."""

        def call() -> None:
            self.made.append(name)
            then()

        self.backlog.do(call)


def fail() -> None:
    raise ValueError("this call fails")


def test_no_backpressure() -> None:
    """Without backpressure the backlog makes each call before `do` returns, and queues nothing."""
    calls = Calls()
    for name in "abc":
        calls.do(name)
        assert calls.made[-1] == name
    assert (calls.made, len(calls.backlog)) == (["a", "b", "c"], 0)


def test_backpressure() -> None:
    """Under backpressure the backlog queues calls, and `release` makes them in order."""
    calls = Calls()
    calls.do("a")
    calls.backlog.hold()
    calls.do("b", "c", "d")
    assert (calls.made, len(calls.backlog)) == (["a"], 3)
    calls.backlog.release()
    assert (calls.made, len(calls.backlog)) == (["a", "b", "c", "d"], 0)


def test_after_backpressure() -> None:
    """After `release` the backlog makes calls at once again."""
    calls = Calls()
    calls.backlog.hold()
    calls.do("a")
    calls.backlog.release()
    calls.do("b")
    assert (calls.made, len(calls.backlog)) == (["a", "b"], 0)


def test_repeated_hold_and_release() -> None:
    """One `release` ends any number of `hold`, and a `release` without backpressure does nothing."""
    calls = Calls()
    calls.backlog.release()
    calls.backlog.hold()
    calls.backlog.hold()
    calls.do("a")
    calls.backlog.release()
    calls.backlog.release()
    assert (calls.made, len(calls.backlog)) == (["a"], 0)


def test_empty_backpressure() -> None:
    """The backlog queues calls after `hold` even if nothing waited before."""
    calls = Calls()
    calls.backlog.hold()
    calls.backlog.release()
    calls.backlog.hold()
    calls.do("a")
    assert (calls.made, len(calls.backlog)) == ([], 1)


def test_call_that_applies_backpressure() -> None:
    """A call that applies backpressure stops `release`; the rest waits for the next `release`."""
    calls = Calls()
    calls.backlog.hold()
    calls.do("a")
    calls.do_and("b", calls.backlog.hold)
    calls.do("c", "d")
    calls.backlog.release()
    assert (calls.made, len(calls.backlog)) == (["a", "b"], 2)
    calls.do("e")
    assert (calls.made, len(calls.backlog)) == (["a", "b"], 3)
    calls.backlog.release()
    assert (calls.made, len(calls.backlog)) == (["a", "b", "c", "d", "e"], 0)


def test_every_call_applies_backpressure() -> None:
    """If each call applies backpressure, each `release` makes one call."""
    calls = Calls()
    for name in "abc":
        calls.do_and(name, calls.backlog.hold)
    assert calls.made == ["a"]
    for count in 2, 3:
        calls.backlog.release()
        assert (calls.made, len(calls.backlog)) == (list("abc"[:count]), 3 - count)


def test_call_that_adds_a_call() -> None:
    """A call that a queued call adds comes after the calls that already wait."""
    calls = Calls()
    calls.backlog.hold()
    calls.do_and("a", lambda: calls.do("d"))
    calls.do("b", "c")
    calls.backlog.release()
    assert (calls.made, len(calls.backlog)) == (["a", "b", "c", "d"], 0)


def test_call_that_holds_and_releases() -> None:
    """A queued call that applies and ends backpressure does not change the order, and the backlog makes no call twice."""
    calls = Calls()
    calls.backlog.hold()
    calls.do_and("a", lambda: (calls.backlog.hold(), calls.do("d"), calls.backlog.release()))
    calls.do("b", "c")
    calls.backlog.release()
    assert (calls.made, len(calls.backlog)) == (["a", "b", "c", "d"], 0)


def test_many_calls() -> None:
    """The backlog has no bound, and a long queue does not exhaust the stack."""
    calls = Calls()
    calls.backlog.hold()
    names = [str(number) for number in range(10_000)]
    calls.do(*names)
    calls.backlog.release()
    assert calls.made == names


def test_exception_without_backpressure() -> None:
    """An exception of a call reaches the caller of `do`, and the backlog makes the next call at once."""
    calls = Calls()
    with pytest.raises(ValueError, match="this call fails"):
        calls.backlog.do(fail)
    calls.do("a")
    assert (calls.made, len(calls.backlog)) == (["a"], 0)


def test_calls_after_an_exception() -> None:
    """After a queued call has raised an exception, the backlog makes the waiting calls and new calls without another `hold`."""
    calls = Calls()
    calls.backlog.hold()
    calls.backlog.do(fail)
    calls.do("a")
    with pytest.raises(ValueError, match="this call fails"):
        calls.backlog.release()
    calls.do("b")
    assert (calls.made, len(calls.backlog)) == (["a", "b"], 0)


async def is_empty(backlog: Backlog) -> bool:
    """Return whether `wait_empty` returns without further calls."""
    waiting = asyncio.create_task(backlog.wait_empty(), name="wait")
    await turns()
    is_done = waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    return is_done


async def test_wait_for_an_empty_queue() -> None:
    """`wait_empty` returns while the queue is empty, under backpressure too, and waits while a call is queued."""
    calls = Calls()
    assert await is_empty(calls.backlog)
    calls.backlog.hold()
    assert await is_empty(calls.backlog)
    calls.do("a")
    assert not await is_empty(calls.backlog)
    calls.backlog.release()
    assert await is_empty(calls.backlog)


async def test_wait_while_a_call_applies_backpressure() -> None:
    """`wait_empty` does not return after a `release` that leaves calls in the queue."""
    calls = Calls()
    calls.backlog.hold()
    calls.do_and("a", calls.backlog.hold)
    calls.do("b")
    waiting = asyncio.create_task(calls.backlog.wait_empty(), name="wait")
    calls.backlog.release()
    await turns()
    assert not waiting.done()
    calls.backlog.release()
    await turns()
    assert waiting.done()


async def test_last_call_applies_backpressure() -> None:
    """`wait_empty` returns after the last queued call even if that call applies backpressure again."""
    calls = Calls()
    calls.backlog.hold()
    calls.do_and("a", calls.backlog.hold)
    calls.backlog.release()
    assert await is_empty(calls.backlog)


async def test_last_call_adds_a_call_under_backpressure() -> None:
    """`wait_empty` waits if the last queued call applies backpressure and adds another call."""
    calls = Calls()
    calls.backlog.hold()
    calls.do_and("a", lambda: (calls.backlog.hold(), calls.do("b")))
    calls.backlog.release()
    assert len(calls.backlog) == 1
    assert not await is_empty(calls.backlog)


async def test_several_waits() -> None:
    """Every task that waits for an empty queue continues."""
    calls = Calls()
    calls.backlog.hold()
    calls.do("a")
    waiting = [asyncio.create_task(calls.backlog.wait_empty(), name=f"wait {number}") for number in range(3)]
    await turns()
    calls.backlog.release()
    await turns()
    assert [task.done() for task in waiting] == [True] * 3


async def test_wait_after_an_exception() -> None:
    """`wait_empty` returns when the queue is empty, even if the last queued call has raised an exception."""
    calls = Calls()
    calls.backlog.hold()
    calls.backlog.do(fail)
    with pytest.raises(ValueError, match="this call fails"):
        calls.backlog.release()
    assert len(calls.backlog) == 0
    assert await is_empty(calls.backlog)
