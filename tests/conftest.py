"""What all tests have in common: a real RabbitMQ, a real Chromium, and the same signals.

From wherever they are run: a background job of a shell ignores some signals, and so would what it starts.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import chromium
from tests.support.rabbit import Broker

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


# How long it takes to make an example says how busy the machine is, nothing of what is tested.
settings.register_profile("at any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("at any load")


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker that tests share: each uses names of its own, and leaves it running and well."""
    with Broker() as shared:
        yield shared


@pytest.fixture(scope="session", autouse=True)
def end_of_chromium() -> Iterator[None]:
    """The browser process that tests share is started by the first one that needs it, and ends with the last test."""
    yield
    chromium.end_process()
