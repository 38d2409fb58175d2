"""The log's destination: no part of the server waits for its reader, and lost lines are counted."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.proc import no_callback_fails, turns, until
from tests.support.server import Server, memory_peak, wait_until, write_to_fifo
from tests.support.tool import command
from wsbridge.logwriter import BUFFER_BYTES, LogHandler
from wsbridge.metrics import Metrics
from wsbridge.process.stderr import PIECE

MIB = 1 << 20


@dataclass
class Pipe:
    """A log that writes to a pipe, and the reader's end of the pipe."""

    output: LogHandler
    metrics: Metrics
    reader: int
    writer: int

    def log(self, *messages: str) -> None:
        for message in messages:
            self.output.emit(logging.LogRecord("wsbridge.server", logging.INFO, "", 0, "%s", (message,), None))

    def read(self) -> str:
        """Read all available data from the pipe."""
        read = b""
        while select.select([self.reader], [], [], 0)[0] and (data := os.read(self.reader, 1 << 16)):
            read += data
        return read.decode()

    def leave(self) -> None:
        """Close the reader's end."""
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    metrics = Metrics()
    made = Pipe(LogHandler(writer, logging.Formatter("%(message)s"), metrics), metrics, reader, writer)
    yield made
    for fd in (made.reader, made.writer):
        with suppress(OSError):
            os.close(fd)


@pytest.fixture
async def attached(pipe: Pipe) -> Pipe:
    """The same pipe, with the log attached to a running loop."""
    pipe.output.attach(asyncio.get_running_loop())
    return pipe


def test_without_a_loop(pipe: Pipe) -> None:
    """Before and after the loop, a line is written at once."""
    pipe.log("one", "two")
    assert pipe.read() == "one\ntwo\n"


async def test_reader_that_stalls_twice(attached: Pipe) -> None:
    """After each stall of its reader, the log writes all lines, and stops watching the pipe."""
    read: list[str] = []

    def lines() -> int:
        read.append(attached.read())
        return "".join(read).count("\n")

    for total in (500, 1000):
        attached.log(*["x" * 1000] * 500)
        await turns()
        await until(lambda total=total: lines() == total, "all lines")
        assert not asyncio.get_running_loop().remove_writer(attached.writer)


async def test_lines_in_order(attached: Pipe) -> None:
    """Lines arrive whole and in order, and the lines of one loop iteration together."""
    lines = [f"line {number}" for number in range(2_000)]
    attached.log(*lines)
    read = ""
    while read.count("\n") < len(lines):
        await turns(2)
        read += attached.read()
    assert read.splitlines() == lines
    assert attached.metrics.log_lines_dropped == 0


def test_file(tmp_path: Path) -> None:
    """A log may go to a file, and text that cannot be encoded is escaped."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        output = LogHandler(file.fileno(), logging.Formatter("%(message)s"), Metrics())
        for message in ("é", "\udcff", "x" * 3_000_000):
            output.emit(logging.LogRecord("wsbridge.server", logging.INFO, "", 0, "%s", (message,), None))
        output.finish()
    lines = path.read_text().splitlines()
    assert lines[:2] == ["é", "\\udcff"]
    assert len(lines[2]) == 3_000_000


@pytest.mark.parametrize("size", [100, 5_000, 300_000])
async def test_reader_that_stalls(attached: Pipe, size: int) -> None:
    """A reader that stalls blocks no other part: lines wait in bounded memory, and further lines are counted. When it reads again, the
    log continues."""
    lines = [f"{number:06d}".ljust(size, "x") for number in range(6 * BUFFER_BYTES // size)]
    for start in range(0, len(lines), 10):
        attached.log(*lines[start : start + 10])
        await turns(1)
    dropped = attached.metrics.log_lines_dropped
    assert dropped > 0
    assert dropped * size > 2 * BUFFER_BYTES
    read = ""
    while read.count("\n") < len(lines) - dropped:
        await turns(2)
        read += attached.read()
    assert read.splitlines() == lines[: len(lines) - dropped]
    attached.log("afterwards")
    await until(lambda: attached.read() == "afterwards\n", "a line after the stall")
    assert attached.metrics.log_lines_dropped == dropped


async def test_reader_that_exits(attached: Pipe) -> None:
    """When the reader exits, only the log stops, and the lost lines are counted."""
    with no_callback_fails():
        attached.log("before")
        await turns()
        attached.leave()
        for _ in range(3):
            attached.log("into", "the void")
            await turns()
    assert attached.metrics.log_lines_dropped == 6


async def test_reader_that_exits_while_lines_wait(attached: Pipe) -> None:
    """The same applies if lines wait for a stalled reader that exits."""
    with no_callback_fails():
        attached.log(*["x" * 1000] * 500)
        await turns()
        attached.leave()
        await until(lambda: attached.metrics.log_lines_dropped > 300, "the lines to be given up")
        attached.log("another")
        await turns()
    assert attached.metrics.log_lines_dropped <= 501


def test_close_waits_for_the_reader_for_a_bounded_time(pipe: Pipe) -> None:
    """At the close, the log waits for its reader for a bounded time; a reader that reads gets every line."""
    pipe.output.attach(asyncio.new_event_loop())
    loop = pipe.output._loop
    assert loop is not None
    try:
        pipe.log("last words", "x" * 10_000)
        assert pipe.read() == ""
        pipe.output.attach(None)
        pipe.output.finish()
        assert pipe.read() == "last words\n" + "x" * 10_000 + "\n"
        pipe.output.attach(loop)
        pipe.log(*["x" * 1000] * 200)
        pipe.output.attach(None)
        pipe.output.finish()
    finally:
        loop.close()


def test_line_that_cannot_be_formatted(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that cannot be formatted does not affect other lines."""
    pipe.output.emit(logging.LogRecord("wsbridge.server", logging.INFO, "", 0, "%d", ("no number",), None))
    pipe.log("next")
    assert pipe.read() == "next\n"
    assert "Logging error" in capsys.readouterr().err


# A whole server


def lost(log: str) -> int:
    """Return the number of lost lines that the server reports."""
    found = re.search(r"log_lines_dropped=(\d+)", log)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("size", [100_000, 800_000, 3_000_000])
def test_stderr_line_of_any_length(size: int) -> None:
    """A stderr line of any length is logged completely, in pieces. Pieces that a slow reader of the log loses are counted."""
    with Server(*command("stderr", size)) as server:
        with server.connect() as client:
            assert client.receive_text() == "done"
        # A slow reader may lose the line of the session's end; the stop waits for that end.
        server.stop()
    logged = [line.rpartition(" | ")[2] for line in server.log.splitlines() if "| stderr " in line]
    assert size - lost(server.log) * PIECE <= sum(line.count("Q") for line in logged) <= size
    assert size > 1_000_000 or lost(server.log) == 0


def test_stderr_that_is_not_text() -> None:
    """Any number of bytes that are not valid text is logged in escaped form."""
    with Server("sh", "-c", r"head -c 150000 /dev/zero | tr '\0' '\377' >&2; echo done") as server:
        with server.connect() as client:
            assert client.receive_text() == "done"
        server.wait_for_log(r"\| DISCONNECT")
    assert sum(line.count("xff") for line in server.log.splitlines() if "| stderr " in line) == 150_000


STALLING = 'exec 3>&1; mkfifo "$0.log"; (exec <"$0.log" >&3; sed -u 2q; read go <"$0"; exec cat) & exec "$@" >"$0.log" 3>&-'
"""Runs a server whose log is read up to its second line, and then only when the test writes to the named pipe."""


def test_log_with_a_stalled_reader(tmp_path: Path) -> None:
    """While the log's reader stalls, sessions continue in bounded memory, also with much output on stderr. Lost lines are counted."""
    go = tmp_path / "go"
    os.mkfifo(go)
    script = "seq -f %0999g 8000 >&2; echo done; cat"
    with Server("sh", "-c", script, prefix=("sh", "-c", STALLING, str(go))) as server:
        for _ in range(2):
            with server.connect() as client:
                assert client.receive_text() == "done"
                client.send_text("still there")
                assert client.receive_text() == "still there"
        assert memory_peak(server.pid) < 100 * MIB
        write_to_fifo(go, "on")
        server.send_signal(signal.SIGTERM)
        server.wait()
        wait_until(lambda: "Server stopped" in server.log, "the last line of the log")
    logged = [line for line in server.log.splitlines() if re.search(r"\| stderr .*\| \d{999}$", line)]
    assert len(logged) + lost(server.log) >= 16_000
    assert 0 < len(logged) < 16_000


def test_log_after_the_reader_exits() -> None:
    """When the log's reader has exited, sessions continue, also with output on stderr, and the server shuts down normally."""
    with Server("sh", "-c", "seq 1000 >&2; echo done; cat") as server:
        server.lose_log()
        for _ in range(3):
            with server.connect() as client:
                assert client.receive_text() == "done"
                client.send_text("still there")
                assert client.receive_text() == "still there"
        server.wait_until_log_is_lost()
        assert server.stop() == 0
        assert server.errors == ""


FULL_DISK = """
import logging, resource, signal, sys
from wsbridge.logwriter import LogHandler
from wsbridge.metrics import Metrics

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
metrics = Metrics()
output = LogHandler(1, logging.Formatter("%(message)s"), metrics)

def log(message, limit=resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    output.emit(logging.LogRecord("wsbridge.server", logging.INFO, "", 0, "%s", (message,), None))

log("first")
log("half of this is written", 10)
log("not a byte of this", 10)
log("nor of this", 10)
log("there is room again")
log("last")
print(metrics.log_lines_dropped, file=sys.stderr)
"""


def test_disk_that_is_full(tmp_path: Path) -> None:
    """A line that a full disk truncated ends there, and the next line is separate. Each lost line is counted."""
    with (tmp_path / "log").open("wb") as log:
        ended = subprocess.run([sys.executable, "-c", FULL_DISK], stdout=log, stderr=subprocess.PIPE, check=True)
    assert (tmp_path / "log").read_text() == "first\nhalf\nthere is room again\nlast\n"
    assert ended.stderr.split() == [b"3"]
