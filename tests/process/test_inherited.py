"""The state that a server inherits from its parent, and the part that its programs inherit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.client import Close
from tests.support.proc import python, status_line
from tests.support.server import Server, children, command_line, mortal, wait_for_exit, wait_until

PARENT = (
    "import os, signal, sys",
    "numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}",
    "for number in numbers if 'ignored' in sys.argv[1] else (): signal.signal(number, signal.SIG_IGN)",
    "if 'blocked' in sys.argv[1]: signal.pthread_sigmask(signal.SIG_BLOCK, numbers)",
    "os.execvp(sys.argv[2], sys.argv[2:])",
)
"""A parent that ignores or blocks every signal, then becomes the server."""

OF_THE_C_LIBRARY = 1 << 32 - 1 | 1 << 33 - 1
"""Signals that belong to glibc; its posix_spawn ignores them."""

every_parent = pytest.mark.parametrize("state", ["ignored", "blocked", "ignored and blocked"])


def served_by(state: str, *words: str) -> Server:
    return Server(*words, prefix=(*python(*PARENT), state))


def guard_of(pid: int) -> int:
    return wait_until(lambda: [child for child in children(pid) if "wsbridge-guard" in command_line(child)], "the guard")[0]


def test_parent_that_ignores_sigchld() -> None:
    """If the parent ignores SIGCHLD, sessions still begin and end normally, and so does the server."""
    with Server("sh", "-c", "echo ready; read line; exit 3", prefix=("bash", "-c", "trap '' CHLD; exec \"$@\"", "bash")) as server:
        for _ in range(5):
            with server.connect() as client:
                assert client.receive_text() == "ready"
                client.send_text("go")
                assert client.receive_close() == Close(1011, "exit 3")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        server.stop()
    assert "ERROR" not in server.log
    assert server.errors == ""


@every_parent
def test_dispositions_of_a_program(state: str) -> None:
    """Whatever signals the parent ignores or blocks, a program starts with default dispositions and an empty mask."""
    with served_by(state, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status") as server, server.connect() as client:
        lines = dict(client.receive_text().split() for _ in range(2))
    assert {name: int(value, 16) & ~OF_THE_C_LIBRARY for name, value in lines.items()} == {"SigBlk:": 0, "SigIgn:": 0}


@every_parent
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_server_shuts_down_on_a_signal(state: str, number: signal.Signals) -> None:
    """Whatever signals the parent ignores or blocks, TERM and INT shut down the server and its programs."""
    with served_by(state, "sh", "-c", "echo ready; cat") as server, server.connect() as client:
        client.receive_text()
        server.send_signal(number)
        assert client.receive_close().code == 1001
        assert server.wait() == 0
    assert server.errors == ""


@every_parent
def test_guard(state: str) -> None:
    """Whatever signals the parent ignores or blocks, the guard ends the programs of a killed server."""
    with served_by(state, "sh", "-c", "trap '' HUP; echo $$; sleep 800") as server, server.connect() as client:
        pid = int(client.receive_text())
        assert int(status_line(guard_of(server.pid), "SigBlk"), 16) == 0
        with mortal(pid):
            server.send_signal(signal.SIGKILL)
            server.wait()
            wait_for_exit(pid)


def test_ignored_hup_stays_ignored() -> None:
    """Under nohup, the server continues when its terminal closes."""
    with served_by("ignored", "cat") as server, server.connect() as client:
        assert int(status_line(server.pid, "SigIgn"), 16) >> signal.SIGHUP - 1 & 1
        server.send_signal(signal.SIGHUP)
        client.send_text("still there?")
        assert client.receive_text() == "still there?"


def test_inherited_limits(tmp_path: Path) -> None:
    """Programs inherit the umask, the resource limits, the niceness and the score for the out-of-memory killer unchanged."""
    shell = 'umask 027; ulimit -c 0; ulimit -Ss 4096; ulimit -Sn 300; echo 500 >/proc/self/oom_score_adj; exec nice -n 5 "$@"'
    niceness = str(min(os.nice(0) + 5, 19))
    script = "umask; ulimit -c; ulimit -Ss; ulimit -Sn; nice; cat /proc/self/oom_score_adj"
    with Server("bash", "-c", script, prefix=("bash", "-c", shell, "bash")) as server, server.connect() as client:
        assert [client.receive_text() for _ in range(6)] == ["0027", "0", "4096", "300", niceness, "500"]


def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    """Programs do not inherit descriptors of the server beyond 0, 1 and 2."""
    (tmp_path / "secret").write_text("")
    shell = 'exec 3<"$0/secret" 4>&1 9<"$0"; exec "$@"'
    with Server("sh", "-c", "ls /proc/$$/fd; echo done", prefix=("bash", "-c", shell, str(tmp_path))) as server, server.connect() as client:
        lines = iter(client.receive_text, "done")
        assert list(lines) == ["0", "1", "2"]


def test_removed_directory(tmp_path: Path) -> None:
    """A server whose working directory was removed still starts a program with an absolute path."""
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = 'rmdir "$0"; exec "$@"'
    with Server("/bin/cat", prefix=("bash", "-c", shell, str(gone)), cwd=gone) as server, server.connect() as client:
        client.send_text("word")
        assert client.receive_text() == "word"
