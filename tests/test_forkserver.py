"""A process of the fork server behaves like a process that Python starts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import forkserver
from tests.support.deadline import DEADLINE, scaled
from tests.support.forkserver import COMMAND, Forked, own_environment
from tests.support.server import WSBRIDGE, Server, command_line, environment, run, wait_for_exit

REAL = ("env", "--")
"""A prefix of a command line that changes nothing, but forces a real start."""

LOOK = """
env | grep -v -e PORT -e UNIQUE_ID -e _KEY | sort; pwd; umask; ulimit -a; ls /proc/self/fd
grep -e Sig -e Shd /proc/self/status
tr '\\0' '\\n' </proc/$PPID/environ | sort
"""
"""Prints everything that a program inherits, and the environment of its parent."""

STATUS = r"^(Umask|Uid|Gid|Groups|SigBlk|SigIgn|SigCgt|Cap\w+|NoNewPrivs|Seccomp|Cpus_allowed):.*$"


def seen(server: Server) -> tuple[str, dict[str, str], list[str], list[str]]:
    """Return the output of LOOK, and the status, limits and descriptors of its server."""
    descriptors = sorted(re.sub(r"\d+", "N", os.readlink(link)) for link in Path(f"/proc/{server.pid}/fd").iterdir())
    with server.connect() as client:
        lines = client.receive_lines()
    status = Path(f"/proc/{server.pid}/status").read_text()
    kept = {found[1]: found[0] for found in re.finditer(STATUS, status, re.MULTILINE)}
    return "\n".join(lines), kept, Path(f"/proc/{server.pid}/limits").read_text().splitlines(), descriptors


def test_program_and_server_see_the_same(tmp_path: Path) -> None:
    """A forked server has the same environment, folder, umask, limits, signals and descriptors as a server that Python started."""
    env = {"OWN": "a variable", "UNKNOWN": None}
    words = ("--passenv=OWN,PATH,PYTHONPATH", "sh", "-c", LOOK)
    with (
        Server(*words, cwd=tmp_path, env=env) as forked,
        Server(*words, cwd=tmp_path, env=env, prefix=REAL) as real,
    ):
        assert "forkserver" in command_line(forked.pid)
        assert "forkserver" not in command_line(real.pid)
        assert seen(forked) == seen(real)
        assert os.getsid(forked.pid) == forked.pid


@pytest.mark.parametrize(("words", "status"), [(["--version"], 0), (["--no-such-flag"], 2), (["--port=0", "no-such-program"], 1)])
def test_status_and_output(words: list[str], status: int) -> None:
    """A forked process prints the same as a real start, and exits with the same status."""
    forked = run(*words)
    real = subprocess.run([*REAL, *WSBRIDGE.command, *words], env=environment({}), capture_output=True, text=True, timeout=scaled(DEADLINE))
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)
    assert forked.returncode == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_status_of_a_signal(number: signal.Signals) -> None:
    """The status of a server that a signal ended is the same as with subprocess."""
    statuses = []
    for prefix in ((), REAL):
        with Server("cat", prefix=prefix) as server:
            statuses.append(server.stop(number))
    assert statuses[0] == statuses[1]


@pytest.mark.parametrize("changes", [{"PYTHONUTF8": "0"}, {"LC_ALL": "C"}, {"TZ": "Asia/Tokyo"}])
def test_real_start(changes: dict[str, str]) -> None:
    """A variable that Python reads at its start causes a real start."""
    assert isinstance(start(environment({})), Forked)
    assert not isinstance(start(environment(changes)), Forked)


def start(env: dict[str, str]) -> subprocess.Popen[bytes] | Forked:
    process = forkserver.start([*COMMAND, "--version"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.wait(scaled(DEADLINE)) == 0
    return process


def test_session_is_set_before_the_pid_is_known(tmp_path: Path) -> None:
    """A process has its own streams, folder and session before its pid is known."""
    words = [*COMMAND, "--port=0", "cat"]
    with open(tmp_path / "log", "wb") as log:
        for _ in range(20):
            process = forkserver.start(words, env=environment({}), stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
            folder = f"/proc/{process.pid}"
            found = os.readlink(f"{folder}/fd/1"), os.readlink(f"{folder}/cwd"), os.getsid(process.pid)
            process.kill()
            process.wait()
            assert found == (log.name, str(tmp_path), process.pid)


def test_end_of_the_test_process() -> None:
    """When a test process is killed, its fork server ends, and so do the processes that it started."""
    code = "from tests.support.server import Server; server = Server('cat').start(); print(server.pid, flush=True); input()"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own_environment()) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        fork_server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert "forkserver" in command_line(fork_server)
        process.kill()
        for ended in (pid, fork_server):
            wait_for_exit(ended)
