"""The acceptor accepts a few connections per loop iteration, none while the server has no room, and pauses when descriptors are scarce."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.proc import no_callback_fails, nothing_left, same_limits, turns, until
from wsbridge.metrics import Metrics
from wsbridge.net.acceptor import Acceptor, Pace

LONG_PAUSES = Pace(room_seconds=3600, short_seconds=0.01)


class Accepted:
    """Collects the accepted sockets."""

    def __init__(self) -> None:
        self.socks: list[socket.socket] = []

    def open(self, sock: socket.socket, address: object) -> None:
        self.socks.append(sock)

    def close(self) -> None:
        for sock in self.socks:
            sock.close()
        self.socks.clear()


@contextmanager
def listeners(acceptor: Acceptor, accepted: Accepted, count: int = 1) -> Iterator[list[tuple[str, int]]]:
    """Yield the addresses of listening sockets of the acceptor."""
    with no_callback_fails():
        socks = [socket.create_server(("127.0.0.1", 0), backlog=100) for _ in range(count)]
        for sock in socks:
            acceptor.listen(sock, accepted.open)
        try:
            yield [sock.getsockname() for sock in socks]
        finally:
            acceptor.close()
            accepted.close()


def dial(address: tuple[str, int], count: int) -> list[socket.socket]:
    return [socket.create_connection(address) for _ in range(count)]


def close(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.close()


async def test_accepts_a_few_connections_per_loop_iteration() -> None:
    """The acceptor accepts a burst of connections in order, a few in each iteration of the loop."""
    accepted = Accepted()
    with nothing_left(), listeners(Acceptor(Metrics(), loop=asyncio.get_running_loop(), pace=Pace(a_turn=3)), accepted) as (address,):
        clients = dial(address, 20)
        before, most = 0, 0
        for _ in range(1000):
            await asyncio.sleep(0)
            most = max(most, len(accepted.socks) - before)
            before = len(accepted.socks)
            if before == 20:
                break
        assert [sock.getpeername() for sock in accepted.socks] == [client.getsockname() for client in clients]
        assert most == 3
        close(clients)


async def test_no_room_stops_accepting() -> None:
    """While the server has no room, the acceptor accepts nothing on any listener. When room is free, it continues at once."""
    accepted, room = Accepted(), [0]
    acceptor = Acceptor(Metrics(), loop=asyncio.get_running_loop(), has_room=lambda: len(accepted.socks) < room[0], pace=LONG_PAUSES)
    with nothing_left(), listeners(acceptor, accepted, 2) as addresses:
        clients = [client for address in addresses for client in dial(address, 3)]
        await turns()
        assert accepted.socks == []
        acceptor.room()
        await turns()
        assert accepted.socks == []
        room[0] = 2
        acceptor.room()
        await until(lambda: len(accepted.socks) == 2, "two connections")
        await turns()
        assert len(accepted.socks) == 2
        room[0] = 100
        acceptor.room()
        await until(lambda: len(accepted.socks) == 6, "the rest")
        close(clients)


async def test_accepts_after_a_time_without_room() -> None:
    """A long wait for room does not stop the acceptor for ever: after `room_seconds` it accepts a few connections anyway."""
    accepted = Accepted()
    pace = Pace(a_turn=2, room_seconds=0.001)
    acceptor = Acceptor(Metrics(), loop=asyncio.get_running_loop(), has_room=lambda: False, pace=pace)
    with nothing_left(), listeners(acceptor, accepted) as (address,):
        clients = dial(address, 5)
        await until(lambda: len(accepted.socks) == 5, "all")
        close(clients)


async def test_stop_closes_one_listener() -> None:
    """`stop` closes the listening socket. The acceptor still accepts on the other sockets, and accepted connections stay open."""
    accepted = Accepted()
    acceptor = Acceptor(Metrics(), loop=asyncio.get_running_loop())
    with nothing_left(), listeners(acceptor, accepted) as (address,):
        sock = socket.create_server(("127.0.0.1", 0))
        stopped = sock.getsockname()
        acceptor.listen(sock, accepted.open)
        clients = dial(stopped, 1)
        await until(lambda: len(accepted.socks) == 1, "the connection")
        acceptor.stop(sock)
        acceptor.stop(sock)
        with pytest.raises(ConnectionRefusedError):
            dial(stopped, 1)
        clients += dial(address, 1)
        await until(lambda: len(accepted.socks) == 2, "the other connection")
        accepted.socks[0].send(b"x")
        assert clients[0].recv(1) == b"x"
        close(clients)


async def test_stop_during_a_pause() -> None:
    """A listening socket that is stopped during a pause stays stopped when the pause ends."""
    accepted, room = Accepted(), [False]
    acceptor = Acceptor(Metrics(), loop=asyncio.get_running_loop(), has_room=lambda: room[0], pace=LONG_PAUSES)
    with nothing_left(), listeners(acceptor, accepted, 2) as (address, _):
        sock = socket.create_server(("127.0.0.1", 0))
        acceptor.listen(sock, accepted.open)
        clients = dial(sock.getsockname(), 1) + dial(address, 1)
        await turns()
        acceptor.stop(sock)
        room[0] = True
        acceptor.room()
        await until(lambda: len(accepted.socks) == 1, "the connection")
        await turns()
        assert accepted.socks[0].getpeername() == clients[1].getsockname()
        close(clients)


async def test_stop_from_the_connection_callback(caplog: pytest.LogCaptureFixture) -> None:
    """The callback that receives a connection may stop its listener. The acceptor then accepts no more connections
    from it in this iteration, and raises no error."""
    caplog.set_level("DEBUG", "wsbridge")
    accepted = Accepted()
    acceptor = Acceptor(Metrics(), loop=asyncio.get_running_loop())
    with nothing_left(), listeners(acceptor, accepted, 0):
        sock = socket.create_server(("127.0.0.1", 0))
        clients = dial(sock.getsockname(), 3)

        def open_and_stop(connection: socket.socket, address: object) -> None:
            accepted.open(connection, address)
            acceptor.stop(sock)

        acceptor.listen(sock, open_and_stop)
        await until(lambda: accepted.socks, "the first connection")
        await turns()
        assert (len(accepted.socks), caplog.records) == (1, [])
        close(clients)


async def test_callback_is_replaced() -> None:
    """A second `listen` on a socket replaces its callback from the next connection on, also during a pause. No connection is lost."""
    first, second, room = Accepted(), Accepted(), [2]
    taken = lambda: len(first.socks) + len(second.socks)  # noqa: E731
    acceptor = Acceptor(Metrics(), loop=asyncio.get_running_loop(), has_room=lambda: taken() < room[0], pace=LONG_PAUSES)
    with nothing_left(), listeners(acceptor, first, 0):
        sock = socket.create_server(("127.0.0.1", 0), backlog=100)
        acceptor.listen(sock, first.open)
        clients = dial(sock.getsockname(), 8)
        await until(lambda: len(first.socks) == 2, "the first connections")
        acceptor.listen(sock, second.open)
        room[0] = 5
        acceptor.room()
        await until(lambda: len(second.socks) == 3, "the next connections")
        room[0] = 100
        acceptor.listen(sock, first.open)
        acceptor.room()
        await until(lambda: taken() == 8, "the rest")
        assert (len(first.socks), len(second.socks)) == (5, 3)
        second.close()
        close(clients)


@pytest.fixture
def few() -> Iterator[int]:
    """A descriptor limit that leaves room for a few descriptors beside the open ones."""
    with same_limits():
        limit = 160
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        yield limit


async def test_pause_when_descriptors_are_scarce(few: int, caplog: pytest.LogCaptureFixture) -> None:
    """The acceptor pauses before it uses the last descriptor, and logs this once. It continues when descriptors are free."""
    caplog.set_level("INFO", "wsbridge")
    metrics, accepted = Metrics(), Accepted()
    acceptor = Acceptor(metrics, loop=asyncio.get_running_loop(), pace=LONG_PAUSES)
    filling: list[int] = []
    with nothing_left(), listeners(acceptor, accepted) as (address,):
        clients = dial(address, 12)
        while not filling or filling[-1] < few - 24:
            filling.append(os.open(os.devnull, os.O_RDONLY))
        await until(lambda: metrics.accept_pauses == 1, "the pause")
        count = len(accepted.socks)
        assert count < 12
        # The reserve of descriptors is free for the rest of the process.
        os.close(os.open(os.devnull, os.O_RDONLY))
        looks = acceptor.checks
        await until(lambda: acceptor.checks > looks + 2, "three more looks")
        assert (len(accepted.socks), metrics.accept_pauses) == (count, 1)
        for fd in filling:
            os.close(fd)
        await until(lambda: len(accepted.socks) == 12, "the rest")
        close(clients)
    lines = [record.getMessage() for record in caplog.records if record.name == "wsbridge.server"]
    assert [line.partition(":")[0] for line in lines] == [
        "the server accepts no connections until file descriptors are free",
        "the server accepts connections again",
    ]


async def test_descriptors_that_come_and_go(few: int, caplog: pytest.LogCaptureFixture) -> None:
    """The log reports a recurring shortage at most ten times a minute; the metric counts every pause."""
    caplog.set_level("INFO", "wsbridge")
    metrics, accepted = Metrics(), Accepted()
    acceptor = Acceptor(metrics, loop=asyncio.get_running_loop(), pace=Pace(room_seconds=3600, short_seconds=0.001))
    filling: list[int] = []
    with nothing_left(), listeners(acceptor, accepted) as (address,):
        # Leave one descriptor before the reserve, so that the next connection reaches it.
        while not filling or filling[-1] < few - few // 8 - 1:
            filling.append(os.open(os.devnull, os.O_RDONLY))
        for count in range(1, 31):
            clients = dial(address, 1)
            await until(lambda count=count: metrics.accept_pauses == count, "a pause")
            accepted.close()
            close(clients)
            looks = acceptor.checks
            os.close(filling.pop())
            await until(lambda looks=looks: acceptor.checks > looks, "a look")
            filling.append(os.open(os.devnull, os.O_RDONLY))
        for fd in filling:
            os.close(fd)
    lines = [record.getMessage().partition(":")[0] for record in caplog.records if record.name == "wsbridge.server"]
    assert lines.count("the server accepts no connections until file descriptors are free") == 10
    assert lines.count("the server accepts connections again") <= 10


async def test_pause_without_any_free_descriptor(few: int, caplog: pytest.LogCaptureFixture) -> None:
    """If the process has no free descriptor, accept(2) fails. The acceptor then pauses too, and the loop does not spin."""
    metrics, accepted = Metrics(), Accepted()
    acceptor = Acceptor(metrics, loop=asyncio.get_running_loop(), pace=LONG_PAUSES)
    filling: list[int] = []
    with nothing_left(), listeners(acceptor, accepted) as (address,):
        clients = dial(address, 1)
        with suppress(OSError):
            while True:
                filling.append(os.open(os.devnull, os.O_RDONLY))
        await until(lambda: metrics.accept_pauses == 1, "the pause")
        await turns(200)
        assert (accepted.socks, metrics.accept_pauses) == ([], 1)
        for fd in filling:
            os.close(fd)
        await until(lambda: len(accepted.socks) == 1, "the connection")
        close(clients)
    assert len([record for record in caplog.records if "descriptors are free" in record.getMessage()]) <= 2
