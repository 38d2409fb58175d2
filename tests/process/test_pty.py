"""`--pty`: a terminal as stdout, for programs that hold back their lines where they write to a pipe."""

from __future__ import annotations

import pytest

from tests.support.proc import Starter, python, turns, until
from tests.support.tool import command
from wsbridge.flow import End

EVERY_BYTE = python("import os", "os.write(1, bytes(range(256)) * 3)")
LAZY = python("import os, sys", "print('one')", "os.write(2, b'printed\\n')", "sys.stdin.read()")
"""Prints a line without flushing it, says so on stderr, and waits for the end of stdin."""


async def test_only_stdout_is_a_terminal(start: Starter) -> None:
    """With --pty stdout is a terminal; stdin stays a pipe, and stderr too."""
    running = start("sh", "-c", "for fd in 0 1 2; do [ -t $fd ] && echo $fd; done; readlink /proc/self/fd/0 /proc/self/fd/2", pty=True)
    await running.ended()
    terminal, *others = running.output.messages
    assert terminal == b"1"
    assert [other.partition(b":")[0] for other in others] == [b"pipe", b"pipe"]


async def test_terminal_is_raw(start: Starter) -> None:
    """The terminal is raw: every byte arrives as it was printed, LF too, and what the client says is not echoed."""
    running = start(*EVERY_BYTE, pty=True, framing="chunks")
    running.say(b"what the client says")
    await running.ended()
    assert b"".join(running.output.messages) == bytes(range(256)) * 3


async def test_no_controlling_terminal(start: Starter) -> None:
    """The terminal is nobody's controlling terminal: the program has none."""
    script = "read pid name state parent group session terminal rest </proc/$$/stat; echo $terminal; true </dev/tty || echo none"
    running = start("sh", "-c", script, pty=True)
    await running.ended()
    assert running.output.messages == [b"0", b"none"]


async def test_program_that_buffers_by_the_block_speaks_by_the_line(start: Starter) -> None:
    """With --pty a line comes when it is printed, from a program that holds it back on a pipe."""
    held, told = start(*LAZY), start(*LAZY, pty=True)
    await until(lambda: held.errors and told.errors, "both to have printed")
    await until(lambda: told.output.messages, "the line on the terminal")
    await turns()
    assert told.output.messages == [b"one"]
    assert held.output.messages == []


async def test_answers_come_one_by_one(start: Starter) -> None:
    """With --pty a filter that buffers by the block on a pipe answers each line as it comes."""
    running = start("grep", "o", pty=True)
    for number in range(3):
        running.say(b"no %d" % number)
        await until(lambda number=number: len(running.output.messages) == number + 1, "the answer")
    assert running.output.messages == [b"no 0", b"no 1", b"no 2"]


@pytest.mark.parametrize("lines", [1, 1_000, 50_000])
async def test_output_is_complete_at_the_exit(start: Starter, lines: int) -> None:
    """All output of a program that prints to its terminal and exits at once is delivered, and then its end."""
    running = start("seq", lines, pty=True)
    assert await running.ended() == End(1000)
    assert running.output.messages == [b"%d" % number for number in range(1, lines + 1)]


async def test_paused_terminal_holds_its_program(start: Starter) -> None:
    """A client that takes nothing holds up a program on a terminal as it does on a pipe; nothing is lost."""
    running = start(*command("flood", "0.2"), pty=True)
    running.child.pause()
    blocked = int((await until(lambda: running.errors, "the program to be blocked"))[0].rpartition(" ")[2])
    taken = len(running.output.messages)
    assert taken * 100 <= blocked
    running.child.resume()
    await until(lambda: len(running.output.messages) > blocked // 100 + 1000, "what was held up")
    received = [int(line) for line in running.output.messages]
    assert received == list(range(len(received)))


async def test_closed_terminal_ends_the_output(start: Starter) -> None:
    """A program that closes its terminal has ended its output, though it lives on."""
    running = start("sh", "-c", "echo last; exec >&-; read line", pty=True)
    assert await running.ended() == End(1000)
    assert running.output.messages == [b"last"]
    assert running.child.group.status is None
