"""The parity suite: the numbered requirements for a replacement of websocketd.

A test that takes `bridge` runs against Debian's websocketd and against wsbridge, with the same assertions. A test that takes `wsbridge`
runs against wsbridge alone: its case covers websocketd's unreleased version, or an improvement. For each such test, differences.py
states what websocketd 0.4.1 does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.parity.differences import DIFFERENCES
from tests.support.server import WEBSOCKETD, WSBRIDGE, Bridge, Server, run

BRIDGES = {bridge.name: bridge for bridge in (WEBSOCKETD, WSBRIDGE)}


class Starter:
    """Starts servers of one kind, and ends them after the test: `bridge("--binary", "cat")` is a Server."""

    def __init__(self, bridge: Bridge, stack: ExitStack) -> None:
        self.name = bridge.name
        self._bridge = bridge
        self._stack = stack
        self._servers: list[Server] = []

    def __call__(self, *words: object, **options: Any) -> Server:
        server = Server(*map(str, words), bridge=self._bridge, **options)
        self._servers.append(server)
        return self._stack.enter_context(server)

    def run(self, *words: object, **options: Any) -> Any:
        """Run a command line that exits by itself."""
        return run(*map(str, words), bridge=self._bridge, **options)

    def check(self) -> None:
        """Check that wsbridge prints no traceback. websocketd prints one if a client's connection breaks."""
        if self._bridge is WSBRIDGE:
            for server in self._servers:
                own = [line for line in (server.log + server.errors).splitlines() if "| stderr     |" not in line]
                assert not any("Traceback" in line for line in own), "\n".join(own)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "case(number, ...): the numbers of the cases that the test shows")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on both servers, except the tests in differences.py."""
    if "bridge" in metafunc.fixturenames:
        differs = any(entry.test == metafunc.function.__name__ for entry in DIFFERENCES)
        metafunc.parametrize("bridge", ["wsbridge"] if differs else list(BRIDGES), indirect=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report that some tests did not run against websocketd, so that no test is left out silently."""
    terminalreporter.write_line(
        f"parity: {len(DIFFERENCES)} tests are for wsbridge alone; tests/parity/differences.py says what websocketd 0.4.1 does instead"
    )


@pytest.fixture
def bridge(request: pytest.FixtureRequest) -> Iterator[Starter]:
    """Starts websocketd in one run of the test, and wsbridge in the other."""
    yield from started(BRIDGES[request.param])


@pytest.fixture
def wsbridge() -> Iterator[Starter]:
    """Starts wsbridge alone."""
    yield from started(WSBRIDGE)


def started(bridge: Bridge) -> Iterator[Starter]:
    with ExitStack() as stack:
        starter = Starter(bridge, stack)
        yield starter
    starter.check()
