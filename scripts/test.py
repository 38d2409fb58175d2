"""Run pytest so that the run ends with a report and a list of failures, whatever a test does.

pytest-timeout fails a test that hangs, and shows its position. If no signal handler can run, as in C, faulthandler prints every
thread's stack and ends the process. If not even that can run, as in a stopped process, this watcher kills the process from outside.
If a worker process dies, pytest assigns no further files: the other workers run the files that they already have, then the run ends.

The exit status is pytest's own, or 1 if this watcher had to end a process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LOOK_SECONDS = 0.2
"""Pause between two checks of the records."""

INTERRUPT_SECONDS = 20.0
"""Time that pytest has to print its summary after SIGINT."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in seconds. The limit of a test is 0 if a debugger may hold it."""

    test: float
    session: float
    grace: float

    @property
    def kill(self) -> float:
        """The age at which a test's process is killed, after pytest-timeout and faulthandler."""
        return self.test + 2 * self.grace

    @property
    def silence(self) -> float:
        """The time without the begin or the end of any test after which the run is stopped."""
        return self.kill + 2 * self.grace


@dataclass(frozen=True, slots=True)
class Record:
    """The current test of a process of the run, and its start time."""

    pid: int
    phase: str
    test: str
    since: float


def main(words: Sequence[str]) -> int:
    """Run pytest with these arguments; return the exit status."""
    limits, arguments = parse(words)
    with tempfile.TemporaryDirectory(prefix="wsbridge-test-") as folder:
        return Watcher(Path(folder), limits).run(arguments)


def parse(words: Sequence[str]) -> tuple[Limits, list[str]]:
    """Return the limits, and the arguments of pytest."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--session-timeout", type=float, default=7200.0)
    parser.add_argument("--grace", type=float, default=60.0)
    flags, rest = parser.parse_known_args(words)
    if {"--pdb", "--trace"} & set(rest):
        flags.timeout = 0.0
    limits = Limits(flags.timeout, flags.session_timeout, flags.grace)
    bounds = [f"--timeout={limits.test}", "-o", f"faulthandler_timeout={limits.test and limits.test + limits.grace}"]
    # pytest-xdist gives all files of a dead worker to other workers, even the finished ones, and may wait for them for ever.
    once = ["--max-worker-restart=0"]
    return limits, ["-p", "tests.support.recorder", *bounds, "-o", "faulthandler_exit_on_timeout=true", *once, *rest]


class Watcher:
    """Runs pytest, and ends each process that exceeds its limit."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._verdicts: list[str] = []
        self._idle_until: dict[int, float] = {}
        self._interrupted: float | None = None
        """The time at which a signal was first forwarded."""
        self._changed = time.monotonic()
        """The time at which a test last began or ended, or the watcher ended a process."""

    def run(self, arguments: Sequence[str]) -> int:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"RUN_RECORDS": str(self._folder), "PYTHONPATH": os.pathsep.join(paths)}
        # A shell's background job ignores SIGINT, and so would pytest, which needs it for an interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Ctrl-C reaches pytest, which is in the same process group, and pytest prints its summary.
        with subprocess.Popen([sys.executable, "-m", "pytest", *arguments], env=environment) as pytest:

            def hand_on(number: int, _: object) -> None:
                self._interrupted = self._interrupted or time.monotonic()
                pytest.send_signal(signal.SIGINT if number == signal.SIGTERM else number)

            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, hand_on)
            status = self._watch(pytest)
        if status < 0:
            with suppress(OSError):
                record = Record(pytest.pid, **json.loads((self._folder / f"{pytest.pid}.json").read_text()))
                self._verdicts.append(f"running: {record.test} ({record.pid})")
            self._verdicts.append(f"{signal.Signals(-status).name} ended pytest")
        if self._verdicts:
            self._print_verdict()
        return status if status > 0 else int(bool(self._verdicts))

    def _watch(self, pytest: subprocess.Popen[bytes]) -> int:
        started = time.monotonic()
        while True:
            with suppress(subprocess.TimeoutExpired):
                return pytest.wait(LOOK_SECONDS)
            records = self._records(pytest.pid)
            for record in records:
                self._end_if_overdue(record, is_over=records[0].phase == "exit")
            self._changed = max([self._changed, *(record.since for record in records)])
            now = time.monotonic()
            if now - started > self._limits.session:
                self._stop(pytest, f"the run exceeded {self._limits.session:g} s")
            elif self._interrupted and now - self._interrupted > self._limits.grace:
                # Python loses a signal that arrives just before it blocks, and a test may catch the exception.
                self._stop(pytest, f"the run did not end within {self._limits.grace:g} s of the interrupt")
            elif self._limits.test and now - self._changed > self._limits.silence:
                self._stop(pytest, f"no test began or ended for {self._limits.silence:g} s")

    def _records(self, pytest: int) -> list[Record]:
        """Return the records of pytest and its live workers: a process ID may belong to another process by now."""
        found = []
        for pid in (pytest, *children(pytest)):
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    continue
                found.append(Record(pid, **json.loads((self._folder / f"{pid}.json").read_text())))
        return found

    def _end_if_overdue(self, record: Record, *, is_over: bool) -> None:
        """End a process that exceeds its limit. A worker without work should exit when the whole run has ended."""
        if record.phase == "idle" and not is_over:
            self._idle_until[record.pid] = time.monotonic()
        age = time.monotonic() - record.since
        if record.phase == "test" and self._limits.test and age > self._limits.kill:
            self._kill(record.pid, f"{record.test} ran for {age:.0f} s; killing its process")
            return
        # A process without tests waits for its workers' exit first.
        if record.phase == "idle":
            age = time.monotonic() - self._idle_until.get(record.pid, record.since)
        if record.phase in ("idle", "exit") and age > self._limits.grace * (1 if record.test else 2):
            self._kill(record.pid, f"process {record.pid}, whose last test was {record.test or 'none'}, did not exit within {age:.0f} s")

    def _kill(self, pid: int, why: str) -> None:
        self._say(why)
        self._changed = time.monotonic()
        (self._folder / f"{pid}.json").unlink(missing_ok=True)
        # Also kill the processes that the test has started: without their parent, they could not be found later.
        for victim in [*descendants(pid), pid]:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def _stop(self, pytest: subprocess.Popen[bytes], why: str) -> None:
        """End the whole run: first so that pytest prints its summary, then by force."""
        self._say(why)
        self._verdicts += [f"running: {record.test} ({record.pid})" for record in self._records(pytest.pid) if record.phase == "test"]
        pytest.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            pytest.wait(min(INTERRUPT_SECONDS, self._limits.grace))
            return
        self._kill(pytest.pid, "pytest did not stop after the interrupt; killing it")
        pytest.wait()

    def _say(self, what: str) -> None:
        print(f"\nscripts/test: {what}", file=sys.stderr, flush=True)
        self._verdicts.append(what)

    def _print_verdict(self) -> None:
        failed = self._folder / "failed"
        tests = dict.fromkeys(failed.read_text().splitlines()) if failed.exists() else {}
        print("\nscripts/test: FAILED", *self._verdicts, *(f"failed: {test}" for test in tests), sep="\n  ", file=sys.stderr, flush=True)


def children(pid: int) -> Iterator[int]:
    """Yield the children of a process."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            yield from map(int, task.read_text().split())


def descendants(pid: int) -> Iterator[int]:
    """Yield the descendants of a process."""
    for child in children(pid):
        yield child
        yield from descendants(child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
