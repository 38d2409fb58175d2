"""Reload a server a hundred times, while sessions and viewers of unchanged endpoints count each message.

The second half of the changes must leak no child, no descriptor and no memory.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from soak import ALLOCATOR, TOLERANCES, compare, look, settle

from tests.support.client import Client
from tests.support.configured import Configured, bridge, channel, listener
from tests.support.server import Bridge, wait_until

WARM_UP = 0.5
"""The part of the changes before the first measurement of the server's resources."""
INVALID_EVERY = 10
POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""The most threads of asyncio's pool, in which a reload reads files. The pool starts each of them when all others are busy."""
COLLECTED = "garbage collected"
SERVE = Bridge(
    "wsbridge",
    (
        sys.executable,
        "-c",
        "import gc, signal\n"
        "from wsbridge.__main__ import main\n"
        f"signal.signal(signal.SIGUSR2, lambda *_: print('{COLLECTED}', gc.collect(), flush=True))\n"
        "raise SystemExit(main())",
        "serve",
    ),
    takes_port_zero=True,
)
"""A server that collects its garbage on SIGUSR2. A reload leaves cycles, which Python collects when it has made enough objects."""
TICKS = 'n=0; while :; do n=$((n + 1)); echo "$n $(date +%s.%N)"; sleep 0.1; done'


class Traffic:
    """The clients, and the faults in their messages."""

    def __init__(self, sessions: Sequence[Client], viewers: Sequence[Client], late_seconds: float) -> None:
        self._late_seconds = late_seconds
        self._sessions = sessions
        self._viewers = viewers
        self._rounds = 0
        self._next = [0] * len(viewers)
        self.messages = 0
        self.latest = 0.0
        """The longest delay of a message, in seconds. It includes the time in which this process reads other clients."""
        self.faults: list[str] = []

    def skip(self) -> None:
        """Do a round after a pause in which the viewers were not read: the delays of this round do not count."""
        latest, late_seconds = self.latest, self._late_seconds
        self._late_seconds = math.inf
        self.round()
        self.latest, self._late_seconds = latest, late_seconds

    def round(self) -> None:
        """Echo a message on each session, and read the channel's messages up to now."""
        self._rounds += 1
        sent = []
        for session in self._sessions:
            sent.append(time.time())
            session.send_text(str(self._rounds))
        for session, at in zip(self._sessions, sent, strict=True):
            self._check(session.receive_text(), str(self._rounds), at)
        newest = 0
        for index, viewer in enumerate(self._viewers):
            while True:
                number, at = viewer.receive_text().split()
                if self._next[index]:
                    self._check(number, str(self._next[index]), float(at))
                self._next[index] = int(number) + 1
                newest = newest or int(number)
                if int(number) >= newest:
                    break

    def _check(self, found: str, wanted: str, sent: float) -> None:
        self.messages += 1
        delay = time.time() - sent
        self.latest = max(self.latest, delay)
        if found != wanted:
            self.faults.append(f"message {found} instead of {wanted}")
        if delay > self._late_seconds:
            self.faults.append(f"message {found} came after {delay:.2f} s")


def tables(number: int) -> tuple[str, ...]:
    """Return the configuration of a change: a bridge and a channel differ, and another bridge is added or removed."""
    kept = (listener(), bridge("/kept", "exec cat"), channel("/ticks", "ticks", TICKS, history=1))
    script = f"while sleep 1; do echo {number}; done"
    changed = (bridge("/changed", f"echo {number}; exec cat"), channel("/changing", "changing", script, history=1))
    return (*kept, *changed, *([bridge("/some", "exec cat")] if number % 2 else []))


def change(server: Configured, number: int, traffic: Traffic) -> None:
    """Reload once, while messages flow; check the result in the log."""
    is_invalid = number % INVALID_EVERY == 0
    done = len(server.verdicts)
    server.write(*tables(number), *(["[[endpoint]]\nkind = 3"] if is_invalid else []))
    server.send_signal(signal.SIGHUP)
    while len(server.verdicts) == done:
        traffic.round()
    traffic.round()
    if server.verdicts[done].startswith("reloaded") is is_invalid:
        traffic.faults.append(f"change {number}: {server.verdicts[done]}")


def soak(sessions: int, viewers: int, changes: int, late_seconds: float, folder: Path) -> bool:
    """Run the changes; return whether no fault was found."""
    with Configured(folder / "wsbridge.toml", *tables(1), bridge=SERVE, env=ALLOCATOR) as server, ExitStack() as stack:
        traffic = Traffic(
            [stack.enter_context(server.connect("/kept")) for _ in range(sessions)],
            [stack.enter_context(server.connect("/ticks")) for _ in range(viewers)],
            late_seconds,
        )
        traffic.skip()
        start = look(server)
        begun, looks = time.monotonic(), []
        for number in range(2, changes + 2):
            change(server, number, traffic)
            if number - 1 in (round(changes * WARM_UP), changes):
                server.write(*tables(1))
                server.hang_up()
                settle(server, start)
                collect(server, len(looks) + 1)
                looks.append(look(server))
                traffic.skip()
        seconds = time.monotonic() - begun
        print(f"{changes} changes in {seconds:.0f} s, {traffic.messages:,} messages, the latest after {traffic.latest:.2f} s")
        print(*traffic.faults[:20], f"{len(traffic.faults)} faults", sep="\n")
        good = compare(looks[0], looks[-1], replace(TOLERANCES, threads=POOL_THREADS))
    return good and not traffic.faults


def collect(server: Configured, number: int) -> None:
    """Let the server collect its garbage, for the time of this number."""
    server.send_signal(signal.SIGUSR2)
    wait_until(lambda: server.log.count(COLLECTED) == number, "the collection of garbage")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--late", type=float, default=1.0, metavar="SECONDS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wsbridge-reload-") as folder:
        return 0 if soak(options.sessions, options.viewers, options.changes, options.late, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
