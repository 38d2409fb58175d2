"""A client that goes while its blocked program holds up reading: its end is seen although nobody reads."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.client import Client, encode_frame
from tests.support.proc import send_what_is_taken, turns, until
from tests.support.server import Server, is_alive, mortal, wait_for_exit
from tests.support.site import Serve
from wsbridge.net.hangup import Hangups

TOO_MUCH = encode_frame(b"x" * 1000) * 20_000
"""More than the pipe, the bridge and the kernel take for a program that does not read."""
SOME = encode_frame(b"x" * 1000) * 150
"""More than pipe and bridge take, but not the kernel."""
WAYS = {"drop": Client.drop, "reset": Client.reset}


@contextmanager
def deaf(door: Server) -> Iterator[tuple[Client, int]]:
    """A client whose program reads nothing, and the program's pid."""
    with door.connect("/deaf") as client:
        pid = int(client.receive_text())
        with mortal(pid):
            yield client, pid


def stuff(client: Client) -> None:
    """Say so much that nothing more is taken."""
    assert send_what_is_taken(client.stream.sock, TOO_MUCH, quiet=0.1) < len(TOO_MUCH), "nothing held up the client"


def test_client_that_goes_is_noticed(door: Server) -> None:
    """A client that vanishes or resets while its program takes nothing is noticed, each of many, and the program ends."""
    for way in ("drop", "reset"):
        with deaf(door) as (client, pid):
            stuff(client)
            WAYS[way](client)
            wait_for_exit(pid)


def test_half_close_is_noticed(door: Server) -> None:
    """A client that closes its direction has gone, also where what it said before lies unread."""
    with deaf(door) as (client, pid):
        client.send_raw(SOME)
        waiting = [0, 0]
        while waiting[-1] == 0 or waiting[-1] != waiting[-2]:
            waiting.append(int(client.receive_text()))
        client.stream.sock.shutdown(socket.SHUT_WR)
        wait_for_exit(pid)
        client.wait_for_end()


def test_client_that_stays_is_kept(door: Server) -> None:
    """A client that stays is not cut, and hears its program all the while."""
    with deaf(door) as (client, pid):
        stuff(client)
        for _ in range(30):
            client.receive_text()
        assert is_alive(pid)


def test_client_that_goes_unseen(serve: Serve, transports: dict[str, str]) -> None:
    """One whose end lies behind what nobody reads is noticed by the next ping, also when its program says nothing."""
    server = serve("--pingms=200", "sh", "-c", "echo $$; exec sleep 1000", env=transports)
    with server.connect() as client:
        pid = int(client.receive_text())
        with mortal(pid):
            stuff(client)
            while select.select([client.stream.sock], [], [], 0)[0]:
                client.receive_frame()  # nothing is left unread here: the kernel has no cause for a reset
            client.drop()
            wait_for_exit(pid)


def test_client_that_goes_unseen_without_pings(serve: Serve, transports: dict[str, str]) -> None:
    """It is noticed with --pingms=0 as well: a client that is held up is spoken to now and then."""
    server = serve("--pingms=0", "--maxforks=1", "sh", "-c", "echo $$; exec sleep 1000", env=transports)
    for _ in range(2):
        with server.connect() as client:
            pid = int(client.receive_text())
            with mortal(pid):
                stuff(client)
                client.drop()
                wait_for_exit(pid)
                server.wait_for_log(r"\| DISCONNECT")


# The watcher itself


class Watched:
    """A pair of connected sockets, and how often the watcher has told of the first one's end."""

    def __init__(self, kind: str) -> None:
        if kind == "unix":
            self.ours, self.theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.theirs = socket.create_connection(listener.getsockname())
                self.ours, _ = listener.accept()
        self.told = 0

    def tell(self) -> None:
        self.told += 1

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture(params=["tcp", "unix"])
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    pair = Watched(request.param)
    yield pair
    pair.close()


@pytest.fixture
async def hangups() -> Iterator[Hangups]:
    watcher = Hangups(asyncio.get_running_loop())
    yield watcher
    watcher.close()


async def test_told_once(hangups: Hangups, watched: Watched) -> None:
    """The end of a watched socket's peer is told once, also where unread data lies before it."""
    watched.theirs.send(b"unread")
    hangups.watch(watched.ours.fileno(), watched.tell)
    await turns(50)
    assert watched.told == 0
    watched.theirs.close()
    await until(lambda: watched.told, "the end to be told")
    await turns(50)
    assert watched.told == 1


async def test_end_before_the_watching(hangups: Hangups, watched: Watched) -> None:
    """An end that came before is told as well."""
    watched.theirs.close()
    hangups.watch(watched.ours.fileno(), watched.tell)
    await until(lambda: watched.told, "the end to be told")


async def test_not_told_when_unwatched(hangups: Hangups, watched: Watched) -> None:
    """What is no longer watched is not told; to stop twice is to stop once."""
    fd = watched.ours.fileno()
    for _ in range(2):
        hangups.watch(fd, watched.tell)
    for _ in range(2):
        hangups.unwatch(fd, watched.tell)
    watched.theirs.close()
    select.select([watched.ours], [], [], 10)
    await turns(50)
    assert watched.told == 0


async def test_watched_again(hangups: Hangups, watched: Watched) -> None:
    """A socket may be watched again after it was let go."""
    fd = watched.ours.fileno()
    hangups.watch(fd, watched.tell)
    hangups.unwatch(fd, watched.tell)
    hangups.watch(fd, watched.tell)
    watched.theirs.close()
    await until(lambda: watched.told == 1, "the end to be told")


async def test_number_that_is_used_again(hangups: Hangups, watched: Watched) -> None:
    """A socket with the number of one that was closed while it was watched is watched as any other, and not let go in its place."""
    fd = watched.ours.fileno()
    hangups.watch(fd, watched.tell)
    other = Watched("unix")
    try:
        os.dup2(other.ours.fileno(), fd)
        hangups.watch(fd, other.tell)
        hangups.unwatch(fd, watched.tell)
        await turns(50)
        assert other.told == 0
        other.theirs.close()
        await until(lambda: other.told == 1, "the end of the other")
        assert watched.told == 0
    finally:
        other.close()
