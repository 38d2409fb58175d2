"""broadcast/two-nodes.sh: it starts all that it says, both nodes bring the same, and nothing is left of it."""

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
from tests.support.server import ROOT, children, command_line, descendants, environment, free_port, mortal, tell, wait_for_exit

SCRIPT = ROOT / "examples/broadcast/two-nodes.sh"
THE_END = "The first node has ended; that is the end of all.\n"
COUNT = "i=0; while :; do echo $((i += 1)); sleep 0.05; done"

exchanges = (f"two-nodes-{number}" for number in itertools.count())


class TwoNodes:
    """A running script, and what it has said."""

    def __init__(self, process: subprocess.Popen[str], ports: tuple[int, int], said: str) -> None:
        self.process = process
        self.ports = ports
        self.said = said

    def lines(self, port: int, count: int) -> list[int]:
        """The next messages of a node, beginning with those that it keeps."""
        with connect(port=port) as client:
            return [int(client.receive_text()) for _ in range(count)]


@contextmanager
def two_nodes(folder: Path, *, until: str = "Ctrl-C", ends_by_itself: bool = False, **variables: str) -> Iterator[TwoNodes]:
    """Run the script with a program that counts, until it says that it is ready; end it with Ctrl-C's signal, and look for what is left.

    When a stranger takes one of its ports before it does, it is tried with others.
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
    """Start the script, with the wsbridge that is found in a folder."""
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
    """What the script says until a line begins with these words, or until it ends."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(words):
            break
    return said


def test_all_of_it(tmp_path: Path) -> None:
    """two-nodes.sh brings up a RabbitMQ of its own, a node with the program and one without, and ends them all."""
    with two_nodes(tmp_path) as nodes:
        for port in nodes.ports:
            lines = nodes.lines(port, 20)
            assert lines == list(range(lines[0], lines[0] + 20))
            assert f"http://localhost:{port}/plot.html" in nodes.said
        programs = [command_line(pid).split()[0].rpartition("/")[2] for pid in children(nodes.process.pid)]
        assert sorted(programs)[:2] == ["beam.smp", "epmd"]
        assert len(programs) == 4


async def test_a_page_goes_on_at_the_other_node(tmp_path: Path, broker: Broker, browser: Chromium) -> None:
    """With a broker that is there, the page that the script names outlives its node, and misses no reading."""
    with two_nodes(tmp_path, BROKER=broker.url, EXCHANGE=next(exchanges)) as nodes:
        assert len(children(nodes.process.pid)) == 2
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


def test_the_end_of_the_first_node_is_the_end(tmp_path: Path, broker: Broker) -> None:
    """When the node with the program ends, the script ends too, and the other node with it."""
    with two_nodes(tmp_path, ends_by_itself=True, BROKER=broker.url, EXCHANGE=next(exchanges)) as nodes:
        first, second = children(nodes.process.pid)
        os.kill(first, signal.SIGTERM)
        wait_for_exit(second)


def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    """While RabbitMQ starts Ctrl-C is the end at once, and nothing is left of it either."""
    with two_nodes(tmp_path, until="RabbitMQ is starting") as nodes:
        assert len(children(nodes.process.pid)) >= 2


def test_a_port_that_is_taken(broker: Broker) -> None:
    """A port that somebody listens on is named before anything is started."""
    words = [SCRIPT, str(free_port()), str(broker.port)]
    done = subprocess.run(words, env=environment({"BROKER": None}), capture_output=True, text=True, timeout=START_DEADLINE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Port {broker.port} is taken; name two others: ")


def test_a_port_that_is_taken_meanwhile(tmp_path: Path) -> None:
    """A stranger who listens on a node's port is not taken for the node: when that has ended the script says so, and ends too."""
    gate, wsbridge = tmp_path / "gate", tmp_path / "wsbridge"
    os.mkfifo(gate)
    wsbridge.write_text(f"#!/bin/sh\necho waiting\nread -r line <{gate}\nrm {gate}\necho no port\nexit 3\n")
    wsbridge.chmod(0o755)
    port = free_port()
    with start(str(port), str(free_port()), path=str(tmp_path), BROKER="amqp://nowhere/") as process:
        read_until(process, "waiting")
        try:
            with socket.create_server(("127.0.0.1", port)):
                tell(gate, "go")
                said = read_until(process, "Open both")
            assert said == f"no port\nThe node on port {port} has ended before it listened on port {port}.\n"
            assert process.wait(START_DEADLINE) == 1
        finally:
            process.terminate()


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help(word: str) -> None:
    """Asked how it is used it says so, and starts nothing."""
    done = subprocess.run([SCRIPT, word], capture_output=True, text=True, timeout=START_DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "two-nodes.sh [PORT PORT [COMMAND [ARGUMENT…]]]\n" in done.stdout
    assert "#" not in done.stdout


def test_what_is_no_port() -> None:
    """A word that is no port is not taken for one."""
    done = subprocess.run([SCRIPT, "--port"], capture_output=True, text=True, timeout=START_DEADLINE, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("--port is no port; ")
