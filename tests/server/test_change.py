"""A server in the test's loop, whose settings change while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.client import connect, request
from tests.support.proc import until
from tests.support.site import write_script
from wsbridge.endpoints.broadcast import BroadcastEndpoint
from wsbridge.errors import ShuttingDown
from wsbridge.metrics import Metrics
from wsbridge.server.server import Server
from wsbridge.settings import (
    BridgeSettings,
    BroadcastSettings,
    CgiSettings,
    ChannelSettings,
    EndpointSettings,
    HttpSettings,
    Input,
    ListenSettings,
    ProcessSettings,
    ProgramSettings,
    ServerSettings,
)

CLOSE_DELAY = 1000.0
"""Seconds that a program may take to exit, more than a test lasts."""


def settings(*endpoints: EndpointSettings, **options: str) -> ServerSettings:
    process = ProcessSettings(guard=False)
    return ServerSettings(server=process, endpoints=endpoints, listeners=(ListenSettings(address="127.0.0.1:0", **options),))


def bridge(path: str, script: str = "exec cat") -> BridgeSettings:
    return BridgeSettings(path=path, program=ProgramSettings(command=("/bin/sh", "-c", script), close_delay=CLOSE_DELAY))


def channel(path: str, history: int) -> BroadcastSettings:
    return BroadcastSettings(path=path, channel=ChannelSettings(exchange="x", input=Input.EXCHANGE, history=history))


class Running:
    """A running server."""

    def __init__(self, *endpoints: EndpointSettings) -> None:
        self.server = Server(settings(*endpoints), Metrics(), may_change=True)
        self.task = asyncio.create_task(self.server.run())

    @property
    def port(self) -> int:
        ((_, (address,)),) = self.server.addresses
        return int(address.rpartition(":")[2])

    async def end(self) -> None:
        """Force the shutdown."""
        self.server.stop()
        self.server.stop()
        assert await self.task == 0


@pytest.fixture
async def running(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Running]:
    """A server with a program that ignores every signal."""
    # A changed log level is restored after the test.
    caplog.set_level(logging.CRITICAL, "wsbridge")
    running = Running(bridge("/a", "trap '' INT TERM; echo ready; while :; do read line </dev/zero; done"))
    await running.server.is_ready.wait()
    yield running
    await running.end()


async def test_subscribers_share_encoders_across_changes(running: Running) -> None:
    """Subscribers of one kind share their encoded messages across changes of the settings, so that many changes use no memory."""
    with ExitStack() as stack:
        for history in (10, 20, 30):
            await running.server.change(settings(bridge("/a"), channel("/c", history)))
            connected = await asyncio.to_thread(connect, "/c", port=running.port)
            stack.enter_context(connected)
        endpoint = running.server._deployment.endpoints[-1]
        assert isinstance(endpoint, BroadcastEndpoint)
        assert [len(group) for group in endpoint._channel.fanout._in_step.values()] == [3]


async def test_script_of_a_changed_endpoint(running: Running, tmp_path: Path) -> None:
    """A CGI script without output when its endpoint changes gives 503 with the reason."""
    write_script(tmp_path / "cgi", f"echo >{tmp_path / 'runs'}; exec sleep 1000")
    for body in (100, 200):
        endpoint = CgiSettings(path="/cgi", http=HttpSettings(cgi=str(tmp_path), max_body=body))
        await running.server.change(settings(endpoint))
        if body == 100:
            asking = asyncio.create_task(asyncio.to_thread(request, "GET", "/cgi/cgi", port=running.port))
            await until((tmp_path / "runs").exists, "the script")
    answer = await asking
    assert (answer.status, answer.body.splitlines()[1]) == (503, b"the server ended the script: the configuration has changed; reconnect")


async def test_change_during_the_shutdown(running: Running) -> None:
    """A change after the beginning of the shutdown is refused, because a new endpoint would outlive the server."""
    with await asyncio.to_thread(connect, "/a", port=running.port) as client:
        await asyncio.to_thread(client.receive_text)
        running.server.stop()
        assert (await asyncio.to_thread(client.receive_close)).code == 1001
        with pytest.raises(ShuttingDown):
            await running.server.change(settings(bridge("/b")))
        assert not running.task.done()
