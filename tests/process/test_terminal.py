"""The terminal of `--pty`, on a real terminal of the kernel: raw in both directions, its size, and the variables for it."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deadline import DEADLINE, scaled
from wsbridge.process.terminal import PLAIN, open_terminal, terminal_environment
from wsbridge.settings import ProgramSettings, TerminalSize

ROOT = Path(__file__).parents[2]
EVERY_BYTE = bytes(range(256))


@contextmanager
def terminal(size: TerminalSize = PLAIN) -> Iterator[tuple[int, int]]:
    """A terminal whose two ends are closed after the block."""
    ends = open_terminal(size)
    try:
        yield ends
    finally:
        for fd in ends:
            os.close(fd)


def read(fd: int, count: int) -> bytes:
    """Read at least `count` bytes, and all that arrive with the last of them."""
    data = b""
    while len(data) < count:
        assert select.select([fd], [], [], scaled(DEADLINE))[0], f"only {data!r} has arrived"
        data += os.read(fd, 4096)
    return data


def test_output_is_raw() -> None:
    """Every byte that the program prints arrives unchanged, LF without CR."""
    with terminal() as (ours, theirs):
        os.write(theirs, EVERY_BYTE)
        assert read(ours, 256) == EVERY_BYTE


def test_input_is_raw() -> None:
    """Every byte that the server writes reaches the program unchanged and without a newline, so none acts as a control character."""
    with terminal() as (ours, theirs):
        os.write(ours, EVERY_BYTE)
        assert read(theirs, 256) == EVERY_BYTE


def test_no_echo() -> None:
    """The terminal does not echo what the server writes."""
    with terminal() as (ours, theirs):
        os.write(ours, b"from the server\n")
        read(theirs, 16)
        os.write(theirs, b"from the program")
        assert read(ours, 16) == b"from the program"


def test_ends() -> None:
    """The program's end is a terminal, and no end is inherited by another program."""
    with terminal() as (ours, theirs):
        assert os.isatty(theirs)
        assert os.ttyname(theirs).startswith("/dev/pts/")
        assert [os.get_inheritable(fd) for fd in (ours, theirs)] == [False, False]


def test_terminals_are_apart() -> None:
    """Each program has a terminal of its own, with its own size."""
    with terminal(TerminalSize(80, 24)) as one, terminal(TerminalSize(132, 43)) as other:
        assert os.ttyname(one[1]) != os.ttyname(other[1])
        assert os.get_terminal_size(one[1]) == (80, 24)


@pytest.mark.parametrize("size", [PLAIN, TerminalSize(0, 0), TerminalSize(132, 43), TerminalSize(1, 65535), TerminalSize(65535, 1)])
def test_size(size: TerminalSize) -> None:
    """The kernel reports the columns and the rows that the terminal was opened with."""
    with terminal(size) as (_, theirs):
        assert os.get_terminal_size(theirs) == (size.columns, size.rows)


def test_size_without_a_flag() -> None:
    """Without `--pty-size` the terminal has 2 columns and no rows."""
    assert TerminalSize(2, 0) == PLAIN


def test_no_controlling_terminal() -> None:
    """The terminal does not become the controlling terminal, even of a session leader without one."""
    script = (
        "from wsbridge.process.terminal import PLAIN, open_terminal",
        "ends = open_terminal(PLAIN)",
        "try:",
        "    print(open('/dev/tty').name)",
        "except OSError as error:",
        "    print(error.strerror)",
    )
    leader = subprocess.run(
        [sys.executable, "-c", "\n".join(script)],
        cwd=ROOT,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=scaled(DEADLINE),
    )
    assert (leader.stdout, leader.stderr) == ("No such device or address\n", "")


def test_flags_of_the_terminal() -> None:
    """A raw terminal neither edits lines, nor makes signals, nor stops output at XOFF, nor processes output."""
    with terminal() as (_, theirs):
        inputs, outputs, _, local, *_ = termios.tcgetattr(theirs)
        assert inputs & (termios.ICRNL | termios.IXON) == 0
        assert outputs & termios.OPOST == 0
        assert local & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN) == 0


def test_variables() -> None:
    """The program gets the variables of docs/environment.md, with the values in the table of that page."""
    section = (ROOT / "docs/environment.md").read_text().partition("### Variables of a terminal")[2].partition("\n## ")[0]
    rows = [re.findall(r"`([^`]*)`", line) for line in section.splitlines() if line.startswith("| `")]
    values = dict(row for row in rows if "COLORTERM" not in row)
    assert terminal_environment(PLAIN) == {**values, "COLORTERM": "", "LS_COLORS": ""}


@pytest.mark.parametrize(
    "size", [None, TerminalSize(80, 24), TerminalSize(0, 0), TerminalSize(0, 2), TerminalSize(2, 1), TerminalSize(3, 0)]
)
def test_no_variables(size: TerminalSize | None) -> None:
    """A program without a terminal, or with a terminal of another size, gets no variable of a terminal."""
    assert terminal_environment(size) == {}


@pytest.mark.parametrize("size", ["2x0", "80x24", "0x0"])
def test_no_variables_with_a_size_of_the_user(size: str) -> None:
    """A size that the user sets brings no variable, whatever the size."""
    assert terminal_environment(ProgramSettings(pty=True, pty_size=size).terminal) == {}


def test_variables_without_a_size_of_the_user() -> None:
    """Without a size, the program gets the variables of a terminal."""
    assert terminal_environment(ProgramSettings(pty=True).terminal)["TERM"] == "dumb"
