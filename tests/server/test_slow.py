"""Slow and stuck subscribers: each gets the exact count of its lost messages, does not affect others, and uses bounded memory."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import Broadcast, Viewer, listen, status, view, wait_for_viewers
from tests.support.client import DEADLINE, Client, Close
from tests.support.deadline import scaled
from tests.support.proc import TRANSPORTS, pause, resident
from tests.support.server import Server, wait_until
from tests.support.site import Certificates

MIB = 1 << 20
SMALL: dict[str, Any] = {"receive_buffer": 4096}
"""A small receive buffer, so that the server soon notices a client that does not read."""

Where = tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]

PAYLOAD = b"x" * 10_000
STEP = "while read -r go; do seq $i $((i + %d)); i=$((i + %d)); done"
"""A program that prints the next numbers at each line of input."""


def flood(publisher: Client, count: int) -> None:
    """Publish messages of 10 kB, each after the previous message has come back."""
    for _ in range(count):
        publisher.send_binary(PAYLOAD)
        assert publisher.receive_binary() == PAYLOAD


def took_all(viewer: Viewer, server: Server, begin: int) -> int:
    """Read all messages; return their number, and check that all others were reported as lost."""
    end = status(server)["position"]
    count = 0
    while viewer.position != end:
        count += viewer.next().what == "message"
    assert count + viewer.lost == status(server)["messages"] - begin
    return count


@pytest.fixture(params=[(name, listener) for name in TRANSPORTS for listener in ("tcp", "unix", "tls")], ids="-".join)
def where(request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path) -> Where:
    """Flags and options of a server, and options of a client with small buffers."""
    name, listener = request.param
    if name == "aiofastnet":
        pytest.importorskip("aiofastnet")
    options: dict[str, Any] = {"env": TRANSPORTS[name]}
    match listener:
        case "unix":
            path = str(tmp_path / "s")
            return (), options | {"listen": (f"--unixsocket={path}",), "unix": path}, {}
        case "tls":
            return certificates.server_flags, options | {"tls": certificates.context()}, SMALL
    return (), options, SMALL


def test_drop_oldest(broadcast: Broadcast, where: Where) -> None:
    """A client that falls behind by more than --queue loses its oldest messages. It gets their number, and all other messages."""
    flags, options, small = where
    server = broadcast("--input=exchange", "--queue=100000", "--history=0", *flags, **options)
    with server.connect() as publisher, view(server, **small) as stuck:
        wait_for_viewers(server, 2)
        flood(publisher, 1_000)
        taken = took_all(stuck, server, 0)
        assert 10 <= taken < 900
        assert len(stuck.losses) == 1
        publisher.send_text("after")
        assert stuck.message() == b"after"


def test_latest(broadcast: Broadcast) -> None:
    """With --slow=latest, a client that falls too far behind continues with the latest message."""
    server = broadcast("--input=exchange", "--queue=100000", "--history=0", "--slow=latest")
    with server.connect() as publisher, view(server, **SMALL) as stuck:
        wait_for_viewers(server, 2)
        flood(publisher, 1_000)
        took_all(stuck, server, 0)
        assert sum(count or 0 for count in stuck.losses[-1:]) > 0
        flood(publisher, 1)
        assert stuck.message() == PAYLOAD


def test_close(broadcast: Broadcast) -> None:
    """With --slow=close, a client that falls too far behind is closed with 1013. It can reconnect and resume without a loss."""
    server = broadcast("--input=exchange", "--queue=100000", "--history=2000", "--history-bytes=100000000", "--slow=close")
    with server.connect() as publisher:
        stuck = view(server, **SMALL)
        wait_for_viewers(server, 2)
        flood(publisher, 1_000)
        wait_for_viewers(server, 1)
        seen = 0
        while stuck.client.close_frame is None:
            try:
                seen += stuck.next().what == "message"
            except Exception:
                break
        assert stuck.client.close_frame is not None
        assert stuck.client.close_frame.code == 1013
        stuck.client.drop()
        with view(server, since=stuck.position) as again:
            assert len(again.messages(1_000 - seen)) == 1_000 - seen
            assert again.losses == []


def test_slow_event_stream(broadcast: Broadcast) -> None:
    """An event stream that falls too far behind gets an event `lost`."""
    server = broadcast("--input=exchange", "--queue=100000", "--history=0")
    with server.connect() as publisher, listen(server, **SMALL) as stuck:
        wait_for_viewers(server, 2)
        flood(publisher, 1_000)
        end = status(server)["position"]
        counts = {"binary": 0, "lost": 0}
        while stuck.position != end:
            event = stuck.next()
            counts[event.kind] += int(event.data) if event.kind == "lost" else 1
        assert counts["lost"] > 100
        assert sum(counts.values()) == 1_000


def test_loss_is_logged_at_the_shutdown(broadcast: Broadcast) -> None:
    """The log has a client's lost messages also if the server closes the connection."""
    server = broadcast("--input=exchange", "--queue=100000", "--history=0")
    with server.connect() as publisher, view(server, **SMALL) as stuck:
        wait_for_viewers(server, 2)
        flood(publisher, 1_000)
        took_all(stuck, server, 0)
        assert stuck.lost > 0
        server.stop()
    assert f"messages:'{stuck.lost} lost' | DISCONNECT" in server.log


def test_slow_plain_client(broadcast: Broadcast) -> None:
    """A plain client gets no notice of a loss: it gets whole messages in order, up to the latest."""
    server = broadcast("--input=program", "--queue=10000", "sh", "-c", "i=1; " + STEP % (999, 1000))
    with view(server) as conductor, server.connect(**SMALL) as stuck:
        conductor.next()
        for _ in range(200):
            conductor.client.send_text("go")
            conductor.messages(1000)
        numbers = [0]
        while numbers[-1] < 200_000:
            numbers.append(int(stuck.receive_text()))
            assert numbers[-1] > numbers[-2]
        assert len(numbers) < 190_000


@pytest.mark.parametrize("flag", ["--send-timeout=0.3", "--send-timeout=0"])
@pytest.mark.parametrize("name", TRANSPORTS)
def test_send_timeout(broadcast: Broadcast, flag: str, name: str) -> None:
    """The server disconnects a client of any kind that accepts nothing for --send-timeout. With 0, it never does."""
    if name == "aiofastnet":
        pytest.importorskip("aiofastnet")
    server = broadcast("--input=exchange", flag, env=TRANSPORTS[name])
    with server.connect() as publisher, view(server, **SMALL) as stuck, listen(server, **SMALL), server.connect(**SMALL) as plain:
        wait_for_viewers(server, 4)
        flood(publisher, 500)
        if flag == "--send-timeout=0":
            assert status(server)["viewers"] == 4
            while stuck.position != status(server)["position"]:
                stuck.next()
            return
        wait_for_viewers(server, 1)
        assert status(server)["counts"]["clients_timed_out"] == 3
        assert plain.receive_close() == Close(1006)
        assert publisher.is_open()


def test_slow_client_is_kept(broadcast: Broadcast) -> None:
    """The server keeps a client that accepts data slowly."""
    server = broadcast("--input=exchange", "--send-timeout=1", "--queue=100000")
    with server.connect() as publisher, view(server, **SMALL) as slow:
        wait_for_viewers(server, 2)
        for _ in range(50):
            flood(publisher, 20)
            slow.messages(2)
            pause(0.05)
        assert status(server)["viewers"] == 2


def test_client_with_a_slow_link(broadcast: Broadcast) -> None:
    """While data for a client piles up, its pongs come later and later. The server keeps the client as long as it accepts data."""
    server = broadcast("--input=exchange", "--pingms=500")
    with server.connect() as publisher, view(server, **SMALL) as slow:
        wait_for_viewers(server, 2)
        # This takes at least four pings, during which the client reads less than half of the data.
        for _ in range(110):
            publisher.send_binary(PAYLOAD[:2000])
            publisher.receive_binary()
            assert slow.client.stream.sock.recv(800)
            pause(0.02)
        assert status(server)["counts"]["clients_timed_out"] == 0


class Crowd:
    """Plain clients that a thread reads as fast as possible; it counts their bytes. Each must get the same bytes."""

    def __init__(self, clients: list[Client]) -> None:
        self.counts = {client.stream.sock: 0 for client in clients}
        self.least = 0
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def wait_for(self, count: int) -> None:
        """Wait until each client has received this number of bytes."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.least >= count, scaled(DEADLINE)), f"{self.least} of {count} bytes, for the slowest"

    def close(self) -> None:
        self._over = True
        self._thread.join()

    def _read(self) -> None:
        poll, by_number = select.epoll(), {sock.fileno(): sock for sock in self.counts}
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        while not self._over:
            for number, _ in poll.poll(0.1):
                sock: socket.socket = by_number[number]
                self.counts[sock] += len(sock.recv(1 << 18))
            least = min(self.counts.values())
            if least > self.least:
                with self._changed:
                    self.least = least
                    self._changed.notify_all()
        poll.close()


@pytest.mark.parametrize("name", TRANSPORTS)
def test_many_clients_and_two_slow_clients(broadcast: Broadcast, name: str) -> None:
    """Of 300 clients, one reads nothing and one reads slowly while the program publishes 200,000 messages.

    The other clients get all messages. The slow clients get the exact count of their lost messages, and the memory does not grow.
    """
    if name == "aiofastnet":
        pytest.importorskip("aiofastnet")
    script = "i=100001; " + STEP % (1999, 2000)
    # Without pings: the crowd counts bytes, and two of the clients answer none.
    server = broadcast("--input=program", "--pingms=0", "--queue=50000", "--history=10", "sh", "-c", script, env=TRANSPORTS[name])
    with ExitStack() as stack:
        stuck = stack.enter_context(view(server, **SMALL))
        slow = stack.enter_context(view(server, **SMALL))
        conductor = stack.enter_context(view(server))
        crowd = Crowd([stack.enter_context(server.connect()) for _ in range(297)])
        stack.callback(crowd.close)
        wait_for_viewers(server, 300)
        before = resident(server.pid)
        slowly = 0
        for step in range(1, 101):
            conductor.client.send_text("go")
            assert conductor.messages(2000)[-1] == b"%d" % (100_000 + step * 2000)
            # Each message is 6 digits in a frame with a header of 2 bytes.
            crowd.wait_for(step * 2000 * 8)
            slowly += slow.next().what == "message"
        assert set(crowd.counts.values()) == {200_000 * 8}
        grown = resident(server.pid) - before
        assert grown < 24 * MIB
        slow_count = slowly + took_all(slow, server, slowly)
        assert 0 < slow_count < 200_000
        assert slow_count + slow.lost == 200_000
        assert 0 < took_all(stuck, server, 0) < 200_000
        assert conductor.losses == []
        assert status(server)["counts"]["messages_lost"] == slow.lost + stuck.lost
        lost = [one.lost for one in (slow, stuck)]
    for count in lost:
        server.wait_for_log(f"messages:'{count} lost' \\| DISCONNECT")


def test_stuck_clients_use_no_memory(broadcast: Broadcast) -> None:
    """100 clients that read nothing use only kernel memory."""
    server = broadcast("--input=exchange", "--queue=1000000")
    with ExitStack() as stack:
        publisher = stack.enter_context(server.connect())
        for _ in range(100):
            stack.enter_context(server.connect(**SMALL))
        wait_for_viewers(server, 101)
        before = resident(server.pid)
        flood(publisher, 1_000)
        assert resident(server.pid) - before < 24 * MIB
    wait_until(lambda: status(server)["viewers"] == 0, "everyone to go")
