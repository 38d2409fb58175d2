"""The rows of the bridge: each connection has its own program. Their peer is Debian's websocketd, which has the same flags.

The row "start" has another peer: the import of aiohttp.web, which every start needs.
"""

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from row import Row
from serving import WSBRIDGE, family, holding, load, processor_ms, resident, serving

SETTLE = 2.0
"""Seconds after which a server's memory is measured: Go returns its memory late."""

STORM = 300
"""Connections of a storm."""

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)

IDLE_CLIENTS = 500
"""Connections, and so programs, of the row on memory: enough for a figure per connection, and few enough for a small machine."""

MeasureBridge = Callable[[Path, str], float]
"""Measures the bridge of a command, with the tools in a folder."""


def stream(clients: int, lines: int) -> MeasureBridge:
    """Messages per second that a program prints without a pause, to each of several clients."""

    def measure(tools: Path, command: str) -> float:
        with serving([command], tools / "program", "lines", str(lines)) as (_, port):
            report = load(tools, port, "stream", clients)
        if report["messages"] != clients * lines:
            sys.exit(f"{command} lost messages: {report['messages']} of {clients * lines} arrived")
        return report["messages"] / report["seconds"]

    return measure


def echo(clients: int, window: int, figure: str = "rate") -> MeasureBridge:
    """Messages per second through `cat`, or the median of a round trip in microseconds, with a number of messages in transit."""

    def measure(tools: Path, command: str) -> float:
        with serving([command], "cat") as (_, port):
            report = load(tools, port, "echo", clients, 2, window)
        return report["median_us"] if figure == "median" else report["messages"] / report["seconds"]

    return measure


def connect(parallel: int, count: int, figure: str = "rate") -> MeasureBridge:
    """Connections per second up to their program's first line, or the median of one in microseconds."""

    def measure(tools: Path, command: str) -> float:
        with serving([command], tools / "program", "hello") as (_, port):
            report = load(tools, port, "connect", parallel, count)
        return report["median_us"] if figure == "median" else count / report["seconds"]

    return measure


def storm(figure: str) -> MeasureBridge:
    """Connect many clients at once: the stall of an existing session in ms, or the median time to a first line in us."""

    def measure(tools: Path, command: str) -> float:
        with serving([command], tools / "program", "hello") as (_, port), socket.create_connection(("127.0.0.1", port), 60) as session:
            session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session.sendall(REQUEST)
            receive(session, b"hello")
            reports: list[dict[str, float]] = []
            storming = threading.Thread(target=lambda: reports.append(load(tools, port, "connect", STORM, STORM)))
            storming.start()
            stall = 0.0
            while storming.is_alive():
                begun = time.perf_counter()
                session.sendall(b"\x81\x81\0\0\0\0x")
                receive(session, b"\x81\x01x")
                stall = max(stall, time.perf_counter() - begun)
                time.sleep(0.002)
            return stall * 1000 if figure == "stall" else reports[0]["median_us"]

    return measure


def receive(session: socket.socket, wanted: bytes) -> None:
    """Read until data has arrived."""
    data = b""
    while wanted not in data:
        piece = session.recv(65536)
        if not piece:
            sys.exit("the server closed an established session")
        data += piece


def idle(tools: Path, command: str) -> float:
    """Resident bytes that a connection adds to the bridge, without its program."""
    with serving([command], tools / "program", "hello") as (server, port):
        before = resident(server.pid)
        with holding(tools, port, IDLE_CLIENTS):
            time.sleep(SETTLE)
            return (resident(server.pid) - before) / IDLE_CLIENTS


def start(_tools: Path) -> float:
    """Milliseconds of processor time that wsbridge and its helpers use until it listens."""
    with serving([WSBRIDGE], "cat") as (server, _port):
        return sum(processor_ms(pid) for pid in family(server.pid))


def bare_import(_tools: Path) -> float:
    """Milliseconds of processor time that Python uses to import aiohttp's server."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import aiohttp.web"], check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def beside_websocketd(name: str, unit: str, better: str, measure: MeasureBridge) -> Row:
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
    beside_websocketd(f"storm {STORM}: stall of a session", "ms", "less", storm("stall")),
    beside_websocketd(f"storm {STORM}: first line, p50", "us", "less", storm("median")),
    beside_websocketd("idle: resident a connection", "bytes", "less", idle),
    Row("start: processor time", "ms", "less", start, bare_import, "import aiohttp.web"),
]
