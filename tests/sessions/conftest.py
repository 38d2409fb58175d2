"""Sessions of the product's own parts in the test's loop: a real child, and an in-memory twin as its client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.proc import ClientTwin, Running, Starter, adopting, no_callback_fails, nothing_left, same_limits, until
from wsbridge.flow import Batch, End, Kind, Sink
from wsbridge.logs import ACCESS
from wsbridge.metrics import Metrics
from wsbridge.process.spawn import Spawner
from wsbridge.process.termination import Step
from wsbridge.sessions.bridge import Bridge
from wsbridge.sessions.registry import Registry


@dataclass(slots=True)
class Session:
    """A running session, whose client the test controls."""

    client: ClientTwin
    running: Running
    bridge: Bridge
    sink: Sink

    def send(self, *lines: bytes) -> None:
        """Send messages as the client."""
        self.client.received += len(lines)
        self.sink.write(Batch(Kind.TEXT, list(lines)))

    def disconnect(self, reason: End) -> None:
        """Disconnect the client."""
        self.sink.end(reason)

    async def line(self, number: int = 1) -> str:
        """Wait for a line at the client; return it."""
        await until(lambda: len(self.client.messages) >= number, f"line {number} at the client")
        return self.client.messages[number - 1].decode()

    async def ended(self) -> End:
        """Wait until the client gets the end of the session; return it."""
        return await until(lambda: self.client.ended, "the end at the client")


class Opener:
    """Opens sessions: `session("cat")`."""

    def __init__(self, start: Starter, registry: Registry) -> None:
        self._start = start
        self.registry = registry

    def __call__(
        self,
        *argv: object,
        framing: str = "lines",
        limit: int = 1 << 24,
        drain_seconds: float = 0.1,
        ladder: Sequence[Step] | None = None,
        client: ClientTwin | None = None,
        pty: bool = False,
    ) -> Session:
        client = client or ClientTwin()
        running = self._start.make(*argv, framing=framing, limit=limit, ladder=ladder, pty=pty)
        assert self.registry.limiter.acquire()
        fields = {"id": "7"}
        bridge = Bridge(
            client,
            running.child,
            registry=self.registry,
            fields=fields,
            drain_seconds=drain_seconds,
            loop=asyncio.get_running_loop(),
        )
        return Session(client, running, bridge, bridge.start())

    async def over(self) -> None:
        """Wait until no part of any session remains."""
        await until(lambda: len(self.registry) == 0, "the end of every session")


@pytest.fixture(scope="session")
def spawner() -> Iterator[Spawner]:
    with same_limits():
        yield Spawner()


@pytest.fixture
async def registry() -> Registry:
    """A registry with two slots."""
    return Registry(max_sessions=2, metrics=Metrics())


@pytest.fixture
async def session(spawner: Spawner, registry: Registry, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Opener]:
    """Opens sessions. After the test, nothing of them remains and every slot is free."""
    caplog.set_level(ACCESS, "wsbridge")
    with nothing_left(), adopting(), no_callback_fails():
        starter = Starter(spawner)
        opener = Opener(starter, registry)
        yield opener
        registry.force()
        await opener.over()
        await starter.close()
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("end of")] == []
        assert [registry.limiter.acquire() for _ in range(3)] == [True, True, False]


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    """A named pipe, by which a test lets a program continue."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)
