"""`scripts/test.py`: whatever a test does, a run ends with a report that names the test. Each case is a small suite."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.conftest import ROOT
from tests.support.deadline import scaled

HEAD = "import asyncio, atexit, ctypes, os, signal, threading, time, pytest\n"

HANGS = {
    "await": "async def test_it(): await asyncio.Event().wait()",
    "sleep": "def test_it(): time.sleep(3600)",
    "lock": "def test_it():\n    lock = threading.Lock()\n    lock.acquire()\n    lock.acquire()",
    "loop": "def test_it():\n    while True: pass",
    "setup": "@pytest.fixture\ndef slow(): time.sleep(3600)\ndef test_it(slow): pass",
    "teardown": "@pytest.fixture\ndef slow():\n    yield\n    time.sleep(3600)\ndef test_it(slow): pass",
}
"""Faults that pytest-timeout can report."""

DEATHS = {
    "native": "def test_it():\n    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n    ctypes.CDLL(None).sleep(3600)",
    "deaf": "def test_it():\n    import faulthandler\n    faulthandler.cancel_dump_traceback_later()\n"
    "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n    ctypes.PyDLL(None).sleep(3600)",
    "stopped": "def test_it(): os.kill(os.getpid(), signal.SIGSTOP)",
    "killed": "def test_it(): os.kill(os.getpid(), signal.SIGKILL)",
    "exits": "def test_it(): os._exit(0)",
}
"""Faults that end the process that runs the test, or require its end."""

SHORT = 3.0

FINE = "def test_1(): pass\ndef test_2(): pass\ndef test_3(): pass\n"


class Suite:
    """A folder with tests, and runs of it with short limits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")

    def add(self, name: str, source: str) -> None:
        (self.folder / f"test_{name}.py").write_text(HEAD + source)

    def run(self, *words: str, grace: float = 20) -> subprocess.CompletedProcess[str]:
        """Run the watcher. If the grace period must pass, it is SHORT, which is long enough to start and to end a process."""
        limits = [f"--timeout={scaled(1):g}", f"--grace={scaled(grace):g}"]
        command = [sys.executable, ROOT / "scripts/test.py", *limits, "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *words]
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "RUN_RECORDS"))}
        return subprocess.run(command, cwd=self.folder, env=own, capture_output=True, text=True, timeout=50 * scaled(10), check=False)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path)


def outcomes(run: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """The counts in pytest's last line."""
    return {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|error)", run.stdout.splitlines()[-1])}


def unsuccessful(run: subprocess.CompletedProcess[str]) -> set[str]:
    """The tests in pytest's summary."""
    return set(re.findall(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_hanging_test(suite: Suite, workers: str) -> None:
    """A test that hangs fails, and the report shows its position; all other tests run in the same process."""
    for name, source in HANGS.items():
        suite.add(name, source)
    suite.add("zzz", FINE)
    run = suite.run("-n", workers, "--dist", "loadfile")
    assert run.returncode == 1, run.stdout + run.stderr
    assert unsuccessful(run) == {f"test_{name}.py::test_it" for name in HANGS}, run.stdout
    assert outcomes(run) == {"failed": 4, "error": 2, "passed": 4}
    assert run.stdout.count("from pytest-timeout.") >= len(HANGS)
    assert "scripts/test:" not in run.stderr


@pytest.mark.parametrize("workers", ["0", "2"])
def test_hang_at_the_end_of_the_session(suite: Suite, workers: str) -> None:
    """A session fixture that hangs in its teardown is an error of the last test."""
    suite.add("a", "@pytest.fixture(scope='session')\ndef slow():\n    yield\n    time.sleep(3600)\ndef test_it(slow): pass")
    run = suite.run("-n", workers, "--dist", "loadfile")
    assert run.returncode == 1, run.stdout + run.stderr
    assert outcomes(run) == {"passed": 1, "error": 1}


@pytest.mark.parametrize("death", DEATHS)
def test_death_of_a_worker(suite: Suite, death: str) -> None:
    """If a test kills its worker, the run ends; this test and the earlier failed tests count as failures."""
    suite.add("a", "def test_1(): pass\ndef test_wrong(): assert False\n")
    suite.add("b", f"def test_1(): pass\n{DEATHS[death]}\ndef test_3(): pass\n")
    run = suite.run("-n", "2", "--dist", "loadfile", grace=SHORT)
    assert run.returncode == 1, run.stdout + run.stderr
    assert unsuccessful(run) == {"test_a.py::test_wrong", "test_b.py::test_it"}, run.stdout
    assert outcomes(run) == {"failed": 2, "passed": 2}


@pytest.mark.parametrize("death", ["deaf", "stopped", "killed"])
def test_death_of_the_only_process(suite: Suite, death: str) -> None:
    """Without workers, the run then ends; the watcher names the test, and the earlier failures."""
    suite.add("a", "def test_wrong(): assert False")
    suite.add("b", DEATHS[death])
    run = suite.run("-n", "0", grace=SHORT)
    assert run.returncode == 1, run.stdout + run.stderr
    verdict = run.stderr[run.stderr.rindex("scripts/test: FAILED") :]
    assert "test_b.py::test_it" in verdict
    assert "failed: test_a.py::test_wrong" in verdict


@pytest.mark.parametrize("workers", ["0", "2"])
def test_hang_at_exit(suite: Suite, workers: str) -> None:
    """The watcher kills a process that does not exit, and names its last test; the run fails."""
    suite.add("a", "def test_it(): threading.Thread(target=time.sleep, args=(3600,)).start()")
    suite.add("b", FINE)
    run = suite.run("-n", workers, "--dist", "loadfile", grace=SHORT)
    assert run.returncode == 1, run.stdout + run.stderr
    assert outcomes(run) == {"passed": 4}
    last = "test_a.py::test_it" if workers != "0" else "test_b.py::test_3"
    assert re.search(rf"process \d+, whose last test was {last}, did not exit within \d+ s", run.stderr), run.stderr


def test_hang_while_tests_are_collected(suite: Suite) -> None:
    """A file that hangs during its import ends the run."""
    suite.add("a", "time.sleep(3600)")
    run = suite.run("-n", "0", grace=SHORT)
    assert run.returncode != 0
    assert re.search(r"scripts/test: no test began or ended for \S+ s", run.stderr)


def test_long_run(suite: Suite) -> None:
    """The run has a time limit, after which pytest prints its summary."""
    suite.add("a", "def test_wrong(): assert False\n@pytest.mark.parametrize('n', range(9999))\ndef test_it(n): time.sleep(0.1)\n")
    run = suite.run("-n", "0", f"--session-timeout={scaled(8):g}")
    assert run.returncode != 0
    assert "test_a.py::test_wrong" in unsuccessful(run), run.stdout
    assert re.search(r"scripts/test: the run exceeded \S+ s", run.stderr)


def test_successful_run(suite: Suite) -> None:
    """If no test hangs, the watcher prints nothing, and the exit status is pytest's."""
    suite.add("a", FINE)
    run = suite.run("-n", "2", "--dist", "loadfile")
    assert (run.returncode, run.stderr) == (0, "")
    assert suite.run("-k", "no_such_test").returncode == 5


def test_arguments_that_pytest_refuses(suite: Suite) -> None:
    """The script passes on pytest's message about a wrong argument, and its exit status."""
    run = suite.run("--no-such-flag")
    assert run.returncode == 4
    assert "unrecognized arguments: --no-such-flag" in run.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(suite: Suite, number: signal.Signals) -> None:
    """An interrupted run prints pytest's summary."""
    # The test sleeps in short steps, because a signal just before a sleep does not interrupt it.
    steps = "    while True: time.sleep(0.01)"
    suite.add("a", f"def test_wrong(): assert False\ndef test_it():\n    os.kill(os.getppid(), {int(number)})\n{steps}")
    run = suite.run("-n", "0", "--timeout=600")
    assert run.returncode == 2, run.stdout + run.stderr
    assert unsuccessful(run) == {"test_a.py::test_wrong"}


def test_interrupt_without_effect(suite: Suite) -> None:
    """A run that continues after two interrupts is killed."""
    number = int(signal.SIGINT)
    deaf = f"    signal.signal({number}, signal.SIG_IGN)\n    os.kill(os.getppid(), {number})\n    while True: time.sleep(0.01)"
    suite.add("a", f"def test_wrong(): assert False\ndef test_it():\n{deaf}")
    run = suite.run("-n", "0", "--timeout=600", grace=SHORT)
    assert run.returncode == 1, run.stdout + run.stderr
    assert re.search(r"the run did not end within \S+ s of the interrupt", run.stderr)
    assert "running: test_a.py::test_it" in run.stderr
    assert "failed: test_a.py::test_wrong" in run.stderr
