"""A real RabbitMQ for the tests of this folder, which may restart it, and nodes that are whole processes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.rabbit import Broker
from tests.support.server import LISTEN, Server

StartNode = Callable[..., Server]


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker that tests share: each uses names of its own, and leaves it running."""
    with Broker() as shared:
        yield shared


@pytest.fixture
def start(broker: Broker) -> Iterator[StartNode]:
    """Starts nodes of one channel: `start("--replay", "program", "argument")`."""
    exchange = f"nodes-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        yield lambda *words: stack.enter_context(
            Server(f"--exchange={exchange}", *words, listen=("broadcast", *LISTEN), env={"WSBRIDGE_BROKER": broker.url}),
        )
