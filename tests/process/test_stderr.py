"""The log lines of stderr: any length, whatever the program does."""

from __future__ import annotations

import signal

import pytest

from tests.support.proc import LONG_LADDER, Starter, until
from tests.support.tool import command
from wsbridge.process.stderr import PIECE, Lines
from wsbridge.process.termination import Step

SAID = b"one\n\ntwo\r\n \x1b[1m three\r\r\nnot \xff utf-8, \xc3\xa9 is\nlast"
LINES = ["one", "", "two", " \x1b[1m three\r", "not \\xff utf-8, é is", "last"]


def cut(*parts: bytes) -> list[str]:
    """Return the log lines of these parts and the end."""
    logged: list[str] = []
    lines = Lines(logged.extend)
    for part in (*parts, b""):
        lines(part)
    return logged


def test_lines() -> None:
    """Each line of stderr is logged separately, without LF or CR LF, and also a last line without a newline."""
    assert cut(SAID) == LINES


def test_lines_in_parts() -> None:
    """The lines are the same, however the bytes are split."""
    assert cut(*(SAID[index : index + 1] for index in range(len(SAID)))) == LINES
    for middle in range(len(SAID)):
        assert cut(*filter(None, (SAID[:middle], SAID[middle:]))) == LINES


def test_no_output_no_log_line() -> None:
    """A program that prints nothing on stderr causes no log line."""
    assert cut() == []
    assert cut(b"whole\n") == ["whole"]


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
@pytest.mark.parametrize("read", [1000, 64 * 1024, 256 * 1024])
def test_long_line_is_logged_in_pieces(size: int, read: int) -> None:
    """A line of any length is logged completely, in as few pieces as bounded memory allows. The next line is separate."""
    said = b"Q" * size + b"\nnext\n"
    *pieces, last = cut(*(said[start : start + read] for start in range(0, len(said), read)))
    assert "".join(pieces) == "Q" * size
    assert len([piece for piece in pieces if piece]) <= size // PIECE + 1
    assert last == "next"


async def test_long_line_of_a_program(start: Starter) -> None:
    """A stderr line of megabytes is logged without stalling its program."""
    running = start(*command("stderr", 3_000_000))
    assert await running.line() == "done"
    await until(lambda: sum(map(len, running.errors)) == 3_000_000, "the whole line in the log")
    assert set("".join(running.errors)) == {"Q"}


async def test_stderr_does_not_wait_for_the_client(start: Starter) -> None:
    """Stderr is logged at once, also while the client accepts nothing."""
    running = start("sh", "-c", "echo out; echo err >&2; exec cat")
    running.child.pause()
    await until(lambda: running.errors == ["err"], "the line of stderr")


async def test_stderr_before_the_exit_is_logged(start: Starter) -> None:
    """The lines that a program prints on stderr just before its exit are logged before the session ends."""
    ladder = (Step(0.05, signal.SIGINT), *LONG_LADDER[1:])
    running = start("sh", "-c", "trap 'seq 10000 >&2; exit' INT; echo begun; while :; do sleep 0.01; done", ladder=ladder)
    await running.line()
    await running.end()
    assert running.errors[-1] == "10000"
    assert len(running.errors) == 10_000
