"""Measure wsbridge and its peers in turn, in one run, and print a table of ratios.

A single figure depends on the machine more than on the program, and the load of the machine varies. So each round measures
both, one after the other. The result is the median of wsbridge's figure divided by the figure of its peer. If the rounds differ
much, measure again. A peer that is not installed has no figures; a row that makes no sense without its peer is omitted.

bridge.py, site_rows.py and broadcast.py define the rows. client.c generates the load, and program.c is the program that the servers run.
Each run compiles both, and floor.c, which is a peer.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import bridge
import broadcast
import rabbit
import site_rows
from row import HEAD, Result, Row, measured, shown

HERE = Path(__file__).resolve().parent

DESCRIPTORS = 5200
"""The descriptors that a process needs for the connections of the largest row."""


def compile_tools(folder: Path) -> None:
    """Compile the C tools into a folder, or exit with a message that names the missing program."""
    compiler = shutil.which("cc") or sys.exit("scripts/bench needs a C compiler. On Debian: apt-get install gcc libc6-dev")
    for source in HERE.glob("*.c"):
        subprocess.run([compiler, "-O2", "-o", folder / source.stem, source], check=True)


def raise_descriptor_limit() -> None:
    """Raise the descriptor limit of the started processes to the hard limit; print a warning if it may be too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < DESCRIPTORS:
        print(f"the limit of {hard} open files is too low for 5,000 connections; raise it (ulimit -Hn)", file=sys.stderr)


def print_table(results: Iterable[Result]) -> None:
    """Print each result as it arrives."""
    if not shutil.which("websocketd"):
        print("websocketd is not installed, so its figures are missing (Debian: apt-get install websocketd).")
    print(HEAD)
    for result in results:
        print(shown(result), flush=True)


def chosen(rows: list[Row], beginnings: list[str] | None) -> list[Row]:
    """Return the rows whose names begin with one of these words."""
    return [row for row in rows if beginnings is None or row.name.startswith(tuple(beginnings))]


def main() -> None:
    """Measure the selected rows; print the table, or JSON."""
    broker = rabbit.Broker()
    names = ", ".join(row.name for row in [*bridge.ROWS, *site_rows.ROWS, *broadcast.rows(broadcast.FULL, broker)])
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measure each row this many times (default 5)")
    only = f"measure only the rows that begin with ROW (repeatable): {names}"
    parser.add_argument("--only", action="append", metavar="ROW", help=only)
    parser.add_argument("--json", action="store_true", help="print a JSON array of the rows, with the ratio of each round")
    brief = "use few clients and short times for broadcast, only to check that its rows run"
    parser.add_argument("--brief", action="store_true", help=brief)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    sizes = broadcast.BRIEF if options.brief else broadcast.FULL
    rows = chosen([*bridge.ROWS, *site_rows.ROWS, *broadcast.rows(sizes, broker)], options.only)
    if not rows:
        parser.error(f"no row matches --only; the rows are: {names}")
    for why in dict.fromkeys(row.missing for row in rows if row.missing):
        print(why, "Omitted:", ", ".join(row.name for row in rows if row.missing == why), file=sys.stderr)

    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="wsbridge-bench-") as folder, broker:
        tools = Path(folder)
        compile_tools(tools)
        results = (measured(row, tools, options.rounds) for row in rows if not row.missing)
        if options.json:
            print(json.dumps([asdict(result) for result in results], indent=1))
        else:
            print_table(results)


if __name__ == "__main__":
    main()
