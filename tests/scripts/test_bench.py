"""`scripts/bench`: its C tools, and short rows of its table."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scripts.conftest import ROOT
from tests.support.deadline import scaled
from tests.support.server import Server, free_port, listens, wait_until

BENCH = ROOT / "scripts/bench.d"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCH / "bench.py", *arguments], capture_output=True, text=True, timeout=scaled(120))


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C tools, compiled without a warning."""
    folder = tmp_path_factory.mktemp("tools")
    for source in BENCH.glob("*.c"):
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-o", folder / source.stem, source], check=True)
    return folder


def test_help_without_packages() -> None:
    """`scripts/bench --help` needs only Python: no package is installed yet."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = (sys.executable, "-S", BENCH / "bench.py", "--help")
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "scripts/bench" in run.stdout


def printed(tools: Path, *words: str) -> list[bytes]:
    return subprocess.run([tools / "program", *words], capture_output=True, check=True, timeout=scaled(60)).stdout.splitlines()


def test_lines(tools: Path) -> None:
    """The program of the streaming rows prints the requested number of lines, of 64 characters each."""
    assert [len(line) for line in printed(tools, "lines", "3")] == [64, 64, 64]


def test_numbered(tools: Path) -> None:
    """The numbered lines are complete and in order. The last line has the due time of the last message and the count."""
    *lines, end = printed(tools, "numbered", "50000", "0.5", "64")
    assert [int(line[:20]) for line in lines] == list(range(25_000))
    assert {len(line) for line in (*lines, end)} == {64}
    assert end.startswith(b"end ")
    assert int(end[24:44]) == 25_000


def test_pace(tools: Path) -> None:
    """A program that prints numbered lines for half a second prints the last when it is due, or shortly afterwards."""
    *_, end = printed(tools, "numbered", "50000", "0.5", "64")
    assert 0 <= time.time_ns() - int(end[4:24]) < 1e10


def test_stamped(tools: Path) -> None:
    """Each line begins with its time, and is printed when it is due; a delay of one line does not delay the next."""
    with subprocess.Popen([tools / "program", "stamped", "500", "100"], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        stamps = [int(program.stdout.readline()[:20]) for _ in range(101)]
        program.kill()
    assert stamps == sorted(stamps)
    assert abs(time.time_ns() - stamps[-1]) < 1e10
    # The 100 intervals take 0.2 s. The first line may be up to 0.1 s (CATCH_UP) late without moving the schedule, so at least 0.1 s
    # lies between the first line and the last. A busy machine may delay the last line.
    assert 1e8 < stamps[-1] - stamps[0] < 1e10


@contextmanager
def floor(tools: Path, *words: str) -> Iterator[int]:
    port = free_port()
    with subprocess.Popen([tools / "floor", str(port), *words]) as server:
        try:
            wait_until(lambda: listens(server.pid, port), "the floor's listening socket")
            yield port
        finally:
            server.kill()


def test_bare_loop(tools: Path) -> None:
    """The bare loop sends every message to every subscriber; each message begins with its time."""
    with floor(tools, "100", "100") as port:
        run = subprocess.run([tools / "client", str(port), "fanout", "10", "0.5", "0"], capture_output=True, check=True, timeout=scaled(60))
    report = json.loads(run.stdout)
    # 100 messages per second to each of 10 subscribers, without those in transit at the end.
    assert 200 < report["messages"] / report["seconds"] < 1500
    assert 0 < report["median_us"] <= report["p99_us"] < 1e6


@pytest.mark.parametrize("pipe", ["", ' | (lines=$(cat); echo "$lines")'], ids=["flowing", "at once"])
@pytest.mark.parametrize(("edit", "whole"), [("", 1), ("5d", 0), ("5p", 0), ("100d", 0)])
def test_verify(tools: Path, edit: str, whole: int, pipe: str) -> None:
    """The load generator detects missing and repeated numbered lines, also at the end and in one piece."""
    program = f"'{tools / 'program'}' numbered 1000 0.1 64 | sed -u '{edit}'{pipe}; read -r _"
    with Server("sh", "-c", program) as server:
        words = [str(server.port), "verify", "1", "10"]
        run = subprocess.run([tools / "client", *words], capture_output=True, check=True, timeout=scaled(60))
    report = json.loads(run.stdout)
    assert report["whole"] == whole
    assert report["seconds"] < 9


def test_row() -> None:
    """A row has both figures and a ratio for each round."""
    run = bench("--only", "connect 1, p50", "--rounds", "2", "--json")
    assert run.returncode == 0, run.stderr
    (row,) = json.loads(run.stdout)
    assert row["name"] == "connect 1, p50"
    assert row["wsbridge"] > 0
    assert row["peer_figure"] > 0
    assert len(row["ratios"]) == 2
    assert min(row["ratios"]) <= row["ratio"] <= max(row["ratios"])


ROWS = {"fanout 1000x400", "fanout 5000x60, p99", "nchan", "subscribed", "rabbitmq 1x64B", "rabbitmq adds"}


def test_broadcast() -> None:
    """The rows of broadcast run with their competitors, also on a small scale."""
    run = bench("--brief", "--rounds", "1", "--json", *(word for row in sorted(ROWS) for word in ("--only", row)))
    assert run.returncode == 0, run.stderr
    rows = {row["name"]: row for row in json.loads(run.stdout)}
    assert len(rows) == len(ROWS), run.stderr
    for name, row in rows.items():
        if name == "rabbitmq adds, p50":
            continue  # This is a short difference, which may have any value.
        assert row["wsbridge"] > 0, name
        assert (row["peer_figure"] is None) == name.startswith("rabbitmq"), name


def test_missing() -> None:
    """A row that needs a missing program is left out, and the report names the program."""
    code = "import sys, nchan, bench; nchan.MISSING = 'nginx is not installed.'; sys.argv[1:] = ['--only', 'nchan', '--json']; bench.main()"
    run = subprocess.run([sys.executable, "-c", code], cwd=BENCH, capture_output=True, text=True, timeout=scaled(60))
    assert (run.returncode, json.loads(run.stdout)) == (0, [])
    assert run.stderr == "nginx is not installed. Omitted: nchan 1000x400\n"


def test_wrong_usage() -> None:
    """For an unknown row, the error names the valid rows."""
    run = bench("--only", "nonsense")
    assert run.returncode == 2
    assert "stream 1x64B, stream 10x64B, echo 1x1, p50" in run.stderr
