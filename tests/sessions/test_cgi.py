"""A running CGI script with a fake child; the test controls its output, its exit and its processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from signal import SIGINT, SIGKILL, SIGSEGV, Signals
from typing import Any, TypeVar

import pytest

from tests.support.proc import no_callback_fails, turns
from wsbridge.errors import TruncatedOutput
from wsbridge.flow import NULL_SOURCE, Batch, End, Kind, Memory, Sink, Source
from wsbridge.metrics import Metrics
from wsbridge.sessions.cgi import ENDED, HIGH_WATER, RunningScript
from wsbridge.sessions.limiter import Limiter
from wsbridge.sessions.registry import Registry

LONG = 1000.0
"""Seconds of a drain, more than a test lasts."""
EOF = End(1000)
Result = TypeVar("Result")


class Group:
    """The processes of the script, as RunningScript sees them."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.signalled: Signals | None = None
        self.is_gone = False
        self._on_gone: Callable[[], None] | None = None

    def call_when_empty(self, callback: Callable[[], None]) -> None:
        if self.is_gone:
            callback()
        else:
            self._on_gone = callback

    def go(self) -> None:
        """Let the last process exit."""
        on_gone, self._on_gone = self._on_gone, None
        self.is_gone = True
        if on_gone is not None:
            on_gone()


class Child(Memory):
    """A child without a process: `taken` and `ended` are its input, `paused` the state of its output; its ladder waits for `step`."""

    def __init__(self) -> None:
        super().__init__()
        self.group = Group()
        self.source: Source = NULL_SOURCE
        self.has_unread_output = False
        self.closes: list[End] = []
        self.ladders = self.kills = 0
        self._step = asyncio.Event()
        self._fault: Exception | None = None

    def start(self, sink: Sink, exited: Callable[[], None]) -> None:
        self.sink = sink
        self.exited = exited

    def close_input(self, reason: End) -> None:
        self.closes.append(reason)

    def kill(self) -> None:
        self.kills += 1

    async def end(self) -> None:
        self.ladders += 1
        await self._step.wait()
        if self._fault is not None:
            raise self._fault

    # Methods for the test

    def prints(self, *pieces: bytes) -> None:
        self.push(Batch(Kind.BINARY, list(pieces)))

    def closes_stdout(self) -> None:
        assert self.sink is not None
        self.sink.end(EOF)

    def exits(self, status: int) -> None:
        self.group.status = status
        self.exited()

    def receives(self, number: Signals) -> None:
        """The ladder has reached its signals."""
        self.group.signalled = number

    def ends_ladder(self, fault: Exception | None = None) -> None:
        self._fault = fault
        self._step.set()


class Scripts:
    """Makes running scripts, each with a slot of its own limiter."""

    def __init__(self) -> None:
        self.registry = Registry(max_sessions=7, metrics=Metrics())
        self.limiter = Limiter(1)
        self.children: list[Child] = []

    def __call__(self, *, drain_seconds: float = LONG) -> tuple[RunningScript, Child]:
        assert self.limiter.acquire()
        child = Child()
        self.children.append(child)
        handed: Any = child
        fields = {"cgiscript": "/srv/cgi/tick"}
        return RunningScript(handed, limiter=self.limiter, registry=self.registry, fields=fields, drain_seconds=drain_seconds), child


@pytest.fixture
async def scripts() -> AsyncIterator[Scripts]:
    """Makes running scripts; after the test nothing of them is left, and their slots are free."""
    with no_callback_fails():
        made = Scripts()
        yield made
        for child in made.children:
            child.ends_ladder()
            child.group.go()
        await at_once(made.registry.drain())
        await turns()
        assert made.limiter.acquire()
        assert not made.limiter.acquire()


async def at_once(work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of a coroutine that needs some turns of the loop, but no time."""
    task = asyncio.create_task(work)
    await turns()
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
        raise AssertionError("it still waits")
    return task.result()


async def joined(reading: asyncio.Task[Result]) -> Result:
    """Return the result of a task that already waits."""
    return await reading


async def truncation(script: RunningScript) -> str:
    """Return the reason that the rest of the output is missing."""
    with pytest.raises(TruncatedOutput) as cut:
        await at_once(script.read())
    return str(cut.value)


# Output


async def test_read(scripts: Scripts) -> None:
    """A read returns all output so far in one piece, and a read without output waits for more."""
    script, child = scripts()
    child.prints(b"a", b"b")
    child.prints(b"c")
    assert await at_once(script.read()) == b"abc"
    reading = asyncio.create_task(script.read())
    await turns()
    assert not reading.done()
    child.prints(b"d")
    assert await at_once(joined(reading)) == b"d"


async def test_read_that_is_cancelled(scripts: Scripts) -> None:
    """A read that is cancelled loses no output."""
    script, child = scripts()
    reading = asyncio.create_task(script.read())
    await turns()
    child.prints(b"a")
    reading.cancel()
    await turns()
    assert reading.cancelled()
    assert await at_once(script.read()) == b"a"


async def test_unread(scripts: Scripts) -> None:
    """The next read returns the bytes that were put back before all other output."""
    script, child = scripts()
    child.prints(b"head body")
    assert await at_once(script.read()) == b"head body"
    child.prints(b" more")
    script.unread(b"body")
    assert await at_once(script.read()) == b"body more"


async def test_unread_at_the_end(scripts: Scripts) -> None:
    """Bytes that were put back after the end of the output are read before that end."""
    script, child = scripts()
    child.prints(b"head body")
    child.exits(0)
    child.closes_stdout()
    await at_once(script.read())
    script.unread(b"body")
    assert await at_once(script.read()) == b"body"
    assert await at_once(script.read()) == b""


async def test_unread_nothing(scripts: Scripts) -> None:
    """No bytes put back are not mistaken for the end of the output."""
    script, child = scripts()
    script.unread(b"")
    reading = asyncio.create_task(script.read())
    await turns()
    assert not reading.done()
    child.prints(b"a")
    assert await at_once(joined(reading)) == b"a"


async def test_bounded_buffer(scripts: Scripts) -> None:
    """The child is paused when more than HIGH_WATER bytes wait to be read, and resumed by the next read."""
    script, child = scripts()
    child.prints(b"x" * (HIGH_WATER - 1))
    child.prints(b"x")
    assert not child.paused
    child.prints(b"x", b"y")
    assert child.paused
    assert len(await at_once(script.read())) == HIGH_WATER + 2
    assert not child.paused
    child.prints(b"x" * HIGH_WATER)
    assert not child.paused


# The end of the output


@pytest.mark.parametrize("status", [0, 3, 255])
async def test_exit_and_end_of_stdout(scripts: Scripts, status: int) -> None:
    """The output of a script that exits is complete, whatever its exit status."""
    script, child = scripts()
    child.prints(b"a")
    child.exits(status)
    child.closes_stdout()
    assert await at_once(script.read()) == b"a"
    assert [await at_once(script.read()) for _ in range(2)] == [b"", b""]
    assert not script.crashed


async def test_end_of_stdout_alone(scripts: Scripts) -> None:
    """The end of stdout does not end the output, since the exit decides whether it is complete; but the ladder begins."""
    script, child = scripts()
    child.prints(b"a")
    child.closes_stdout()
    assert await at_once(script.read()) == b"a"
    reading = asyncio.create_task(script.read())
    await turns()
    assert (reading.done(), child.ladders, child.closes) == (False, 1, [End(1001)])
    child.exits(0)
    assert await at_once(joined(reading)) == b""


async def test_exit_alone(scripts: Scripts) -> None:
    """The exit does not end the output while another process may still print; that output is read, and no ladder begins."""
    script, child = scripts()
    child.exits(0)
    reading = asyncio.create_task(script.read())
    await turns()
    assert (reading.done(), child.ladders) == (False, 0)
    child.prints(b"from another process")
    assert await at_once(joined(reading)) == b"from another process"
    child.closes_stdout()
    assert await at_once(script.read()) == b""
    await turns()
    assert child.ladders == 1


@pytest.mark.parametrize("exits_first", [True, False])
@pytest.mark.parametrize(("status", "reason"), [(-SIGSEGV, "signal SEGV"), (-SIGKILL, "signal KILL")])
async def test_crash(scripts: Scripts, exits_first: bool, status: int, reason: str) -> None:
    """The output of a script that a signal from elsewhere ended is truncated; its earlier output is read first."""
    script, child = scripts()
    child.prints(b"a")
    for step in (lambda: child.exits(status), child.closes_stdout)[:: 1 if exits_first else -1]:
        step()
    assert script.crashed
    assert await at_once(script.read()) == b"a"
    assert [await truncation(script) for _ in range(2)] == [reason, reason]


async def test_crash_of_a_script_that_is_waited_for(scripts: Scripts) -> None:
    """A read that waits ends with the truncation."""
    script, child = scripts()
    reading = asyncio.create_task(script.read())
    await turns()
    child.closes_stdout()
    child.exits(-SIGSEGV)
    with pytest.raises(TruncatedOutput, match="signal SEGV"):
        await at_once(joined(reading))


@pytest.mark.parametrize("status", [-SIGINT, 0, 1])
async def test_ladder_before_the_end_of_stdout(scripts: Scripts, status: int) -> None:
    """The output of a script that exits after the ladder's signal is truncated, since it may have had more."""
    script, child = scripts()
    script.finish()
    child.prints(b"a")
    child.receives(SIGINT)
    child.exits(status)
    child.closes_stdout()
    assert not script.crashed
    assert await at_once(script.read()) == b"a"
    assert await truncation(script) == ENDED


async def test_stdout_that_ends_after_the_signal(scripts: Scripts) -> None:
    """The end of stdout after the ladder's signal truncates the output at once, before the exit."""
    script, child = scripts()
    script.finish()
    child.receives(SIGINT)
    child.closes_stdout()
    assert await truncation(script) == ENDED
    child.exits(0)
    assert await truncation(script) == ENDED


async def test_ladder_after_the_end_of_stdout(scripts: Scripts) -> None:
    """The output of a script that closed stdout, lived on and was ended by the ladder is complete."""
    script, child = scripts()
    child.prints(b"a")
    child.closes_stdout()
    child.receives(SIGKILL)
    child.exits(-SIGKILL)
    assert not script.crashed
    assert await at_once(script.read()) == b"a"
    assert await at_once(script.read()) == b""


async def test_shutdown_without_a_signal(scripts: Scripts) -> None:
    """The output of a script that ends when its stdin is closed is complete, and can be read during the shutdown."""
    script, child = scripts()
    script.shut_down()
    assert child.closes == [End(1001)]
    child.prints(b"last")
    child.exits(0)
    child.closes_stdout()
    assert await at_once(script.read()) == b"last"
    assert await at_once(script.read()) == b""


# The drain


async def test_drain(scripts: Scripts) -> None:
    """The output of a script that has exited ends after the drain time, although stdout is open; then the ladder begins."""
    script, child = scripts(drain_seconds=0)
    child.prints(b"a")
    child.exits(0)
    await turns()
    assert (child.ladders, child.closes) == (1, [End(1001)])
    child.prints(b"too late")
    assert await at_once(script.read()) == b"a"
    assert await at_once(script.read()) == b""


async def test_drain_after_a_crash(scripts: Scripts) -> None:
    """The output of a script that crashed is truncated after the drain time as well."""
    script, child = scripts(drain_seconds=0)
    child.exits(-SIGSEGV)
    await turns()
    assert await truncation(script) == "signal SEGV"


async def test_drain_with_output_left(scripts: Scripts) -> None:
    """The drain does not end while output from before the exit is unread."""
    script, child = scripts(drain_seconds=0)
    child.has_unread_output = True
    child.exits(0)
    await turns()
    assert child.ladders == 0
    child.prints(b"a")
    child.closes_stdout()
    assert await at_once(script.read()) == b"a"
    assert await at_once(script.read()) == b""


async def test_end_of_stdout_during_the_drain(scripts: Scripts, caplog: pytest.LogCaptureFixture) -> None:
    """The end of stdout ends the drain: the ladder begins once, and the log does not report that stdout is open."""
    script, child = scripts(drain_seconds=0)
    with caplog.at_level(logging.DEBUG, "wsbridge"):
        child.exits(0)
        child.closes_stdout()
        await turns()
    assert caplog.records == []
    assert child.ladders == 1
    assert child.closes == [End(1001)]
    assert await at_once(script.read()) == b""


# Output that the ladder ends


async def test_end_of_the_ladder_without_an_exit(scripts: Scripts) -> None:
    """The output of a script that even KILL did not end is truncated when the ladder is over."""
    script, child = scripts()
    script.finish()
    reading = asyncio.create_task(script.read())
    await turns()
    assert not reading.done()
    child.receives(SIGKILL)
    child.ends_ladder()
    with pytest.raises(TruncatedOutput, match=ENDED):
        await at_once(joined(reading))


async def test_end_of_the_ladder_after_an_exit(scripts: Scripts) -> None:
    """The output of a script that exited by itself is complete when the ladder is over, although stdout is open."""
    script, child = scripts()
    script.finish()
    child.exits(0)
    child.receives(SIGINT)
    child.ends_ladder()
    await turns()
    assert await at_once(script.read()) == b""


async def test_last_output_of_the_ladder(scripts: Scripts) -> None:
    """The output that the child hands on as its ladder ends is read."""
    script, child = scripts()
    script.finish()
    child.exits(0)
    child.prints(b"last")
    child.ends_ladder()
    await turns()
    child.prints(b"too late")
    assert await at_once(script.read()) == b"last"
    assert await at_once(script.read()) == b""


# Input


async def test_input(scripts: Scripts) -> None:
    """The script receives each part of the body as it comes, then the end of its stdin."""
    script, child = scripts()
    script.write_input(b"a")
    script.write_input(b"b\0")
    assert child.batches == [Batch(Kind.BINARY, [b"a"]), Batch(Kind.BINARY, [b"b\0"])]
    assert child.closes == []
    script.close_input()
    assert child.closes == [End(1000)]


async def test_room(scripts: Scripts) -> None:
    """A writer waits for room while the child's stdin is full, and does not wait before or after."""
    script, child = scripts()
    assert child.source is script
    assert script.has_room
    await at_once(script.wait_for_room())
    child.source.pause()
    child.source.pause()
    assert not script.has_room
    waiting = asyncio.create_task(script.wait_for_room())
    await turns()
    assert not waiting.done()
    child.source.resume()
    await turns()
    assert waiting.done()
    assert script.has_room


# Termination, and the slot


async def test_finish(scripts: Scripts) -> None:
    """The ladder begins once, with the close of stdin, however often it is requested."""
    script, child = scripts()
    await turns()
    assert (child.ladders, child.closes) == (0, [])
    script.finish()
    script.finish()
    script.shut_down()
    await turns()
    assert (child.ladders, child.closes, child.kills) == (1, [End(1001)], 0)


async def test_force(scripts: Scripts) -> None:
    """A forced end kills the script."""
    script, child = scripts()
    script.force()
    assert child.kills == 1


async def test_slot(scripts: Scripts) -> None:
    """The script holds its slot until the ladder is over and no process is left, and gives it back once."""
    script, child = scripts()
    child.exits(0)
    child.closes_stdout()
    await at_once(script.read())
    assert (scripts.limiter.is_free, len(scripts.registry)) == (False, 1)
    child.ends_ladder()
    await turns()
    assert (scripts.limiter.is_free, len(scripts.registry)) == (False, 0)
    child.group.go()
    assert scripts.limiter.is_free


async def test_processes_that_exit_first(scripts: Scripts) -> None:
    """Processes that are gone before the ladder is over free the slot when it is over."""
    script, child = scripts()
    script.finish()
    child.exits(0)
    child.group.go()
    await turns()
    assert not scripts.limiter.is_free
    child.ends_ladder()
    await turns()
    assert scripts.limiter.is_free


async def test_wait_gone(scripts: Scripts) -> None:
    """A caller of `wait_ended` waits until the ladder is over; then the slot is free if no process is left."""
    script, child = scripts()
    waiting = asyncio.create_task(script.wait_ended())
    script.finish()
    child.exits(0)
    child.closes_stdout()
    child.group.go()
    await turns()
    assert not waiting.done()
    child.ends_ladder()
    await turns()
    assert waiting.done()
    assert scripts.limiter.is_free
    await at_once(script.wait_ended())


async def test_processes_that_remain(scripts: Scripts) -> None:
    """The ladder bounds the wait for a script that KILL did not end, but its processes hold the slot."""
    script, child = scripts()
    script.finish()
    child.ends_ladder()
    await at_once(script.wait_ended())
    assert not scripts.limiter.is_free


async def test_ladder_that_fails(scripts: Scripts, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of the ladder is logged with the script, and neither keeps the slot nor makes a reader wait."""
    script, child = scripts()
    script.finish()
    child.group.go()
    child.ends_ladder(OSError("broken"))
    await at_once(script.wait_ended())
    await turns()
    assert (scripts.limiter.is_free, len(scripts.registry)) == (True, 0)
    assert await truncation(script) == ENDED
    assert [record.getMessage() for record in caplog.records] == ["end of CGI script /srv/cgi/tick failed"]


async def test_script_that_starts_during_the_shutdown(scripts: Scripts) -> None:
    """A script that begins after the shutdown of the server begins its ladder at once."""
    await at_once(scripts.registry.drain())
    _, child = scripts()
    await turns()
    assert (child.ladders, child.closes) == (1, [End(1001)])


async def test_shutdown_of_the_server(scripts: Scripts) -> None:
    """The shutdown of the server begins the ladder of each script, and waits until it is over."""
    _, child = scripts()
    draining = asyncio.create_task(scripts.registry.drain())
    await turns()
    assert (draining.done(), child.ladders) == (False, 1)
    child.ends_ladder()
    await turns()
    assert draining.done()
