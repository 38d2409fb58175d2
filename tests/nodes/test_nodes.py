"""Whole nodes, each a process, and hundreds of clients that move between them.

No message is repeated, and none is lost without a notice.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.bus.node import until
from tests.nodes.client import Fan
from tests.nodes.conftest import StartNode
from tests.support.client import DEADLINE
from tests.support.rabbit import Broker, Proxy
from tests.support.server import LISTEN, Bridge, Server, listens, wait_until

FANS = 500

LONG_FLUSH = """
import os, sys
from wsbridge.cli.main import run
from wsbridge.endpoints import broadcast as broadcasting

broadcasting.FLUSH_SECONDS = 3600.0
sys.exit(run("wsbridge", sys.argv[1:], os.environ))
"""
"""A wsbridge that waits up to an hour for the broker's last confirmations."""

COUNTING = """
import os, sys, time
# Print numbered lines, `sys.argv[1]` at once and so many a second, until a file is there; then the last one, and wait.
burst, rate, total, stop = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
number, began = 0, time.monotonic()
while number < total and not os.path.exists(stop):
    data = "".join(f"{n} {'x' * 40}\\n" for n in range(number, min(number + burst, total))).encode()
    number += data.count(b"\\n")
    while data:
        data = data[os.write(1, data):]
    pause = began + number / rate - time.monotonic()
    if pause > 0:
        time.sleep(pause)
os.write(2, f"printed {number}\\n".encode())
while os.read(0, 1):
    pass
"""


def counting(tmp_path: Path, *, burst: int, rate: float, total: int = 1 << 40) -> tuple[str, ...]:
    return (sys.executable, "-S", "-E", "-I", "-c", COUNTING, str(burst), str(rate), str(total), str(tmp_path / "stop"))


@asynccontextmanager
async def fans(count: int) -> AsyncIterator[list[Fan]]:
    crowd = [Fan() for _ in range(count)]
    try:
        yield crowd
    finally:
        for fan in crowd:
            await fan.leave()


async def all_come(crowd: Sequence[Fan], port: int) -> None:
    """Connect all clients to a node, a few at a time."""
    for start in range(0, len(crowd), 50):
        await asyncio.gather(*(fan.come(port) for fan in crowd[start : start + 50]))


async def all_have(crowd: Sequence[Fan], number: int) -> None:
    """Wait until every client has received a given message or a later one."""

    def late() -> list[Fan]:
        assert not any(fan.is_broken for fan in crowd), "a client failed, or lost its connection"
        return [fan for fan in crowd if fan.last is None or fan.last < number]

    await until(lambda: not late(), lambda: f"message {number}: {len(late())} have not got so far, the first of them {late()[0]}")


async def stopped(server: object, tmp_path: Path) -> int:
    """Stop the program; return the number of lines that it printed."""
    (tmp_path / "stop").touch()
    found = await asyncio.to_thread(server.wait_for_log, r"printed (\d+)")  # type: ignore[attr-defined]
    return int(found[1])


def lost_nothing(crowd: Sequence[Fan]) -> None:
    for fan in crowd:
        assert not fan.is_broken
        assert (fan.lost, fan.renewals) == (0, 0), str(fan)
        assert fan.first is not None
        assert fan.last is not None
        assert fan.count == fan.last - fan.first + 1


@pytest.mark.parametrize("flags", [(), ("--replay",)], ids=["plain", "replay"])
async def test_two_nodes(start: StartNode, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """The clients of every node receive each line of a program that runs on one node."""
    other = await asyncio.to_thread(start, *flags)
    one = await asyncio.to_thread(start, "--input=program", *flags, *counting(tmp_path, burst=10, rate=2000))
    async with fans(20) as crowd:
        await all_come(crowd[:10], one.port)
        await all_come(crowd[10:], other.port)
        await all_have(crowd, 10)
        printed = await stopped(one, tmp_path)
        await all_have(crowd, printed - 1)
        lost_nothing(crowd)


async def test_node_is_killed(start: StartNode, tmp_path: Path) -> None:
    """When a node is killed, its 500 clients reconnect to another node with their positions, and miss nothing.

    Meanwhile the program runs on a third node. A node that starts later serves these clients as well.
    """
    a, b = await asyncio.to_thread(start, "--replay"), await asyncio.to_thread(start, "--replay")
    c = await asyncio.to_thread(start, "--replay", *counting(tmp_path, burst=2, rate=20))
    async with fans(FANS) as crowd:
        await all_come(crowd, a.port)
        await all_have(crowd, max(fan.last or 0 for fan in crowd) + 10)
        await asyncio.to_thread(a.stop, signal.SIGKILL)
        await asyncio.gather(*(fan.ended() for fan in crowd))
        await all_come(crowd, b.port)
        await all_have(crowd, max(fan.last or 0 for fan in crowd) + 10)
        late = await asyncio.to_thread(start, "--replay")
        await all_come(crowd, late.port)
        printed = await stopped(c, tmp_path)
        await all_have(crowd, printed - 1)
        lost_nothing(crowd)


async def test_broker_restarts(start: StartNode, broker: Broker, tmp_path: Path) -> None:
    """With replay, a restart of the broker loses no message. Every client gets a notice of the disconnect and of the reconnect."""
    a, b = await asyncio.to_thread(start, "--replay"), await asyncio.to_thread(start, "--replay")
    c = await asyncio.to_thread(start, "--replay", *counting(tmp_path, burst=5, rate=200))
    async with fans(60) as crowd:
        for index, node in enumerate((a, b, c)):
            await all_come(crowd[index * 20 : index * 20 + 20], node.port)
        await all_have(crowd, 10)
        await asyncio.to_thread(broker.stop)
        await until(lambda: all(fan.words == ["away"] for fan in crowd), "word that the broker is away")
        # A client that reconnects meanwhile also gets the notice, and continues at its position.
        await all_come(crowd[:10], a.port)
        await asyncio.to_thread(broker.start)
        await until(lambda: all(fan.words[-1] == "here" for fan in crowd), "word that it is here again")
        printed = await stopped(c, tmp_path)
        await all_have(crowd, printed - 1)
        lost_nothing(crowd)


async def test_position_from_a_node_that_is_ahead(start: StartNode, broker: Broker, tmp_path: Path) -> None:
    """A node accepts a position from a node that is ahead of it, and does not repeat the messages that the client already has."""
    a = await asyncio.to_thread(start, "--replay")
    b = await asyncio.to_thread(start, "--replay")
    c = await asyncio.to_thread(start, "--replay", *counting(tmp_path, burst=2, rate=500))
    async with fans(20) as crowd:
        await all_come(crowd, a.port)
        await all_have(crowd, 10)
        # The stopped node has not read messages that the other node has already sent, like a busy process.
        b.send_signal(signal.SIGSTOP)
        await all_have(crowd, max(fan.last or 0 for fan in crowd) + 50)
        for fan in crowd:
            await fan.leave()
        coming = asyncio.create_task(all_come(crowd, b.port))
        b.send_signal(signal.SIGCONT)
        await coming
        printed = await stopped(c, tmp_path)
        await all_have(crowd, printed - 1)
        lost_nothing(crowd)


@pytest.mark.parametrize("flags", [(), ("--replay",)], ids=["plain", "replay"])
async def test_flood(start: StartNode, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A flood of 200,000 messages passes through the broker, while one client does not read and one reads slowly.

    The other clients receive all messages, and these two receive the exact count of the dropped messages.
    """
    total = 200_000
    other = await asyncio.to_thread(start, "--queue=16777216", *flags)
    strict = await asyncio.to_thread(start, "--queue=65536", *flags)
    one = await asyncio.to_thread(start, *flags, *counting(tmp_path, burst=500, rate=40_000, total=total))
    async with fans(5) as crowd:
        deaf, slow, *well = crowd
        await deaf.come(strict.port, receive_buffer=4096)
        deaf.pause.clear()
        await slow.come(strict.port, receive_buffer=4096)
        await all_come(well, other.port)

        async def read_slowly() -> None:
            while True:
                slow.pause.clear()
                await asyncio.sleep(0.05)
                slow.pause.set()
                await asyncio.sleep(0.001)

        reading = asyncio.create_task(read_slowly())
        try:
            await asyncio.to_thread(one.wait_for_log, rf"printed {total}", 60)
            await all_have(well, total - 1)
        finally:
            reading.cancel()
        lost_nothing(well)
        slow.pause.set()
        deaf.pause.set()
        await all_have([deaf, slow], total - 1)
        for fan in (deaf, slow):
            assert fan.renewals == 0
            assert fan.first is not None
            assert fan.count + fan.lost == total - fan.first
        assert deaf.lost > 0


def test_second_signal_while_the_broker_is_silent(broker: Broker) -> None:
    """After a second signal, the node does not wait for a broker that confirms nothing. It counts the unconfirmed messages."""
    with Proxy(("127.0.0.1", broker.port)) as proxy:
        bridge = Bridge("wsbridge", (sys.executable, "-c", LONG_FLUSH, "broadcast"), takes_port_zero=True)
        url = {"WSBRIDGE_BROKER": f"amqp://guest:guest@127.0.0.1:{proxy.port}/"}
        server = Server("--exchange=nodes-force", "--input=exchange", bridge=bridge, listen=LISTEN, env=url)
        with server, server.connect() as client:
            proxy.swallow()
            client.send_text("never taken")
            wait_until(lambda: b'"messages_in": 1' in server.get("/status").body, "the message")
            server.send_signal(signal.SIGTERM)
            wait_until(lambda: not listens(server.pid, server.port), "the first signal")
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
        assert "bus_unconfirmed=1" in server.log


def test_status_in_an_alarm(start: StartNode, broker: Broker) -> None:
    """While the broker blocks publishers, /status reports this and the reason. After the alarm, /status reports the broker as here."""
    node = start("sh", "-c", "while :; do echo x; sleep 0.05; done")

    def status() -> tuple[str, str | None]:
        answer = json.loads(node.get("/status").body)
        return answer["broker"], answer["broker_alarm"]

    assert status() == ("here", None)
    broker.alarm(True)
    try:
        wait_until(lambda: status()[0] == "blocked", "the alarm", DEADLINE * 3)
        assert "memory" in str(status()[1])
    finally:
        broker.alarm(False)
    wait_until(lambda: status() == ("here", None), "the end of the alarm", DEADLINE * 3)
