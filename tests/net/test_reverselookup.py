"""--reverselookup with a name server that is slow: a bounded number of lookups, for which nothing else waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import Event

import pytest

from tests.support.proc import until
from wsbridge.metrics import Metrics
from wsbridge.net.reverselookup import Names


class Resolver:
    """A resolver that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = Event()

    def __call__(self, address: str) -> str:
        self.asked.append(address)
        self.answer.wait(60)
        if address == "192.0.2.9":
            raise OSError("no such name")
        return f"name-of-{address}"


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    made = Resolver()
    yield made
    made.answer.set()


async def test_names(resolver: Resolver) -> None:
    """A client has the name that its address has, or its address where there is none."""
    resolver.answer.set()
    names = Names(Metrics(), resolve=resolver, seconds=60)
    assert await names.name("192.0.2.1") == "name-of-192.0.2.1"
    assert await names.name("192.0.2.9") == "192.0.2.9"


async def test_no_answer_in_time(resolver: Resolver) -> None:
    """Without an answer in time the address is the name."""
    names = Names(Metrics(), resolve=resolver, seconds=0.01)
    assert await names.name("192.0.2.1") == "192.0.2.1"


async def test_a_client_has_one_lookup(resolver: Resolver) -> None:
    """However often a client connects, its name is asked for once at a time, and all that wait for it get it."""
    names = Names(Metrics(), resolve=resolver, seconds=60)
    waiting = [asyncio.create_task(names.name("192.0.2.1")) for _ in range(10)]
    await until(lambda: resolver.asked, "the lookup")
    resolver.answer.set()
    assert await asyncio.gather(*waiting) == ["name-of-192.0.2.1"] * 10
    assert resolver.asked == ["192.0.2.1"]


async def test_most_lookups(resolver: Resolver) -> None:
    """Beyond the most lookups a client goes without a name, at once; it is counted, and there is room when one has ended."""
    metrics = Metrics()
    names = Names(metrics, resolve=resolver, limit=2, seconds=60)
    waiting = [asyncio.create_task(names.name(f"192.0.2.{number}")) for number in (1, 2)]
    await until(lambda: len(resolver.asked) == 2, "two lookups")
    assert await names.name("192.0.2.3") == "192.0.2.3"
    assert (metrics.lookups_skipped, sorted(resolver.asked)) == (1, ["192.0.2.1", "192.0.2.2"])
    resolver.answer.set()
    await asyncio.gather(*waiting)
    assert await names.name("192.0.2.3") == "name-of-192.0.2.3"


async def test_client_that_leaves(resolver: Resolver) -> None:
    """One that leaves before its name has come leaves nothing behind when it comes."""
    names = Names(Metrics(), resolve=resolver, limit=1, seconds=60)
    waiting = asyncio.create_task(names.name("192.0.2.1"))
    await until(lambda: resolver.asked, "the lookup")
    waiting.cancel()
    await asyncio.wait((waiting,))
    resolver.answer.set()
    assert await names.name("192.0.2.1") == "name-of-192.0.2.1"
