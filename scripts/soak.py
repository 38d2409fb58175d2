"""Check that a server leaks nothing in ten thousand sessions, and a thousand with clients that vanish without a close.

The load runs twice: three tenths of it, then all of it. After each part, when every program has exited, the script compares the
server's children, zombies, threads, descriptors and memory: a leak of a session appears ten thousand times. It prints a table.
The exit status is 1 if any value has grown, or the memory by more than the tolerance.

The memory may grow a little for reasons that do not add up. 200 bytes per session would exceed the tolerance.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from tests.support.client import Client, connect, encode_frame
from tests.support.proc import TRANSPORTS, resident, send_until_full, zombies
from tests.support.server import Server, wait_until
from tests.support.tool import command

WORKERS = 4
"""Sessions of the cycles that are open at the same time."""
CROWDS = 10
"""The number of groups of clients that vanish."""
WARM_UP = 0.3
"""The part of the load before the first measurement: a group of each kind, so that every pool and buffer has its size."""
SETTLE_SECONDS = 60.0
"""Seconds that programs may take to exit: the ladder takes a second, and the machine may be busy."""
TOLERANCE_BYTES = 2 * 1024 * 1024
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""The server's allocator returns freed memory at once; otherwise, its memory varies by ten megabytes."""

PROGRAM = """case $PATH_INFO in
    /print) seq 100 ;;
    /flood) exec yes "a line that nobody reads" ;;
    /deaf)  exec "$@" ;;
    *)      exec cat ;;
esac"""

MUCH = encode_frame(b"x" * 1000) * 400
"""More than a pipe and the bridge accept for a program that does not read."""


# Cycles: sessions that begin, and end in each possible way


def closes(port: int) -> None:
    with connect(port=port) as client:
        client.send_text("hello")
        client.receive_text()
        client.send_close(1000)
        client.receive_close()


def drops(port: int) -> None:
    with connect(port=port) as client:
        client.send_text("hello")
        client.receive_text()


def resets(port: int) -> None:
    client = connect(port=port)
    client.send_text("hello")
    client.receive_text()
    client.reset()


def listens_to_the_end(port: int) -> None:
    with connect("/print", port=port) as client:
        client.receive_close()


WAYS: tuple[Callable[[int], None], ...] = (closes, drops, resets, listens_to_the_end)


def cycle(port: int, count: int) -> None:
    """Open and end `count` sessions in sequence."""
    for number in range(count):
        WAYS[number % len(WAYS)](port)


def cycles(port: int, count: int) -> None:
    """Open and end sessions in several threads at once."""
    workers = [Thread(target=cycle, args=(port, len(range(index, count, WORKERS)))) for index in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


# Clients that vanish


def crowd(port: int, count: int) -> list[Client]:
    """Open sessions with programs that wait, that print more than the client reads, and that read less than the client sends."""
    clients = []
    for number in range(count):
        path = ("/", "/flood", "/deaf")[number % 3]
        client = connect(path, port=port)
        if path == "/":
            client.send_text("hello")
            client.receive_text()
        elif path == "/deaf":
            send_until_full(client.stream.sock, MUCH, quiet=0.01)
        clients.append(client)
    return clients


def killed(port: int, count: int) -> None:
    """Let a process hold the sessions, and kill it."""
    holder = subprocess.Popen([sys.executable, __file__, f"--hold={port}", f"--vanishing={count}"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n", "the clients did not connect"
        holder.kill()
    holder.wait()


def reset(port: int, count: int) -> None:
    for client in crowd(port, count):
        client.reset()


def dropped(port: int, count: int) -> None:
    for client in crowd(port, count):
        client.drop()


def vanish(port: int, crowds: int, size: int) -> None:
    """Disconnect groups of clients without a close frame: by a kill, by a reset, and by the end of TCP alone."""
    for number in range(crowds):
        (killed, reset, dropped)[number % 3](port, size)


def hold(port: int, count: int) -> None:
    """Hold sessions until the process is killed."""
    with ExitStack() as held:
        for client in crowd(port, count):
            held.enter_context(client)
        print("held", flush=True)
        signal.pause()


# The measurements


@dataclass(frozen=True, slots=True)
class Look:
    """The resources of a server."""

    children: int
    zombies: int
    threads: int
    descriptors: int
    resident_bytes: int


TOLERANCES = Look(0, 0, 0, 0, TOLERANCE_BYTES)


def look(server: Server) -> Look:
    threads = len(list(Path(f"/proc/{server.pid}/task").iterdir()))
    return Look(len(server.children()), len(zombies(server.pid)), threads, server.descriptors(), resident(server.pid))


def settle(server: Server, start: Look) -> None:
    """Wait until no program and no connection remains; otherwise, the measurement shows them."""
    with suppress(AssertionError):
        wait_until(lambda: len(server.children()) <= start.children, "the end of every program", SETTLE_SECONDS)
        wait_until(lambda: server.descriptors() <= start.descriptors, "the end of every connection", SETTLE_SECONDS)


def compare(before: Look, after: Look, tolerances: Look = TOLERANCES) -> bool:
    """Print the table; return whether no value has grown."""
    print(f"{'':16}{'before':>12}{'after':>12}{'tolerated':>12}")
    good = True
    for name in Look.__dataclass_fields__:
        was, now, tolerated = (getattr(one, name) for one in (before, after, tolerances))
        is_good = now <= was + tolerated
        good &= is_good
        print(f"{name:16}{was:12,}{now:12,}{f'+{tolerated:,}':>12}{'' if is_good else '   <- leaked'}")
    return good


def soak(cycle_count: int, vanishing: int, transports: str) -> bool:
    """Run the load; return whether it left nothing behind."""
    program = ("sh", "-c", PROGRAM, "sh", *command("ticks"))
    with Server("--loglevel=info", *program, env={**TRANSPORTS[transports], **ALLOCATOR}) as server:
        start = look(server)
        looks = []
        for part in (WARM_UP, 1.0):
            begun = time.monotonic()
            cycles(server.port, int(cycle_count * part))
            vanish(server.port, int(CROWDS * part), vanishing // CROWDS)
            settle(server, start)
            looks.append(look(server))
            print(f"{int(cycle_count * part):,} cycles and {int(vanishing * part):,} vanished clients in {time.monotonic() - begun:.0f} s")
        good = compare(*looks)
        status = server.stop()
    faults = [line for line in (server.log + server.errors).splitlines() if "| INFO " not in line and "| stderr " not in line]
    print(f"The server exited with status {status}: {server.log.splitlines()[-1].rpartition('| ')[2]}", *faults, sep="\n")
    return good and status == 0 and not faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10_000, help="sessions that begin and end in sequence (default 10000)")
    vanishing = "sessions with clients that vanish without a close, in ten groups (default 1000)"
    parser.add_argument("--vanishing", type=int, default=1_000, help=vanishing)
    parser.add_argument("--transports", choices=TRANSPORTS, default="aiofastnet", help="default aiofastnet")
    parser.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold is not None:
        hold(options.hold, options.vanishing)
        return 0
    return 0 if soak(options.cycles, options.vanishing, options.transports) else 1


if __name__ == "__main__":
    sys.exit(main())
