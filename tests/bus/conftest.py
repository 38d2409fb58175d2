"""A real RabbitMQ for tests that stop, kill or misconfigure it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.rabbit import Broker

PrivateBroker = Callable[..., Broker]


@pytest.fixture
def private_broker() -> Iterator[PrivateBroker]:
    """Starts a broker for one test, which may stop or change it freely: `private_broker(consumer_timeout_ms=2000)`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Broker(**options))
