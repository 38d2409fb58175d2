"""A program's life: one process per connection, all of its output, and its termination (cases 17-33)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parity.conftest import Starter
from tests.support.client import ABNORMAL, Client, Close, encode_frame
from tests.support.server import is_alive, memory_peak, mortal, wait_for_exit, wait_until, write_to_fifo
from tests.support.tool import command, recorded

MIB = 1 << 20

LADDER = {"INT": 0.1, "TERM": 0.35, "KILL": 0.85}
"""Seconds from the client's disconnect to each signal."""

WAYS_TO_GO: dict[str, Callable[[Client], None]] = {"close frame": Client.send_close, "drop": Client.drop, "reset": Client.reset}


@pytest.mark.case(17)
def test_a_process_for_each_connection(bridge: Starter) -> None:
    """Two connections get two processes."""
    server = bridge("sh", "-c", "echo $$; exec cat")
    with server.connect() as first, server.connect() as second:
        pids = {int(first.receive_text()), int(second.receive_text())}
        assert len(pids) == 2
        assert pids <= set(server.children())


@pytest.mark.case(18)
def test_program_may_speak_first(bridge: Starter) -> None:
    """The server delivers output that the program prints before the client has sent anything."""
    with bridge("sh", "-c", "echo hello; exec cat").connect() as client:
        assert client.receive_text() == "hello"


@pytest.mark.case(19)
def test_all_output_comes_before_the_end(bridge: Starter) -> None:
    """The server delivers all output of a program that prints and exits at once, before it closes the connection."""
    with bridge("seq", "10000").connect() as client:
        assert client.receive_lines() == [str(number) for number in range(1, 10001)]


@pytest.mark.case(20)
@pytest.mark.parametrize(
    ("script", "close"),
    [
        ("echo bye", Close(1000)),
        ("exit 3", Close(1011, "exit 3")),
        ("kill -TERM $$", Close(1011, "signal TERM")),
        ("kill -KILL $$", Close(1011, "signal KILL")),
    ],
)
def test_close_code_tells_the_exit_status(wsbridge: Starter, script: str, close: Close) -> None:
    """Exit status 0 closes with 1000. Any other exit status, and a signal, close with 1011 and a short reason."""
    with wsbridge("sh", "-c", script).connect() as client:
        assert client.receive_close().code == close.code
        assert client.close_frame is not None
        assert client.close_frame.reason.startswith(close.reason)
        assert not client.wait_for_end(), "TCP must end with FIN, not with a reset"


@pytest.mark.case(21, 22)
@pytest.mark.parametrize(
    ("until", "closems", "events"), [("eof", 5000, ["eof"]), ("INT", 500, ["eof", "INT"]), ("TERM", 200, ["eof", "INT", "TERM"])]
)
def test_ladder_stops_where_the_program_ends(bridge: Starter, tmp_path: Path, until: str, closems: int, events: list[str]) -> None:
    """The server closes stdin first; a program that then exits gets no signal."""
    record = tmp_path / "record"
    with bridge(f"--closems={closems}", *command("witness", record, until)).connect() as client:
        pid = int(client.receive_text())
        client.drop()
        wait_for_exit(pid)
    assert [event for event, _ in recorded(record)] == events


@pytest.mark.case(22)
@pytest.mark.parametrize("way", WAYS_TO_GO)
def test_ladder_of_a_stubborn_program(bridge: Starter, tmp_path: Path, way: str) -> None:
    """A program that ignores EOF gets INT 100 ms after its client disconnects, TERM 250 ms later and KILL 500 ms later. The way of the
    disconnect does not matter."""
    assert_ladder(bridge, tmp_path / "record", WAYS_TO_GO[way], [], LADDER)


@pytest.mark.case(22)
def test_closems_lengthens_each_step(bridge: Starter, tmp_path: Path) -> None:
    """--closems lengthens each step of the ladder by its value."""
    steps = {event: after + 0.1 * number for number, (event, after) in enumerate(LADDER.items(), 1)}
    assert_ladder(bridge, tmp_path / "record", Client.drop, ["--closems=100"], steps)


def assert_ladder(bridge: Starter, record: Path, go: Callable[[Client], None], flags: list[str], steps: dict[str, float]) -> None:
    with bridge(*flags, *command("witness", record)).connect() as client:
        pid = int(client.receive_text())
        gone = time.monotonic()
        go(client)
        killed = wait_for_exit(pid)
    events = [*recorded(record), ("KILL", killed)]
    assert [event for event, _ in events] == ["eof", "INT", "TERM", "KILL"]
    early = [(event, when - gone) for event, when in events if when - gone < steps.get(event, 0)]
    assert early == []


@pytest.mark.case(23)
@pytest.mark.parametrize("stubborn", ["", "trap '' INT TERM;"], ids=["polite", "stubborn"])
def test_grandchildren_are_ended_too(wsbridge: Starter, stubborn: str) -> None:
    """The child processes of a program end with it, also if they ignore signals that end the program itself."""
    with wsbridge("sh", "-c", f"({stubborn} sleep 1000 & echo $!; wait)").connect() as client:
        grandchild = int(client.receive_text())
        with mortal(grandchild):
            client.drop()
            wait_for_exit(grandchild)


@pytest.mark.case(23)
def test_group_of_its_own_is_ended_too(wsbridge: Starter) -> None:
    """A process group that a program creates, as `timeout` does, ends with the program."""
    with wsbridge("timeout", "900", "sh", "-c", "echo $$; exec sleep 800").connect() as client:
        grandchild = int(client.receive_text())
        with mortal(grandchild):
            client.drop()
            wait_for_exit(grandchild)


@pytest.mark.case(24)
def test_grandchild_cannot_hold_the_session(wsbridge: Starter) -> None:
    """A grandchild that keeps stdout open after the program's exit does not keep the session open for ever."""
    server = wsbridge("--drainms=300", "sh", "-c", "sleep 1000 & echo $!")
    with server.connect() as client:
        grandchild = int(client.receive_text())
        with mortal(grandchild):
            assert client.receive_close() == Close(1000)
            client.wait_for_end()
            wait_for_exit(grandchild)
    server.wait_for_log(r"\| DISCONNECT")


@pytest.mark.case(25)
def test_output_of_a_program_that_never_reads(wsbridge: Starter) -> None:
    """A program that never reads blocks its client's messages, but not its own output. The server still notices the client's disconnect."""
    server = wsbridge("sh", "-c", 'echo $$; exec "$@"', "sh", *command("ticks"))
    with server.connect() as client:
        pid = int(client.receive_text())
        with client.sending(encode_frame(b"x" * 1000) * 32_000) as sender:
            unread = [0]
            while unread[-1] == 0 or unread[-50:] != [unread[-1]] * 50:
                unread.append(int(client.receive_text()))
            assert sender.is_alive(), "the client could send 32 MB that the program did not read"
        client.drop()
        wait_for_exit(pid)
    assert memory_peak(server.pid) < 160 * MIB


@pytest.mark.case(26)
def test_closed_stdin_keeps_the_session(bridge: Starter, tmp_path: Path) -> None:
    """A program that has closed its stdin keeps its session; the server discards messages from the client."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with bridge("sh", "-c", 'exec <&-; echo deaf; read word <"$0"; echo "heard $word"', fifo).connect() as client:
        assert client.receive_text() == "deaf"
        for text in ("one", "two", "three"):
            client.send_text(text)
            assert client.is_open()
        write_to_fifo(fifo, "well")
        assert client.receive_text() == "heard well"


@pytest.mark.case(27)
def test_closed_stdout_ends_the_session(bridge: Starter, tmp_path: Path) -> None:
    """The ladder ends a program that closes its stdout; the server closes TCP when the program has exited."""
    record = tmp_path / "record"
    with bridge(*command("witness", record, "TERM", "stdout")).connect() as client:
        pid = int(client.receive_text())
        assert client.receive_close().code == {"websocketd": ABNORMAL, "wsbridge": 1000}[bridge.name]
        client.wait_for_end()
        assert not is_alive(pid)
    assert [event for event, _ in recorded(record)] == ["eof", "INT", "TERM"]


@pytest.mark.case(28)
def test_nothing_is_left_after_a_hundred_sessions(bridge: Starter) -> None:
    """After 100 sessions, the server has no zombie, and no more descriptors than before."""
    server = bridge("cat")

    def session() -> None:
        with server.connect() as client:
            client.send_text("x")
            assert client.receive_text() == "x"

    session()
    wait_until(lambda: server.log.count("| DISCONNECT") == 1, "the first session's end")
    children, descriptors = server.children(), server.descriptors()
    for _ in range(100):
        session()
    wait_until(lambda: server.log.count("| DISCONNECT") == 101, "the last session's end")
    wait_until(lambda: server.children() == children, "the children to be as many as before")
    wait_until(lambda: server.descriptors() <= descriptors, "the descriptors to be as many as before")


@pytest.mark.case(29)
def test_launch_failure_ends_the_session_alone(bridge: Starter, tmp_path: Path) -> None:
    """If a program cannot start, the server closes the connection, logs a line, and continues."""
    script(tmp_path / "broken", "#!/no/such/interpreter\n")
    script(tmp_path / "sound", "#!/bin/sh\necho fine\n")
    server = bridge(f"--dir={tmp_path}")
    with server.connect("/broken") as client:
        assert client.receive_close().code == {"websocketd": ABNORMAL, "wsbridge": 1011}[bridge.name]
    server.wait_for_log(r"\| ERROR  \| .*Could not launch process")
    server.wait_for_log(r"/broken.*\| CONNECT$")
    server.wait_for_log(r"/broken.*\| DISCONNECT")
    with server.connect("/sound") as client:
        assert client.receive_lines() == ["fine"]


@pytest.mark.case(29)
def test_not_executable_is_refused(wsbridge: Starter, tmp_path: Path) -> None:
    """The server answers a script that is not executable with 500 before the upgrade, a missing script with 404."""
    (tmp_path / "plain").write_text("#!/bin/sh\necho no\n")
    server = wsbridge(f"--dir={tmp_path}")
    assert server.refusal("/plain").status == 500
    assert server.refusal("/missing").status == 404


@pytest.mark.case(30)
def test_working_directory_is_the_servers(bridge: Starter, tmp_path: Path) -> None:
    """A program runs in the server's working directory, also a script of --dir."""
    scripts, elsewhere = tmp_path / "scripts", tmp_path / "elsewhere"
    scripts.mkdir()
    elsewhere.mkdir()
    script(scripts / "where", "#!/bin/sh\npwd -P\n")
    with bridge("pwd", "-P", cwd=elsewhere).connect() as client:
        assert client.receive_lines() == [str(elsewhere.resolve())]
    with bridge("--dir=../scripts", cwd=elsewhere).connect("/where") as client:
        assert client.receive_lines() == [str(elsewhere.resolve())]


@pytest.mark.case(31)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_shutdown_runs_the_ladder(wsbridge: Starter, tmp_path: Path, number: signal.Signals) -> None:
    """On TERM or INT, the server closes sessions with 1001, ends their programs by the ladder, and exits with 0."""
    record = tmp_path / "record"
    server = wsbridge(*command("witness", record, "TERM"))
    with server.connect() as client:
        pid = int(client.receive_text())
        server.send_signal(number)
        assert client.receive_close().code == 1001
        assert server.wait() == 0
        assert not is_alive(pid)
    assert [event for event, _ in recorded(record)] == ["eof", "INT", "TERM"]


@pytest.mark.case(31)
def test_killed_bridge_leaves_no_process(wsbridge: Starter) -> None:
    """If the server itself is killed with KILL, its programs and their child processes still end."""
    server = wsbridge("sh", "-c", "trap '' HUP INT TERM; sleep 1000 & echo $$ $!; wait; sleep 1000")
    with server.connect() as client:
        pids = [int(word) for word in client.receive_text().split()]
        with mortal(*pids):
            server.send_signal(signal.SIGKILL)
            for pid in pids:
                wait_for_exit(pid)


@pytest.mark.case(32)
def test_slow_client_blocks_only_its_own_program(bridge: Starter) -> None:
    """A client that does not read blocks its program. It neither fills the server's memory nor blocks another client, and loses no
    message."""
    server = bridge("sh", "-c", '[ "$PATH_INFO" = /echo ] && exec cat; exec "$@"', "sh", *command("flood"))
    with server.connect("/flood", receive_buffer=1 << 16) as slow:
        blocked = int(server.wait_for_log(r"blocked at (\d+)")[1])
        assert blocked < 32 * MIB
        with server.connect("/echo") as other:
            for number in range(100):
                other.send_text(str(number))
                assert other.receive_text() == str(number)
        assert memory_peak(server.pid) < 160 * MIB
        lines = blocked // 100
        assert [int(slow.receive_text()) for _ in range(lines)] == list(range(lines))


@pytest.mark.case(33)
def test_client_that_reads_nothing_is_disconnected(wsbridge: Starter) -> None:
    """The server disconnects a client that accepts no data for --send-timeout seconds, and ends its program."""
    server = wsbridge("--send-timeout=1", "sh", "-c", 'echo $$; exec "$@"', "sh", *command("flood"))
    with server.connect(receive_buffer=1 << 16) as client:
        pid = int(client.receive_text())
        start = time.monotonic()
        assert wait_for_exit(pid) - start >= 1.0
        client.wait_for_end()
    server.wait_for_log(r"\| DISCONNECT")


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
