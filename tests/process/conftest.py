"""Real programs, started by the product's own parts in the test's loop. Each test leaves no process behind."""

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
            # Environment variables of the test run are not in a program's environment.
            with suppress(OSError):
                os.set_inheritable(fd, fd < 3)
        yield Spawner()


@pytest.fixture
async def start(spawner: Spawner) -> AsyncIterator[Starter]:
    """Starts programs; `start("cat")` returns a running program with twins as its sink and its source."""
    with nothing_left(), adopting(), no_callback_fails():
        starter = Starter(spawner)
        yield starter
        await starter.close()


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    """A named pipe, by which a test lets a program continue."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)
