"""The measured servers and their load: starting on a free port of 127.0.0.1, ending, and measuring from outside."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WSBRIDGE = str(Path(sys.executable).with_name("wsbridge"))

LISTEN_DEADLINE = 20.0
"""Seconds within which a server must accept connections."""

END_DEADLINE = 20.0
"""Seconds that a server may take to exit before it is killed: wsbridge first delivers its data, for at most five seconds."""

BUSY = 0.9
"""The part of the time for which the load generator may be busy. Above it, the figure may describe the generator or a busy machine, and
a warning says so. A late generator reads several messages at once, and so catches up."""

Words = Sequence[str | Path]


def load(tools: Path, port: int, *arguments: object) -> dict[str, float]:
    """Run the load generator to its end; return its report, or exit if it fails."""
    words = [str(argument) for argument in arguments]
    run = subprocess.run([tools / "client", str(port), *words], stdout=subprocess.PIPE)
    if run.returncode:
        sys.exit(f"no figure: `client {port} {' '.join(words)}` failed")
    return json.loads(run.stdout)


def warn_if_busy(report: dict[str, float], what: str) -> None:
    """Print a warning if the load generator, which has one thread, may have limited the result."""
    if report["busy"] > BUSY:
        state = f"was busy, or waited for a processor, for {report['busy']:.0%} of the time"
        print(f"{what}: the load generator {state}", file=sys.stderr)


def free_port() -> int:
    """Return a TCP port that is free now: websocketd cannot choose a port itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def listening(words: Words, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server; yield its process as soon as it accepts connections."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as server:
        try:
            wait_until_listening(server, port)
            yield server
        finally:
            server.terminate()
            try:
                server.wait(END_DEADLINE)
            except subprocess.TimeoutExpired:
                server.kill()


@contextmanager
def serving(command: Words, *program: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a bridge, or a broadcast, of a program; yield its process and its port."""
    port = free_port()
    flags = ["--loglevel=fatal", "--address=127.0.0.1", f"--port={port}"]
    with listening([*command, *flags, *program], port) as server:
        yield server, port


def wait_until_listening(server: subprocess.Popen[bytes], port: int) -> None:
    """Return when a connection to the port succeeds; exit if the server exits or takes too long."""
    deadline = time.monotonic() + LISTEN_DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except ConnectionRefusedError:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{server.args} does not listen on port {port}")
            time.sleep(0.005)


@contextmanager
def holding(tools: Path, port: int, clients: int) -> Iterator[None]:
    """Hold connections, each of which has received a message."""
    words = [tools / "client", str(port), "hold", str(clients)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        if not client.stdout or not client.stdout.readline():
            sys.exit(f"port {port} did not hold {clients} connections")
        yield


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from family(int(child))


def processor_ms(pid: int) -> float:
    """Return the milliseconds that a process's threads have run, by the scheduler's own clock."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e6
