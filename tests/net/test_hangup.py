"""A client that disconnects while its blocked program stops reading: the server notices the disconnect without reading from the socket."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.client import Client, encode_frame
from tests.support.proc import send_until_full, turns, until
from tests.support.server import Server, is_alive, mortal, wait_for_exit
from tests.support.site import Serve
from wsbridge.net.hangup import Hangups

TOO_MUCH = encode_frame(b"x" * 1000) * 20_000
"""More than the pipe, the bridge and the kernel accept for a program that does not read."""
SOME = encode_frame(b"x" * 1000) * 150
"""More than the pipe and the bridge accept, but less than the kernel accepts."""
WAYS = {"drop": Client.drop, "reset": Client.reset}


@contextmanager
def unreading(listener_server: Server) -> Iterator[tuple[Client, int]]:
    """A client whose program does not read, and the program's pid."""
    with listener_server.connect("/unreading") as client:
        pid = int(client.receive_text())
        with mortal(pid):
            yield client, pid


def stuff(client: Client) -> None:
    """Send data until the server accepts no more."""
    assert send_until_full(client.stream.sock, TOO_MUCH, quiet=0.1) < len(TOO_MUCH), "the server still reads from the client"


def test_disconnect_is_noticed(listener_server: Server) -> None:
    """If a client disconnects or resets while its program does not read, the server notices it and ends the program."""
    for way in ("drop", "reset"):
        with unreading(listener_server) as (client, pid):
            stuff(client)
            WAYS[way](client)
            wait_for_exit(pid)


def test_half_close_is_noticed(listener_server: Server) -> None:
    """A client that half-closes the connection counts as disconnected, even while data from it is unread."""
    with unreading(listener_server) as (client, pid):
        client.send_raw(SOME)
        waiting = [0, 0]
        while waiting[-1] == 0 or waiting[-1] != waiting[-2]:
            waiting.append(int(client.receive_text()))
        client.stream.sock.shutdown(socket.SHUT_WR)
        wait_for_exit(pid)
        client.wait_for_end()


def test_connected_client_is_kept(listener_server: Server) -> None:
    """The server keeps a client that stays connected, and the client receives the program's output all the time."""
    with unreading(listener_server) as (client, pid):
        stuff(client)
        for _ in range(30):
            client.receive_text()
        assert is_alive(pid)


def test_hidden_disconnect(serve: Serve, transports: dict[str, str]) -> None:
    """If unread data hides a client's disconnect, the next ping detects it, even when the program sends nothing."""
    server = serve("--pingms=200", "sh", "-c", "echo $$; exec sleep 1000", env=transports)
    with server.connect() as client:
        pid = int(client.receive_text())
        with mortal(pid):
            stuff(client)
            while select.select([client.stream.sock], [], [], 0)[0]:
                client.receive_frame()  # no data is left unread here: the kernel has no cause for a reset
            client.drop()
            wait_for_exit(pid)


def test_hidden_disconnect_without_pings(serve: Serve, transports: dict[str, str]) -> None:
    """With --pingms=0 too, the server detects the disconnect: it probes a client whose program blocks it now and then."""
    server = serve("--pingms=0", "--maxforks=1", "sh", "-c", "echo $$; exec sleep 1000", env=transports)
    for _ in range(2):
        with server.connect() as client:
            pid = int(client.receive_text())
            with mortal(pid):
                stuff(client)
                client.drop()
                wait_for_exit(pid)
                server.wait_for_log(r"\| DISCONNECT")


# The watcher on its own


class Watched:
    """A pair of connected sockets, and the number of hangups that the watcher has reported for the first."""

    def __init__(self, kind: str) -> None:
        if kind == "unix":
            self.ours, self.theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.theirs = socket.create_connection(listener.getsockname())
                self.ours, _ = listener.accept()
        self.told = 0

    def on_hangup(self) -> None:
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


async def test_hangup_is_reported_once(hangups: Hangups, watched: Watched) -> None:
    """The watcher reports a peer's hangup once, even if unread data precedes it."""
    watched.theirs.send(b"unread")
    hangups.watch(watched.ours.fileno(), watched.on_hangup)
    await turns(50)
    assert watched.told == 0
    watched.theirs.close()
    await until(lambda: watched.told, "the end to be told")
    await turns(50)
    assert watched.told == 1


async def test_hangup_before_the_watch(hangups: Hangups, watched: Watched) -> None:
    """The watcher also reports a hangup that happened before the watch began."""
    watched.theirs.close()
    hangups.watch(watched.ours.fileno(), watched.on_hangup)
    await until(lambda: watched.told, "the end to be told")


async def test_no_report_after_unwatch(hangups: Hangups, watched: Watched) -> None:
    """The watcher reports no hangup of a socket that it no longer watches. `watch` and `unwatch` are idempotent."""
    fd = watched.ours.fileno()
    for _ in range(2):
        hangups.watch(fd, watched.on_hangup)
    for _ in range(2):
        hangups.unwatch(fd, watched.on_hangup)
    watched.theirs.close()
    select.select([watched.ours], [], [], 10)
    await turns(50)
    assert watched.told == 0


async def test_watched_again(hangups: Hangups, watched: Watched) -> None:
    """A socket may be watched again after `unwatch`."""
    fd = watched.ours.fileno()
    hangups.watch(fd, watched.on_hangup)
    hangups.unwatch(fd, watched.on_hangup)
    hangups.watch(fd, watched.on_hangup)
    watched.theirs.close()
    await until(lambda: watched.told == 1, "the end to be told")


async def test_reused_descriptor_number(hangups: Hangups, watched: Watched) -> None:
    """If a new socket reuses the number of a watched socket, the watcher watches the new socket. `unwatch` of the old socket does not
    affect it."""
    fd = watched.ours.fileno()
    hangups.watch(fd, watched.on_hangup)
    other = Watched("unix")
    try:
        os.dup2(other.ours.fileno(), fd)
        hangups.watch(fd, other.on_hangup)
        hangups.unwatch(fd, watched.on_hangup)
        await turns(50)
        assert other.told == 0
        other.theirs.close()
        await until(lambda: other.told == 1, "the end of the other")
        assert watched.told == 0
    finally:
        other.close()
