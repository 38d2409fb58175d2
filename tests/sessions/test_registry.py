"""The sessions of a process: their slots, their ids and their common shutdown."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.proc import turns
from wsbridge.flow import End
from wsbridge.metrics import Metrics
from wsbridge.sessions.registry import Registry


class Live:
    """A session that ends at `shut_down`, or only at `force`."""

    def __init__(self, registry: Registry, *, stubborn: bool = False) -> None:
        self._registry = registry
        self._stubborn = stubborn
        self.told: list[str] = []

    def shut_down(self, reason: End) -> None:
        self.told.append("shut down")
        if not self._stubborn:
            self._registry.run(self._end(), "end of a session")

    def force(self) -> None:
        self.told.append("force")
        self._registry.run(self._end(), "end of a session")

    async def _end(self) -> None:
        await turns()
        self._registry.remove(self)


def make(max_sessions: int = 0) -> Registry:
    return Registry(max_sessions=max_sessions, metrics=Metrics())


async def test_slots_are_counted() -> None:
    """The number of slots is --maxforks; a released slot is free again."""
    registry = make(2)
    assert [registry.limiter.acquire() for _ in range(4)] == [True, True, False, False]
    registry.limiter.release()
    assert [registry.limiter.acquire() for _ in range(2)] == [True, False]


@pytest.mark.parametrize("max_sessions", [0, -1])
async def test_slots_without_limit(max_sessions: int) -> None:
    """--maxforks of 0 or less sets no limit."""
    registry = make(max_sessions)
    assert all(registry.limiter.acquire() for _ in range(2000))
    registry.limiter.release()
    assert registry.limiter.acquire()


async def test_ids_are_unique_times() -> None:
    """An id is the time in nanoseconds, increased if the clock stands still or goes back, so that ids are unique."""
    registry = make()
    assert [registry.new_id(now) for now in (1000, 1000, 999, 2000, 2000, 0)] == ["1000", "1001", "1002", "2000", "2001", "2002"]


async def test_drain_waits_for_every_session() -> None:
    """`drain` shuts down every session, and waits until all have ended."""
    registry = make()
    sessions = [Live(registry) for _ in range(3)]
    for one in sessions:
        registry.add(one)
    assert len(registry) == 3
    await registry.drain()
    assert len(registry) == 0
    assert [one.told for one in sessions] == [["shut down"]] * 3


async def test_drain_of_nothing() -> None:
    """Without a session, `drain` returns at once."""
    await make().drain()


async def test_session_that_begins_during_the_shutdown() -> None:
    """A session that begins during the shutdown is shut down as well, and `drain` waits for it."""
    registry = make()
    first, late = Live(registry, stubborn=True), Live(registry)
    registry.add(first)
    draining = asyncio.ensure_future(registry.drain())
    await turns()
    registry.add(late)
    registry.remove(first)
    assert not draining.done()
    await draining
    assert late.told == ["shut down"]
    assert registry.closing


async def test_force_reaches_the_remaining_sessions() -> None:
    """`force` reaches exactly the sessions that remain."""
    registry = make()
    quick, stubborn = Live(registry), Live(registry, stubborn=True)
    for one in (quick, stubborn):
        registry.add(one)
    draining = asyncio.ensure_future(registry.drain())
    await turns(50)
    assert len(registry) == 1
    registry.force()
    await draining
    assert (quick.told, stubborn.told) == (["shut down"], ["shut down", "force"])


async def test_end_callback() -> None:
    """`on_end` is called for each session that has ended."""
    registry = make()
    over: list[object] = []
    registry.on_end = over.append
    one = Live(registry)
    registry.add(one)
    await registry.drain()
    assert over == [one]


async def test_error_at_an_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error at the end of a session is logged under its name; the other sessions still end."""
    registry = make()

    async def fail() -> None:
        raise RuntimeError("a fault of ours")

    one = Live(registry)
    registry.add(one)
    registry.run(fail(), "end of session 7")
    await registry.drain()
    (record,) = caplog.records
    assert "end of session 7" in record.getMessage()
    assert record.exc_info
