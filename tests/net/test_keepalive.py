"""TCP keepalive on real sockets: the options that the kernel returns afterwards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.deadline import DEADLINE
from wsbridge.net.keepalive import keep_alive

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
TIMES = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes the sockets of a test."""
    with ExitStack() as sockets:
        yield sockets


@pytest.fixture(params=LOOPBACK, ids=["IPv4", "IPv6"])
def listener(request: pytest.FixtureRequest, stack: ExitStack) -> socket.socket:
    """A TCP socket that is bound to a loopback address, if the machine has one of this family."""
    try:
        sock = stack.enter_context(socket.socket(request.param))
        sock.bind((LOOPBACK[request.param], 0))
    except OSError as error:
        pytest.skip(f"this machine has no loopback address of the family: {error}")
    sock.settimeout(DEADLINE)
    return sock


def is_on(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0


def times(sock: socket.socket) -> list[int]:
    return [sock.getsockopt(socket.IPPROTO_TCP, option) for option in TIMES]


def test_tcp(listener: socket.socket) -> None:
    """The kernel probes an idle TCP connection after 15 s, then every 15 s, and closes it after 9 failed probes."""
    assert not is_on(listener)
    keep_alive(listener)
    assert (is_on(listener), times(listener)) == (True, [15, 15, 9])


def test_time_until_the_end(listener: socket.socket) -> None:
    """The kernel ends the connection of a vanished peer after 150 s, as docs/flags.md states."""
    keep_alive(listener)
    idle, interval, probes = times(listener)
    assert idle + interval * probes == 150


def test_repeated(listener: socket.socket) -> None:
    """A second call changes nothing."""
    keep_alive(listener)
    keep_alive(listener)
    assert (is_on(listener), times(listener)) == (True, [15, 15, 9])


def test_accepted_socket(listener: socket.socket, stack: ExitStack) -> None:
    """An accepted socket inherits keepalive from its listening socket; the client's socket does not."""
    keep_alive(listener)
    listener.listen()
    client = stack.enter_context(socket.create_connection(listener.getsockname()[:2], DEADLINE))
    accepted = stack.enter_context(listener.accept()[0])
    assert (is_on(accepted), times(accepted)) == (True, [15, 15, 9])
    assert not is_on(client)


def test_connected_socket(listener: socket.socket, stack: ExitStack) -> None:
    """wsbridge turns keepalive on for a socket that is already connected, as that of a client of a server."""
    listener.listen()
    client = stack.enter_context(socket.create_connection(listener.getsockname()[:2], DEADLINE))
    keep_alive(client)
    assert (is_on(client), times(client)) == (True, [15, 15, 9])
    assert not is_on(listener)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_unix_socket(stack: ExitStack, kind: socket.SocketKind) -> None:
    """A Unix socket stays unchanged: without keepalive, and without an error."""
    for sock in socket.socketpair(socket.AF_UNIX, kind):
        stack.enter_context(sock)
        keep_alive(sock)
        assert not is_on(sock)


def test_udp_socket(stack: ExitStack) -> None:
    """A UDP socket is not TCP, so it stays unchanged: without keepalive, and without an error."""
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    keep_alive(sock)
    assert not is_on(sock)


def test_closed_socket(listener: socket.socket) -> None:
    """A closed TCP socket raises an error instead of silently staying without keepalive."""
    listener.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        keep_alive(listener)
