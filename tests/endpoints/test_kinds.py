"""The kinds of endpoint: a new kind is one file and one registration."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.endpoints.echo import EchoEndpoint, EchoSettings
from tests.support.client import connect, request
from tests.support.proc import until
from wsbridge import settings
from wsbridge.endpoints import kinds
from wsbridge.endpoints.kinds import make_endpoint, register
from wsbridge.metrics import Metrics
from wsbridge.server.server import Server
from wsbridge.settings import (
    BridgeSettings,
    ConsoleSettings,
    EndpointSettings,
    ListenSettings,
    ProcessSettings,
    ProgramSettings,
    ServerSettings,
)


@asynccontextmanager
async def serving(*endpoints: EndpointSettings, caplog: pytest.LogCaptureFixture) -> AsyncIterator[int]:
    """Serve endpoints in this process; yield the port."""
    caplog.set_level(logging.INFO, "wsbridge")
    listeners = (ListenSettings(address="127.0.0.1:0"),)
    server = Server(ServerSettings(server=ProcessSettings(guard=False), endpoints=endpoints, listeners=listeners), Metrics())
    running = asyncio.create_task(server.run())
    try:
        await until(lambda: "Starting WebSocket server" in caplog.text, "the announcement")
        found = re.search(r"ws://127\.0\.0\.1:(\d+)/", caplog.text)
        assert found
        yield int(found[1])
    finally:
        server.stop()
        assert await running == 0


async def test_new_kind(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A registered kind serves clients beside the kinds of wsbridge, and each endpoint sees the requests below its path."""
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))
    monkeypatch.setattr(settings.endpoint, "KINDS", dict(settings.endpoint.KINDS))
    register("echo", EchoSettings, lambda: EchoEndpoint)
    cat = ProgramSettings(command=("/bin/sh", "-c", 'echo "$SCRIPT_NAME $PATH_INFO"; exec cat'))
    async with serving(EchoSettings(path="/echo"), BridgeSettings(path="/cat", program=cat), caplog=caplog) as port:
        assert "Echoing messages at         : /echo" in caplog.text
        await asyncio.to_thread(talk, port)


def talk(port: int) -> None:
    """Connect to both endpoints, and to a path without an endpoint."""
    with connect("/echo/any?thing", port=port) as client:
        client.send_text("back")
        assert client.receive_text() == "back"
    for path, names in {"/cat": "/cat ", "/cat/": "/cat /", "/cat/x/y": "/cat /x/y"}.items():
        with connect(path, port=port) as client:
            assert client.receive_text() == names
    assert request("GET", "/other", port=port).status == 404
    assert request("GET", "/catalogue", port=port).status == 404


async def test_console_names_its_target(caplog: pytest.LogCaptureFixture) -> None:
    """A console connects to its target by a relative address, in which every character is escaped as needed."""
    consoles = ConsoleSettings(path="/tools/console", target="/count"), ConsoleSettings(target="/a:b/100% \u00fc")
    async with serving(*consoles, caplog=caplog) as port:
        paths = ("/tools/console", "/tools/console/", "/")
        answers = await asyncio.to_thread(lambda: [request("GET", path, port=port) for path in paths])
    assert (answers[0].status, answers[0].value("Location")) == (301, "/tools/console/")
    assert b'data-target="../../count"' in answers[1].body
    assert b'data-target="a%3Ab/100%25%20%C3%BC"' in answers[2].body


def test_unknown_kind() -> None:
    """An endpoint of an unregistered kind is an error."""
    with pytest.raises(KeyError):
        make_endpoint(EndpointSettings(), None)  # type: ignore[arg-type]
