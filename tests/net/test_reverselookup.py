"""--reverselookup with a slow name server: the number of lookups is bounded, and only their own clients wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import Event

import pytest

from tests.support.proc import until
from wsbridge.metrics import Metrics
from wsbridge.net.reverselookup import Names


class Resolver:
    """A resolver that answers when the test sets `answer`."""

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
    """The client's name is the name of its address, or the address if it has no name."""
    resolver.answer.set()
    names = Names(Metrics(), resolve=resolver, seconds=60)
    assert await names.name("192.0.2.1") == "name-of-192.0.2.1"
    assert await names.name("192.0.2.9") == "192.0.2.9"


async def test_no_answer_in_time(resolver: Resolver) -> None:
    """Without an answer in time, the client's name is its address."""
    names = Names(Metrics(), resolve=resolver, seconds=0.01)
    assert await names.name("192.0.2.1") == "192.0.2.1"


async def test_one_lookup_per_address(resolver: Resolver) -> None:
    """However often a client connects, one lookup of its address runs at a time, and all its connections share the answer."""
    names = Names(Metrics(), resolve=resolver, seconds=60)
    waiting = [asyncio.create_task(names.name("192.0.2.1")) for _ in range(10)]
    await until(lambda: resolver.asked, "the lookup")
    resolver.answer.set()
    assert await asyncio.gather(*waiting) == ["name-of-192.0.2.1"] * 10
    assert resolver.asked == ["192.0.2.1"]


async def test_limit_of_lookups(resolver: Resolver) -> None:
    """Beyond the limit of lookups, a client gets no name, without a wait, and a metric counts it. When a lookup ends, the next may
    begin."""
    metrics = Metrics()
    names = Names(metrics, resolve=resolver, limit=2, seconds=60)
    waiting = [asyncio.create_task(names.name(f"192.0.2.{number}")) for number in (1, 2)]
    await until(lambda: len(resolver.asked) == 2, "two lookups")
    assert await names.name("192.0.2.3") == "192.0.2.3"
    assert (metrics.lookups_skipped, sorted(resolver.asked)) == (1, ["192.0.2.1", "192.0.2.2"])
    resolver.answer.set()
    await asyncio.gather(*waiting)
    assert await names.name("192.0.2.3") == "name-of-192.0.2.3"


async def test_client_that_leaves_during_the_lookup(resolver: Resolver) -> None:
    """If a client disconnects before the answer arrives, the lookup leaves nothing behind."""
    names = Names(Metrics(), resolve=resolver, limit=1, seconds=60)
    waiting = asyncio.create_task(names.name("192.0.2.1"))
    await until(lambda: resolver.asked, "the lookup")
    waiting.cancel()
    await asyncio.wait((waiting,))
    resolver.answer.set()
    assert await names.name("192.0.2.1") == "name-of-192.0.2.1"
