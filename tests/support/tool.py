#!/usr/bin/env python3
"""The program that the tests serve: small tools for tasks that a line of shell cannot do.

    tool.py WHAT [ARGS]         see the functions below, one per tool

It starts fast (command() runs it without `site` and environment), prints without buffering and has only light imports.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import termios
import time
from typing import NoReturn

RECORDED = ("HUP", "INT", "QUIT", "PIPE", "ALRM", "TERM", "USR1", "USR2")


def command(what: str, *args: object) -> tuple[str, ...]:
    """The command line that runs a tool, for a server in a test."""
    return (sys.executable, "-S", "-E", "-I", __file__, what, *map(str, args))


def recorded(path: str | os.PathLike[str]) -> list[tuple[str, float]]:
    """The events that a `witness` has written to its file, in order, each with its time.monotonic()."""
    with open(path) as record:
        return [(event, float(when)) for event, when in map(str.split, record)]


def reads() -> None:
    """Print the data of each read() of stdin, as a line of hexadecimal digits."""
    while data := os.read(0, 1 << 16):
        print_line(data.hex())


def witness(path: str, until: str = "KILL", *closes: str) -> None:
    """Print the process ID; append events to a file, `eof` or a signal's name, with the time.monotonic().

    Continue until the event `until` (`eof`, `INT`, `TERM`); no other event but KILL ends it. `closes` names the streams, `stdin` or
    `stdout`, that are closed after the process ID is printed.
    """
    record = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    stdin = select.poll()
    ended = False

    def note(event: str) -> None:
        os.write(record, f"{event} {time.monotonic()}\n".encode())
        if event == until:
            os._exit(0)

    def note_end() -> None:
        nonlocal ended
        if not ended:
            ended = True
            note("eof")

    def note_signal(event: str) -> None:
        # A process that was delayed gets the EOF and the signal that followed it at the same time.
        if any(happened & select.POLLHUP for _, happened in stdin.poll(0)):
            note_end()
        note(event)

    signals = [signal.Signals[f"SIG{name}"] for name in RECORDED]
    for number in signals:
        signal.signal(number, lambda number, _: note_signal(signal.Signals(number).name.removeprefix("SIG")))
    print_line(os.getpid())
    if "stdout" in closes:
        os.close(1)
    if "stdin" in closes:
        os.close(0)
    else:
        stdin.register(0, 0)
        while os.read(0, 1 << 16):
            pass
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        note_end()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    while True:
        signal.pause()


def ticks() -> NoReturn:
    """Print the number of bytes that wait in stdin, a hundred times a second; never read them."""
    while True:
        waiting = fcntl.ioctl(0, termios.FIONREAD, bytes(4))
        print_line(int.from_bytes(waiting, sys.byteorder))
        time.sleep(0.01)


def flood(quiet: str = "0.5") -> None:
    """Print numbered lines of 100 bytes endlessly; when stdout accepts nothing for a time, print `blocked at BYTES` on stderr."""
    os.set_blocking(1, False)
    written, number, data, told = 0, 0, b"", False
    while True:
        if not data:
            data = b"".join(b"%099d\n" % n for n in range(number, number + 1000))
            number += 1000
        if select.select([], [1], [], None if told else float(quiet))[1]:
            size = os.write(1, data[:4096])
            written, data, told = written + size, data[size:], False
        else:
            os.write(2, f"blocked at {written}\n".encode())
            told = True


def endless() -> NoReturn:
    """Write endlessly without a newline."""
    while True:
        os.write(1, b"x" * (1 << 16))


def line(size: str) -> None:
    """Print one line of `size` bytes, then wait for EOF on stdin."""
    write_all(1, b"x" * int(size) + b"\n")
    while os.read(0, 1 << 16):
        pass


def stderr(size: str, end: str = "\n") -> None:
    """Write `size` times Q and the given end to stderr, then `done` to stdout, and wait for EOF on stdin."""
    write_all(2, b"Q" * int(size) + end.encode())
    print_line("done")
    while os.read(0, 1 << 16):
        pass


def descriptors() -> None:
    """Print the open descriptors, with their targets."""
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            print_line(name, os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue


def print_line(*words: object) -> None:
    """Print one line with one write."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


TOOLS = {tool.__name__: tool for tool in (reads, witness, ticks, flood, endless, line, stderr, descriptors)}

if __name__ == "__main__":
    # These signals kill the process as they kill a C program, without a traceback on stderr.
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    TOOLS[sys.argv[1]](*sys.argv[2:])
