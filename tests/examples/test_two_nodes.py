"""broadcast/two-nodes.sh: it starts everything that it announces, both nodes send the same messages, and it leaves nothing behind."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.chromium import Chromium
from tests.support.client import connect
from tests.support.rabbit import START_DEADLINE, Broker
from tests.support.server import ROOT, children, command_line, descendants, environment, free_port, mortal, write_to_fifo, wait_for_exit

SCRIPT = ROOT / "examples/broadcast/two-nodes.sh"
THE_END = "The first node has ended; stopping the second node and the broker.\n"
COUNT = "i=0; while :; do echo $((i += 1)); sleep 0.05; done"

exchanges = (f"two-nodes-{number}" for number in itertools.count())


class TwoNodes:
    """A running script, and its output."""

    def __init__(self, process: subprocess.Popen[str], ports: tuple[int, int], said: str) -> None:
        self.process = process
        self.ports = ports
        self.said = said

    @property
    def programs(self) -> list[int]:
        """The running children of the script: a helper that has exited, and that bash has not reaped yet, has no command line."""
        return [pid for pid in children(self.process.pid) if command_line(pid)]

    def lines(self, port: int, count: int) -> list[int]:
        """Return the next messages of a node, beginning with its history."""
        with connect(port=port) as client:
            return [int(client.receive_text()) for _ in range(count)]


@contextmanager
def two_nodes(folder: Path, *, until: str = "Ctrl-C", ends_by_itself: bool = False, **variables: str) -> Iterator[TwoNodes]:
    """Run the script with a counting program until it is ready; end it with SIGINT, and check that it leaves nothing behind.

    If another process takes one of its ports first, try again with other ports.
    """
    (folder / "tmp").mkdir()
    variables["TMPDIR"] = str(folder / "tmp")
    for tries_left in reversed(range(3)):
        ports = free_port(), free_port()
        with start(*map(str, ports), "sh", "-c", COUNT, **variables) as process:
            said = read_until(process, until)
            if until not in said and "has ended before it listened" in said and tries_left:
                continue
            assert until in said, said
            try:
                yield TwoNodes(process, ports, said)
            finally:
                started = list(descendants(process.pid))
                with mortal(*started):
                    if not ends_by_itself:
                        process.send_signal(signal.SIGINT)
                    status = process.wait(START_DEADLINE)
                    for pid in started:
                        wait_for_exit(pid)
            assert process.stdout is not None
            assert (process.stdout.read(), status) == ((THE_END, 0) if ends_by_itself else ("", 128 + signal.SIGINT))
            assert list((folder / "tmp").iterdir()) == []
            return


def start(*words: str, path: str = str(Path(sys.executable).parent), **variables: str) -> subprocess.Popen[str]:
    """Start the script with the wsbridge in a folder."""
    return subprocess.Popen(
        [SCRIPT, *words],
        env=environment({"PATH": f"{path}:{os.environ['PATH']}", "BROKER": None, **variables}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Return the output of the script up to a line with this beginning, or up to its end."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(words):
            break
    return said


def test_whole_script(tmp_path: Path) -> None:
    """two-nodes.sh starts its own RabbitMQ, a node with the program and a node without, and ends all of them."""
    with two_nodes(tmp_path) as nodes:
        for port in nodes.ports:
            lines = nodes.lines(port, 20)
            assert lines == list(range(lines[0], lines[0] + 20))
            assert f"http://localhost:{port}/plot.html" in nodes.said
        programs = [command_line(pid).split()[0].rpartition("/")[2] for pid in nodes.programs]
        assert sorted(programs)[:2] == ["beam.smp", "epmd"]
        assert len(programs) == 4


async def test_page_moves_to_the_other_node(tmp_path: Path, broker: Broker, browser: Chromium) -> None:
    """With an existing broker, the page that the script names survives its node, and misses no reading."""
    with two_nodes(tmp_path, BROKER=broker.url, EXCHANGE=next(exchanges)) as nodes:
        assert len(nodes.programs) == 2
        page = await browser.open(re.findall("http://.*", nodes.said)[1])
        await page.wait_for("points.length > 10")
        state = "document.querySelector('#state').innerText.split(/\\s+/)"
        assert await page.evaluate(state) == ["Live", f"localhost:{nodes.ports[1]}"]
        (node,) = map(int, re.findall(r": kill (\d+)$", nodes.said, re.MULTILINE))
        os.kill(node, signal.SIGTERM)
        wait_for_exit(node)
        last = await page.evaluate("points.at(-1).value")
        await page.wait_for(f"points.at(-1).value > {last + 10}")
        assert await page.evaluate(state) == ["Live", f"localhost:{nodes.ports[0]}"]
        assert await page.evaluate("points.every(({ value }, index) => !index || value === points[index - 1].value + 1)")
        assert await page.evaluate("document.querySelector('#lost dd').textContent") == "0"


def test_end_of_the_first_node_ends_the_script(tmp_path: Path, broker: Broker) -> None:
    """When the node with the program ends, the script and the other node end too."""
    with two_nodes(tmp_path, ends_by_itself=True, BROKER=broker.url, EXCHANGE=next(exchanges)) as nodes:
        first, second = nodes.programs
        os.kill(first, signal.SIGTERM)
        wait_for_exit(second)


def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    """Ctrl-C ends the script at once while RabbitMQ starts, and leaves nothing behind."""
    with two_nodes(tmp_path, until="RabbitMQ is starting") as nodes:
        assert len(children(nodes.process.pid)) >= 2


def test_port_in_use(broker: Broker) -> None:
    """The script names a port that is in use before it starts anything."""
    words = [SCRIPT, str(free_port()), str(broker.port)]
    done = subprocess.run(words, env=environment({"BROKER": None}), capture_output=True, text=True, timeout=START_DEADLINE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Port {broker.port} is taken; name two others: ")


def test_port_taken_during_the_start(tmp_path: Path) -> None:
    """The script does not take another process on a node's port for the node; when the node fails, it says so and ends."""
    gate, wsbridge = tmp_path / "gate", tmp_path / "wsbridge"
    os.mkfifo(gate)
    wsbridge.write_text(f"#!/bin/sh\necho waiting\nread -r line <{gate}\nrm {gate}\necho no port\nexit 3\n")
    wsbridge.chmod(0o755)
    port = free_port()
    with start(str(port), str(free_port()), path=str(tmp_path), BROKER="amqp://nowhere/") as process:
        read_until(process, "waiting")
        try:
            with socket.create_server(("127.0.0.1", port)):
                write_to_fifo(gate, "go")
                said = read_until(process, "Open both")
            assert said == f"no port\nThe node on port {port} has ended before it listened on port {port}.\n"
            assert process.wait(START_DEADLINE) == 1
        finally:
            process.terminate()


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help(word: str) -> None:
    """With --help, the script prints its usage and starts nothing."""
    done = subprocess.run([SCRIPT, word], capture_output=True, text=True, timeout=START_DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "two-nodes.sh [PORT PORT [COMMAND [ARGUMENT…]]]\n" in done.stdout
    assert "#" not in done.stdout


def test_invalid_port() -> None:
    """The script rejects a word that is not a port."""
    done = subprocess.run([SCRIPT, "--port"], capture_output=True, text=True, timeout=START_DEADLINE, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("--port is not a port; ")
