"""A reload changes the settings of a channel: its viewers and its history stay, no message is lost, and two programs never overlap."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import V1, Viewer, listen
from tests.support.client import Client, Close, Frame, Opcode, encode_frame
from tests.support.configured import Configure, Configured, channel, listener, table
from tests.support.proc import resident, send_until_full
from tests.support.rabbit import Broker
from tests.support.server import is_alive, listens, mortal, wait_until

RESTARTED = Close(1012, "the configuration has changed; reconnect")


class Programs:
    """The programs of one channel. Each prints `two` if another program runs, and otherwise its name; then it does its work."""

    def __init__(self, folder: Path) -> None:
        self.lock = folder / "lock"

    def named(self, name: str, work: str = "cat; echo end", *, exchange: str = "c", **keys: Any) -> str:
        """Return the table of the channel with a program, which prints its input and its end unless `work` replaces that.

        Unless only KILL ends it, the program has a minute before the first signal: on a busy machine its last output may come late.
        """
        patience = {} if STUBBORN in work else {"close_delay": "60s"}
        alone = f"exec 9>{self.lock}; flock -n 9 || echo two; echo begin {name}; {work}"
        return channel("/c", exchange, alone, **{"input": "program", "join": "history", **patience, **keys})


STUBBORN = "trap '' INT TERM; cat; while :; do read line </dev/zero; done"
"""Work that only KILL ends, and that prints its input until then."""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def view(server: Configured, path: str = "/c", **options: Any) -> Viewer:
    return Viewer(server.connect(path, subprotocols=(V1,), **options))


def status(server: Configured) -> Any:
    return json.loads(server.get("/c/status").body)


def text(viewer: Viewer) -> str:
    return viewer.message().decode()


@contextmanager
def served(configured: Configure, *tables: str, **options: Any) -> Iterator[tuple[Configured, Viewer]]:
    """Serve a channel with a viewer that receives every message in order, from the first to the end."""
    server = configured(listener(), *tables, **options)
    with view(server) as viewer:
        yield server, viewer
        assert viewer.client.is_open()
        assert viewer.losses == []


CHANGES: dict[str, dict[str, Any]] = {
    "join": {"join": "last"},
    "history": {"history": 5, "history_size": 500},
    "queue": {"queue": 100, "slow": "latest"},
    "max_clients": {"max_clients": 3},
    "ping": {"ping": 10},
    "origins": {"origins": ["a.example"]},
    "headers": {"headers": ["X-New: 1"]},
    "pages": {"page": False, "status": False},
    "write_timeout": {"write_timeout": 5, "compress": True},
}
"""Changes that do not affect the program"""


@pytest.mark.parametrize("keys", CHANGES.values(), ids=CHANGES.keys())
def test_program_stays(configured: Configure, programs: Programs, keys: dict[str, Any]) -> None:
    """A change that does not affect the program neither restarts it nor disconnects its viewers, with any kind of client."""
    with served(configured, programs.named("a")) as (server, viewer), ExitStack() as stack:
        plain, events = stack.enter_context(server.connect("/c")), stack.enter_context(listen(server, "/c/events"))
        assert [text(viewer), plain.receive_text(), *events.data()] == ["begin a"] * 3
        assert server.reload(listener(), programs.named("a", **keys)) == f"reloaded {server.file}: changed /c"
        plain.send_text("hello")
        assert [text(viewer), plain.receive_text(), *events.data()] == ["hello"] * 3


PROGRAMS: dict[str, dict[str, Any]] = {
    "command": {},
    "restart": {"restart": "never"},
    "framing": {"framing": "nul"},
    "environment": {"pass_environment": ["PATH"]},
    "ladder": {"close_delay": "10ms"},
    "console": {"console": True},
}


@pytest.mark.parametrize("keys", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_program_changes(configured: Configure, programs: Programs, keys: dict[str, Any]) -> None:
    """A changed program starts after the old program has ended and all of its output has been sent; the history stays."""
    with served(configured, programs.named("a")) as (server, viewer), ExitStack() as stack:
        plain, events = stack.enter_context(server.connect("/c")), stack.enter_context(listen(server, "/c/events"))
        before = ["begin a", "end", "begin b"]
        assert text(viewer) == "begin a"
        new = programs.named("b", **keys)
        if "framing" in keys:
            new = new.replace("begin b; cat; echo end", "echo begin b | tr '\\\\n' '\\\\0'; cat").replace("echo echo", "echo")
        server.reload(listener(), new)
        assert [text(viewer) for _ in before[1:]] == before[1:]
        assert [plain.receive_text() for _ in before] == before
        assert events.data(3) == before
        late = stack.enter_context(view(server))
        assert [text(late) for _ in before] == before
        assert status(server)["program"] == "running"


def test_new_settings_apply(configured: Configure, programs: Programs) -> None:
    """New settings apply to later clients: the limit, the origins, the pings and the initial messages."""
    with served(configured, programs.named("a")) as (server, viewer), ExitStack() as stack:
        viewer.client.send_text("one")
        assert [text(viewer), text(viewer)] == ["begin a", "one"]
        server.reload(listener(), programs.named("a", max_clients=2, origins=["a.example"], ping="20ms", join="last"))
        assert server.refusal("/c", origin="http://b.example").status == 403
        late = stack.enter_context(server.connect("/c", origin="http://a.example", answers_pings=False))
        assert late.receive_frame() == Frame(Opcode.TEXT, b"one")
        assert late.receive_frame() == Frame(Opcode.PING, b"")
        assert server.refusal("/c", origin="http://a.example").status == 429
        server.reload(listener(), programs.named("a", history=0, queue=0, join="history"))
        viewer.client.send_text("two")
        assert text(viewer) == "two"
        last = stack.enter_context(view(server))
        viewer.client.send_text("three")
        assert [text(one) for one in (viewer, last)] == ["three"] * 2


def test_resume_after_a_reload(configured: Configure, programs: Programs) -> None:
    """A client that is disconnected during a reload resumes at its position."""
    with served(configured, programs.named("a")) as (server, viewer):
        assert text(viewer) == "begin a"
        position = viewer.position
        server.reload(listener(), programs.named("b"))
        assert [text(viewer), text(viewer)] == ["end", "begin b"]
        with Viewer(server.connect(f"/c?since={position}", subprotocols=(V1,)), position) as back:
            assert [text(back), text(back)] == ["end", "begin b"]


# Lossless changes


class Talker:
    """A client that sends consecutive numbers in the background; `end` sends `over` and returns their count.

    It reads nothing, so its connection ends with a reset: the server must have received everything before.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_over = threading.Event()
        self._count = 0
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self) -> None:
        while not self._is_over.wait(0.001):
            self._client.send_text(str(self._count))
            self._count += 1

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def end(self) -> int:
        self.stop()
        self._client.send_text("over")
        return self._count


@contextmanager
def talking(server: Configured) -> Iterator[Talker]:
    with server.connect("/c") as client:
        talker = Talker(client)
        try:
            yield talker
        finally:
            talker.stop()


def until_over(viewer: Viewer) -> tuple[list[int], list[str]]:
    """Return the numbers that a talker has sent, and all other messages."""
    numbers: list[int] = []
    others: list[str] = []
    while (said := text(viewer)) != "over":
        if said.isdecimal():
            numbers.append(int(said))
        else:
            others.append(said)
    return numbers, others


@pytest.mark.parametrize("work", ["exec cat", STUBBORN], ids=["polite", "stubborn"])
def test_input_is_not_lost(configured: Configure, programs: Programs, work: str) -> None:
    """While the program changes, each message of a client reaches either the old or the new program, once and in order."""
    with served(configured, programs.named("0", work)) as (server, viewer):
        with talking(server) as talker:
            wait_until(lambda: status(server)["messages"] > 20, "the first messages")
            for number in (1, 2, 3):
                server.reload(listener(), programs.named(str(number), work))
            wait_until(lambda: status(server)["program"] == "running" and begun(server, 3), "the last program")
            count = talker.end()
            numbers, others = until_over(viewer)
        assert numbers == list(range(count))
        # The programs in between may never have started.
        assert (others[0], others[-1]) == ("begin 0", "begin 3")
        assert others == sorted(others)


def begun(server: Configured, number: int) -> bool:
    """Return whether a program with this number has started, according to the whole history."""
    with view(server) as viewer:
        end = status(server)["messages"]
        return any(text(viewer) == f"begin {number}" for _ in range(min(end, 1000)))


def test_publishing_continues(configured: Configure, programs: Programs) -> None:
    """With --input=exchange, clients publish continuously while their channel gets, changes and loses a program."""
    with served(configured, channel("/c", "c", join="history")) as (server, viewer):
        with talking(server) as talker:
            for number in range(3):
                server.reload(listener(), programs.named(f"{number}", input="exchange"))
                wait_until(lambda number=number: begun(server, number), "the program")  # type: ignore[misc]
            server.reload(listener(), channel("/c", "c", join="history"))
            wait_until(lambda: status(server)["program"] is None, "the end of the program")
            count = talker.end()
            numbers, others = until_over(viewer)
        assert numbers == list(range(count))
        assert others == ["begin 0", "end", "begin 1", "end", "begin 2", "end"]


def test_filter_changes(configured: Configure, programs: Programs) -> None:
    """With --through, each message passes through either the old or the new program, while the program changes."""
    tables = [programs.named(str(number), f"exec sed -u s/^/{number}:/", input="exchange", through=True) for number in range(3)]
    with served(configured, tables[0]) as (server, viewer):
        with talking(server) as talker:
            for number in (1, 2):
                wait_until(lambda number=number: begun(server, number - 1), "the program")  # type: ignore[misc]
                server.reload(listener(), tables[number])
            wait_until(lambda: begun(server, 2), "the last program")
            count = talker.end()
            passed, others = [], []
            while not (said := text(viewer)).endswith(":over"):
                (passed if ":" in said else others).append(said)
        assert others == ["begin 0", "begin 1", "begin 2"]
        assert [int(line.partition(":")[2]) for line in passed] == list(range(count))
        assert [line[0] for line in passed] == sorted(line[0] for line in passed)
        assert {line[0] for line in passed} == {"0", "1", "2"}


def test_waiting_input_is_bounded(configured: Configure, programs: Programs) -> None:
    """While the old program ends, the server stops reading from clients, so that a flood of messages takes no memory."""
    deaf = "trap '' INT TERM; while :; do read line </dev/zero; done"
    server = configured(listener(), programs.named("a", deaf, close_delay="60s"))
    with server.connect("/c") as client, server.connect("/c") as viewer:
        assert viewer.receive_text() == "begin a"
        with mortal(*server.children()):
            server.reload(listener(), programs.named("b"))
            before = resident(server.pid)
            flood = encode_frame(b"x" * 1000) * 60_000
            assert send_until_full(client.stream.sock, flood) < len(flood) // 2
            assert resident(server.pid) < before + 30_000_000
            end_by_force(server)


def end_by_force(server: Configured) -> None:
    """Shut the server down with two signals."""
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: not listens(server.pid, server.port), "the beginning of the shutdown")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0


# The target of client messages


def test_input_changes(configured: Configure, programs: Programs) -> None:
    """The messages of connected clients go to the target of the new settings."""
    silent = programs.named("a", "cat >/dev/null; echo end", input="none")
    with served(configured, silent) as (server, viewer):
        assert text(viewer) == "begin a"
        server.reload(listener(), programs.named("b"))
        assert [text(viewer), text(viewer)] == ["end", "begin b"]
        viewer.client.send_text("to the program")
        assert text(viewer) == "to the program"
        server.reload(listener(), programs.named("b", input="exchange"))
        assert [text(viewer), text(viewer)] == ["end", "begin b"]
        viewer.client.send_text("to the exchange")
        assert text(viewer) == "to the exchange"
        with server.connect("/c") as client:
            server.reload(listener(), silent)
            client.send_text("to nobody")
            assert client.receive_close().code == 1003


# Other channels


OTHERS: dict[str, dict[str, Any]] = {
    "exchange": {"exchange": "d"},
    "role": {"through": True, "input": "exchange"},
}


@pytest.mark.parametrize("keys", OTHERS.values(), ids=OTHERS.keys())
def test_another_channel(configured: Configure, programs: Programs, keys: dict[str, Any]) -> None:
    """A channel with another exchange is another channel: its viewers get close code 1012 after all messages of the old channel."""
    server = configured(listener(), programs.named("a"))
    with server.connect("/c") as plain, view(server) as viewer, listen(server, "/c/events") as events:
        assert [text(viewer), *events.data()] == ["begin a"] * 2
        position = viewer.position
        new = programs.named("b", **keys)
        server.reload(listener(), new)
        assert plain.receive_lines() == ["begin a", "end"]
        assert plain.close_frame == RESTARTED
        assert events.data() == ["end"]
        events.stream.wait_for_end()
        with server.connect(f"/c?since={position}", subprotocols=(V1,)) as back:
            first = back.receive_text()
            assert first.startswith("!lost ")
            assert first.endswith(" ?")


@pytest.mark.parametrize("moved", [{"path": "/d"}, {"hosts": ["localhost", "127.0.0.1"]}], ids=["path", "hosts"])
def test_channel_moves(configured: Configure, programs: Programs, moved: dict[str, Any]) -> None:
    """A channel with the same exchange at another path is the same channel."""
    old = programs.named("a")
    new = old.replace('path = "/c"', 'path = "/d"') if "path" in moved else programs.named("a", **moved)
    with served(configured, old) as (server, viewer):
        assert text(viewer) == "begin a"
        verdict = server.reload(listener(), new)
        assert "removed" not in verdict
        with view(server, moved.get("path", "/c")) as late:
            late.client.send_text("hello")
            assert [text(late), text(late), text(viewer)] == ["begin a", "hello", "hello"]
        if "path" in moved:
            assert server.refusal("/c").status == 404


# Overlapping changes


def test_changes_while_the_old_program_ends(configured: Configure, programs: Programs) -> None:
    """If further changes arrive while the old program ends, only the last program starts, and two programs never overlap."""
    old = programs.named("0", STUBBORN, close_delay="200ms")
    with served(configured, old) as (server, viewer):
        assert text(viewer) == "begin 0"
        for number in range(1, 6):
            viewer.client.send_text(f"message {number}")
            server.reload(listener(), programs.named(str(number), history=1000 + number))
        said = [text(viewer) for _ in range(6)]
        assert "begin 5" in said
        assert [line for line in said if line.startswith("message")] == [f"message {number}" for number in range(1, 6)]
        assert not {"two", "begin 1", "begin 2", "begin 3", "begin 4"} & {*said}


def test_forced_shutdown_while_the_old_program_ends(configured: Configure, programs: Programs) -> None:
    """A second shutdown signal kills the old program, whatever the timeouts of its ladder."""
    server = configured(listener(), programs.named("a", f"echo $$; {STUBBORN}", close_delay="60s"))
    with server.connect("/c") as client:
        client.receive_text()
        pid = int(client.receive_text())
        with mortal(pid):
            server.reload(listener(), programs.named("b"))
            server.reload(listener(), programs.named("c"))
            assert is_alive(pid)
            end_by_force(server)
            assert not is_alive(pid)


def test_failed_change_leaves_the_channel(configured: Configure, programs: Programs) -> None:
    """A change that fails elsewhere leaves the channel and its program unchanged."""
    with served(configured, programs.named("a")) as (server, viewer), socket.create_server(("127.0.0.1", 0)) as taken:
        assert text(viewer) == "begin a"
        port = taken.getsockname()[1]
        assert server.reload(listener(), listener(f"127.0.0.1:{port}"), programs.named("b", max_clients=1)).startswith("not reloaded")
        viewer.client.send_text("hello")
        assert text(viewer) == "hello"
        with server.connect("/c") as second:
            assert second.is_open()
        server.reload(listener(), programs.named("b", max_clients=1))
        assert [text(viewer), text(viewer)] == ["end", "begin b"]


def test_changes_leave_nothing_behind(configured: Configure, programs: Programs) -> None:
    """Many changes leave no descriptor and no process behind."""
    with served(configured, programs.named("0")) as (server, viewer):
        assert text(viewer) == "begin 0"
        server.reload(listener(), programs.named("1"))
        assert [text(viewer), text(viewer)] == ["end", "begin 1"]
        before, children = server.descriptors(), len(server.children())
        for number in range(2, 30):
            server.reload(listener(), programs.named(str(number), ping=20 + number))
            assert [text(viewer), text(viewer)] == ["end", f"begin {number}"]
        wait_until(lambda: server.descriptors() <= before, "the descriptors to be as many as before")
        assert len(server.children()) == children


# With a broker


def test_channel_at_a_broker(configured: Configure, programs: Programs, broker: Broker) -> None:
    """A channel at a broker keeps its viewers too; with another broker, it is another channel."""
    main = table("[broker.main]", url={"env": "RABBIT_URL"})
    exchange = f"reload-{os.getpid()}"

    def at_broker(name: str, broker: str = "main") -> str:
        return programs.named(name, exchange=exchange, broker=broker, join="none").replace("exec 9>", "sleep 0.2; exec 9>")

    server = configured(listener(), main, at_broker("a"), env={"RABBIT_URL": broker.url})
    with view(server) as viewer:
        assert text(viewer) == "begin a"
        with talking(server) as talker:
            server.reload(listener(), main, at_broker("b"))
            wait_until(lambda: status(server)["messages"] > 100, "messages")
            server.reload(listener(), main, at_broker("c"))
            count = talker.end()
            numbers, others = until_over(viewer)
        assert numbers == list(range(count))
        assert [line for line in others if line != "end"] == ["begin b", "begin c"]
        assert viewer.losses == []
        other = table("[broker.other]", url=broker.url, timeout=5)
        verdict = server.reload(listener(), other, at_broker("d", "other"))
        assert verdict == f"reloaded {server.file}: added broker other; changed /c; removed broker main"
        assert viewer.client.receive_close() == RESTARTED
        with view(server) as late:
            assert text(late) == "begin d"
    assert "guest:guest" not in server.log
