"""Measure wsbridge beside websocketd, turn about in one run, and print a table of ratios.

A figure by itself says more about the machine than about the program, and the machine is never quite at rest. So each round
measures both, one after the other, and what counts is the median over the rounds of wsbridge's figure divided by websocketd's.
Where the rounds lie far apart, measure again. Without websocketd (Debian's package of that name) there are only wsbridge's
own figures. The row "start" has another peer: the import of aiohttp.web, which is what a start cannot do without.

The load comes from client.c and the programs served from program.c, beside this file; both are compiled for each run.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

HERE = Path(__file__).resolve().parent
WSBRIDGE = str(Path(sys.executable).with_name("wsbridge"))

LISTEN_DEADLINE = 20.0
"""Seconds within which a server must accept connections."""

SETTLE = 2.0
"""Seconds after which a server's memory is read: Go hands its own back late."""

IDLE_CLIENTS = 500
"""Connections, and so programs, of the row on memory: enough for a figure by connection, bearable for a small machine."""

Measure = Callable[[Path, str], float]
"""Measures the bridge of a command, with the tools in a folder."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what is measured, in which unit, whether more or less of it is better, and beside whom."""

    name: str
    unit: str
    better: str
    ours: Callable[[Path], float]
    peer: Callable[[Path], float] | None
    peer_name: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a row came to: medians over the rounds, and the ratio of each round. No peer, no ratio."""

    name: str
    unit: str
    better: str
    wsbridge: float
    peer: str
    peer_figure: float | None
    ratio: float | None
    ratios: list[float]


def load(tools: Path, port: int, *arguments: str) -> dict[str, float]:
    """Run the load generator to its end; return what it reports, or leave the program when it fails."""
    run = subprocess.run([tools / "client", str(port), *arguments], stdout=subprocess.PIPE)
    if run.returncode:
        sys.exit(f"no figure: `client {port} {' '.join(arguments)}` failed")
    return json.loads(run.stdout)


def free_port() -> int:
    """Return a TCP port that nobody uses now: websocketd cannot choose one itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(command: str, *program: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a bridge that serves a program, from the moment it accepts connections; yield its process and its port."""
    port = free_port()
    flags = ["--loglevel=fatal", "--address=127.0.0.1", f"--port={port}"]
    with subprocess.Popen([command, *flags, *program], stdin=subprocess.DEVNULL) as server:
        try:
            wait_until_listening(server, port)
            yield server, port
        finally:
            server.terminate()


def wait_until_listening(server: subprocess.Popen[bytes], port: int) -> None:
    """Return when a connection to the port succeeds; leave the program when the server ends or takes too long."""
    deadline = time.monotonic() + LISTEN_DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{server.args} does not listen on port {port}")
            time.sleep(0.005)


def stream(clients: int, lines: int) -> Measure:
    """Messages a second that a program prints flat out, to each of some clients."""

    def measure(tools: Path, command: str) -> float:
        with serving(command, tools / "program", "lines", str(lines)) as (_, port):
            report = load(tools, port, "stream", str(clients))
        if report["messages"] != clients * lines:
            sys.exit(f"{command} lost messages: {report['messages']} of {clients * lines} came")
        return report["messages"] / report["seconds"]

    return measure


def echo(clients: int, window: int, figure: str = "rate") -> Measure:
    """Messages a second through `cat`, or the median of a round trip in microseconds, with a number of them on their way."""

    def measure(tools: Path, command: str) -> float:
        with serving(command, "cat") as (_, port):
            report = load(tools, port, "echo", str(clients), "2", str(window))
        return report["median_us"] if figure == "median" else report["messages"] / report["seconds"]

    return measure


def connect(parallel: int, count: int, figure: str = "rate") -> Measure:
    """Connections a second up to their program's first line, or the median of one in microseconds."""

    def measure(tools: Path, command: str) -> float:
        with serving(command, tools / "program", "hello") as (_, port):
            report = load(tools, port, "connect", str(parallel), str(count))
        return report["median_us"] if figure == "median" else count / report["seconds"]

    return measure


def idle(tools: Path, command: str) -> float:
    """Resident bytes that a connection adds to the bridge, its program not counted."""
    with serving(command, tools / "program", "hello") as (server, port):
        before = resident(server.pid)
        holding = [tools / "client", str(port), "hold", str(IDLE_CLIENTS)]
        with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            if not client.stdout or not client.stdout.readline():
                sys.exit(f"{command} did not hold {IDLE_CLIENTS} connections")
            time.sleep(SETTLE)
            return (resident(server.pid) - before) / IDLE_CLIENTS


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has resident."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def start(_tools: Path) -> float:
    """Milliseconds of processor time that wsbridge and its helpers take until it listens."""
    with serving(WSBRIDGE, "cat") as (server, _port):
        return sum(processor_ms(pid) for pid in family(server.pid))


def bare_import(_tools: Path) -> float:
    """Milliseconds of processor time that Python takes to import aiohttp's server and no more."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import aiohttp.web"], check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from family(int(child))


def processor_ms(pid: int) -> float:
    """Return the milliseconds that a process's threads have run so far, by the scheduler's own clock."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e6


def beside_websocketd(name: str, unit: str, better: str, measure: Measure) -> Row:
    """Return the row that measures both bridges in the same way."""
    websocketd = shutil.which("websocketd")
    theirs = partial(measure, command=websocketd) if websocketd else None
    return Row(name, unit, better, partial(measure, command=WSBRIDGE), theirs, "websocketd")


ROWS = [
    beside_websocketd("stream 1x64B", "messages/s", "more", stream(1, 1_000_000)),
    beside_websocketd("stream 10x64B", "messages/s", "more", stream(10, 100_000)),
    beside_websocketd("echo 1x1, p50", "us", "less", echo(1, 1, "median")),
    beside_websocketd("echo 1x64", "messages/s", "more", echo(1, 64)),
    beside_websocketd("echo 50x16", "messages/s", "more", echo(50, 16)),
    beside_websocketd("connect 1, p50", "us", "less", connect(1, 600, "median")),
    beside_websocketd("connect 16", "connections/s", "more", connect(16, 1500)),
    beside_websocketd("idle: resident a connection", "bytes", "less", idle),
    Row("start: processor time", "ms", "less", start, bare_import, "import aiohttp.web"),
]


def compile_tools(folder: Path) -> None:
    """Compile the C tools into a folder, or leave the program and say what is missing."""
    compiler = shutil.which("cc") or sys.exit("scripts/bench needs a C compiler. On Debian: apt-get install gcc libc6-dev")
    for source in HERE.glob("*.c"):
        subprocess.run([compiler, "-O2", "-o", folder / source.stem, source], check=True)


def measured(row: Row, tools: Path, rounds: int) -> Result:
    """Measure a row some times, wsbridge and its peer in turn."""
    pairs = [(row.ours(tools), row.peer(tools) if row.peer else None) for _ in range(rounds)]
    theirs = [figure for _, figure in pairs if figure is not None]
    ratios = [round(ours / peer, 3) for ours, peer in pairs if peer is not None]
    return Result(
        name=row.name,
        unit=row.unit,
        better=row.better,
        wsbridge=round(statistics.median(ours for ours, _ in pairs), 1),
        peer=row.peer_name,
        peer_figure=round(statistics.median(theirs), 1) if theirs else None,
        ratio=round(statistics.median(ratios), 3) if ratios else None,
        ratios=ratios,
    )


def shown(result: Result) -> str:
    """Return a result as a line of the table."""
    if result.ratio is None or result.peer_figure is None:
        return f"{result.name:<28} {result.wsbridge:>12,.0f}  {'':>12}  {result.unit:<14} {'':>7}  {result.better} is better"
    spread = f"{min(result.ratios):.2f}-{max(result.ratios):.2f}"
    figures = f"{result.wsbridge:>12,.0f}  {result.peer_figure:>12,.0f}  {result.unit:<14} {result.ratio:>7.2f}"
    return f"{result.name:<28} {figures}  {spread}, {result.better} is better"


def print_table(results: Iterable[Result]) -> None:
    """Print each result as it comes."""
    if not shutil.which("websocketd"):
        print("There is no websocketd here to compare with (Debian: apt-get install websocketd).")
    print(f"{'':<28} {'wsbridge':>12}  {'websocketd':>12}  {'':<14} {'ratio':>7}  rounds")
    for result in results:
        print(shown(result), flush=True)
    print("The peer of `start` is not websocketd but `python -c 'import aiohttp.web'`.")


def main() -> None:
    """Measure the rows that are asked for; print the table, or JSON."""
    names = ", ".join(row.name for row in ROWS)
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each row is measured (default 5)")
    parser.add_argument("--only", action="append", metavar="ROW", help=f"measure the rows that begin so (repeatable): {names}")
    parser.add_argument("--json", action="store_true", help="print a JSON array of the rows, with the ratio of each round")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("at least one round")
    rows = [row for row in ROWS if not options.only or row.name.startswith(tuple(options.only))]
    if not rows:
        parser.error(f"no such row; there are: {names}")

    with tempfile.TemporaryDirectory(prefix="wsbridge-bench-") as folder:
        tools = Path(folder)
        compile_tools(tools)
        results = (measured(row, tools, options.rounds) for row in rows)
        if options.json:
            print(json.dumps([asdict(result) for result in results], indent=1))
        else:
            print_table(results)


if __name__ == "__main__":
    main()
