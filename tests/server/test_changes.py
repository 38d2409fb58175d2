"""A change of the settings in words."""

from __future__ import annotations

import asyncio

import msgspec

from wsbridge.metrics import Metrics
from wsbridge.server.changes import changes_of, needs_restart
from wsbridge.server.deployment import Served
from wsbridge.server.plan import Plan
from wsbridge.server.server import Server
from wsbridge.settings import ConsoleSettings, ListenSettings, ProcessSettings, ServerSettings


def at(path: str, *hosts: str) -> Served:
    return Served(ConsoleSettings(path=path, hosts=hosts), None)


LOCAL = ListenSettings(address="127.0.0.1:0")
NONE: Plan[ListenSettings] = Plan((), (), (), ())


def test_places() -> None:
    """Endpoints are named by their hosts and paths, listeners by their addresses; what stays is not named."""
    endpoints = Plan((at("/kept"),), ((at("/a"), at("/a")),), (at("/b", "x.example", "y.example"), at("/c")), (at("/d"),))
    listeners = Plan((), (), (ListenSettings(address=":80"),), (ListenSettings(address="unix:/s"),))
    changes = changes_of(endpoints, listeners, restart=())
    assert str(changes) == "added x.example,y.example/b, /c, listener :80; changed /a; removed /d, listener unix:/s"


def test_nothing() -> None:
    """If nothing has changed, the log says so."""
    assert str(changes_of(Plan((at("/"),), (), (), ()), NONE, restart=())) == "no endpoint and no listener has changed"


def test_restart() -> None:
    """Some settings of the process need a restart."""
    before, after = ProcessSettings(), ProcessSettings(guard=False, log_level="none", log_format="json", keepalive_timeout=1)
    assert needs_restart(before, before) == ()
    assert needs_restart(before, after) == ("guard", "keepalive_timeout", "log_format")


async def test_restart_stays_necessary() -> None:
    """A server names a setting that needs a restart at each change, until the setting is again the one that it began with."""
    began = ServerSettings(server=ProcessSettings(guard=False, log_level="none"), endpoints=(ConsoleSettings(),), listeners=(LOCAL,))
    other = msgspec.structs.replace(began, server=ProcessSettings(guard=False, log_level="none", keepalive_timeout=1))
    server = Server(began, Metrics(), may_change=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.run())
        await server.is_ready.wait()
        try:
            assert [(await server.change(settings)).restart for settings in (other, other, began)] == [("keepalive_timeout",)] * 2 + [()]
        finally:
            server.stop()
