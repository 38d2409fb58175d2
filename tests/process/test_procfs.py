"""Reading the state of processes from /proc."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.proc import which
from tests.support.server import ROOT
from wsbridge.process.procfs import Children, Stat, by_session, parse_stat, read_stat, user_of

NO_PID = 2**31 - 1


@pytest.mark.parametrize("name", ["sh", "two words", "a) S 1 2 3", "(((", ")", "line\nfeed", ""])
def test_stat_with_any_name(name: str) -> None:
    """The fields after the name are correct for any characters in the name."""
    data = f"12 ({name}) S 1 34 56 0 -1 4194304 100\n".encode()
    assert parse_stat(data) == Stat(name, "S", 1, 34, 56)


@pytest.mark.parametrize(("state", "is_alive"), [("R", True), ("S", True), ("D", True), ("T", True), ("Z", False), ("X", False)])
def test_zombie_is_not_alive(state: str, is_alive: bool) -> None:
    """A zombie is not alive; a process that is stopped or waits for a disk is alive."""
    assert Stat("sh", state, 1, 2, 3).is_alive == is_alive


def test_own_stat() -> None:
    """The stat of a process agrees with the system calls."""
    stat = read_stat(os.getpid())
    assert stat is not None
    assert (stat.parent, stat.group, stat.session) == (os.getppid(), os.getpgid(0), os.getsid(0))


def test_exited_process() -> None:
    """A process that has exited has no stat and no user."""
    assert read_stat(NO_PID) is None
    assert user_of(NO_PID) == "?"


def test_sessions() -> None:
    """The list has every process under its session."""
    process = subprocess.Popen([which("cat")], stdin=subprocess.PIPE, start_new_session=True)
    try:
        sessions = by_session()
        assert sessions[process.pid] == [process.pid]
        assert os.getpid() in sessions[os.getsid(0)]
    finally:
        process.communicate()


@pytest.mark.parametrize("is_listed", [True, False], ids=["listed", "searched"])
def test_children(is_listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The children of this process are found, including zombies, also if the kernel has no list of children."""
    if not is_listed:
        monkeypatch.setattr("wsbridge.process.procfs.LISTING", "/proc/self/no/such/{}")
    listing = Children()
    before = listing.read()
    processes = [subprocess.Popen([which("true")]), subprocess.Popen([which("cat")], stdin=subprocess.PIPE)]
    try:
        os.waitid(os.P_PID, processes[0].pid, os.WEXITED | os.WNOWAIT)
        assert listing.read() - before == {b"%d" % process.pid for process in processes}
    finally:
        for process in processes:
            process.communicate()
        listing.close()


MANY = """
import os
from wsbridge.process.procfs import Children
children = []
for _ in range(1000):
    if (pid := os.fork()) == 0:
        os._exit(0)
    children.append(pid)
assert Children().read() == {b"%d" % pid for pid in children}
for pid in children:
    os.waitpid(pid, 0)
"""


def test_list_longer_than_one_read() -> None:
    """A list that is longer than the kernel's buffer is read to its end."""
    # A small process of its own, because forking this process takes long.
    subprocess.run([sys.executable, "-c", MANY], cwd=ROOT, check=True)
