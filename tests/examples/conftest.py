"""Fixtures for the tests of the examples: a browser and a simulated machine."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.examples.machine import Machine
from tests.support.chromium import Chromium
from tests.support.server import Bridge, Server

BROADCAST = Bridge("wsbridge", (sys.executable, "-m", "wsbridge", "broadcast"), takes_port_zero=True)


@pytest.fixture
async def browser() -> AsyncIterator[Chromium]:
    async with Chromium() as browser:
        yield browser


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


@pytest.fixture
def plugins(machine: Machine) -> Iterator[Server]:
    """The plugins, served on the simulated machine; the test sets up the machine before it connects."""
    with machine.serve() as server:
        yield server
