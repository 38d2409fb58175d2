"""Fixtures of the tests at a real RabbitMQ."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.bus.node import nothing_left
from tests.support.rabbit import Broker

PrivateBroker = Callable[..., Broker]


@pytest.fixture
def private_broker() -> Iterator[PrivateBroker]:
    """Starts a broker for one test, which may stop or change it freely: `private_broker(consumer_timeout_ms=2000)`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Broker(**options))


@pytest.fixture
async def clean(broker: Broker) -> AsyncIterator[None]:
    """Check that each test cleans up. A broker that starts for the first test does not count."""
    async with nothing_left():
        yield
