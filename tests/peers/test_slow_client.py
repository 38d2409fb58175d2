"""A client that takes slowly, or nothing: it blocks its own program, in bounded memory, and nobody else."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

from tests.support.client import Close, Opcode, encode_frame
from tests.support.proc import TRANSPORTS, pause, resident, send_what_is_taken
from tests.support.server import Server, is_alive, memory_peak, wait_for_exit
from tests.support.site import Serve, say
from tests.support.tool import command

MIB = 1 << 20
SMALL = 1 << 16
"""A receive buffer by which a server feels soon that nothing is read."""


def blocked(server: Server, pid: int) -> int:
    """Wait until the program of the site's flood is blocked; return how many bytes it has written."""
    return int(server.wait_for_log(rf"pid:'{pid}' \| blocked at (\d+)")[1])


def options(server: Server) -> dict[str, int]:
    return {} if "unix" in server.where else {"receive_buffer": SMALL}


def test_slow_client_blocks_its_own_program_alone(door: Server) -> None:
    """A client that does not read blocks its program, in bounded memory, and nobody else; when it reads, nothing is lost."""
    with door.connect("/flood", **options(door)) as client:
        pid = int(client.receive_text())
        written = blocked(door, pid)
        assert written < 32 * MIB
        assert memory_peak(door.pid) < 160 * MIB
        with door.connect("/echo") as other:
            for number in range(10):
                other.send_text(str(number))
                assert other.receive_text() == str(number)
        assert door.get("/small.txt").body == b"small\n"
        assert door.request("POST", "/echo", body=b"body").body == b"body"
        lines = written // 100 + 1_000
        assert [int(client.receive_text()) for _ in range(lines)] == list(range(lines))
        client.drop()
        wait_for_exit(pid)


def test_slow_client_is_heard(door: Server) -> None:
    """A client that does not read is heard all the same: when it closes its program ends, and the close is answered."""
    with door.connect("/flood", **options(door)) as client:
        pid = int(client.receive_text())
        blocked(door, pid)
        client.send_close(1000)
        wait_for_exit(pid)
        assert client.receive_close() == Close(1000)


def test_all_is_delivered_after_the_exit(door: Server) -> None:
    """When a program has printed all and ended, a client that was slow to take it gets all of it, and then the end."""
    with door.connect(say("seq -f %0999g 6000; exit 3"), **options(door)) as client:
        pause(0.2)
        messages, close = client.receive_until_close()
        assert close == Close(1011, "exit 3")
        assert [int(message.data) for message in messages] == list(range(1, 6_001))


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.TEXT], ids=["pings", "messages"])
def test_client_that_only_talks(served: Server, opcode: Opcode) -> None:
    """A client that never reads cannot make the server keep answers without bound, be they its program's or pongs."""
    frames = encode_frame(b"x" * 125, opcode) * 200_000
    with served.connect("/echo", receive_buffer=SMALL) as client:
        before = resident(served.pid)
        send_what_is_taken(client.stream.sock, frames, quiet=0.3)
        assert resident(served.pid) - before < 12 * MIB
        client.reset()


# --send-timeout: both kinds of transports side by side, since these take their time

TIMEOUT = 1.0


@pytest.fixture
def pair(serve: Serve) -> Callable[..., list[Server]]:
    """Starts the same server with each kind of transports."""
    return lambda *words: [serve(f"--send-timeout={TIMEOUT}", "--pingms=0", *words, env=env) for env in TRANSPORTS.values()]


PROGRAMS = {"in the middle": command("flood"), "at the end": ("head", "-c", "20000000", "/dev/zero")}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_client_that_takes_nothing_is_cut(pair: Callable[..., list[Server]], program: Sequence[str]) -> None:
    """--send-timeout ends a client that takes nothing for so long, also when its program has ended meanwhile; it is counted."""
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


def test_client_that_half_closes_and_takes_nothing(pair: Callable[..., list[Server]]) -> None:
    """--send-timeout ends one that has closed its direction and takes nothing of what was on its way, whatever --sendbuffer is."""
    servers = pair("--binary", "--sendbuffer=50000000", "sh", "-c", "head -c 6000000 /dev/zero; echo done >&2; exec sleep 1000")
    with ExitStack() as clients:
        for server in servers:
            client = clients.enter_context(server.connect(receive_buffer=SMALL))
            server.wait_for_log(r"\| done")
            client.stream.end_sending()
        for server in servers:
            server.wait_for_log("closing: the client accepted no data")


def test_client_that_takes_slowly_is_kept(pair: Callable[..., list[Server]]) -> None:
    """--send-timeout does not end a client that takes, however slowly: only one that takes nothing."""
    servers = pair("--binary", *command("flood"))
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(receive_buffer=SMALL)) for server in servers]
        begun = time.monotonic()
        # Some 400 kB in a second, for four times as long as one may take nothing.
        while time.monotonic() - begun < 4 * TIMEOUT:
            for client in clients:
                assert client.stream.sock.recv(40_000)
            pause(0.1)
        assert [server.log.count("| DISCONNECT") for server in servers] == [0, 0]


def test_long_message_to_a_slow_client(pair: Callable[..., list[Server]]) -> None:
    """A client that takes a long message slowly is not given up for pings to which it has not come yet."""
    servers = pair("--pingms=500", "--send-timeout=5", "sh", "-c", f"head -c {2 * MIB} /dev/zero | tr '\\0' x; echo; exec cat")
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(receive_buffer=SMALL)) for server in servers]
        taken = 0
        # For some four seconds, which is eight pings.
        while taken < 3 * MIB // 2:
            for client in clients:
                assert client.stream.sock.recv(35_000, socket.MSG_WAITALL)
            taken += 35_000
            pause(0.1)
        assert [server.log.count("| DISCONNECT") for server in servers] == [0, 0]


def test_no_send_timeout(serve: Serve) -> None:
    """--send-timeout=0 is without limit: a client that takes nothing is kept, and its going is noticed."""
    server = serve("--send-timeout=0", "sh", "-c", 'echo $$; exec "$@"', "sh", *command("flood"))
    with server.connect(receive_buffer=SMALL) as client:
        pid = int(client.receive_text())
        server.wait_for_log("blocked at")
        assert is_alive(pid)
        client.drop()
        wait_for_exit(pid)
