"""The common parts of all tests: a real RabbitMQ, a real Chromium, signal dispositions, and the order of files.

A shell's background job ignores some signals, and its programs would inherit this, so the dispositions are set to their defaults.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import chromium
from tests.support.configured import configured  # noqa: F401 (a fixture of several folders)
from tests.support.rabbit import Broker
from tests.support.site import (  # noqa: F401 (fixtures of several folders)
    certificates,
    listener_server,
    serve,
    served,
    server_of_the_site,
    shared_listener_server,
    site,
    transports,
)
from wsbridge import mentions
from wsbridge.logs import set_level

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)


LONGEST = (
    "bus/test_waits.py",
    "bus/test_connections.py",
    "scripts/test_verdict.py",
    "bus/test_outages.py",
    "pipes/test_subscribe.py",
    "http/test_channel_page.py",
    "http/test_console_page.py",
    "pipes/test_publish.py",
    "nodes/test_browsers.py",
    "http/test_cgi_ends.py",
    "bus/test_contract.py",
    "server/test_broadcast.py",
    "bus/test_topology.py",
    "nodes/test_nodes.py",
    "server/test_server.py",
)
"""The files that take longest, longest first. If one of them began last, one worker would still be busy after the others have finished."""

# The time of an example depends on the machine's load, not on the tested code.
settings.register_profile("at any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("at any load")


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist distribute files in the order of the collection; its own order is by the number of tests, whatever their
    duration."""
    config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, if several workers share the files."""
    if hasattr(config, "workerinput"):
        ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
        items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The broker that tests share: each test uses its own names, and leaves the broker running."""
    with Broker() as shared:
        yield shared


@pytest.fixture(scope="session", autouse=True)
def end_of_chromium() -> Iterator[None]:
    """Tests share one browser process: the first test that needs it starts it, and it ends after the last test."""
    yield
    chromium.end_process()


@pytest.fixture(autouse=True)
def _as_at_the_start() -> None:
    """Restore the log level and the form of texts, which a command line or a server in this process changes."""
    mentions.use(str)
    set_level(logging.NOTSET)
