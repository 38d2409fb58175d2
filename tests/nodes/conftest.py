"""Fixtures for tests of whole nodes, each a process."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.rabbit import Broker
from tests.support.server import LISTEN, Server

StartNode = Callable[..., Server]


@pytest.fixture
def start(broker: Broker) -> Iterator[StartNode]:
    """Starts nodes of one channel: `start("--replay", "program", "argument")`."""
    exchange = f"nodes-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        yield lambda *words: stack.enter_context(
            Server(f"--exchange={exchange}", *words, listen=("broadcast", *LISTEN), env={"WSBRIDGE_BROKER": broker.url}),
        )
