"""Real processes, started by the product's own parts inside the test's loop; each test leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.proc import Starter, adopting, descriptors, no_callback_fails, nothing_left, same_limits
from wsbridge.process.spawn import Spawner


@pytest.fixture(scope="session")
def spawner() -> Iterator[Spawner]:
    with same_limits():
        for fd in descriptors():
            # What the tests themselves were started with is not what a program gets from its bridge.
            with suppress(OSError):
                os.set_inheritable(fd, fd < 3)
        yield Spawner()


@pytest.fixture
async def start(spawner: Spawner) -> AsyncIterator[Starter]:
    """Starts programs; `start("cat")` is one that runs, with twins at its ends."""
    with nothing_left(), adopting(), no_callback_fails():
        starter = Starter(spawner)
        yield starter
        await starter.close()


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    """A named pipe, by which a test tells a program to go on."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)
