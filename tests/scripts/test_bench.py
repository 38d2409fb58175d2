"""`scripts/bench`: its C tools, and one short row of its table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.conftest import ROOT

BENCH = ROOT / "scripts/bench.d"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCH / "bench.py", *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("source", ["client.c", "program.c"])
def test_no_warnings(source: str, tmp_path: Path) -> None:
    """The C tools compile without a warning."""
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-o", tmp_path / "tool", BENCH / source], check=True)


def test_lines(tmp_path: Path) -> None:
    """The program of the streaming rows prints as many lines of 64 characters as it is told to."""
    subprocess.run(["cc", "-o", tmp_path / "program", BENCH / "program.c"], check=True)
    run = subprocess.run([tmp_path / "program", "lines", "3"], capture_output=True, check=True)
    assert [len(line) for line in run.stdout.splitlines()] == [64, 64, 64]


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


def test_wrong_usage() -> None:
    """A row that does not exist is refused with the names of those that do."""
    run = bench("--only", "nonsense")
    assert run.returncode == 2
    assert "stream 1x64B, stream 10x64B, echo 1x1, p50" in run.stderr
