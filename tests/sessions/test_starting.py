"""A session whose program is still starting: client and program are already joined, and every event has its effect."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from tests.sessions.conftest import Opener
from tests.support.proc import SHORT_LADDER, ClientTwin, Starter, turns, until, which
from wsbridge.errors import ProgramError
from wsbridge.flow import Batch, End, Kind, Sink
from wsbridge.framing import make_framing
from wsbridge.process.child import Child
from wsbridge.process.spawn import Started, Stdio, open_stdio
from wsbridge.sessions.bridge import CANNOT_LAUNCH, SHUTTING_DOWN, Bridge


@dataclass
class Opening:
    """A session whose program starts or fails when the test says so."""

    starter: Starter
    stdio: Stdio
    starting: asyncio.Future[Started]
    bridge: Bridge
    client: ClientTwin
    sink: Sink
    argv: tuple[str, ...] = field(default=(which("cat"),))

    def start(self) -> None:
        """Start the program."""
        self.starting.set_result(self.starter.spawner.spawn(self.argv, {}, self.stdio))

    def fail(self) -> None:
        """Let the start fail; the program's ends of its pipes are closed before the session knows."""
        self.stdio.close_theirs()
        self.starting.set_exception(ProgramError("cannot"))

    def send(self, *lines: bytes) -> None:
        self.client.received += len(lines)
        self.sink.write(Batch(Kind.TEXT, list(lines)))


@pytest.fixture
async def opening(session: Opener) -> Opening:
    starter, loop = session._start, asyncio.get_running_loop()
    stdio, client = open_stdio(), ClientTwin()
    starting: asyncio.Future[Started] = loop.create_future()
    make_decoder, encoder = make_framing("lines", limit=1000)
    child = Child(
        stdio,
        decoder=make_decoder(),
        encoder=encoder,
        errors=lambda data: None,
        ladder=SHORT_LADDER,
        descendants=starter.descendants,
        fields={},
        loop=loop,
    )
    child.follow(starting)
    assert session.registry.limiter.acquire()
    bridge = Bridge(client, child, registry=session.registry, fields={"id": "1"}, drain_seconds=0.1, loop=loop)
    opening = Opening(starter, stdio, starting, bridge, client, bridge.start())

    def started(starting: asyncio.Future[Started]) -> None:
        if starting.cancelled() or starting.exception() is not None:
            bridge.failed()

    starting.add_done_callback(started)
    return opening


async def test_early_messages_reach_the_program(opening: Opening, session: Opener) -> None:
    """Messages that the client sends before the program runs are in the program's stdin when it runs."""
    opening.send(b"one", b"two")
    await turns()
    opening.start()
    await until(lambda: opening.client.messages == [b"one", b"two"], "the answer")
    opening.sink.end(End(1000))
    await session.over()
    assert opening.bridge.child.group.status == 0


async def test_client_disconnects_before_the_start(opening: Opening, session: Opener) -> None:
    """The program still gets the messages of a client that has disconnected; the session ends when the program exits."""
    opening.send(b"one")
    opening.sink.end(End(1000))
    await turns()
    assert len(session.registry) == 1
    opening.start()
    await session.over()
    assert opening.bridge.child.group.status == 0
    assert opening.client.closed


@pytest.mark.parametrize("when", ["at once", "after the end of its pipes", "after the client has left", "while the server shuts down"])
async def test_program_that_cannot_start(opening: Opening, session: Opener, when: str) -> None:
    """If the program cannot start, the client gets an error, unless it has disconnected or another close code was sent. Its messages
    count as lost."""
    opening.send(b"one", b"two")
    expected: End | None = CANNOT_LAUNCH
    if when == "after the end of its pipes":
        opening.stdio.close_theirs()
        opening.stdio = Stdio(-1, -1, -1, ())
        await turns()
        assert opening.client.ended is None
    elif when == "after the client has left":
        opening.sink.end(End(1000))
        expected = None
    elif when == "while the server shuts down":
        opening.bridge.shut_down()
        expected = SHUTTING_DOWN
    await turns()
    opening.fail()
    await session.over()
    assert opening.client.ended == expected
    assert session.registry.metrics.discarded_in == 2


@pytest.mark.parametrize("runs", [False, True])
async def test_force_before_the_start(opening: Opening, session: Opener, runs: bool) -> None:
    """A forced shutdown does not wait for a start; a program that started in the same turn is killed."""
    if runs:
        opening.start()
    opening.bridge.force()
    if not runs:
        assert opening.starting.cancelled()
        opening.stdio.close_theirs()
    await session.over()
    group = opening.bridge.child.group
    assert (group.status, group.has_failed) == ((-9, False) if runs else (None, True))
