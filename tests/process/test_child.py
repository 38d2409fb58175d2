"""A child as a source and a sink, on real pipes: its output, its input, and backpressure in both directions."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.proc import SHORT_LADDER, Starter, descriptors, python, resident, turns, until
from tests.support.server import write_to_fifo
from tests.support.tool import command
from wsbridge.errors import MessageTooLong, ProgramError
from wsbridge.flow import End, Kind, Memory
from wsbridge.framing import make_framing
from wsbridge.framing.envelope import Decoder as Envelope
from wsbridge.process.child import Child
from wsbridge.process.group import describe
from wsbridge.process.spawn import Started, open_stdio
from wsbridge.process.stderr import Lines
from wsbridge.process.termination import Step

BIG = 1_000_000
"""Number of bytes, more than a pipe holds."""


def numbered(count: int, size: int = 100) -> list[bytes]:
    return [b"%0*d" % (size, number) for number in range(count)]


async def test_output_is_pushed_in_batches(start: Starter) -> None:
    """The child pushes lines in order and in batches. After all output it pushes one end, with 1000."""
    running = start("seq", 100_000)
    assert await running.ended() == End(1000)
    assert running.output.messages == [b"%d" % number for number in range(1, 100_001)]
    assert len(running.output.batches) < 1_000


async def test_paused_output_blocks_the_program(start: Starter) -> None:
    """While its sink is full, the child does not read stdout, and the program blocks. After `resume`, no output is lost."""
    running = start(*command("flood", "0.2"))
    running.child.pause()
    blocked = int((await until(lambda: running.errors, "the program to be blocked"))[0].rpartition(" ")[2])
    taken = len(running.output.messages)
    await turns()
    assert len(running.output.messages) == taken
    running.child.resume()
    await until(lambda: len(running.output.messages) > blocked // 100 + 10_000, "what was held up")
    received = [int(line) for line in running.output.messages]
    assert received == list(range(len(received)))


async def test_pause_and_resume_may_come_at_any_time(start: Starter) -> None:
    """`pause` and `resume` are valid at any time and in any number, also after the end of the output."""
    running = start("echo", "once")
    for _ in range(2):
        running.child.pause()
    for _ in range(2):
        running.child.resume()
    await running.ended()
    assert running.output.messages == [b"once"]
    running.child.resume()
    running.child.pause()
    running.child.resume()
    await turns()
    assert not running.child.output_open


async def test_program_that_does_not_read_pauses_the_client(start: Starter, fifo: str) -> None:
    """A program that does not read pauses its client. When it reads again, all messages arrive in order and the client continues."""
    running = start("sh", "-c", 'read word <"$0"; cat', fifo)
    lines = numbered(BIG // 100)
    running.write(*lines)
    assert running.output.paused
    await turns()
    assert running.output.paused
    await asyncio.to_thread(write_to_fifo, fifo, "go")
    await until(lambda: len(running.output.messages) == len(lines), "the lines to come back")
    assert running.output.messages == lines
    assert not running.output.paused


async def test_both_directions_at_once(start: Starter) -> None:
    """Backpressure in one direction does not block the other direction of a program that answers while it receives."""
    running = start("cat")
    lines = numbered(50_000)
    for first in range(0, len(lines), 1_000):
        running.write(*lines[first : first + 1_000])
        await until(lambda: not running.output.paused, "the program to take the batch")
    await until(lambda: len(running.output.messages) == len(lines), "the lines to come back")
    assert running.output.messages == lines


async def test_paused_output_does_not_block_the_input(start: Starter) -> None:
    """While a client accepts no output, its messages still reach the program's stdin."""
    running = start("sh", "-c", "echo answer; read line; echo heard $line >&2; cat")
    running.child.pause()
    running.write(b"a question")
    await until(lambda: running.errors, "the program to have heard")
    assert running.errors == ["heard a question"]
    assert running.output.batches == []


async def test_pending_input_precedes_the_eof(start: Starter) -> None:
    """All messages before the end reach stdin before its EOF, also those that the pipe could not take at once."""
    running = start("wc", "-c")
    running.write(*numbered(BIG // 100, 99))
    assert running.output.paused
    running.child.close_input(End(1000))
    assert await running.line() == str(BIG)
    assert not running.output.paused


async def test_slow_reader_has_a_time_limit(start: Starter) -> None:
    """The ladder ends a program that reads its pending input too slowly for the time limit."""
    script = "import os, time\nwhile os.read(0, 4096): time.sleep(0.02)"
    running = start(*python(script), ladder=(Step(0.05, signal.SIGKILL),))
    running.write(b"x" * BIG * 10)
    running.child.close_input(End(1000))
    await running.child.end(input_seconds=0.2)
    assert (running.child.group.status, running.child.discarded) == (-signal.SIGKILL, 1)


async def test_input_after_the_end_is_discarded(start: Starter, fifo: str) -> None:
    """The child discards and counts messages after the end of stdin. `close_input` is idempotent."""
    running = start("sh", "-c", 'read word <"$0"; wc -c', fifo)
    running.write(*numbered(BIG // 100, 99))
    running.child.close_input(End(1000))
    running.write(b"too late", b"as well")
    running.child.close_input(End(1001))
    assert running.child.discarded == 2
    await asyncio.to_thread(write_to_fifo, fifo, "go")
    assert await running.line() == str(BIG)


async def test_closed_stdin_discards_and_counts(start: Starter, fifo: str) -> None:
    """A program that has closed its stdin continues; the child discards and counts the client's messages."""
    running = start("sh", "-c", 'exec <&-; echo deaf; read word <"$0"; echo "and $word"', fifo)
    assert await running.line() == "deaf"
    running.write(b"one")
    running.write(b"two", b"three")
    assert running.child.discarded == 3
    assert not running.output.paused
    assert running.output.ended is None
    await asyncio.to_thread(write_to_fifo, fifo, "well")
    await running.ended()
    assert running.output.messages == [b"deaf", b"and well"]


async def test_stdin_closed_with_pending_data_resumes_the_client(start: Starter, fifo: str) -> None:
    """A program that closes its stdin while data is pending resumes its client."""
    running = start("sh", "-c", 'read word <"$0"; exec <&-; echo deaf; read word <"$0"', fifo)
    running.write(*numbered(BIG // 100))
    assert running.output.paused
    await asyncio.to_thread(write_to_fifo, fifo, "close it")
    assert await running.line() == "deaf"
    await until(lambda: not running.output.paused, "the client to be heard again")
    before = running.child.discarded
    running.write(b"more")
    assert running.child.discarded == before + 1


async def test_exit_with_pending_data_resumes_the_client(start: Starter) -> None:
    """A program that exits while data is pending resumes its client."""
    running = start("sh", "-c", "read line; echo $line; exit 3")
    running.write(b"enough", *numbered(BIG // 100))
    await running.ended()
    await until(lambda: not running.output.paused, "the client to be heard again")
    assert await running.child.group.wait_exit() == 3


async def test_binary_message_in_text_mode(start: Starter) -> None:
    """In text mode, the child writes a binary message's bytes unchanged, without a newline."""
    running = start("cat", framing="lines")
    running.write(b"by", b"tes", kind=Kind.BINARY)
    running.write(b" and text")
    assert await running.line() == "bytes and text"


async def test_framing_error_ends_the_output(start: Starter) -> None:
    """Output that violates its framing ends the flow with the error's close code, after all earlier messages."""
    running = start("sh", "-c", "echo short; echo; echo 0123456789; echo never; cat", limit=9)
    assert await running.ended() == End(1009, str(MessageTooLong(9)))
    assert running.output.messages == [b"short", b""]


async def test_unfinished_message_is_not_kept(start: Starter) -> None:
    """The child does not keep a message that exceeds the limit, however long the program continues it."""
    running = start(*command("endless"), limit=1_000_000)
    await running.ended()
    before = resident(os.getpid())
    await turns(3_000)
    assert resident(os.getpid()) < before + 50_000_000


async def test_output_ends_after_both_streams(start: Starter, fifo: str) -> None:
    """If stderr goes to the client as well, the output ends when both streams have ended."""
    running = start("sh", "-c", 'echo out; exec >&-; echo err >&2; read word <"$0"; echo late >&2', fifo, error_framing="lines")
    await until(lambda: running.output.messages == [b"out", b"err"], "a line of each")
    await turns()
    assert running.output.ended is None
    assert running.child.output_open
    await asyncio.to_thread(write_to_fifo, fifo, "go")
    await running.ended()
    assert running.output.messages == [b"out", b"err", b"late"]
    assert running.errors == ["err", "late"]


async def test_paused_output_also_pauses_stderr(start: Starter, fifo: str) -> None:
    """If stderr goes to the client as well, a paused client pauses both streams."""
    running = start("sh", "-c", 'read word <"$0"; echo err >&2; echo out; echo told >"$0"', fifo, error_framing="lines")
    running.child.pause()
    await asyncio.to_thread(write_to_fifo, fifo, "go")
    await asyncio.to_thread(heard, fifo)
    await turns()
    assert running.output.batches == []
    running.child.resume()
    await running.ended()
    assert sorted(running.output.messages) == [b"err", b"out"]


def heard(fifo: str) -> str:
    """Read one line from the named pipe."""
    with open(fifo) as words:
        return words.readline()


async def test_redirected_output(start: Starter, fifo: str) -> None:
    """After `redirect`, the first sink of a child receives nothing more, not even the end."""
    running = start("sh", "-c", 'echo first; read word <"$0"; echo second', fifo)
    await running.line()
    other = Memory()
    running.child.redirect(other)
    await asyncio.to_thread(write_to_fifo, fifo, "go")
    await until(lambda: other.ended, "the end at the other sink")
    assert other.messages == [b"second"]
    assert (running.output.messages, running.output.ended) == ([b"first"], None)


async def test_opening_and_closing_records(start: Starter, tmp_path: Path) -> None:
    """With the framing json, the program receives the request first, and a record of the client's end last."""
    told = tmp_path / "told"
    running = start("sh", "-c", 'cat >"$0"', told, framing="json")
    running.child.send(make_framing("json", limit=0)[1].opening(lambda: {"path": "/x"}))
    running.write(b"hello")
    running.child.close_input(End(1001, "gone"))
    await running.ended()
    assert told.read_text().splitlines() == [
        '{"type":"open","path":"/x"}',
        '{"type":"message","text":"hello"}',
        '{"type":"close","code":1001,"reason":"gone"}',
    ]


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [("exit 0", 0, "exit 0"), ("exit 3", 3, "exit 3"), ("kill -TERM $$", -15, "signal TERM"), ("kill -KILL $$", -9, "signal KILL")],
)
async def test_exit_status(start: Starter, script: str, status: int, words: str) -> None:
    """The exit status is available after the program's exit: minus N after signal N. It also has a text for the close frame."""
    running = start.make("sh", "-c", script)
    exits: list[int | None] = []
    running.child.start(running.output, lambda: exits.append(running.child.group.status))
    assert await running.child.group.wait_exit() == status
    assert exits == [status]
    assert describe(status) == words


async def test_exit_may_be_awaited_by_several(start: Starter) -> None:
    """Several callers may wait for the exit, including a cancelled one and one that calls after the exit."""
    running = start("cat")
    waiting = [asyncio.ensure_future(running.child.group.wait_exit()) for _ in range(3)]
    await turns()
    waiting.pop().cancel()
    await turns()
    running.child.close_input(End(1000))
    assert await asyncio.gather(*waiting) == [0, 0]
    assert await running.child.group.wait_exit() == 0


async def test_no_zombie(start: Starter) -> None:
    """The child reaps a program at once when it exits, whether a caller waits or not."""
    running = start("true")
    await running.child.group.wait_exit()
    with pytest.raises(ProcessLookupError):
        os.kill(running.child.group.pid, 0)


async def test_abandoned_after_a_failed_start(start: Starter) -> None:
    """A child that was abandoned before its `start`, and whose program could not be started, leaves no descriptor."""
    before = descriptors()
    stdio = open_stdio(None)
    for fd in stdio.theirs:
        os.close(fd)
    failed: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
    failed.set_exception(ProgramError("cannot start"))
    child = Child(
        stdio,
        decoder=Envelope("stdout", limit=0),
        encoder=make_framing("lines", limit=0)[1],
        errors=Lines(lambda lines: None),
        error_decoder=Envelope("stderr", limit=0),
        ladder=SHORT_LADDER,
        descendants=start.descendants,
        fields={},
        loop=asyncio.get_running_loop(),
    )
    child.follow(failed)
    child.abandon()
    assert descriptors() == before
