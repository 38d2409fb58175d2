"""A client that reads slowly, or not at all, blocks its own program, in bounded memory, and no other client."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

from tests.support.client import Close, Opcode, encode_frame
from tests.support.deadline import scaled
from tests.support.proc import TRANSPORTS, pause, resident, send_until_full
from tests.support.server import Server, is_alive, memory_peak, wait_for_exit
from tests.support.site import Serve, shell_path
from tests.support.tool import command

MIB = 1 << 20
SMALL = 1 << 16
"""A small receive buffer, so that the server soon notices a client that does not read."""


def blocked(server: Server, pid: int) -> int:
    """Wait until the `flood` program is blocked; return the number of bytes it has written."""
    return int(server.wait_for_log(rf"pid:'{pid}' \| blocked at (\d+)")[1])


def options(server: Server) -> dict[str, int]:
    return {} if "unix" in server.where else {"receive_buffer": SMALL}


def test_slow_client_blocks_only_its_own_program(listener_server: Server) -> None:
    """A client that does not read blocks its program in bounded memory, and no other client. When it reads again, no message is lost."""
    with listener_server.connect("/flood", **options(listener_server)) as client:
        pid = int(client.receive_text())
        written = blocked(listener_server, pid)
        assert written < 32 * MIB
        assert memory_peak(listener_server.pid) < 160 * MIB
        with listener_server.connect("/echo") as other:
            for number in range(10):
                other.send_text(str(number))
                assert other.receive_text() == str(number)
        assert listener_server.get("/small.txt").body == b"small\n"
        assert listener_server.request("POST", "/echo", body=b"body").body == b"body"
        lines = written // 100 + 1_000
        assert [int(client.receive_text()) for _ in range(lines)] == list(range(lines))
        client.drop()
        wait_for_exit(pid)


def test_close_from_a_client_that_does_not_read(listener_server: Server) -> None:
    """The server still reads from a client that does not read. When the client closes, its program ends and the server echoes the close."""
    with listener_server.connect("/flood", **options(listener_server)) as client:
        pid = int(client.receive_text())
        blocked(listener_server, pid)
        client.send_close(1000)
        wait_for_exit(pid)
        assert client.receive_close() == Close(1000)


def test_all_is_delivered_after_the_exit(listener_server: Server) -> None:
    """When a program exits after its last output, a slow client receives all of the output, then the close."""
    with listener_server.connect(shell_path("seq -f %0999g 6000; exit 3"), **options(listener_server)) as client:
        pause(0.2)
        messages, close = client.receive_until_close()
        assert close == Close(1011, "exit 3")
        assert [int(message.data) for message in messages] == list(range(1, 6_001))


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.TEXT], ids=["pings", "messages"])
def test_client_that_only_sends(served: Server, opcode: Opcode) -> None:
    """A client that never reads cannot make the server buffer answers without bound: neither its program's output nor pongs."""
    frames = encode_frame(b"x" * 125, opcode) * 200_000
    with served.connect("/echo", receive_buffer=SMALL) as client:
        before = resident(served.pid)
        send_until_full(client.stream.sock, frames, quiet=0.3)
        assert resident(served.pid) - before < 12 * MIB
        client.reset()


# --send-timeout: the tests run both kinds of transports at the same time, since they wait for a timeout

TIMEOUT = 1.0


@pytest.fixture
def pair(serve: Serve) -> Callable[..., list[Server]]:
    """Starts the same server with each kind of transports."""
    return lambda *words: [serve(f"--send-timeout={TIMEOUT}", "--pingms=0", *words, env=env) for env in TRANSPORTS.values()]


PROGRAMS = {"in the middle": command("flood"), "at the end": ("head", "-c", "20000000", "/dev/zero")}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_client_that_reads_nothing_is_disconnected(pair: Callable[..., list[Server]], program: Sequence[str]) -> None:
    """--send-timeout disconnects a client that accepts no data, also after its program has exited. A metric counts it."""
    servers = pair("--binary", "--sendbuffer=50000000", *program)
    with ExitStack() as clients:
        begun = time.monotonic()
        for server in servers:
            clients.enter_context(server.connect(receive_buffer=SMALL))
        for server in servers:
            server.wait_for_log("closing: the client accepted no data")
            assert time.monotonic() - begun >= TIMEOUT
            server.wait_for_log(r"\| DISCONNECT")
    for server in servers:
        server.stop()
        assert "clients_timed_out=1" in server.log


def test_client_that_half_closes_and_reads_nothing(pair: Callable[..., list[Server]]) -> None:
    """--send-timeout also disconnects a client that half-closes and accepts none of the pending data, whatever --sendbuffer is."""
    servers = pair("--binary", "--sendbuffer=50000000", "sh", "-c", "head -c 6000000 /dev/zero; echo done >&2; exec sleep 1000")
    with ExitStack() as clients:
        for server in servers:
            client = clients.enter_context(server.connect(receive_buffer=SMALL))
            server.wait_for_log(r"\| done")
            client.stream.end_sending()
        for server in servers:
            server.wait_for_log("closing: the client accepted no data")


def test_client_that_reads_slowly_is_kept(pair: Callable[..., list[Server]]) -> None:
    """--send-timeout keeps a client that accepts data, however slowly."""
    timeout = scaled(TIMEOUT)
    servers = pair("--binary", f"--send-timeout={timeout}", *command("flood"))
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(receive_buffer=SMALL)) for server in servers]
        begun = time.monotonic()
        # About 400 kB per second, for four times the timeout.
        while time.monotonic() - begun < 4 * timeout:
            for client in clients:
                assert client.stream.sock.recv(40_000)
            pause(0.1)
        assert [server.log.count("| DISCONNECT") for server in servers] == [0, 0]


def test_long_message_to_a_slow_client(pair: Callable[..., list[Server]]) -> None:
    """The server keeps a client that reads a long message slowly, although the client has not reached the pings behind it."""
    servers = pair("--pingms=500", "--send-timeout=5", "sh", "-c", f"head -c {2 * MIB} /dev/zero | tr '\\0' x; echo; exec cat")
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(receive_buffer=SMALL)) for server in servers]
        taken = 0
        # This takes about four seconds, which is eight pings.
        while taken < 3 * MIB // 2:
            for client in clients:
                assert client.stream.sock.recv(35_000, socket.MSG_WAITALL)
            taken += 35_000
            pause(0.1)
        assert [server.log.count("| DISCONNECT") for server in servers] == [0, 0]


def test_no_send_timeout(serve: Serve) -> None:
    """With --send-timeout=0, the server keeps a client that accepts nothing, and still notices its disconnect."""
    server = serve("--send-timeout=0", "sh", "-c", 'echo $$; exec "$@"', "sh", *command("flood"))
    with server.connect(receive_buffer=SMALL) as client:
        pid = int(client.receive_text())
        server.wait_for_log("blocked at")
        assert is_alive(pid)
        client.drop()
        wait_for_exit(pid)
