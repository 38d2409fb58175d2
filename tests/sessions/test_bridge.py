"""One session: its end by the client, the program or the server, whichever comes first."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from pathlib import Path

import pytest

from tests.sessions.conftest import Opener
from tests.support.proc import INT_LADDER, LONG_LADDER, ClientTwin, turns, until
from tests.support.server import is_alive, mortal, write_to_fifo
from tests.support.tool import command, recorded
from wsbridge.flow import Batch, CallbackSink, End
from wsbridge.process.termination import Step
from wsbridge.sessions.registry import Registry

SHUTDOWN = 1001
NEVER = (Step(1000, signal.SIGINT),)
"""A ladder whose first signal comes later than the end of the test."""


async def test_both_directions(session: Opener) -> None:
    """The client's messages reach the program's stdin, and the program's output reaches the client, in order."""
    one = session("cat")
    lines = [b"%d" % number for number in range(1000)]
    for line in lines:
        one.send(line)
    await one.line(1000)
    assert one.client.messages == lines
    assert one.client.ended is None


@pytest.mark.parametrize("reason", [End(1000), End(1001, "bye"), End(1005), End(1006)], ids=lambda end: str(end.code))
async def test_client_disconnects(session: Opener, tmp_path: Path, reason: End) -> None:
    """When the client disconnects in any way, stdin closes and the ladder begins. The connection is closed when the program has exited."""
    one = session(*command("witness", tmp_path / "record", "INT"))
    await one.line()
    one.disconnect(reason)
    await turns()
    assert not one.client.closed
    await session.over()
    assert [event for event, _ in recorded(tmp_path / "record")] == ["eof", "INT"]
    assert one.client.closed
    assert one.client.ended is None


async def test_output_after_the_disconnect(session: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """Output after the client's disconnect is read, dropped and counted, so that the program can exit by itself."""
    one = session("sh", "-c", "echo ready; cat; seq 100000", ladder=LONG_LADDER)
    await one.line()
    one.disconnect(End(1000))
    await session.over()
    assert (one.running.child.group.status, one.running.child.group.signalled) == (0, None)
    assert one.client.messages == [b"ready"]
    assert session.registry.metrics.discarded_out == 100_000
    assert "100000 out discarded" in disconnect(caplog)["messages"]


async def test_slow_client_disconnects(session: Opener, tmp_path: Path) -> None:
    """A client that accepts nothing and then disconnects does not delay the end of its program."""
    one = session("sh", "-c", "echo ready; seq 100000; cat; echo done >$0", tmp_path / "done", ladder=LONG_LADDER)
    await one.line()
    one.running.child.pause()
    await turns()
    one.disconnect(End(1006))
    await session.over()
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 0", End(1000)),
        ("exit 3", End(1011, "exit 3")),
        ("kill -TERM $$", End(1011, "signal TERM")),
        ("kill -KILL $$", End(1011, "signal KILL")),
    ],
)
async def test_program_exits(session: Opener, script: str, end: End) -> None:
    """When the program exits, all of its output is delivered. Then exit 0 closes with 1000, any other status with 1011 and a reason."""
    one = session("sh", "-c", f"seq 100000; {script}")
    assert await one.ended() == end
    assert one.client.messages == [b"%d" % number for number in range(1, 100_001)]
    await session.over()


async def test_slow_client_gets_all_output(session: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """A slow client gets all output from before the exit, however long that takes."""
    one = session("seq", 10_000, drain_seconds=0.02)
    one.running.child.pause()
    await one.running.child.group.wait_exit()
    exited = time.monotonic()
    await until(lambda: time.monotonic() - exited > 0.2, "ten times what is granted to a program's heirs")
    assert one.client.ended is None
    one.running.child.resume()
    assert await one.ended() == End(1000)
    assert one.client.messages == [b"%d" % number for number in range(1, 10_001)]


@pytest.mark.parametrize("drain_seconds", [0.0, 0.1])
@pytest.mark.parametrize(("pty", "count"), [(False, 5_000), (True, 20_000)], ids=["pipe", "pty"])
async def test_output_is_complete_with_any_drain_time(session: Opener, drain_seconds: float, pty: bool, count: int) -> None:
    """The program's own output is delivered completely, whatever --drainms is: the time limits only other processes that hold stdout."""
    for _ in range(10):
        one = session("seq", count, drain_seconds=drain_seconds, pty=pty)
        assert await one.ended() == End(1000)
        assert len(one.client.messages) == count
        await session.over()


async def test_output_in_the_pipe_is_complete(session: Opener) -> None:
    """A slow client gets all output that is in the pipe at the exit, although the drain time is over and a child holds stdout."""
    one = session("sh", "-c", "seq 12000; sleep 1000 &", drain_seconds=0)
    child = one.running.child
    child.pause()
    await child.group.wait_exit()
    begun = time.process_time()
    exited = time.monotonic()
    await until(lambda: time.monotonic() - exited > 0.3, "some looks at the output")
    assert one.client.ended is None
    assert time.process_time() - begun < 0.25, "the session checks the output too often"
    write = one.client.write

    def slow(batch: Batch) -> None:
        write(batch)
        child.pause()
        asyncio.get_running_loop().call_later(0.06, child.resume)

    child.redirect(CallbackSink(slow, one.client.end))
    child.resume()
    assert await one.ended() == End(1000)
    assert len(one.client.messages) == 12_000


async def test_grandchild_that_holds_stdout(session: Opener) -> None:
    """After the program's exit, the session waits at most --drainms for a grandchild that holds stdout open. Then the group ends."""
    begun = time.monotonic()
    one = session("sh", "-c", "sleep 1000 & echo $!", drain_seconds=0.5)
    grandchild = int(await one.line())
    with mortal(grandchild):
        assert await one.ended() == End(1000)
        # The start and the exit take some hundredths of a second.
        assert time.monotonic() - begun >= 0.5
        await session.over()
        assert not is_alive(grandchild)


async def test_grandchild_that_prints_during_the_drain(session: Opener) -> None:
    """Output of a grandchild during the drain is delivered. The session ends when the grandchild closes stdout."""
    one = session("sh", "-c", "(read line; echo heir) & echo parent; exit 3", drain_seconds=1000)
    await one.running.child.group.wait_exit()
    assert await one.line() == "parent"
    one.running.child.close_input(End(1000))
    assert await one.ended() == End(1011, "exit 3")
    assert one.client.messages == [b"parent", b"heir"]


@pytest.mark.parametrize(
    ("framing", "printed", "code", "reason"),
    [
        ("lines", r"a\n0123456789\nnever\n", 1009, "message longer than 9 bytes"),
        ("nul", r"a\0000123456789", 1009, "message longer than 9 bytes"),
        ("prefixed", r"\0\0\0\001\001a\0\0\0\012\001", 1009, "message longer than 9 bytes"),
        ("prefixed", r"\0\0\0\001\001a\0\0\0\001\007", 1011, "prefixed message of unknown kind 7"),
        ("json", r'{"type":"message","text":"a"}\nnonsense\n', 1011, "line 2 of stdout is not a record"),
    ],
    ids=["lines", "nul", "prefixed", "prefixed, kind", "json"],
)
async def test_framing_error(session: Opener, caplog: pytest.LogCaptureFixture, framing: str, printed: str, code: int, reason: str) -> None:
    """A framing error in the output ends the session at once with the error's code and a log line. Then the ladder begins."""
    limit = 9 if code == 1009 else 1000
    one = session("sh", "-c", f"printf '{printed}'; cat; exec sleep 1000", framing=framing, limit=limit, ladder=INT_LADDER)
    end = await one.ended()
    assert end.code == code
    assert end.reason.startswith(reason)
    assert one.client.messages == [b"a"]
    await session.over()
    assert one.running.child.group.signalled == signal.SIGINT
    assert [line for line in errors(caplog) if line.startswith(reason)]
    assert session.registry.metrics.messages_too_long == (code == 1009)


async def test_close_record(session: Opener, tmp_path: Path) -> None:
    """A close record closes at once with its code and reason; then stdin closes and the ladder begins."""
    record = '{"type":"message","text":"last"}\n{"type":"close","code":4007,"reason":"enough"}\n{"type":"message","text":"late"}'
    one = session("sh", "-c", 'echo "$1"; cat >"$0.told"; mv "$0.told" "$0"', tmp_path / "told", record, framing="json", ladder=LONG_LADDER)
    assert await one.ended() == End(4007, "enough")
    assert one.client.messages == [b"last"]
    await session.over()
    assert (tmp_path / "told").read_text() == '{"type":"close","code":4007,"reason":"enough"}\n'


async def test_program_continues_after_its_close_record(session: Opener, fifo: str) -> None:
    """A program that has sent a close record may continue for a while; the client need not wait for its exit."""
    one = session("sh", "-c", """echo '{"type":"close"}'; read word <"$0" """, fifo, framing="json", ladder=LONG_LADDER)
    assert await one.ended() == End(1000)
    assert one.running.child.group.status is None
    await asyncio.to_thread(write_to_fifo, fifo, "go")
    await session.over()


async def test_shutdown(session: Opener, tmp_path: Path) -> None:
    """At the server's shutdown, the client gets 1001 at once; then stdin closes and the ladder begins."""
    one = session(*command("witness", tmp_path / "record", "INT"))
    await one.line()
    one.bridge.shut_down()
    assert (await one.ended()).code == SHUTDOWN
    assert one.running.child.group.status is None
    await session.over()
    assert [event for event, _ in recorded(tmp_path / "record")] == ["eof", "INT"]


async def test_forced_shutdown(session: Opener) -> None:
    """A forced shutdown kills the program and aborts the connection, whatever the pauses of the ladder."""
    one = session("sh", "-c", "trap '' INT TERM; echo ready; while :; do sleep 1000; done", ladder=NEVER)
    await one.line()
    one.bridge.shut_down()
    await turns()
    one.bridge.force()
    await session.over()
    assert one.client.closed
    assert one.running.child.group.status == -signal.SIGKILL
    assert one.client.ended is not None
    assert one.client.ended.code == SHUTDOWN


async def test_program_that_closes_its_stdout(session: Opener) -> None:
    """A program that closed its stdout and was then ended by the ladder closes with 1000."""
    one = session("sh", "-c", "echo last; exec >&-; while :; do sleep 0.01; done", ladder=INT_LADDER)
    assert await one.ended() == End(1000)
    assert one.running.child.group.signalled == signal.SIGINT
    await session.over()


@pytest.mark.parametrize("status", [1, 130])
async def test_program_that_exits_at_the_ladders_signal(session: Opener, status: int) -> None:
    """A program that closed its stdout and exits at the ladder's signal with its own status also closes with 1000."""
    one = session("sh", "-c", f"trap 'exit {status}' INT; echo last; exec >&-; while :; do sleep 0.01; done", ladder=INT_LADDER)
    assert await one.ended() == End(1000)
    assert one.running.child.group.status == status
    await session.over()


async def test_last_line_while_a_process_holds_stdout(session: Opener) -> None:
    """An unterminated last line is delivered after the program's exit, although another process holds its stdout open."""
    one = session("sh", "-c", "printf 'whole\\nhalf'; sleep 1000 & exit 0", drain_seconds=0.1)
    assert await one.ended() == End(1000)
    assert one.client.messages == [b"whole", b"half"]
    await session.over()


async def test_program_that_fails_after_its_stdout(session: Opener, fifo: str) -> None:
    """A program that closed its stdout and then failed by itself closes with 1011."""
    one = session("sh", "-c", 'exec >&-; read word <"$0"; exit 3', fifo, ladder=LONG_LADDER)
    await turns()
    await asyncio.to_thread(write_to_fifo, fifo, "go")
    assert await one.ended() == End(1011, "exit 3")


async def test_client_disconnects_while_it_is_paused(session: Opener, fifo: str, tmp_path: Path) -> None:
    """If a client disconnects while its program reads nothing, the ladder begins. Its earlier messages are delivered before the EOF."""
    one = session("sh", "-c", 'echo ready; read word <"$0"; wc -l >"$1"', fifo, tmp_path / "count", ladder=LONG_LADDER)
    await one.line()
    one.send(*[b"%099d" % number for number in range(10_000)])
    assert one.client.paused
    one.bridge.hung_up()
    await asyncio.to_thread(write_to_fifo, fifo, "go")
    await until(lambda: not one.client.paused, "the rest to be read")
    one.send(b"the last words")
    one.disconnect(End(1006))
    await session.over()
    assert (tmp_path / "count").read_text().strip() == "10001"


async def test_disconnect_begins_the_ladder(session: Opener) -> None:
    """When its client has disconnected, the ladder ends a program that reads nothing."""
    one = session("sh", "-c", "echo ready; exec sleep 1000", ladder=INT_LADDER)
    await one.line()
    one.send(b"x" * 1_000_000)
    one.bridge.hung_up()
    await session.over()
    assert one.running.child.group.signalled == signal.SIGINT
    assert one.client.closed


# The first event decides


async def test_close_record_comes_first(session: Opener) -> None:
    """A close record decides the end: a disconnect, a shutdown and the program's exit change nothing afterwards."""
    one = session("sh", "-c", """echo '{"type":"close","code":4001}'; exit 3""", framing="json")
    assert await one.ended() == End(4001)
    one.bridge.shut_down()
    one.disconnect(End(1000))
    one.bridge.hung_up()
    await session.over()
    assert one.client.ended == End(4001)


async def test_shutdown_comes_first(session: Opener) -> None:
    """A shutdown decides the client's close code, however the program exits afterwards."""
    one = session("sh", "-c", "echo ready; cat; exit 3")
    await one.line()
    one.bridge.shut_down()
    await session.over()
    assert one.client.ended is not None
    assert one.client.ended.code == SHUTDOWN


async def test_disconnect_comes_first(session: Opener) -> None:
    """A client that has disconnected gets no close frame, neither for the program's exit nor for a shutdown."""
    one = session("sh", "-c", "echo ready; cat; exit 3")
    await one.line()
    one.disconnect(End(1000))
    one.bridge.shut_down()
    await session.over()
    assert one.client.ended is None
    assert one.client.closed


async def test_exit_comes_first(session: Opener) -> None:
    """The program's exit decides the code; a shutdown during it changes nothing."""
    one = session("sh", "-c", "exit 3")
    await until(lambda: not one.running.child.output_open, "the end of the output")
    one.bridge.shut_down()
    await session.over()
    assert one.client.ended == End(1011, "exit 3")


async def test_framing_error_comes_first(session: Opener) -> None:
    """A framing error decides the code, although the program then exits with 0."""
    one = session("sh", "-c", "echo 0123456789; exit 0", limit=5)
    assert (await one.ended()).code == 1009
    await session.over()
    assert one.client.ended is not None
    assert one.client.ended.code == 1009


# The log and the metrics


def disconnect(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Return the fields of the only DISCONNECT line."""
    (found,) = [record for record in caplog.records if record.getMessage() == "DISCONNECT"]
    return dict(found.fields)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_disconnect_line(session: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """The DISCONNECT line has the connection's fields and the numbers of received, sent and discarded messages."""
    one = session("sh", "-c", "read line; exec <&-; echo deaf; while :; do sleep 0.01; done")
    one.send(b"heard")
    await one.line()
    one.send(b"not", b"heard")
    one.client.sent = 1
    one.disconnect(End(1000))
    await session.over()
    fields = disconnect(caplog)
    assert fields["close"]
    assert (fields["id"], fields["pid"]) == ("7", str(one.running.child.group.pid))
    assert fields["messages"] == "3 in, 1 out, 2 in discarded"
    metrics = session.registry.metrics
    assert (metrics.messages_in, metrics.messages_out, metrics.discarded_in) == (3, 1, 2)


@pytest.mark.parametrize(("script", "killed"), [("cat", 0), ("trap '' INT TERM; while :; do sleep 0.01; done", 1)])
async def test_kills_are_counted(session: Opener, script: str, killed: int) -> None:
    """The metric counts exactly the programs that KILL ended."""
    one = session("sh", "-c", f"echo ready; {script}")
    await one.line()
    one.disconnect(End(1000))
    await session.over()
    assert session.registry.metrics.killed == killed


async def test_slot_is_released_after_the_exit(session: Opener, registry: Registry) -> None:
    """A slot is released when the program has exited, not when its client has disconnected."""
    one = session("sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.01; done", ladder=(Step(0.1, signal.SIGKILL),))
    await one.line()
    two = session("cat")
    assert not registry.limiter.acquire()
    one.disconnect(End(1000))
    await turns()
    assert one.running.child.group.status is None
    assert not registry.limiter.acquire()
    await until(lambda: one.running.child.group.status is not None, "the end of the program")
    await until(lambda: len(registry) == 1, "the end of the session")
    assert registry.limiter.acquire()
    registry.limiter.release()
    two.disconnect(End(1000))


class Broken(ClientTwin):
    """A client whose `end` fails."""

    def close(self) -> None:
        raise RuntimeError("a fault of ours")


async def test_bug_in_one_session(session: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """A bug at a session's end is logged, releases its slot, and affects no other session."""
    broken, sound = session("cat", client=Broken()), session("cat")
    broken.disconnect(End(1000))
    await until(lambda: len(session.registry) == 1, "the end of the broken session")
    sound.send(b"still there")
    assert await sound.line() == "still there"
    assert [line for line in errors(caplog) if "failed" in line]
    assert broken.running.child.group.status == 0
