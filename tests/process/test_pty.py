"""`--pty`: a terminal as stdout, for programs that buffer their output if stdout is a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.conftest import BROADCAST
from tests.support.proc import Starter, python, turns, until
from tests.support.server import Server
from tests.support.tool import command
from wsbridge.flow import End
from wsbridge.settings import TerminalSize

EVERY_BYTE = python("import os", "os.write(1, bytes(range(256)) * 3)")
LAZY = python("import os, sys", "print('one')", "os.write(2, b'printed\\n')", "sys.stdin.read()")
"""Prints a line without flushing it, reports this on stderr, and waits for EOF on stdin."""


async def test_only_stdout_is_a_terminal(start: Starter) -> None:
    """With --pty, stdout is a terminal; stdin and stderr stay pipes."""
    running = start("sh", "-c", "for fd in 0 1 2; do [ -t $fd ] && echo $fd; done; readlink /proc/self/fd/0 /proc/self/fd/2", pty=True)
    await running.ended()
    terminal, *others = running.output.messages
    assert terminal == b"1"
    assert [other.partition(b":")[0] for other in others] == [b"pipe", b"pipe"]


async def test_terminal_is_raw(start: Starter) -> None:
    """The terminal is raw: every byte of the output arrives unchanged, also LF, and the terminal does not echo input."""
    running = start(*EVERY_BYTE, pty=True, framing="chunks")
    running.write(b"what the client says")
    await running.ended()
    assert b"".join(running.output.messages) == bytes(range(256)) * 3


async def test_no_controlling_terminal(start: Starter) -> None:
    """The program has no controlling terminal."""
    script = "read pid name state parent group session terminal rest </proc/$$/stat; echo $terminal; true </dev/tty || echo none"
    running = start("sh", "-c", script, pty=True)
    await running.ended()
    assert running.output.messages == [b"0", b"none"]


async def test_block_buffered_program_prints_lines_at_once(start: Starter) -> None:
    """With --pty, a program that block-buffers its output on a pipe prints each line at once."""
    held, told = start(*LAZY), start(*LAZY, pty=True)
    await until(lambda: held.errors and told.errors, "both to have printed")
    await until(lambda: told.output.messages, "the line on the terminal")
    await turns()
    assert told.output.messages == [b"one"]
    assert held.output.messages == []


async def test_filter_answers_each_line(start: Starter) -> None:
    """With --pty, a filter that block-buffers its output on a pipe answers each line at once."""
    running = start("grep", "o", pty=True)
    for number in range(3):
        running.write(b"no %d" % number)
        await until(lambda number=number: len(running.output.messages) == number + 1, "the answer")
    assert running.output.messages == [b"no 0", b"no 1", b"no 2"]


@pytest.mark.parametrize("lines", [1, 1_000, 50_000])
async def test_output_is_complete_at_the_exit(start: Starter, lines: int) -> None:
    """The server delivers all output of a program that prints to its terminal and exits at once, then the end."""
    running = start("seq", lines, pty=True)
    assert await running.ended() == End(1000)
    assert running.output.messages == [b"%d" % number for number in range(1, lines + 1)]


async def test_paused_output_blocks_the_program(start: Starter) -> None:
    """A client that accepts nothing blocks a program on a terminal as on a pipe; no output is lost."""
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
    """A program that closes its terminal ends its output, even if it continues to run."""
    running = start("sh", "-c", "echo last; exec >&-; read line", pty=True)
    assert await running.ended() == End(1000)
    assert running.output.messages == [b"last"]
    assert running.child.group.status is None


LONG = "x" * 3000
SAME = {
    "ls": ("ls", "{}"),
    "ls of all": ("ls", "-a", "{}"),
    "ls with colours": ("ls", "--color=auto", "{}"),
    "ls of folders": ("ls", "-R", "{}"),
    "ls with details": ("ls", "-l", "{}"),
    "ps": ("sh", "-c", "ps -o args= -p $$; :", LONG),
    "ps with a head": ("sh", "-c", "ps -o ppid,args -p 1; ps -p 1 -f; :"),
    "grep": ("grep", "--color=auto", "-rn", "line", "{}"),
    "diff": ("diff", "--color=auto", "{}/0", "{}/1"),
    "git diff": ("git", "-c", "color.ui=auto", "diff", "--no-index", "{}/0", "{}/1"),
    "find": ("find", "{}", "-name", "*e*"),
    "python": ("python3", "-c", "import os; print('x' * 1000)"),
}
"""Programs whose output differs on a terminal; `{}` stands for a folder."""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with names that `ls` would print in columns, and in quotes."""
    for name in [*map(str, range(40)), "two words", "it's", "star*", "folder/inner", "a-longer-name-than-the-others"]:
        path = tmp_path / "names" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"a line of {name}\n")
    return str(tmp_path / "names")


@pytest.mark.parametrize("argv", SAME.values(), ids=SAME.keys())
async def test_output_is_as_on_a_pipe(start: Starter, argv: tuple[str, ...], folder: str) -> None:
    """With --pty, a program prints the same output as on a pipe."""
    words = tuple(word.replace("{}", folder) for word in argv)
    printed = []
    for pty in False, True:
        running = start(*words, pty=pty)
        await running.ended()
        printed.append(running.output.messages)
    assert printed[1] == printed[0] != []


def test_session_prints_as_on_a_pipe(folder: str) -> None:
    """The program of a session gets the terminal and the variables for it."""
    with Server("--pty", "sh", "-c", 'ls "$0"; test -t 1', folder) as server, server.connect() as client:
        assert sorted(client.receive_lines()) == sorted(path.name for path in Path(folder).iterdir())


def test_channel_prints_as_on_a_pipe(folder: str) -> None:
    """The program of a channel also prints as on a pipe, whatever variables describe the server's own terminal."""
    variables = {"TERM": "xterm", "COLUMNS": "40", "PAGER": "less", "QUOTING_STYLE": "c", "LS_COLORS": "di=01"}
    words = ("--exchange=x", "--join=history", "--restart=never", "--pty", "sh", "-c", 'ls --color=auto "$0"; echo end', folder)
    with Server(*words, bridge=BROADCAST, env=variables) as server, server.connect() as client:
        assert sorted(iter(client.receive_text, "end")) == sorted(path.name for path in Path(folder).iterdir())


@pytest.mark.parametrize(("size", "shown"), [(TerminalSize(132, 43), "43 132"), (TerminalSize(0, 0), "0 0"), (True, "0 2")])
async def test_size(start: Starter, size: TerminalSize | bool, shown: str) -> None:
    """The terminal has the requested size; without a size, it has 2 columns and no rows."""
    running = start("sh", "-c", "stty size <&1", pty=size)
    await running.ended()
    assert running.output.messages == [shown.encode()]


def test_size_that_is_set(folder: str) -> None:
    """With --pty-size, programs print for a terminal of that size, and get no variables of a terminal."""
    script = 'ls "$0"; echo "$COLUMNS$PAGER$QUOTING_STYLE."'
    with Server("--pty", "--pty-size=60x20", "sh", "-c", script, folder) as server, server.connect() as client:
        *names, variables = client.receive_lines()
    assert len(names) < 40
    assert max(map(len, names)) <= 60
    assert variables == "."


def test_passed_variables_take_precedence() -> None:
    """A variable that --passenv names has the server's value."""
    flags = ("--pty", "--passenv=PATH,COLUMNS,TERM")
    variables = {"COLUMNS": "100", "TERM": "xterm"}
    with Server(*flags, "sh", "-c", "echo $COLUMNS $TERM $PAGER", env=variables) as server, server.connect() as client:
        assert client.receive_text() == "100 xterm cat"
